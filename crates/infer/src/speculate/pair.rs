//! A large model and what drafts for it on the same machine: a small model of the same vocabulary, the text itself, or both.
//!
//! Requests go to the large model's engine, and what is written is what it writes alone. Each step asks a controller per
//! sequence how many tokens to draft and whose ([`Both`]), lets the small model's engine draft for all sequences together, and
//! proposes. A small model draws with the seed of the request at the same positions, so it agrees wherever the two
//! distributions do.

use super::both::{Both, Plan, Source};
use super::costs::Affine;
use super::lookup::Lookup;
use super::verifier::Counted;
use crate::engine::{Engine, Event, Planned, Request, SequenceId};
use crate::sample::SamplingParams;
use littoral_tensor::pool::Pool;
use std::collections::BTreeMap;
use thiserror::Error;

/// Tokens that are drafted at most.
const MOST: usize = 16;
/// What a pass of the large model takes before one was measured, and each token more of it.
const GUESS: Affine = Affine { fixed_s: 0.03, per_token_s: 0.002 };

/// Why a small model cannot draft for a large one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PairError {
    #[error(
        "a draft model with the vocabulary of {of} expected, got another: token {id} is {expected:?} there and {got:?} here"
    )]
    Token { of: String, id: u32, expected: String, got: String },
    #[error("a draft model with the vocabulary of {of} expected, {expected} tokens, got {got}")]
    Size { of: String, expected: usize, got: usize },
}

/// What a sequence has beside its place in the large model's engine.
struct Twin {
    small: Option<SequenceId>,
    lookup: Lookup,
    /// Tokens of the answer that lookup knows.
    known: usize,
    both: Both,
    /// For the pass that comes, and what the small model took for it.
    plan: Plan,
    draft_s: f64,
    /// Its small model was not done with the prompt: the time says nothing.
    late: bool,
}

pub struct Pair {
    big: Engine,
    small: Option<Engine>,
    twins: BTreeMap<SequenceId, Twin>,
    /// What the last answer taught.
    learnt: Both,
    counted: Counted,
    drafting: bool,
}

impl Pair {
    /// With `small`, whose vocabulary is that of `big`, or without: then only the text itself drafts.
    ///
    /// # Errors
    /// Ids mean other words to the one than to the other.
    pub fn new(big: Engine, small: Option<Engine>) -> Result<Self, PairError> {
        let learnt = match &small {
            Some(small) => {
                check(&big, small)?;
                let (ours, theirs) = (big.model().stage.bytes(), small.model().stage.bytes());
                Both::new(GUESS.fixed_s * theirs as f64 / ours.max(1) as f64, GUESS, MOST)
            }
            None => Both::lookup_only(GUESS, MOST),
        };
        Ok(Self { big, small, twins: BTreeMap::new(), learnt, counted: Counted::default(), drafting: true })
    }

    pub fn engine(&self) -> &Engine {
        &self.big
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.big
    }

    /// Drafts are made, or not; for measurements.
    pub fn set_drafting(&mut self, drafting: bool) {
        self.drafting = drafting;
    }

    /// Tokens per second that plain decoding promises, and drafts of the small model of the best length, by what answers so far
    /// taught.
    pub fn promised(&self) -> (f64, f64) {
        self.learnt.promised()
    }

    /// What was drafted so far and what it saved.
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// One pass of the large model over what was drafted before it. `now_us`: a clock that does not go back.
    pub fn step(&mut self, pool: &Pool, now_us: &mut dyn FnMut() -> u64) -> Vec<Event> {
        if self.drafting {
            self.draft(pool, now_us);
        }
        let begun = now_us();
        if let Some(planned) = self.big.plan(usize::MAX) {
            let vectors = self.big.run(&planned, pool);
            self.big.finish(planned.number, &vectors, pool);
            let events = self.big.events();
            self.learn(&planned, &events, seconds(now_us() - begun));
            return events;
        }
        self.big.events()
    }

