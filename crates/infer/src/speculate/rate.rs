//! Tokens per second of each way to make an answer.
//!
//! With an acceptance alpha that is the same everywhere these are closed forms (Leviathan et al. 2023, section 3; for drafting
//! ahead our own, checked against a simulation of events). [`Survival`] has the same for drafts of which each position was
//! measured, which is what a controller decides by.

use super::costs::{Affine, Costs};
use super::runs::Runs;
use littoral_wire::speculation::ROUND_TOKENS_MAX;

/// Tokens that a round of `drafted` tokens brings, the verifier's own included: (1 - alpha^(drafted+1)) / (1 - alpha).
pub fn tokens_per_round(alpha: f64, drafted: usize) -> f64 {
    (0..=drafted).map(|depth| alpha.powi(depth as i32)).sum()
}

/// The verifier goes on by itself; the way is paid once. 1 / verify(0).
pub fn rate_stream(verify: Affine) -> f64 {
    1.0 / verify.at(0)
}

/// Draft, send, wait: tokens per round / (drafted draft_s + round_trip_s + verify(drafted)).
pub fn rate_sync(alpha: f64, drafted: usize, costs: &Costs) -> f64 {
    let round_s = drafted as f64 * costs.draft_s + costs.round_trip_s + costs.verify.at(drafted);
    tokens_per_round(alpha, drafted) / round_s
}

/// Draft without waiting, in blocks that are verified one after another; a refuted token costs the way back and a fresh start:
/// 1/(1-alpha) / (R + max(V, bD) / (1-alpha^b) + min(V, bD)), with R the round trip, V a pass over a block, D draft_s, and a
/// verifier that commits no token beyond a block. `alpha` below 1.
pub fn rate_continuous(alpha: f64, block: usize, costs: &Costs) -> f64 {
    let (draft_s, verify_s) = (block as f64 * costs.draft_s, costs.verify.at(block));
    let passes = 1.0 / (1.0 - alpha.powi(block as i32));
    let epoch_s = costs.round_trip_s + draft_s.max(verify_s) * passes + draft_s.min(verify_s);
    1.0 / (1.0 - alpha) / epoch_s
}

/// The longest round trip, in seconds, at which some length of rounds is as fast as a stream of tokens of `step_s` each;
/// negative if none is even at 0.
pub fn break_even(alpha: f64, draft_s: f64, step_s: f64, verify: Affine) -> f64 {
    let spare =
        |drafted: usize| tokens_per_round(alpha, drafted) * step_s - drafted as f64 * draft_s - verify.at(drafted);
    (1..=ROUND_TOKENS_MAX).map(spare).fold(f64::NEG_INFINITY, f64::max)
}

/// The chance that the first 1, 2, … drafts of a round hold.
#[derive(Clone, Debug)]
pub struct Survival([f64; Self::DEPTH]);

impl Survival {
    /// Beyond, drafts count as refuted: a text of 0.98 gets there once in 170 times.
    pub const DEPTH: usize = 256;

    pub fn of(runs: &Runs) -> Self {
        Self::of_each(|depth| runs.acceptance_at(depth))
    }

    /// Of drafts that hold with such a chance each, if those before it did; the first is 0.
    pub fn of_each(chance: impl Fn(usize) -> f64) -> Self {
        let mut alive = 1.0;
        Self(std::array::from_fn(|depth| {
            alive *= chance(depth);
            alive
        }))
    }

    pub fn constant(alpha: f64) -> Self {
        Self(std::array::from_fn(|depth| alpha.powi(depth as i32 + 1)))
    }

    /// The chance that the first `drafted` hold.
    pub fn of_first(&self, drafted: usize) -> f64 {
        match drafted.checked_sub(1) {
            None => 1.0,
            Some(last) => self.0.get(last).copied().unwrap_or(0.0),
        }
    }

    /// As [`tokens_per_round`].
    pub fn tokens(&self, drafted: usize) -> f64 {
        (0..=drafted).map(|depth| self.of_first(depth)).sum()
    }

    /// As [`rate_sync`].
    pub fn rate_rounds(&self, drafted: usize, costs: &Costs) -> f64 {
        let round_s = drafted as f64 * costs.draft_s + costs.round_trip_s + costs.verify.at(drafted);
        self.tokens(drafted) / round_s
    }

    /// As [`rate_continuous`], for two ends as ours. The verifier commits the token after a block too, so that a refuted token
    /// shows one position earlier, and a pass takes all blocks that have come. The news of a refuted token finds the draft model
    /// in the middle of a token, which it drafts to its end.
    pub fn rate_ahead(&self, block: usize, costs: &Costs) -> f64 {
        let block_s = block as f64 * costs.draft_s.max(1e-9);
        // Of an epoch whose drafts all hold: tokens committed by a pass, and when it ends.
        let (mut reach, mut end_s) = (0, 0.0);
        let mut epoch_s = costs.round_trip_s + costs.draft_s / 2.0;
        while reach < Self::DEPTH {
            // The blocks that are there, or the first that brings something new.
            let blocks = ((end_s / block_s) as usize).max(reach / block + 1);
            let begin_s = blocks as f64 * block_s;
            let tried = (blocks * block - reach).min(ROUND_TOKENS_MAX);
            let next_s = begin_s.max(end_s) + costs.verify.at(tried);
            // The epoch gets to this pass if everything so far held.
            epoch_s += self.of_first(reach) * (next_s - end_s);
            (reach, end_s) = (reach + tried + 1, next_s);
        }
        self.tokens(Self::DEPTH) / epoch_s
    }

