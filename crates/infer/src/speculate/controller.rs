//! Which way is fastest over this link, now: streaming, with drafts or without, rounds, or drafting ahead, and of how many tokens.
//!
//! What the choice needs is measured without trying the ways: whether drafts hold shows while the verifier streams too, as the
//! drafter drafts along for itself; a plain pass and the round trip are part of every way. So nothing is spent on exploring,
//! and what can be lost is what is lost before a measure is good enough, or after the text has changed.

use super::costs::{Costs, Least, Mean, PassTimes};
use super::drafter::Mode;
use super::quoting::Matches;
use super::rate::{Survival, rate_stream};
use super::runs::Runs;

mod quotes;

/// Tokens that a round, or a block, may have.
const LENGTHS: [usize; 12] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24];
/// Tokens of a block that a verifier may get to before the block comes.
const BLOCKS_ALONG: [usize; 3] = [1, 2, 4];
/// Another length must promise so much more than the present one, and streaming so much more than drafting, or the reverse.
const BETTER: f64 = 1.01;
const MUCH_BETTER: f64 = 1.03;
/// The shortest blocks that promise so much of what the best promise are taken: they lose least when the text becomes another.
const AS_GOOD: f64 = 0.98;
/// So do blocks that are drafted while others are verified, against rounds.
const BETTER_THAN_AHEAD: f64 = 1.04;
/// Drafting costs the device its battery; where drafts gain less than this the verifier streams alone.
const WORTH_DRAFTING: f64 = 1.02;
/// Drafts that a stream does not wait for end when they have been worth too little for so many verdicts on end: a hard passage
/// is not another text.
const GIVEN_UP: u32 = 32;
/// A verifier that waits for drafts makes fewer passes, for others to use; this much of the speed is enough for that.
const FEWER_PASSES: f64 = 0.98;
/// After so many verdicts, those of the answer before included. Earlier there is hardly a way to learn so cheap as drafts that a stream
/// does not wait for.
const LEARNT: f64 = 16.0;
/// Going from streaming to drafting, or back, costs a round trip, which must come back within so many tokens.
const HORIZON: f64 = 192.0;
/// Drafted tokens under way, at most.
const AHEAD_MAX: usize = 256;

#[derive(Clone)]
pub struct Controller {
    /// Of the model's drafts. What the text drafts is judged by `matches`.
    runs: Runs,
    draft: Mean,
    matches: Matches,
    /// The part of the drafts that is the model's.
    share: Mean,
    pass: PassTimes,
    round_trip: Least,
    /// Of a verifier that does not look at drafts while it streams: a token of its stream, which costs otherwise than a pass over
    /// drafts.
    stream: Option<Mean>,
    mode: Mode,
    pinned: bool,
    /// Decisions on end for which drafting was worth too little.
    worthless: u32,
}

impl Controller {
    /// Starts from guesses: costs of an earlier answer, or of a similar machine, and an acceptance of 0.7, which weighs as much
    /// as four verdicts.
    pub fn new(costs: Costs) -> Self {
        Self::with(costs, Runs::new(0.7, 4.0), None)
    }

    /// Of a verifier that cannot look at drafts while it streams, a token in `stream_s`.
    pub fn not_along(costs: Costs, stream_s: f64) -> Self {
        Self::with(costs, Runs::new(0.7, 4.0), Some(Mean::new(stream_s)))
    }

    /// For the next answer of the same two models over the same link: costs as they were, the acceptance as a guess.
    pub fn next_answer(&self) -> Self {
        let controller = Self::with(self.costs(), self.runs.fading(LEARNT), self.stream);
        Self { matches: self.matches.next_answer(), ..controller }
    }

    fn with(costs: Costs, runs: Runs, stream: Option<Mean>) -> Self {
        let mut controller = Self {
            runs,
            draft: Mean::new(costs.draft_s),
            matches: Matches::default(),
            share: Mean::new(1.0),
            pass: PassTimes::new(costs.verify),
            round_trip: Least::new(costs.round_trip_s),
            stream,
            mode: Mode::Stream,
            pinned: false,
            worthless: 0,
        };
        controller.mode = controller.best().0;
        controller
    }

    /// For the rest of the same answer by another machine: what this one learnt of the text and of drafting, and what that one did
    /// of its link and of its passes.
    pub fn over_the_link_of(&self, other: &Self) -> Self {
        let controller = Self {
            pass: other.pass.clone(),
            round_trip: other.round_trip,
            stream: other.stream,
            worthless: 0,
            ..self.clone()
        };
        let mode = if self.pinned { self.mode } else { controller.best().0 };
        Self { mode, ..controller }
    }

