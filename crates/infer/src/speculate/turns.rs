//! How many tokens to draft where both models share one machine: one of them works at a time, and nothing is far away.
//!
//! A step drafts k tokens and then verifies them: k draft_s + verify(k). The best k is that of most tokens per second, by what
//! was measured; 0 is plain decoding. Then nothing would be learnt any more, so a token is drafted now and then. What that
//! costs comes out of a purse into which 1.5 % of the time goes; a draft that holds pays for itself, so while drafts hold
//! again, trying goes on, and drafting is soon back.

use super::costs::{Affine, Costs, Mean, PassTimes};
use super::rate::Survival;
use super::runs::Runs;
use super::verifier::Counted;

/// The part of the time that trying may cost.
const PURSE: f64 = 0.015;
/// The purse holds so many plain passes at most, and at first.
const PURSE_PASSES: f64 = 2.0;
/// A length must promise so much more than plain decoding.
const BETTER: f64 = 1.02;

#[derive(Clone)]
pub struct Turns {
    runs: Runs,
    draft: Mean,
    pass: PassTimes,
    /// The most tokens to draft.
    most: usize,
    purse_s: f64,
    counted: Counted,
}

impl Turns {
    /// Starts from guesses: of costs (the round trip does not matter), and of an acceptance of 0.7, which weighs as much as four
    /// verdicts. Drafts up to `most` tokens, at most 64.
    pub fn new(draft_s: f64, verify: Affine, most: usize) -> Self {
        Self {
            runs: Runs::new(0.7, 4.0),
            draft: Mean::new(draft_s),
            pass: PassTimes::new(verify),
            most: most.min(64),
            purse_s: PURSE_PASSES * verify.at(0),
            counted: Counted::default(),
        }
    }

    /// For the next answer of the same models: costs as they were, the acceptance as a guess.
    pub fn next_answer(&self) -> Self {
        let Costs { draft_s, verify, .. } = self.costs();
        Self { runs: self.runs.fading(8.0), ..Self::new(draft_s, verify, self.most) }
    }

    /// So many tokens to draft for the next pass.
    pub fn next(&self) -> usize {
        let (best, _) = self.best();
        if best > 0 || self.most == 0 {
            return best;
        }
        let costs = self.costs();
        usize::from(self.affords(costs.draft_s + costs.verify.at(1) - costs.verify.at(0)))
    }

    /// May trying cost so much more than plain decoding now?
    pub(super) fn affords(&self, loss_s: f64) -> bool {
        self.purse_s >= loss_s
    }