    /// Proposes what each sequence's controller asks for.
    fn draft(&mut self, pool: &Pool, now_us: &mut dyn FnMut() -> u64) {
        let texts: Vec<Text> = self.big.answers().filter(|(_, _, answer)| !answer.is_empty()).map(Text::of).collect();
        // Of a reader that left, too, nothing is drafted any more.
        self.forget(|id| !texts.iter().any(|text| text.id == id));
        let small_vocabulary = self.small.as_ref().map_or(0, |small| small.model().stage.config().vocabulary);
        let mut asked = Vec::new();
        for text in &texts {
            if !self.twins.contains_key(&text.id) {
                let twin = self.twin(text);
                self.twins.insert(text.id, twin);
            }
            let Some(twin) = self.twins.get_mut(&text.id) else { continue };
            let (matched, count) = twin.decide(text);
            match (twin.plan.source, matched) {
                (_, _) if count == 0 => {}
                (Source::Lookup { .. }, Some(tokens)) => {
                    self.big.propose(text.id, text.answer.len(), &tokens[..count.min(tokens.len())]);
                }
                (Source::Lookup { .. }, None) => {}
                // An id that only the large model's weights have is beyond the small one for good.
                (Source::Model, _) if text.answer.iter().any(|id| *id as usize >= small_vocabulary) => {}
                (Source::Model, _) => asked.extend(twin.small.map(|small| (text, small, count))),
            }
        }
        let begun = now_us();
        self.ask_small(&asked, pool);
        let took_s = seconds(now_us() - begun);
        let all: usize = asked.iter().map(|(_, _, count)| count).sum();
        for (text, _, count) in asked {
            if let Some(twin) = self.twins.get_mut(&text.id) {
                twin.draft_s = took_s * count as f64 / all as f64;
            }
        }
    }

    /// Lets the small model write on from these texts, all together, and proposes what it wrote.
    fn ask_small(&mut self, asked: &[(&Text, SequenceId, usize)], pool: &Pool) {
        let Some(small) = &mut self.small else { return };
        for (text, id, count) in asked {
            small.rewrite(*id, &text.answer);
            small.pace(*id, text.answer.len() + count);
        }
        if !asked.is_empty() {
            // A prompt that the small model has not read yet is read in pieces: then there are fewer drafts, or none.
            let most = asked.iter().map(|(_, _, count)| *count).max().unwrap_or(0);
            for _ in 0..most {
                small.step(pool);
            }
        }
        let drafts: Vec<(SequenceId, usize, Vec<u32>)> = asked
            .iter()
            .filter_map(|(text, id, _)| {
                let (_, _, written) = small.answers().find(|(other, _, _)| other == id)?;
                Some((text.id, text.answer.len(), written.get(text.answer.len()..)?.to_vec()))
            })
            .collect();
        for (id, at, tokens) in drafts {
            let twin = self.twins.get_mut(&id);
            twin.into_iter().for_each(|twin| twin.late = tokens.len() < twin.plan.count);
            self.big.propose(id, at, &tokens);
        }
    }

    fn twin(&mut self, text: &Text) -> Twin {
        let lookup = Lookup::beside(&text.prompt);
        let small = self.small.as_mut().and_then(|small| {
            let request = Request {
                prompt: text.prompt.clone(),
                max_tokens: text.max_tokens + MOST,
                sampling: text.sampling.clone(),
                constraint: None,
                top_logprobs: None,
                ignore_end: true,
            };
            // A prompt that is too long for it has no drafts of its.
            let id = small.submit(request).ok()?;
            small.pace(id, 0);
            Some(id)
        });
        let both = match small {
            Some(_) => self.learnt.next_answer(),
            None => Both::lookup_only(GUESS, MOST),
        };
        let plan = Plan { source: Source::Model, count: 0 };
        Twin { small, lookup, known: 0, both, plan, draft_s: 0.0, late: false }
    }