    /// Measures, and drafts whatever a stream promises: the best of the ways to draft.
    pub fn always_drafting(self) -> Self {
        let (mode, _) = self.best_beside(0.0);
        self.pinned_to(mode)
    }

    /// Measures, and always goes this way.
    pub fn pinned_to(self, mode: Mode) -> Self {
        Self { mode, pinned: true, ..self }
    }

    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Does the verifier look at drafts while it streams? Ours do.
    pub fn drafts_along(&self) -> bool {
        self.stream.is_none()
    }

    /// As measured.
    pub fn costs(&self) -> Costs {
        Costs { draft_s: self.draft.get(), verify: self.pass.fit(), round_trip_s: self.round_trip.get() }
    }

    /// The chance that a token of the model's holds.
    pub fn acceptance(&self) -> f64 {
        self.runs.acceptance()
    }

    /// Tokens per second that a way promises, as far as is known.
    pub fn predicted(&self, mode: Mode) -> f64 {
        self.promise(mode, &Survival::of(&self.runs), &self.costs())
    }

    /// The model drafted so many tokens in so many microseconds.
    pub fn hear_draft(&mut self, tokens: usize, took_us: u64) {
        self.draft.hear(seconds(took_us) / tokens.max(1) as f64);
    }

    /// A pass looked at so many drafted tokens.
    pub fn hear_pass(&mut self, tried: usize, took_us: u64) {
        match &mut self.stream {
            Some(stream) if tried == 0 => stream.hear(seconds(took_us)),
            _ => self.pass.hear(tried, seconds(took_us)),
        }
    }

    /// From a question to its answer, less the pass.
    pub fn hear_round_trip(&mut self, took_us: u64) {
        self.round_trip.hear(seconds(took_us));
    }

    /// A token was committed: did the model's draft for it hold? None: it had drafted nothing there.
    pub fn hear_token(&mut self, held: Option<bool>) {
        match held {
            Some(held) => {
                self.runs.hear(held);
                self.share.hear(1.0);
            }
            None => self.runs.pause(),
        }
    }

    /// Chooses anew.
    pub fn decide(&mut self) {
        if self.pinned {
            return;
        }
        let now = self.predicted(self.mode);
        let (best, promised) = self.best();
        let waits = |mode| matches!(mode, Mode::Rounds { .. } | Mode::Ahead { .. });
        self.worthless = if best == Mode::Stream { self.worthless + 1 } else { 0 };
        // The verifier streams in both: nothing is lost on the way.
        if best == Mode::Stream && !waits(self.mode) {
            if self.worthless >= GIVEN_UP {
                self.mode = best;
            }
            return;
        }
        // Chosen for its fewer passes, perhaps, and not for its speed.
        if matches!(self.mode, Mode::Along { .. }) && waits(best) {
            self.mode = best;
            return;
        }
        let crosses = (self.mode == Mode::Stream && waits(best)) || best == Mode::Stream;
        let (better, toll_s) = if crosses { (MUCH_BETTER, self.round_trip.get()) } else { (BETTER, 0.0) };
        if promised > now * better && HORIZON / now - HORIZON / promised > toll_s {
            self.mode = best;
        }
    }

    fn promise(&self, mode: Mode, survival: &Survival, costs: &Costs) -> f64 {
        match (mode, &self.stream) {
            (Mode::Stream, None) => rate_stream(costs.verify),
            (Mode::Stream, Some(stream)) => 1.0 / stream.get().max(1e-9),
            (Mode::Rounds { tokens }, _) => survival.rate_rounds(tokens, costs),
            (Mode::Ahead { block, .. }, _) => survival.rate_ahead(block, costs),
            (Mode::Along { block, .. }, _) => survival.rate_along(block, costs),
        }
    }

    fn best(&self) -> (Mode, f64) {
        self.best_beside(self.predicted(Mode::Stream))
    }