    /// So many drafts, which took no time, sent at once, and the next when the verdict over these has come. The verifier waits for them;
    /// or, where it chooses `plain` tokens by itself until they are there, 1 or more, looks at those behind.
    pub fn rate_at_once(&self, drafted: usize, plain: usize, costs: &Costs) -> f64 {
        let way_s = if plain == 0 { costs.round_trip_s } else { plain as f64 * costs.verify.at(0) };
        let (mut tokens, mut seconds, mut reach) = (plain as f64, way_s, plain);
        while reach < drafted {
            let tried = (drafted - reach).min(ROUND_TOKENS_MAX);
            seconds += self.of_first(reach) * costs.verify.at(tried);
            tokens += (reach..=reach + tried).map(|depth| self.of_first(depth)).sum::<f64>();
            reach += tried + 1;
        }
        tokens / seconds
    }

    /// As [`rate_ahead`](Self::rate_ahead), with a verifier that chooses a token by itself when no draft for it has come.
    pub fn rate_along(&self, block: usize, costs: &Costs) -> f64 {
        let block_s = block as f64 * costs.draft_s.max(1e-9);
        // From the pass that refuted a token: the first block is there after the news has gone back, and the block has come.
        let first_s = costs.round_trip_s + costs.draft_s / 2.0;
        let (mut reach, mut end_s, mut epoch_s) = (0, 0.0f64, 0.0);
        while reach < Self::DEPTH {
            let drafted = ((end_s - first_s).max(0.0) / block_s) as usize * block;
            let tried = drafted.saturating_sub(reach).min(ROUND_TOKENS_MAX);
            let pass_s = costs.verify.at(tried);
            epoch_s += self.of_first(reach) * pass_s;
            (reach, end_s) = (reach + tried + 1, end_s + pass_s);
        }
        self.tokens(Self::DEPTH) / epoch_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Noise;

    const MS: f64 = 1e-3;

    fn costs(round_trip_ms: f64) -> Costs {
        let verify = Affine { fixed_s: 30.0 * MS, per_token_s: MS };
        Costs { draft_s: 8.0 * MS, verify, round_trip_s: round_trip_ms * MS }
    }

    fn near(got: f64, published: f64, digit: f64) {
        assert!((got - published).abs() <= digit / 2.0 + 1e-9, "{got}, published {published}");
    }

    /// Worked out with exact fractions, and rounded up to whole milliseconds where they are published; the first is whole, so
    /// that rounding of seconds could lift it.
    #[test]
    fn the_published_break_even_points() {
        let of = |alpha| (break_even(alpha, 8.0 * MS, 30.0 * MS, costs(0.0).verify) / MS - 1e-9).ceil();
        assert_eq!([0.5, 0.6, 0.7, 0.8, 0.9, 0.95].map(of), [6.0, 11.0, 19.0, 36.0, 87.0, 188.0]);
    }

    #[test]
    fn the_published_rates() {
        near(rate_continuous(0.8, 4, &costs(22.0)), 44.8, 0.1);
        near(rate_continuous(0.8, 4, &costs(50.0)), 35.8, 0.1);
        near(rate_stream(costs(0.0).verify), 33.3, 0.1);
        let best = (1..20).map(|drafted| rate_sync(0.8, drafted, &costs(50.0))).fold(0.0, f64::max);
        near(best, 29.5, 0.1);
        // As fast as streaming at 60 ms, and at 169 ms.
        for (alpha, round_trip_ms) in [(0.8, 60.0), (0.9, 169.0)] {
            near(rate_continuous(alpha, 4, &costs(round_trip_ms)) / rate_stream(costs(0.0).verify), 1.0, 0.01);
        }
    }

    #[test]
    fn measured_positions_of_one_acceptance_are_the_closed_form() {
        let survival = Survival::constant(0.8);
        for drafted in 0..20 {
            near(survival.tokens(drafted), tokens_per_round(0.8, drafted), 1e-9);
            near(survival.rate_rounds(drafted, &costs(22.0)), rate_sync(0.8, drafted, &costs(22.0)), 1e-9);
        }
        let free = Costs { draft_s: 0.0, ..costs(22.0) };
        near(survival.rate_at_once(16, 0, &free), survival.rate_rounds(16, &free), 1e-9);
        // One position earlier: never slower.
        assert!(survival.rate_ahead(4, &costs(22.0)) > rate_continuous(0.8, 4, &costs(22.0)));
    }

    /// Events of one epoch: block i is drafted at i b D, blocks are verified one after another, and the one with the refuted
    /// token ends the epoch; the news travels back. 200 000 epochs: the standard error is 0.3 %.
    #[test]
    fn drafting_ahead_is_what_its_events_say() {
        for (alpha, block, round_trip_ms) in [(0.8, 4, 22.0), (0.8, 4, 50.0), (0.6, 2, 100.0), (0.9, 8, 10.0)] {
            let costs = costs(round_trip_ms);
            let (mut tokens, mut seconds) = (0.0, 0.0);
            for epoch in 0..200_000u64 {
                let noise = Noise::new(5, epoch);
                let run = (0u32..).take_while(|&at| noise.uniform(at) < alpha).count();
                let mut free_s = 0.0;
                for index in 0..=run / block {
                    let drafted_s = (index + 1) as f64 * block as f64 * costs.draft_s;
                    free_s = drafted_s.max(free_s) + costs.verify.at(block);
                }
                tokens += run as f64 + 1.0;
                seconds += costs.round_trip_s + free_s;
            }
            let (simulated, formula) = (tokens / seconds, rate_continuous(alpha, block, &costs));
            assert!((simulated / formula - 1.0).abs() < 0.01, "{alpha} {block}: {simulated} against {formula}");
        }
    }
}
