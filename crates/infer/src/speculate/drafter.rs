//! The drafter's end of a conversation.
//!
//! It owns no model. [`Drafter::work`] says what to draft next, and the host brings the tokens with [`Drafter::drafted`]; what the
//! text itself drafts ([`Sources`]) the drafter finds alone. The host passes on what the verifier says with [`Drafter::hear`], and
//! calls [`Drafter::tick`] when [`Drafter::deadline_us`] has come. Each answers with an [`Output`]: what to send, which tokens are
//! the answer's now, and whether it is over. Times are microseconds of any clock that never goes back.
//!
//! While the verifier streams, tokens are drafted all the same, one at a time, and compared with what comes: this costs no time
//! of the answer's, and is how the controller learns whether drafting would pay.
//!
//! Messages may be lost, doubled and overtaken. Positions and digests make each harmless, and silence is answered by saying
//! everything again, less and less often.

use super::answer::Answer;
use super::both::Source;
use super::controller::Controller;
use super::lookup::Lookup;
use super::quoting::Matches;
use super::round_trips::RoundTrips;
use littoral_wire::Speculation;
use littoral_wire::bounded::List;
use littoral_wire::message::Reason;
use littoral_wire::speculation::{COMMIT_TOKENS_MAX, Committed, Declared, Ending, ROUND_TOKENS_MAX, Request, Want};
use std::collections::VecDeque;

mod again;
mod sending;
mod sources;

use again::Behind;
use sources::Draft;
pub use sources::{Sources, Yield, Yields};

/// How an answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The verifier goes on by itself; what it chose comes over the link as it is chosen.
    Stream,
    /// So many tokens are drafted, then their verdict is awaited. 1 to 64.
    Rounds { tokens: usize },
    /// Drafting does not wait: rounds of `block` tokens, 1 to 64, and no more than `ahead` tokens beyond what is committed.
    Ahead { block: usize, ahead: usize },
    /// As [`Ahead`](Self::Ahead), but the verifier does not wait for drafts: it goes on by itself, and looks at those that come before
    /// it has chosen the tokens in their place.
    Along { block: usize, ahead: usize },
}

/// Who chooses the mode.
pub enum Policy {
    Fixed(Mode),
    Learning(Box<Controller>),
}

/// When silence is too long.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The first time; it doubles each time until something is heard.
    pub first_us: u64,
    pub most_us: u64,
    /// After so many times the verifier counts as lost.
    pub tries_max: u32,
}

impl Default for Patience {
    /// The first pass may have to read a long prompt. 1, 2, 4, 8, 8, … seconds: 55 in all.
    fn default() -> Self {
        Self { first_us: 1_000_000, most_us: 8_000_000, tries_max: 8 }
    }
}

/// A drafted token, and what it was drawn from if that is to be declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Drafted {
    pub id: u32,
    pub declared: Option<Declared>,
}

/// What to draft: the draft model's state is to be cut back to `keep` tokens of the answer (or fewer, as it likes), then fed
/// [`Drafter::answer_from`] where it ends, and go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Tokens of the answer that stand as they were when work was last given out.
    pub keep: usize,
    /// Position in the answer of the first token to draft.
    pub start: usize,
    /// So many tokens at most; none may be brought, if there is nothing to go by.
    pub count: usize,
    /// Grows when drafted tokens are taken back.
    revision: u64,
}

/// Why no more tokens come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    Finished(Ending),
    Refused(Reason),
    /// The verifier does not have the session any more.
    Gone(Reason),
    /// Nothing was heard for as long as [`Patience`] allows.
    Lost,
    /// The verifier took back a token that it had committed, or went on after the last, at this position of the answer.
    Contradicted(usize),
}

/// What comes of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    pub send: Vec<Speculation>,
    /// The answer goes on with these.
    pub tokens: Vec<Committed>,
    pub over: Option<Over>,
}

pub struct Drafter {
    session: u64,
    request: Request,
    policy: Policy,
    patience: Patience,
    answer: Answer,
    /// Beyond the answer. The first `sent` of them were sent in this epoch.
    drafts: VecDeque<Draft>,
    sent: usize,
    sources: Sources,
    /// Of the prompt and the answer, if the text drafts; how long matches hold is the controller's to know, if there is one.
    lookup: Option<Lookup>,
    matches: Matches,
    /// The revision and the end of the text at which it was last asked for drafts.
    quoted_at: Option<(u64, usize)>,
    /// The text drafts, and this is its way; the model has another.
    quoting: Option<Mode>,
    yields: Yields,
    epoch: u32,
    /// Rounds sent so far.
    rounds: u32,
    /// What the verifier was last told to do in this epoch.
    asked: Option<Want>,
    opened: bool,
    over: Option<Over>,
    /// The host had nothing to draft after so many tokens.
    barren: Option<usize>,
    revision: u64,
    stands: usize,
    passes: u64,
    deadline_us: Option<u64>,
    tries: u32,
    trips: RoundTrips,
    /// A gap before this position was asked about.
    resumed_at: Option<usize>,
    /// Of a verifier that took over from another: how far it has followed.
    behind: Option<Behind>,
    /// Of the verifiers before it.
    passes_before: u64,
}