    /// Beside a stream that promises so much.
    fn best_beside(&self, stream: f64) -> (Mode, f64) {
        let (survival, costs) = (Survival::of(&self.runs), self.costs());
        let along = BLOCKS_ALONG.map(|block| Mode::Along { block, ahead: ahead(block, &costs) });
        let along = if self.stream.is_none() { &along[..] } else { &[] };
        let ahead = LENGTHS.map(|block| Mode::Ahead { block, ahead: ahead(block, &costs) });
        let rounds = LENGTHS.map(|tokens| Mode::Rounds { tokens });
        let worth = if self.runs.known() < LEARNT { 0.98 } else { WORTH_DRAFTING };
        // The shortest that is nearly as good as the best of its kind, if that promises so much of what is known already.
        let better = |best: (Mode, f64), ways: &[Mode], part: f64| {
            let promised = ways.iter().map(|&mode| (mode, self.promise(mode, &survival, &costs)));
            let promised: Vec<(Mode, f64)> = promised.collect();
            let most = promised.iter().fold(0.0f64, |most, (_, promised)| most.max(*promised));
            let shortest = promised.into_iter().find(|(_, promised)| *promised >= most * AS_GOOD);
            shortest.filter(|(_, promised)| *promised > best.1 * part).unwrap_or(best)
        };
        let best = (Mode::Stream, stream);
        let best = better(best, along, worth);
        let enough = if matches!(best.0, Mode::Along { .. }) { FEWER_PASSES } else { 1.0 };
        let best = better(best, &ahead, enough);
        better(best, &rounds, BETTER_THAN_AHEAD)
    }
}

/// Tokens beyond the answer so that drafting in blocks never waits for a verdict: over the link, and behind the pass that is being
/// made.
pub fn ahead(block: usize, costs: &Costs) -> usize {
    let until_s = costs.round_trip_s + 2.0 * costs.verify.at(block);
    let blocks = (until_s / (costs.draft_s * block as f64)).min(AHEAD_MAX as f64).ceil() as usize + 2;
    (blocks * block).min(AHEAD_MAX)
}

fn seconds(us: u64) -> f64 {
    us as f64 * 1e-6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far away, with drafts that hardly ever hold, the device soon drafts no more than it takes to see that; in the next answer from the
    /// beginning. With good ones it drafts.
    #[test]
    fn what_is_drafted_for_nothing_ends() {
        let costs = Costs { round_trip_s: 0.2, ..Costs::GUESS };
        let after = |mut controller: Controller, tokens: u32, holds: fn(u32) -> bool| {
            for token in 0..tokens {
                controller.hear_token(Some(holds(token)));
                controller.decide();
            }
            controller
        };
        let bad = after(Controller::new(costs), 64, |token| token % 20 == 0);
        assert_eq!((bad.mode(), bad.next_answer().mode()), (Mode::Stream, Mode::Stream));
        let drafting = bad.next_answer().always_drafting();
        assert!(drafting.is_pinned() && drafting.mode() != Mode::Stream, "{:?}", drafting.mode());
        let better = after(bad.next_answer(), 256, |token| token % 10 != 0);
        assert!(matches!(better.mode(), Mode::Along { .. }), "{:?}", better.mode());
        assert!(matches!(Controller::new(costs).mode(), Mode::Along { .. }));
    }

    /// What a text taught goes along to another machine, what a link taught does not.
    #[test]
    fn another_machine_has_another_link_and_the_same_text() {
        let near = Controller::new(Costs { round_trip_s: 0.001, ..Costs::GUESS });
        let mut far = Controller::new(Costs { round_trip_s: 0.3, ..Costs::GUESS });
        for _ in 0..200 {
            far.hear_token(Some(true));
            far.hear_draft(1, 5_000);
            far.hear_pass(0, 90_000);
        }
        far.decide();
        let moved = far.over_the_link_of(&near);
        let (got, expected) = (moved.costs(), near.costs());
        assert_eq!((got.round_trip_s, got.verify), (expected.round_trip_s, expected.verify));
        assert_eq!((moved.acceptance(), got.draft_s), (far.acceptance(), far.costs().draft_s));
        assert!(moved.acceptance() > 0.95 && moved.mode() != Mode::Stream, "{:?}", moved.mode());
        let pinned = far.pinned_to(Mode::Stream).over_the_link_of(&near);
        assert!(pinned.is_pinned() && pinned.mode() == Mode::Stream);
    }

    /// Drafts for a verifier that does not look at them while it streams are made ahead or in rounds.
    #[test]
    fn a_verifier_that_cannot_look_at_drafts_while_it_streams_is_not_drafted_along_for() {
        let mut controller = Controller::not_along(Costs::GUESS, 0.03);
        for _ in 0..64 {
            controller.hear_token(Some(true));
            controller.decide();
        }
        assert!(matches!(controller.mode(), Mode::Ahead { .. } | Mode::Rounds { .. }), "{:?}", controller.mode());
    }
}
