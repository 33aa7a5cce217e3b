//! The verifier's end of a conversation: the only one that commits.
//!
//! It owns no engine. Before each pass the host asks [`Verifier::next_pass`] what the pass is to do, and afterwards it says with
//! [`Verifier::committed`] what the model chose. What is committed is what the model chose, whatever was drafted: rounds say
//! which tokens to try, and so decide the speed alone. That is why rounds may come twice, late, in any order, or not at all.
//!
//! A round is dead if it is of an earlier epoch, or if its digest or its tokens do not fit what is committed. It is dropped,
//! and answered with what the drafter lacks. The epoch grows with every drafted token that turns out not to be the answer's.

use super::answer::Answer;
use littoral_wire::Speculation;
use littoral_wire::bounded::{List, Text};
use littoral_wire::speculation::{
    COMMIT_TOKENS_MAX, Committed, Declared, Digest, Drafts, Ending, ROUND_TOKENS_MAX, Request, Want,
};

/// Rounds that wait to be reached. What comes on top, the farthest, is dropped, as if it had been lost.
const WAITING_MAX: usize = 64;
/// How far ahead of the answer a round may begin, in tokens.
const AHEAD_MAX: usize = 1_024;

/// What the next pass is to do for this answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Pass {
    /// Choose no token. (A prompt may be read all the same.)
    Hold,
    /// Choose the next token.
    Plain,
    /// Choose tokens while they equal these, the first at the answer's end, and the one after: at most one more than these.
    Verify {
        tokens: Vec<u32>,
        /// What each was drawn from: then `accept` decides which hold. Else a token holds if the sampler chooses it.
        declared: Option<Vec<Declared>>,
    },
}

/// What a conversation came to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Committed.
    pub tokens: u64,
    /// Passes in which they were chosen; the difference was saved.
    pub passes: u64,
    /// Drafted tokens that passes looked at.
    pub drafted: u64,
    /// Those of them that held.
    pub accepted: u64,
}

impl Counted {
    /// Passes that plain decoding would have needed on top.
    pub fn passes_saved(&self) -> u64 {
        self.tokens.saturating_sub(self.passes)
    }
}

#[derive(PartialEq)]
struct Round {
    start: usize,
    digest: Digest,
    tokens: Vec<u32>,
    declared: Option<Vec<Declared>>,
}

impl Round {
    fn end(&self) -> usize {
        self.start + self.tokens.len()
    }
}

pub struct Verifier {
    session: u64,
    declares: bool,
    /// Ids from here on are no tokens.
    vocabulary: usize,
    pass_tokens_max: usize,
    answer: Answer,
    /// The same with what is told of each token.
    tokens: Vec<Committed>,
    epoch: u32,
    /// By start; all of this epoch, none of them used up.
    waiting: Vec<Round>,
    want: Want,
    /// The number of the round that said so: rounds may overtake one another.
    want_number: u32,
    finished: Option<Ending>,
    closed: bool,
    /// Drafted tokens of the pass that is being made.
    tried: Vec<u32>,
    counted: Counted,
}

impl Verifier {
    /// For a request that was taken in. Passes look at no more than `pass_tokens_max` drafted tokens, at least 1.
    pub fn new(session: u64, request: &Request, vocabulary: usize, pass_tokens_max: usize) -> Self {
        Self {
            session,
            declares: request.drafts == Drafts::Declared,
            vocabulary,
            pass_tokens_max: pass_tokens_max.clamp(1, ROUND_TOKENS_MAX),
            answer: Answer::default(),
            tokens: Vec::new(),
            epoch: 0,
            waiting: Vec::new(),
            want: Want::Wait,
            want_number: 0,
            finished: None,
            closed: false,
            tried: Vec::new(),
            counted: Counted::default(),
        }
    }

    pub fn answer(&self) -> &[u32] {
        self.answer.ids()
    }

    pub fn finished(&self) -> Option<Ending> {
        self.finished
    }

    /// It goes on without being told anything.
    pub fn streams(&self) -> bool {
        self.want == Want::Stream
    }

    /// The drafter wants no more: forget it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// Takes a message of this session, and returns what to answer.
    pub fn hear(&mut self, message: Speculation) -> Vec<Speculation> {
        let session = self.session;
        match message {
            Speculation::Open { .. } => vec![Speculation::Opened { session }],
            Speculation::Round { number, epoch, commit, start, digest, tokens, distributions, want, .. } => {
                if number >= self.want_number {
                    (self.want, self.want_number) = (want, number);
                }
                let round = Round {
                    start: start as usize,
                    digest,
                    tokens: tokens.into_vec(),
                    declared: distributions.map(List::into_vec).filter(|_| self.declares),
                };
                match self.take(epoch, round) {
                    true => Vec::new(),
                    // The next pass says more than could be said now.
                    false if self.streams() && self.finished.is_none() => Vec::new(),
                    false => self.told_since(commit as usize),
                }
            }
            Speculation::Resume { commit, digest, .. } => {
                if self.answer.digest_at(commit as usize) != Some(digest) {
                    let here = self.answer.len();
                    let reason = Text::new(format!(
                        "resume: a beginning of the {here} committed tokens expected, got {commit} others"
                    ));
                    return vec![Speculation::Gone { session, reason }];
                }
                self.told_since(commit as usize)
            }
            Speculation::Close { .. } => {
                self.closed = true;
                self.waiting.clear();
                Vec::new()
            }
            // A verifier's own words.
            Speculation::Opened { .. }
            | Speculation::Refused { .. }
            | Speculation::Commit { .. }
            | Speculation::Gone { .. }
            | Speculation::Model { .. } => Vec::new(),
        }
    }