/// Passes that take longer say nothing of a link.
const LONG_PASS_S: f64 = 0.25;

impl Drafter {
    /// The first output opens the session. `session` must be new for each answer.
    pub fn new(
        session: u64,
        request: Request,
        policy: Policy,
        sources: Sources,
        patience: Patience,
        now_us: u64,
    ) -> (Self, Output) {
        Self::of(session, request, policy, sources, patience).start(now_us)
    }

    fn of(session: u64, request: Request, policy: Policy, sources: Sources, patience: Patience) -> Self {
        Self {
            sources,
            lookup: (sources != Sources::Model).then(|| Lookup::beside(&request.prompt)),
            matches: Matches::default(),
            quoted_at: None,
            quoting: None,
            yields: Yields::default(),
            session,
            request,
            policy,
            patience,
            answer: Answer::default(),
            drafts: VecDeque::new(),
            sent: 0,
            epoch: 0,
            rounds: 0,
            asked: None,
            opened: false,
            over: None,
            barren: None,
            revision: 0,
            stands: 0,
            passes: 0,
            deadline_us: None,
            tries: 0,
            trips: RoundTrips::default(),
            resumed_at: None,
            behind: None,
            passes_before: 0,
        }
    }

    fn start(mut self, now_us: u64) -> (Self, Output) {
        self.trips.opening(now_us);
        let mut output = Output { send: vec![self.open()], ..Output::default() };
        self.go_on(now_us, &mut output);
        (self, output)
    }

    /// Committed tokens.
    pub fn answer(&self) -> &[u32] {
        self.answer.ids()
    }

    /// Tokens that the answer may have.
    pub fn max_tokens(&self) -> usize {
        self.request.max_tokens as usize
    }

    /// What is told of each token.
    pub fn top_logprobs(&self) -> Option<usize> {
        self.request.top_logprobs.map(usize::from)
    }

    /// Does the answer go on where the model would end?
    pub fn ignores_end(&self) -> bool {
        self.request.ignore_end
    }

    /// The answer from a position on, committed and drafted.
    pub fn answer_from(&self, position: usize) -> Vec<u32> {
        let committed = self.answer.ids().iter().copied();
        committed.chain(self.drafts.iter().map(|draft| draft.drafted.id)).skip(position).collect()
    }

    pub fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    /// Passes of the verifier's model so far, as it said; what plain decoding would need more is [`answer`](Self::answer)'s
    /// length less this.
    pub fn passes(&self) -> u64 {
        self.passes_before + self.passes
    }

    /// How the answer is made now.
    pub fn mode(&self) -> Mode {
        self.quoting.unwrap_or_else(|| self.mode_unquoted())
    }

    /// Where the text does not draft.
    fn mode_unquoted(&self) -> Mode {
        match &self.policy {
            Policy::Fixed(mode) => *mode,
            Policy::Learning(controller) if self.sources == Sources::Lookup && !controller.is_pinned() => Mode::Stream,
            Policy::Learning(controller) => controller.mode(),
        }
    }

    /// What the controller learnt, for the next answer.
    pub fn controller(&self) -> Option<&Controller> {
        match &self.policy {
            Policy::Fixed(_) => None,
            Policy::Learning(controller) => Some(controller),
        }
    }

    /// What to draft now. The same again until [`drafted`](Self::drafted) or [`hear`](Self::hear) changes it.
    pub fn work(&self) -> Option<Work> {
        if self.sources == Sources::Lookup || self.barren == Some(self.end()) {
            return None;
        }
        let (start, count) = (self.end(), self.wanted());
        (count > 0).then(|| Work { keep: self.stands.min(start), start, count, revision: self.revision })
    }

