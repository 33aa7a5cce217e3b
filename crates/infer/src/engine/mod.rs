//! Many sequences over one pass of the weights: continuous batching.
//!
//! An [`Engine`] holds sequences that run and requests that wait. [`Engine::step`] makes one pass: every sequence that
//! writes goes on by one token, and prompts that are being read share a budget of tokens, so that a long prompt delays
//! nobody's next token much. States of ended sequences are kept, and a request that begins with the same tokens starts
//! from there. Texts of which only a vector is wanted are read along, with what prompts leave of the budget. None of
//! this changes a bit of anybody's text or vector: the kernels do not let it.
//!
//! What passes is a [`Pass`] with numbers for states, so that it may run here ([`Engine::step`]) or through layers on
//! several machines: then [`Engine::plan`] gives passes, of which some may be on their way at once, and
//! [`Engine::finish`] takes what came back.
//!
//! Tokens that somebody proposes ([`Engine::propose`]) are tried in one pass, and stand as far as they are what would
//! have been written without them: the sampler draws by seed and position, so the text is the same.
//!
//! Not here: threads, clocks, text. The host steps, and cuts ids into words.

mod embedding;
mod kept;
mod request;
mod sequence;

pub use request::{Event, Finish, Limits, PromptToken, Refused, Request, SequenceId};

use crate::model::Model;
use crate::pass::{Fork, Pass, Piece, Runner, Slot, Tokens};
use crate::pooling::Pooling;
use crate::sample::Sampler;
use embedding::{Embedding, Slots};
use kept::{Begun, Kept};
use littoral_model::lm::{CacheType, StateError};
use littoral_tensor::pool::Pool;
use request::{check, check_answer, check_texts};
use sequence::Sequence;
use std::collections::VecDeque;
use std::sync::Arc;

/// States that one pass frees, so that it fits into a message.
const FREED_MAX: usize = 1_024;

/// What waits for a place.
enum Waiting {
    /// What of its answer is written already, what may follow, its pace, and what is to be told of its prompt.
    Text {
        request: Box<Request>,
        answer: Vec<u32>,
        proposal: (usize, Vec<u32>),
        pace: usize,
        told: Option<usize>,
    },
    Vectors(Vec<Vec<u32>>, Pooling),
}

/// A pass, and the ids of its tokens.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// Passes are numbered from 0, in the order in which they are to run and to come back.
    pub number: u64,
    pub pass: Pass,
    pub ids: Vec<u32>,
}

/// What a pass is made of while it is planned.
#[derive(Default)]
struct Draft {
    pieces: Vec<Piece>,
    /// Whose they are.
    owners: Vec<SequenceId>,
    ids: Vec<u32>,
}

impl Draft {
    fn push(&mut self, owner: SequenceId, piece: Piece) {
        self.owners.push(owner);
        self.pieces.push(piece);
    }
}

/// A pass on its way, and whose its pieces are: slots may be another's by the time that it comes back.
struct Away {
    number: u64,
    pass: Pass,
    owners: Vec<SequenceId>,
}

pub struct Engine {
    model: Arc<Model>,
    limits: Limits,
    runner: Runner,
    running: Vec<Sequence>,
    embedding: Vec<Embedding>,
    waiting: VecDeque<(SequenceId, Waiting)>,
    kept: Kept,
    next: u64,
    slots: Slots,
    /// For the next pass.
    forks: Vec<Fork>,
    freed: Vec<Slot>,
    /// On their way.
    passes: VecDeque<Away>,
    next_pass: u64,
    events: Vec<Event>,
    prompts: Vec<PromptToken>,
    holding: bool,
}

