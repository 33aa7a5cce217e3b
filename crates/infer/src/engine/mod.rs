//! Many sequences over one pass of the weights: continuous batching.
//!
//! An [`Engine`] holds sequences that run and requests that wait. [`Engine::step`] makes one pass: every sequence that
//! writes goes on by one token, and prompts that are being read share a budget of tokens, so that a long prompt delays
//! nobody's next token much. States of ended sequences are kept, and a request that begins with the same tokens starts
//! from there. Texts of which only a vector is wanted are read along, with what prompts leave of the budget. None of
//! this changes a bit of anybody's text or vector: the kernels do not let it.
//!
//! Not here: threads, clocks, text. The host steps, and cuts ids into words.

mod embedding;
mod kept;
mod request;

pub use request::{Event, Finish, Limits, Refused, Request, SequenceId};

use crate::constrain::{Constraint, ConstraintError};
use crate::model::Model;
use crate::pooling::Pooling;
use crate::sample::{History, LogProbs, Sampler};
use embedding::Embedding;
use kept::Kept;
use littoral_model::lm::{CacheType, Input, Part, Scratch, State, StateError, Wanted};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::Instructions;
use request::{check, check_texts};
use std::collections::VecDeque;
use std::sync::Arc;

/// A request that runs.
struct Sequence {
    id: SequenceId,
    request: Request,
    state: State,
    sampler: Sampler,
    answer: Vec<u32>,
}

impl Sequence {
    /// Tokens that its state has not seen.
    fn ahead(&self) -> usize {
        self.request.prompt.len() + self.answer.len() - self.state.positions()
    }
}

/// What waits for a place.
enum Waiting {
    Text(Request),
    Vectors(Vec<Vec<u32>>, Pooling),
}

pub struct Engine {
    model: Arc<Model>,
    limits: Limits,
    /// What each sequence begins with.
    empty: State,
    scratch: Scratch,
    running: Vec<Sequence>,
    embedding: Vec<Embedding>,
    waiting: VecDeque<(SequenceId, Waiting)>,
    kept: Kept,
    next: u64,
}

impl Engine {
    /// Sequences keep their keys and values in that type.
    ///
    /// # Errors
    /// It does not fit the width of the model's heads; f16 fits any.
    pub fn new(model: Arc<Model>, cache_type: CacheType, limits: Limits) -> Result<Self, StateError> {
        let instructions = Instructions::here()[0];
        Ok(Self {
            empty: model.stage.state(cache_type)?,
            model,
            scratch: Scratch::new(instructions),
            running: Vec::new(),
            embedding: Vec::new(),
            waiting: VecDeque::new(),
            kept: Kept::new(limits.kept_bytes_max),
            limits,
            next: 0,
        })
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Can this be answered at all, now or later?
    pub fn check(&self, request: &Request) -> Result<(), Refused> {
        check(request, &self.model)
    }

    /// Takes a request in. It waits while as many run as may.
    ///
    /// # Errors
    /// It can never be answered, or too many wait.
    pub fn submit(&mut self, request: Request) -> Result<SequenceId, Refused> {
        self.check(&request)?;
        self.wait(Waiting::Text(request))
    }

    /// Can these texts become vectors?
    pub fn check_texts(&self, texts: &[Vec<u32>]) -> Result<Pooling, Refused> {
        check_texts(texts, &self.model)?;
        let none = || Refused::Field {
            field: "model",
            expected: "one that gives vectors".into(),
            got: "one that ranks texts".into(),
        };
        self.model.pooling.ok_or_else(none)
    }

    /// Takes in texts that are to become vectors. However many they are, they have one place.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_texts(&mut self, texts: Vec<Vec<u32>>) -> Result<SequenceId, Refused> {
        let pooling = self.check_texts(&texts)?;
        self.wait(Waiting::Vectors(texts, pooling))
    }

    fn wait(&mut self, request: Waiting) -> Result<SequenceId, Refused> {
        if self.waiting.len() >= self.limits.waiting_max {
            return Err(Refused::Busy { waiting: self.waiting.len() });
        }
        let id = SequenceId(self.next);
        self.next += 1;
        self.waiting.push_back((id, request));
        Ok(id)
    }