    /// Tokens to draft at the end of the text, a block at most.
    fn wanted(&self) -> usize {
        if self.over.is_some() {
            return 0;
        }
        let wanted = match self.mode() {
            Mode::Stream => match &self.policy {
                Policy::Learning(controller) if !controller.is_pinned() => 1,
                _ => 0,
            },
            Mode::Rounds { .. } if self.sent > 0 => 0,
            Mode::Rounds { tokens } => tokens.clamp(1, ROUND_TOKENS_MAX),
            Mode::Ahead { ahead, .. } | Mode::Along { ahead, .. } => ahead.max(1),
        };
        let wanted = wanted.min(self.draftable());
        let block = match self.mode() {
            Mode::Ahead { block, .. } | Mode::Along { block, .. } => {
                block.clamp(1, ROUND_TOKENS_MAX).saturating_sub(self.drafts.len() - self.sent).max(1)
            }
            _ => wanted,
        };
        wanted.saturating_sub(self.drafts.len()).min(block.max(1))
    }

    /// Nothing will come of this work any more: what it goes by was taken back. Bring what there is, so that its time counts.
    pub fn is_void(&self, work: Work) -> bool {
        self.over.is_some() || work.revision != self.revision
    }

    /// Tokens that came of a piece of work, and how long that took.
    pub fn drafted(&mut self, now_us: u64, work: Work, tokens: Vec<Drafted>, took_us: u64) -> Output {
        let mut output = Output::default();
        self.yields.model.drafted += tokens.len() as u64;
        if let (Policy::Learning(controller), false) = (&mut self.policy, tokens.is_empty()) {
            controller.hear_draft(tokens.len(), took_us);
        }
        if self.over.is_some() {
            return output;
        }
        if work.revision == self.revision {
            self.stands = self.stands.max(work.start + tokens.len());
            if tokens.is_empty() {
                self.barren = Some(work.start);
            }
            self.append(work.start, tokens);
        }
        self.go_on(now_us, &mut output);
        output
    }

    /// Adds drafts that begin at `start`, some of which may have been committed meanwhile.
    fn append(&mut self, start: usize, tokens: Vec<Drafted>) {
        let end = self.end();
        if start > end {
            return;
        }
        let shared = end - start;
        let text = self.answer_from(start);
        match tokens.iter().zip(&text).position(|(draft, &own)| draft.id != own) {
            None => {
                let new = tokens.into_iter().skip(shared);
                self.drafts.extend(new.map(|drafted| Draft { drafted, source: Source::Model }));
            }
            Some(at) => self.take_back(start + at),
        }
    }

    /// Takes a message of this session.
    pub fn hear(&mut self, now_us: u64, message: Speculation) -> Output {
        let mut output = Output::default();
        if self.over.is_some() || message.session() != Some(self.session) {
            return output;
        }
        self.tries = 0;
        self.deadline_us = None;
        match message {
            Speculation::Opened { .. } => self.hear_opened(now_us),
            Speculation::Refused { reason, .. } => self.end_with(Over::Refused(reason), &mut output),
            Speculation::Gone { reason, .. } => self.end_with(Over::Gone(reason), &mut output),
            Speculation::Commit { epoch, start, tokens, finished, passes, pass_us, tried, .. } => {
                self.opened = true;
                self.passes = self.passes.max(u64::from(passes));
                self.hear_pass(now_us, start as usize, pass_us, tried);
                let chosen = start as usize + tokens.len();
                // What it skips, it may have chosen otherwise.
                let next = |behind: &Behind| start as usize <= behind.chosen && behind.chosen < chosen;
                if let Some(behind) = self.behind.filter(next) {
                    self.behind = (chosen < self.answer.len()).then_some(Behind { chosen, ..behind });
                }
                self.hear_commit(start as usize, tokens, finished, &mut output);
                if epoch > self.epoch {
                    // What is under way is dead by now, whatever it says.
                    (self.epoch, self.sent, self.asked) = (epoch, 0, None);
                    self.trips.forget();
                }
                self.ask_where_it_stands(now_us, &mut output);
            }
            // A drafter's own words, and one that is of no session.
            Speculation::Model { .. }
            | Speculation::Open { .. }
            | Speculation::Round { .. }
            | Speculation::Resume { .. }
            | Speculation::Close { .. } => {}
        }
        self.go_on(now_us, &mut output);
        output
    }

    fn hear_opened(&mut self, now_us: u64) {
        let took_us = self.trips.opened(now_us);
        self.hear_round_trip(took_us);
        self.opened = true;
    }

    fn hear_round_trip(&mut self, took_us: Option<u64>) {
        if let (Policy::Learning(controller), Some(took_us)) = (&mut self.policy, took_us) {
            controller.hear_round_trip(took_us);
        }
    }