    /// Tells controllers what came of their plans.
    fn learn(&mut self, planned: &Planned, events: &[Event], took_s: f64) {
        let writing = planned.pass.pieces.iter().filter(|piece| piece.wanted.of(piece.tokens) == piece.tokens).count();
        // Where prompts were read beside, the time says nothing of drafts.
        let only = writing == planned.pass.pieces.len();
        for (id, twin) in &mut self.twins {
            let plan = std::mem::replace(&mut twin.plan, Plan { source: Source::Model, count: 0 });
            let draft_s = std::mem::take(&mut twin.draft_s);
            let wrote = |event: &&Event| matches!(event, Event::Token { sequence, .. } if sequence == id);
            let tokens = events.iter().filter(wrote).count() as u64;
            let ended = events.iter().any(|event| matches!(event, Event::Finished { sequence, .. } if sequence == id));
            // The pass had nothing of it, or only read.
            if tokens == 0 && !ended {
                continue;
            }
            let tried = events.iter().find_map(|event| match event {
                Event::Tried { sequence, proposed, accepted } if sequence == id => Some((*proposed, *accepted)),
                _ => None,
            });
            let (proposed, accepted) = tried.unwrap_or((0, 0));
            if only && !std::mem::take(&mut twin.late) {
                twin.both.hear(plan.source, proposed, accepted, draft_s, took_s / writing.max(1) as f64);
            }
            self.counted.passes += 1;
            self.counted.tokens += tokens;
            self.counted.drafted += proposed as u64;
            self.counted.accepted += accepted as u64;
        }
        self.forget(|id| {
            events.iter().any(|event| matches!(event, Event::Finished { sequence, .. } if *sequence == id))
        });
    }

    /// Ends what goes along with sequences that have ended.
    fn forget(&mut self, ended: impl Fn(SequenceId) -> bool) {
        let (small, learnt) = (&mut self.small, &mut self.learnt);
        self.twins.retain(|id, twin| {
            let over = ended(*id);
            if over {
                if let (Some(small), Some(id)) = (small.as_mut(), twin.small) {
                    small.cancel(id);
                }
                *learnt = twin.both.next_answer();
            }
            !over
        });
    }
}

impl Twin {
    /// What lookup would draft, and how many tokens are to be drafted by whom the plan says.
    fn decide(&mut self, text: &Text) -> (Option<Vec<u32>>, usize) {
        self.lookup.extend(&text.answer[self.known..]);
        self.known = text.answer.len();
        let room = text.max_tokens.saturating_sub(text.answer.len() + 1).min(MOST);
        let matched = if room > 0 { self.lookup.propose(&[], room) } else { None };
        self.plan = self.both.next(matched.as_ref().map(|matched| matched.length));
        self.plan.count = self.plan.count.min(room);
        (matched.map(|matched| matched.tokens), self.plan.count)
    }
}

/// A sequence of the large model as it stands.
struct Text {
    id: SequenceId,
    prompt: Vec<u32>,
    answer: Vec<u32>,
    max_tokens: usize,
    sampling: SamplingParams,
}

impl Text {
    fn of((id, request, answer): (SequenceId, &Request, &[u32])) -> Self {
        let Request { prompt, max_tokens, sampling, .. } = request;
        Self {
            id,
            prompt: prompt.clone(),
            answer: answer.to_vec(),
            max_tokens: *max_tokens,
            sampling: sampling.clone(),
        }
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 * 1e-6
}

/// Each id stands for the same bytes to both. Weights may have more ids than the tokeniser has tokens; those are never meant.
fn check(big: &Engine, small: &Engine) -> Result<(), PairError> {
    let (ours, theirs) = (&big.model().tokeniser, &small.model().tokeniser);
    let of = || big.model().name.clone();
    if ours.len() != theirs.len() {
        return Err(PairError::Size { of: of(), expected: ours.len(), got: theirs.len() });
    }
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    for id in 0..ours.len() as u32 {
        expected.clear();
        got.clear();
        ours.bytes(id, &mut expected);
        theirs.bytes(id, &mut got);
        if expected != got {
            let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
            return Err(PairError::Token { of: of(), id, expected: shown(&expected), got: shown(&got) });
        }
    }
    Ok(())
}