impl Engine {
    /// Sequences keep their keys and values in that type.
    ///
    /// # Errors
    /// It does not fit the width of the model's heads; f16 fits any.
    pub fn new(model: Arc<Model>, cache_type: CacheType, limits: Limits) -> Result<Self, StateError> {
        let config = model.stage.config();
        let bytes_per_position = config.layers * config.state_bytes_per_layer(cache_type);
        Ok(Self {
            runner: Runner::new(&model.stage, cache_type)?,
            model,
            running: Vec::new(),
            embedding: Vec::new(),
            waiting: VecDeque::new(),
            kept: Kept::new(limits.kept_bytes_max / bytes_per_position.max(1)),
            limits,
            next: 0,
            slots: Slots::default(),
            forks: Vec::new(),
            freed: Vec::new(),
            passes: VecDeque::new(),
            next_pass: 0,
            events: Vec::new(),
            prompts: Vec::new(),
            holding: false,
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
        self.resubmit(request, Vec::new())
    }

    /// Takes a request in of whose answer these tokens are written: they are read after its prompt, and what follows is what
    /// would have followed them. Not for one with a constraint.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), or the answer has no room for one more token.
    pub fn resubmit(&mut self, request: Request, answer: Vec<u32>) -> Result<SequenceId, Refused> {
        self.check(&request)?;
        check_answer(&request, &answer, &self.model)?;
        let request = Box::new(request);
        self.wait(Waiting::Text { request, answer, proposal: (0, Vec::new()), pace: usize::MAX, told: None })
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

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Requests that may still come and wait.
    pub fn waiting_room(&self) -> usize {
        self.limits.waiting_max.saturating_sub(self.waiting.len())
    }

    /// Its place is for others now. What was asked is returned, for [`resubmit`](Self::resubmit).
    pub fn set_aside(&mut self, id: SequenceId) -> Option<Request> {
        let running = self.running.iter().find(|sequence| sequence.id == id).map(|sequence| sequence.request.clone());
        let waiting = || {
            self.waiting.iter().find_map(|(waiting, what)| match what {
                Waiting::Text { request, .. } if *waiting == id => Some((**request).clone()),
                _ => None,
            })
        };
        let request = running.or_else(waiting)?;
        self.cancel(id);
        Some(request)
    }

    /// It has a place and has read its text, and writes nothing before it is told to.
    pub fn is_held(&self, id: SequenceId) -> bool {
        self.running.iter().any(|sequence| sequence.id == id && !sequence.ready())
    }

    /// Nobody wants the rest of it. Says nothing more of it.
    pub fn cancel(&mut self, id: SequenceId) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        for embedding in self.embedding.extract_if(.., |embedding| embedding.id == id) {
            self.freed.extend(embedding.slots());
        }
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(at);
            self.keep(sequence);
        }
    }

    /// These may be the next tokens of a sequence whose answer has `at` tokens: they are tried in its next pass that writes. What is
    /// not of the vocabulary or beyond what it may write is left out; all is, if the answer has another length.
    pub fn propose(&mut self, id: SequenceId, at: usize, tokens: &[u32]) {
        let running = self.running.iter_mut().find(|sequence| sequence.id == id);
        let running = running.map(|sequence| (&sequence.request, sequence.answer.len(), &mut sequence.proposal));
        let waiting = self.waiting.iter_mut().find_map(|(waiting, what)| match what {
            Waiting::Text { request, answer, proposal, .. } if *waiting == id => {
                Some((&**request, answer.len(), proposal))
            }
            _ => None,
        });
        let Some((request, written, proposal)) = running.or(waiting).filter(|(_, written, _)| *written == at) else {
            return;
        };
        // One token is written after the last that is tried.
        let room = request.max_tokens.min(self.model.context() - request.prompt.len());
        let vocabulary = self.model.stage.config().vocabulary;
        let tokens = tokens
            .iter()
            .take(self.limits.proposed_max)
            .take(room.saturating_sub(written + 1))
            .take_while(|id| (**id as usize) < vocabulary);
        *proposal = (at, tokens.copied().collect());
    }

    /// A sequence writes while its answer is shorter than `tokens`; at first as long as it may.
    pub fn pace(&mut self, id: SequenceId, tokens: usize) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.pace = tokens;
        }
        let waiting = self.waiting.iter_mut().find(|(waiting, _)| *waiting == id);
        if let Some((_, Waiting::Text { pace, .. })) = waiting {
            *pace = tokens;
        }
    }

    /// Of a request that was just taken in: each token of its prompt is to be told, and so many of the best at its place. The
    /// prompt is read as a whole then.
    pub fn tell_prompt(&mut self, id: SequenceId, top_logprobs: usize) {
        let waiting = self.waiting.iter_mut().find(|(waiting, _)| *waiting == id);
        if let Some((_, Waiting::Text { told, .. })) = waiting {
            *told = Some(top_logprobs);
        }
    }

    /// A sequence's answer is this now, and it goes on from there: for drafts, which follow what others decide. Not for one
    /// with a constraint, or of which a pass is on its way.
    ///
    /// # Panics
    /// If a token is not of the vocabulary.
    pub fn rewrite(&mut self, id: SequenceId, answer: &[u32]) {
        assert!(answer.iter().all(|id| (*id as usize) < self.model.stage.config().vocabulary), "ids of the vocabulary");
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.rewrite(answer);
        }
        let waiting = self.waiting.iter_mut().find(|(waiting, _)| *waiting == id);
        if let Some((_, Waiting::Text { answer: written, proposal, .. })) = waiting {
            (*written, *proposal) = (answer.to_vec(), (0, Vec::new()));
        }
    }

    /// Does it run, wait for a place (`Some(false)`), or neither?
    pub fn runs(&self, id: SequenceId) -> Option<bool> {
        let runs = self.running.iter().any(|sequence| sequence.id == id);
        let waits = || self.waiting.iter().any(|(waiting, _)| *waiting == id);
        if runs { Some(true) } else { waits().then_some(false) }
    }

    /// A sequence that followed another writes for itself from now on, up to so many tokens, and tells what is asked of each.
    pub fn release(&mut self, id: SequenceId, max_tokens: usize, ignore_end: bool, top_logprobs: Option<usize>) {
        if let Some((request, pace)) = self.bounds(id) {
            (request.max_tokens, request.ignore_end, request.top_logprobs) = (max_tokens, ignore_end, top_logprobs);
            *pace = usize::MAX;
        }
    }

    /// The reverse: a sequence that wrote for itself follows another from now on, and writes only as far as it is told to
    /// ([`pace`](Self::pace)). What was asked, and what it has written. `None`: there is no such sequence, or it cannot follow, since
    /// its text must have a form or a pass of it is on its way.
    pub fn follow(&mut self, id: SequenceId) -> Option<(Request, Vec<u32>)> {
        if self.is_away(id) {
            return None;
        }
        let written = self.running.iter().find(|sequence| sequence.id == id).map(|sequence| sequence.answer.clone());
        let waiting = self.waiting.iter().find_map(|(waiting, what)| match what {
            Waiting::Text { answer, .. } if *waiting == id => Some(answer.clone()),
            _ => None,
        });
        let answer = written.or(waiting)?;
        let (request, pace) = self.bounds(id).filter(|(request, _)| request.constraint.is_none())?;
        let asked = request.clone();
        (request.max_tokens, request.ignore_end, request.top_logprobs, *pace) = (usize::MAX, true, None, 0);
        Some((asked, answer))
    }

    /// What bounds a sequence: its request, and its pace.
    fn bounds(&mut self, id: SequenceId) -> Option<(&mut Request, &mut usize)> {
        let running = self.running.iter_mut().find(|sequence| sequence.id == id);
        let running = running.map(|sequence| (&mut sequence.request, &mut sequence.pace));
        let waiting = self.waiting.iter_mut().find_map(|(waiting, what)| match what {
            Waiting::Text { request, pace, .. } if *waiting == id => Some((&mut **request, pace)),
            _ => None,
        });
        running.or(waiting)
    }

    /// The answers of all sequences that run, in the order in which they began.
    pub fn answers(&self) -> impl Iterator<Item = (SequenceId, &Request, &[u32])> {
        self.running.iter().map(|sequence| (sequence.id, &sequence.request, sequence.answer.as_slice()))
    }

    pub fn running(&self) -> usize {
        self.running.len() + self.embedding.len()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Until this is said again, otherwise, requests wait although there is a place.
    pub fn hold(&mut self, hold: bool) {
        self.holding = hold;
    }

    pub fn idle(&self) -> bool {
        self.running() == 0 && self.waiting.is_empty()
    }

    /// One pass of a whole model. Does nothing if nobody asks for anything.
    pub fn step(&mut self, pool: &Pool) -> Vec<Event> {
        if let Some(planned) = self.plan(usize::MAX) {
            let vectors = self.run(&planned, pool);
            self.finish(planned.number, &vectors, pool);
        }
        self.events()
    }

    /// What happened since this was last asked.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Tokens of prompts that are to be told, of each sequence in their order, since this was last asked.
    pub fn prompts(&mut self) -> Vec<PromptToken> {
        std::mem::take(&mut self.prompts)
    }

    /// Passes that were planned so far.
    pub fn planned(&self) -> u64 {
        self.next_pass
    }

    /// Vectors that the oldest pass on its way is to bring back.
    pub fn awaited(&self) -> usize {
        self.passes.front().map_or(0, |away| away.pass.wanted())
    }

    /// Is a pass with tokens of this sequence on its way?
    pub fn is_away(&self, id: SequenceId) -> bool {
        self.passes.iter().any(|away| away.owners.contains(&id))
    }

    /// Tokens that one pass may have.
    pub fn tokens_max(&self) -> usize {
        self.limits.tokens_max()
    }

    /// Passes that are on their way.
    pub fn passes(&self) -> usize {
        self.passes.len()
    }

    /// The next pass: tokens that are not in passes already, of at most `writing_max` sequences that write and of prompts
    /// as far as the budget goes, the oldest first; then of texts that become vectors, which get a quarter of it whatever
    /// the prompts take. `None`: there is nothing to do, or what there is waits for passes on their way.
    pub fn plan(&mut self, writing_max: usize) -> Option<Planned> {
        self.admit();
        let most = self.limits.prompt_tokens_per_pass.max(1);
        let (mut budget, mut writing) = (most, writing_max);
        let mut draft = Draft::default();
        for sequence in &mut self.running {
            let writes = sequence.writes();
            if writes && writing == 0 {
                continue;
            }
            let piece = sequence.plan(if writes { 1 } else { budget }, &mut draft.ids);
            match (&piece, writes) {
                (Some(_), true) => writing -= 1,
                (Some(piece), false) => budget = budget.saturating_sub(piece.tokens),
                (None, _) => {}
            }
            if let Some(piece) = piece {
                draft.push(sequence.id, piece);
            }
        }
        budget = budget.max(most.div_ceil(4));
        for embedding in &mut self.embedding {
            budget -= embedding.plan(budget, &self.model, &mut self.slots, &mut draft);
        }
        let Draft { pieces, owners, ids } = draft;
        if pieces.is_empty() {
            return None;
        }
        let later = self.freed.split_off(self.freed.len().min(FREED_MAX));
        let (forks, freed) = (std::mem::take(&mut self.forks), std::mem::replace(&mut self.freed, later));
        let (number, pass) = (self.next_pass, Pass { forks, freed, pieces });
        self.next_pass += 1;
        self.passes.push_back(Away { number, pass: pass.clone(), owners });
        Some(Planned { number, pass, ids })
    }

    /// Runs a pass through the layers that are here. What comes out are the vectors of all its tokens, `width` each.
    ///
    /// # Panics
    /// If passes are not run in their order.
    pub fn run(&mut self, planned: &Planned, pool: &Pool) -> Vec<f32> {
        let Planned { pass, ids, .. } = planned;
        let ran = self.runner.run(&self.model.stage, pass, Tokens::Ids(ids), pool);
        // What is planned follows from what was run here before.
        let vectors = ran.unwrap_or_else(|why| panic!("a pass that was planned here: {why}"));
        if self.model.stage.is_whole() {
            pass.select(vectors, self.model.stage.config().width)
        } else {
            vectors.to_vec()
        }
    }

    /// Takes the vectors that the last layer gave for the wanted tokens of a pass, `width` each: tokens are chosen.
    ///
    /// # Panics
    /// If it is not the oldest pass on its way, or there are more or fewer vectors.
    pub fn finish(&mut self, number: u64, vectors: &[f32], pool: &Pool) {
        let Away { number: oldest, pass, owners } = self.passes.pop_front().expect("a pass that is on its way");
        let (width, vocabulary) = (self.model.stage.config().width, self.model.stage.config().vocabulary);
        assert!(oldest == number && vectors.len() == pass.wanted() * width, "pass {number}, the oldest is {oldest}");
        let (mut of_texts, mut vectors, mut ended) = (Vec::new(), vectors, Vec::new());
        for (piece, owner) in pass.pieces.iter().zip(&owners) {
            let (own, others) = vectors.split_at(piece.wanted.of(piece.tokens) * width);
            vectors = others;
            if let Some(embedding) = self.embedding.iter_mut().find(|embedding| embedding.id == *owner) {
                embedding.hear(piece, own, &self.model);
            }
            // Of one that was cancelled meanwhile nobody wants the logits.
            let sequence = self.running.iter().position(|sequence| sequence.id == *owner);
            of_texts.extend(sequence.map(|sequence| (sequence, piece, own)));
        }
        let rows: Vec<f32> = of_texts.iter().flat_map(|(_, _, own)| own.iter().copied()).collect();
        let mut logits = self.runner.logits(&self.model.stage, &rows, pool);
        for (index, piece, own) in of_texts {
            let (own, others) = logits.split_at(own.len() / width * vocabulary);
            logits = others;
            let sequence = &mut self.running[index];
            sequence.tell_prompt(piece, own, &self.model, &mut self.prompts);
            if let Some(why) = sequence.hear(piece, own, &self.model, &mut self.events) {
                self.events.push(Event::Finished { sequence: sequence.id, why });
                ended.push(index);
            }
        }
        ended.sort_unstable();
        for index in ended.into_iter().rev() {
            let sequence = self.running.remove(index);
            self.keep(sequence);
        }
        let (events, freed) = (&mut self.events, &mut self.freed);
        self.embedding.retain_mut(|embedding| !embedding.tell(events, freed));
    }

    /// Passes on their way will not come back, for a machine was lost: what they were given is planned again.
    pub fn void(&mut self) {
        // Who has not heard what is free is told again.
        self.freed.extend(self.passes.drain(..).flat_map(|away| away.pass.freed));
        for sequence in &mut self.running {
            // One that was forked in a pass that is lost begins anew.
            let positions = if sequence.begun { sequence.seen } else { 0 };
            sequence.rewind(positions);
        }
        self.embedding.iter_mut().for_each(|embedding| embedding.rewind(|_| false, &self.model));
    }

    /// A state has that many positions only, somewhere: what follows is read again. No pass may be on its way.
    pub fn rewind(&mut self, slot: Slot, positions: usize) {
        self.running
            .iter_mut()
            .filter(|sequence| sequence.slot == slot)
            .for_each(|sequence| sequence.rewind(positions));
        self.embedding.iter_mut().for_each(|embedding| embedding.rewind(|other| other == slot, &self.model));
    }

    /// Each state that somebody may still need, with its positions.
    pub fn states(&self) -> impl Iterator<Item = (Slot, usize)> {
        self.running.iter().map(|sequence| (sequence.slot, sequence.seen))
    }

    fn admit(&mut self) {
        while !self.holding && self.running() < self.limits.running_max {
            let Some((id, request)) = self.waiting.pop_front() else { return };
            let (request, answer, proposal, pace, told) = match request {
                Waiting::Text { request, answer, proposal, pace, told } => (request, answer, proposal, pace, told),
                Waiting::Vectors(texts, pooling) => {
                    self.events.push(Event::Started { sequence: id, reused: 0 });
                    self.embedding.push(Embedding::new(id, texts, pooling));
                    continue;
                }
            };
            let mut sampler = match Sampler::new(request.sampling.clone()) {
                Ok(sampler) => sampler,
                Err(why) => {
                    self.events.push(Event::Finished { sequence: id, why: Finish::Failed(why.to_string()) });
                    continue;
                }
            };
            sampler.seek(answer.len() as u64);
            // The last token is always read: what follows is made of its logits.
            let slot = self.slots.take();
            let mut read = if told.is_some() { Vec::new() } else { [&request.prompt[..], &answer].concat() };
            read.pop();
            let begun = self.kept.take(&read, slot);
            let Begun { slot, positions, fork } = begun.unwrap_or(Begun { slot, positions: 0, fork: None });
            self.forks.extend(fork);
            self.events.push(Event::Started { sequence: id, reused: positions });
            self.running.push(Sequence {
                id,
                slot,
                sampler,
                proposal,
                answer,
                sent: positions,
                seen: positions,
                begun: fork.is_none(),
                trying: Vec::new(),
                pace,
                told: told.map(|top| (top, 0)),
                request: *request,
            });
        }
    }

    fn keep(&mut self, sequence: Sequence) {
        let Sequence { request, mut answer, slot, seen, begun, .. } = sequence;
        if !begun {
            self.freed.push(slot);
            return;
        }
        let mut ids = request.prompt;
        ids.append(&mut answer);
        ids.truncate(seen);
        self.kept.put(ids, slot, &mut self.freed);
    }
}