    /// What a commit says of the pass that made it, and of the way here.
    fn hear_pass(&mut self, now_us: u64, start: usize, pass_us: u32, tried: u8) {
        let took_us = match (tried, pass_us) {
            // No pass made it: it was asked for.
            (0, 0) => self.trips.stands(now_us),
            // A token of a stream answers nothing.
            (0, _) => None,
            (tried, pass_us) => self.trips.verdict(now_us, start + usize::from(tried), u64::from(pass_us)),
        };
        self.hear_round_trip(took_us);
        if let (Policy::Learning(controller), 1..) = (&mut self.policy, pass_us) {
            controller.hear_pass(usize::from(tried), u64::from(pass_us));
        }
    }

    /// A stream tells nothing of the way here, which may become another: now and then it is asked what is answered between two
    /// passes. Not where a pass takes so long that the answer would be a measure of passes.
    fn ask_where_it_stands(&mut self, now_us: u64, output: &mut Output) {
        let Policy::Learning(controller) = &self.policy else { return };
        // Of a server that is not ours somebody nearer tells where it stands.
        let streams = self.mode() == Mode::Stream && controller.drafts_along();
        let streams = streams && self.asked == Some(Want::Stream) && self.behind.is_none();
        let ends = self.over.is_some() || self.resumed_at == Some(self.answer.len());
        if streams && !ends && controller.costs().verify.fixed_s < LONG_PASS_S && self.trips.asks(now_us) {
            output.send.push(self.resume());
        }
    }

    fn hear_commit(
        &mut self,
        start: usize,
        tokens: List<Committed, COMMIT_TOKENS_MAX>,
        finished: Option<Ending>,
        output: &mut Output,
    ) {
        let here = self.answer.len();
        if start > here {
            // Something before it is missing.
            if self.resumed_at != Some(here) {
                self.resumed_at = Some(here);
                output.send.push(self.resume());
            }
            return;
        }
        let known = &self.answer.ids()[start..];
        if let Some(at) = tokens.iter().zip(known).position(|(token, &own)| token.id != own) {
            return self.end_with(Over::Contradicted(start + at), output);
        }
        if start + tokens.len() > self.request.max_tokens as usize {
            return self.end_with(Over::Contradicted(self.request.max_tokens as usize), output);
        }
        let end = start + tokens.len();
        let new: Vec<Committed> = tokens.into_vec().into_iter().skip(here - start).collect();
        for token in new {
            self.commit(token, output);
        }
        if finished.is_some() && end < here {
            // The one before went on where this one ends.
            return self.end_with(Over::Contradicted(end), output);
        }
        if let Some(ending) = finished {
            self.end_with(Over::Finished(ending), output);
        } else if let Policy::Learning(controller) = &mut self.policy {
            controller.decide();
        }
    }

    fn commit(&mut self, token: Committed, output: &mut Output) {
        self.follow(token.id);
        let draft = self.drafts.pop_front();
        let verdict = draft.map(|draft| (draft.source, draft.drafted.id == token.id));
        if let Policy::Learning(controller) = &mut self.policy {
            match verdict {
                Some((Source::Lookup { .. }, _)) => controller.hear_quote(),
                _ => controller.hear_token(verdict.map(|(_, held)| held)),
            }
        }
        match verdict {
            Some((_, false)) => self.take_back(self.answer.len()),
            Some((source, true)) => {
                self.sent = self.sent.saturating_sub(1);
                self.yields.of(source).held += 1;
            }
            None => {}
        }
        self.answer.push(token.id);
        output.tokens.push(token);
    }

    /// Drafts do not hold from this position of the answer on.
    fn take_back(&mut self, position: usize) {
        self.drafts.clear();
        self.trips.forget();
        self.sent = 0;
        self.revision += 1;
        self.stands = self.stands.min(position);
    }

    fn end_with(&mut self, over: Over, output: &mut Output) {
        self.over = Some(over.clone());
        output.over = Some(over);
        self.deadline_us = None;
        self.drafts.clear();
    }

    /// Nobody wants the rest.
    pub fn close(&mut self) -> Output {
        self.drafts.clear();
        self.deadline_us = None;
        Output { send: vec![Speculation::Close { session: self.session }], ..Output::default() }
    }

    /// The position after the last draft.
    fn end(&self) -> usize {
        self.answer.len() + self.drafts.len()
    }

    /// Tokens that it makes sense to draft: a verdict brings one more, so that the last need not be.
    fn draftable(&self) -> usize {
        (self.request.max_tokens as usize).saturating_sub(self.answer.len() + 1)
    }
}

#[cfg(test)]
#[path = "drafter_tests.rs"]
mod tests;