    /// Nobody wants the rest of it. Says nothing more of it.
    pub fn cancel(&mut self, id: SequenceId) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.embedding.retain(|embedding| embedding.id != id);
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.swap_remove(at);
            self.keep(sequence);
        }
    }

    pub fn running(&self) -> usize {
        self.running.len() + self.embedding.len()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn idle(&self) -> bool {
        self.running() == 0 && self.waiting.is_empty()
    }

    /// One pass. Does nothing if nobody asks for anything.
    pub fn step(&mut self, pool: &Pool) -> Vec<Event> {
        let mut events = Vec::new();
        self.admit(&mut events);
        let (shares, read) = self.share_out();
        let mut parts = Vec::new();
        for (sequence, share) in self.running.iter_mut().zip(&shares).filter(|(_, share)| **share > 0) {
            let wanted = if sequence.ahead() == *share { Wanted::Last } else { Wanted::None };
            let at = sequence.state.positions();
            let input = match sequence.answer.last() {
                Some(last) => std::slice::from_ref(last),
                None => &sequence.request.prompt[at..at + share],
            };
            parts.push(Part { state: &mut sequence.state, input: Input::Ids(input), wanted });
        }
        parts.extend(self.embedding.iter_mut().flat_map(Embedding::parts));
        if parts.is_empty() {
            return events;
        }
        let (vocabulary, width) = (self.model.stage.config().vocabulary, self.model.stage.config().width);
        let output = self.model.stage.forward(&mut parts, &mut self.scratch, pool);
        let mut logits = output.logits.chunks_exact(vocabulary);
        let mut vectors = &output.vectors[shares.iter().sum::<usize>() * width..];
        let mut read = read.into_iter();
        self.embedding.retain_mut(|embedding| {
            let tokens = read.next().expect("each has a share");
            let own = vectors.split_off(..tokens * width).expect("vectors of all tokens");
            !embedding.hear(own, &self.model, &mut events)
        });
        let mut ended = Vec::new();
        for (index, (sequence, share)) in self.running.iter_mut().zip(&shares).enumerate() {
            if *share == 0 || sequence.ahead() > 0 {
                continue;
            }
            let logits = logits.next().expect("logits of each that wants them");
            let (event, finish) = choose(sequence, logits, &self.model);
            events.extend(event);
            if let Some(why) = finish {
                events.push(Event::Finished { sequence: sequence.id, why });
                ended.push(index);
            }
        }
        for index in ended.into_iter().rev() {
            let sequence = self.running.remove(index);
            self.keep(sequence);
        }
        events
    }

    /// How many tokens of each sequence the next pass takes: one of those that write, and of prompts as far as the budget
    /// goes, the oldest first; then of texts that become vectors, which get a quarter of it whatever the prompts take.
    fn share_out(&mut self) -> (Vec<usize>, Vec<usize>) {
        let most = self.limits.prompt_tokens_per_pass.max(1);
        let mut budget = most;
        let share = |sequence: &Sequence| match sequence.answer.is_empty() {
            true => {
                let share = sequence.ahead().min(budget);
                budget -= share;
                share
            }
            false => 1,
        };
        let shares = self.running.iter().map(share).collect();
        budget = budget.max(most.div_ceil(4));
        let read = self.embedding.iter_mut().map(|embedding| {
            let read = embedding.plan(budget, &self.model, &self.empty);
            budget -= read;
            read
        });
        (shares, read.collect())
    }

    fn admit(&mut self, events: &mut Vec<Event>) {
        while self.running() < self.limits.running_max {
            let Some((id, request)) = self.waiting.pop_front() else { return };
            let request = match request {
                Waiting::Text(request) => request,
                Waiting::Vectors(texts, pooling) => {
                    events.push(Event::Started { sequence: id, reused: 0 });
                    self.embedding.push(Embedding::new(id, texts, pooling));
                    continue;
                }
            };
            // The last token of a prompt is always read: its logits are what the answer begins with.
            let state = self.kept.take(&request.prompt[..request.prompt.len() - 1]);
            let state = state.unwrap_or_else(|| self.empty.clone());
            match Sampler::new(request.sampling.clone()) {
                Ok(sampler) => {
                    events.push(Event::Started { sequence: id, reused: state.positions() });
                    self.running.push(Sequence { id, request, state, sampler, answer: Vec::new() });
                }
                Err(why) => events.push(Event::Finished { sequence: id, why: Finish::Failed(why.to_string()) }),
            }
        }
    }

    fn keep(&mut self, sequence: Sequence) {
        let Sequence { request, mut answer, state, .. } = sequence;
        let mut ids = request.prompt;
        ids.append(&mut answer);
        ids.truncate(state.positions());
        self.kept.put(ids, state);
    }
}

/// The next token of a sequence, and whether it is the last.
fn choose(sequence: &mut Sequence, logits: &[f32], model: &Model) -> (Option<Event>, Option<Finish>) {
    let chosen = match draw(sequence, logits) {
        Ok(chosen) => chosen,
        Err(why) => return (None, Some(why)),
    };
    let Sequence { id, request, answer, .. } = sequence;
    if !request.ignore_end && model.tokeniser.ends(chosen) {
        return (None, Some(Finish::End));
    }
    let (logprob, top) = match request.top_logprobs {
        None => (None, Vec::new()),
        Some(count) => {
            let all = LogProbs::of(logits);
            (Some(all.get(chosen)), all.top(count))
        }
    };
    answer.push(chosen);
    let event = Event::Token { sequence: *id, id: chosen, logprob, top };
    let length = request.prompt.len() + answer.len();
    let finish = match () {
        () if request.constraint.as_ref().is_some_and(Constraint::is_finished) => Some(Finish::End),
        () if answer.len() >= request.max_tokens => Some(Finish::Length),
        () if length >= model.context() => Some(Finish::Context),
        () => None,
    };
    (Some(event), finish)
}

/// A token that the sampler chooses, among those that the constraint allows, if there is one; it hears of the choice.
fn draw(sequence: &mut Sequence, logits: &[f32]) -> Result<u32, Finish> {
    let Sequence { request, sampler, answer, .. } = sequence;
    let history = History { prompt: &request.prompt, answer };
    let Some(constraint) = &mut request.constraint else {
        return sampler.pick(logits, history, None).map_err(|why| Finish::Failed(why.to_string()));
    };
    let unfit = |why: ConstraintError| Finish::Unfit(why.to_string());
    let allowed = constraint.allowed().map_err(unfit)?;
    let chosen = sampler.pick(logits, history, Some(&allowed)).map_err(|why| Finish::Failed(why.to_string()))?;
    constraint.accept(chosen).map_err(unfit)?;
    Ok(chosen)
}