    /// Is the round of use? If not, the drafter wants to know why.
    fn take(&mut self, epoch: u32, mut round: Round) -> bool {
        let here = self.answer.len();
        let fits = epoch == self.epoch
            && round.start <= here + AHEAD_MAX
            && self.answer.agrees(round.start, round.digest, round.tokens.iter().copied());
        if !fits {
            return false;
        }
        if self.finished.is_some() || (round.end() <= here && !round.tokens.is_empty()) {
            return false;
        }
        // An id that is no token can never hold.
        let good = round.tokens.iter().take_while(|&&id| (id as usize) < self.vocabulary).count();
        round.tokens.truncate(good);
        if let Some(declared) = &mut round.declared {
            declared.truncate(good);
        }
        if round.end() > here && !self.waiting.contains(&round) {
            let at = self.waiting.partition_point(|other| (other.start, other.end()) < (round.start, round.end()));
            self.waiting.insert(at, round);
            // The nearest are the ones to keep.
            self.waiting.truncate(WAITING_MAX);
        }
        true
    }

    /// What the next pass is to do. After this, [`committed`](Self::committed) is due if it is not to hold.
    pub fn next_pass(&mut self) -> Pass {
        self.tried.clear();
        if self.finished.is_some() || self.closed {
            return Pass::Hold;
        }
        let (tokens, declared) = self.reached();
        self.tried.clone_from(&tokens);
        match (tokens.is_empty(), self.want) {
            (true, Want::Wait) => Pass::Hold,
            (true, Want::Stream) => Pass::Plain,
            (false, _) => Pass::Verify { tokens, declared },
        }
    }

    /// The drafted tokens from the answer's end on, as far as rounds follow one another. All are declared, or none is.
    fn reached(&self) -> (Vec<u32>, Option<Vec<Declared>>) {
        let (mut tokens, mut declared) = (Vec::new(), Vec::new());
        let here = self.answer.len();
        let mut digests = vec![self.answer.digest()];
        for round in &self.waiting {
            let end = here + tokens.len();
            if round.start > end || tokens.len() >= self.pass_tokens_max {
                break;
            }
            if round.end() <= end {
                continue;
            }
            // What it shares with the answer was compared before; what it shares with other rounds is its digest's business.
            let follows = round.start < here || digests[round.start - here] == round.digest;
            let kind = tokens.is_empty() || round.declared.is_some() != declared.is_empty();
            if !follows || !kind {
                continue;
            }
            let from = end - round.start;
            for &id in &round.tokens[from..] {
                digests.push(digests[tokens.len()].then(id));
                tokens.push(id);
            }
            declared.extend(round.declared.iter().flat_map(|all| all[from..].iter().cloned()));
        }
        tokens.truncate(self.pass_tokens_max);
        declared.truncate(self.pass_tokens_max);
        (tokens, (!declared.is_empty()).then_some(declared))
    }

    /// The pass that [`next_pass`](Self::next_pass) asked for chose these tokens in so many microseconds, and the answer may be complete.
    /// Returns what to tell the drafter.
    pub fn committed(&mut self, tokens: Vec<Committed>, finished: Option<Ending>, pass_us: u32) -> Vec<Speculation> {
        let start = self.answer.len();
        tokens.iter().for_each(|token| self.answer.push(token.id));
        self.tokens.extend(tokens);
        self.finished = finished;
        let here = self.answer.len();
        self.counted.tokens = here as u64;
        self.counted.passes += 1;
        self.counted.drafted += self.tried.len() as u64;
        let held = self.tried.iter().zip(&self.answer.ids()[start..]).take_while(|(tried, own)| tried == own);
        self.counted.accepted += held.count() as u64;
        let (before, answer) = (self.waiting.len(), &self.answer);
        let tried = self.tried.len() as u8;
        self.waiting.retain(|round| answer.agrees(round.start, round.digest, round.tokens.iter().copied()));
        if self.waiting.len() < before {
            // All that was drafted after the wrong token is dead too.
            self.epoch = self.epoch.saturating_add(1);
            self.waiting.clear();
        }
        self.waiting.retain(|round| round.end() > here);
        if self.finished.is_some() {
            self.waiting.clear();
        }
        self.tell(start, here, pass_us, tried)
    }

    /// Tokens in the order of messages that fit.
    fn told_since(&self, commit: usize) -> Vec<Speculation> {
        let here = self.answer.len();
        self.tell(commit.min(here), here, 0, 0)
    }

    fn tell(&self, start: usize, end: usize, pass_us: u32, tried: u8) -> Vec<Speculation> {
        let mut told = Vec::new();
        let mut at = start;
        while at < end || told.is_empty() {
            let next = end.min(at + COMMIT_TOKENS_MAX);
            let tokens = List::new(self.tokens[at..next].to_vec()).unwrap_or_default();
            told.push(Speculation::Commit {
                session: self.session,
                epoch: self.epoch,
                start: at as u32,
                tokens,
                finished: self.finished.filter(|_| next == end),
                passes: self.counted.passes.min(u64::from(u32::MAX)) as u32,
                pass_us,
                tried,
            });
            at = next;
        }
        told
    }
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