    /// The best length, and the tokens per second that it promises.
    pub fn best(&self) -> (usize, f64) {
        best_length(&self.runs, &self.costs(), self.most)
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// A step drafted so many tokens, of which so many held, and took so long for each part, in seconds.
    pub fn hear(&mut self, drafted: usize, accepted: usize, draft_s: f64, verify_s: f64) {
        self.account(drafted, accepted, draft_s, verify_s);
        if drafted > 0 {
            self.draft.hear(draft_s / drafted as f64);
            judge(&mut self.runs, drafted, accepted);
        }
    }

    /// What is true of a step whoever drafted.
    pub(super) fn account(&mut self, drafted: usize, accepted: usize, draft_s: f64, verify_s: f64) {
        let accepted = accepted.min(drafted);
        let plain_s = self.pass.fit().fixed_s;
        self.pass.hear(drafted, verify_s);
        self.purse_s += PURSE * (draft_s + verify_s);
        if drafted > 0 {
            self.purse_s += (accepted + 1) as f64 * plain_s - draft_s - verify_s;
        }
        // Neither a debt nor a fortune: both would outlive the text that they come from.
        self.purse_s = self.purse_s.clamp(-PURSE_PASSES * plain_s, PURSE_PASSES * plain_s);
        self.counted.tokens += accepted as u64 + 1;
        self.counted.passes += 1;
        self.counted.drafted += drafted as u64;
        self.counted.accepted += accepted as u64;
    }

    pub fn costs(&self) -> Costs {
        Costs { draft_s: self.draft.get(), verify: self.pass.fit(), round_trip_s: 0.0 }
    }

    /// The chance that a drafted token holds.
    pub fn acceptance(&self) -> f64 {
        self.runs.acceptance()
    }

    /// What was drafted and saved, whether or not it was faster.
    pub fn counted(&self) -> Counted {
        self.counted
    }
}

/// The length of most tokens per second among 0 to `most`, and how many that are; 0 if none is clearly better.
pub(super) fn best_length(runs: &Runs, costs: &Costs, most: usize) -> (usize, f64) {
    let survival = Survival::of(runs);
    let plain = 1.0 / costs.verify.at(0);
    let rates = (1..=most).map(|drafted| (drafted, survival.rate_rounds(drafted, costs)));
    let best = rates.fold((0, plain), |best, rate| if rate.1 > best.1 { rate } else { best });
    if best.1 > plain * BETTER { best } else { (0, plain) }
}

/// The verdict over a round of drafts.
pub(super) fn judge(runs: &mut Runs, drafted: usize, accepted: usize) {
    (0..accepted.min(drafted)).for_each(|_| runs.hear(true));
    if accepted < drafted { runs.hear(false) } else { runs.pause() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Noise;

    /// Seconds for `tokens` of a text, drafted as `next` says.
    fn seconds(
        acceptance: impl Fn(u64) -> f64,
        seed: u64,
        (draft_s, verify): (f64, Affine),
        tokens: std::ops::Range<u64>,
        mut turn: impl FnMut(Option<(usize, usize, f64, f64)>) -> usize,
    ) -> f64 {
        let (mut at, mut sum_s) = (tokens.start, 0.0);
        let mut drafted = turn(None);
        while at < tokens.end {
            let held = |index: &u64| Noise::new(seed, at + index).uniform(0) < acceptance(at + index);
            let accepted = (0..drafted as u64).take_while(held).count();
            let (drafting_s, verify_s) = (drafted as f64 * draft_s, verify.at(drafted));
            sum_s += drafting_s + verify_s;
            at += accepted as u64 + 1;
            drafted = turn(Some((drafted, accepted, drafting_s, verify_s)));
        }
        sum_s
    }

    fn learning(turns: &mut Turns) -> impl FnMut(Option<(usize, usize, f64, f64)>) -> usize {
        |heard| {
            if let Some((drafted, accepted, draft_s, verify_s)) = heard {
                turns.hear(drafted, accepted, draft_s, verify_s);
            }
            turns.next()
        }
    }

    /// 256 tokens from the start, guesses half too high, against the best length for the text: the mean over 40 texts is within
    /// 5 %, whether drafting pays or not.
    #[test]
    fn it_is_nearly_as_fast_as_the_best_length() {
        for (draft_ms, pass_ms, token_ms) in [(10.0, 30.0, 3.0), (10.0, 30.0, 12.0), (4.0, 40.0, 1.0)] {
            for alpha in [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97] {
                let truth = (draft_ms * 1e-3, Affine { fixed_s: pass_ms * 1e-3, per_token_s: token_ms * 1e-3 });
                let mean = |run: &dyn Fn(u64) -> f64| (0..40).map(run).sum::<f64>() / 40.0;
                let fixed = |k: usize| mean(&|seed| seconds(|_| alpha, seed, truth, 0..256, |_| k));
                let best = (0..=16).map(fixed).fold(f64::INFINITY, f64::min);
                let own = mean(&|seed| {
                    let verify = Affine { fixed_s: truth.1.fixed_s * 1.5, per_token_s: truth.1.per_token_s * 1.5 };
                    let mut turns = Turns::new(truth.0 * 1.5, verify, 16);
                    seconds(|_| alpha, seed, truth, 0..256, learning(&mut turns))
                });
                assert!(own < best * 1.05, "{draft_ms} {pass_ms}+{token_ms} alpha {alpha}: {own} against {best}");
            }
        }
    }

    /// Prose, then code: drafting is back within 128 tokens of it, and prose cost 3 % at most.
    #[test]
    fn it_stops_where_drafts_do_not_pay_and_comes_back() {
        let truth = (0.008, Affine { fixed_s: 0.030, per_token_s: 0.002 });
        let (mut prose_s, mut code_s) = (0.0, 0.0);
        for seed in 0..40 {
            let mut turns = Turns::new(truth.0, truth.1, 16);
            prose_s += seconds(|_| 0.2, seed, truth, 0..512, learning(&mut turns)) / 40.0;
            assert!(turns.best().0 < 2, "{:?}", turns.best());
            seconds(|_| 0.9, seed, truth, 512..640, learning(&mut turns));
            code_s += seconds(|_| 0.9, seed, truth, 640..896, learning(&mut turns)) / 40.0;
            assert!(turns.counted().passes_saved() > 80, "{:?}", turns.counted());
        }
        assert!(prose_s < 512.0 * 0.030 * 1.03, "{prose_s}");
        assert!(code_s < 256.0 * 0.030 / 1.35, "{code_s}");
    }
}
