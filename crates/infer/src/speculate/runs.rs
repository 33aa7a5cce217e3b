//! How long drafts hold: measured for each position of a round, since a draft that held three times is a better guesser than one
//! that begins.
//!
//! Of each position in a round, its *depth*, we count how often drafts got there and how often they held. Rounds of all lengths
//! teach about the same depths, and a round that ended unrefuted (censored, in the words of Kaplan and Meier 1958) about those it
//! reached. Where little was seen the estimate leans on all depths together.
//!
//! Old verdicts fade. Where the last ones are so far from what was foretold that they can hardly be of one text with those
//! before, the older are forgotten at once: a generalised likelihood ratio (Willsky and Jones 1976).

use littoral_tensor::ln;
use std::collections::VecDeque;

/// Depths that are told apart; deeper ones count as the last.
const DEPTHS: usize = 12;
/// What a verdict weighs after the next: 512 count.
const KEPT: f64 = 1.0 - 1.0 / 512.0;
/// Verdicts that the estimate of all depths together counts for at each.
const LEAN: f64 = 12.0;
/// Verdicts that may be compared with the ones before.
const RECENT: usize = 24;
/// Log-likelihood by which a rate of their own must explain the last verdicts better than what was foretold.
const CHANGED: f64 = 7.0;
/// With fewer verdicts nothing was foretold.
const KNOWN: f64 = 12.0;

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    tried: f64,
    held: f64,
}

impl Tally {
    fn hear(&mut self, held: bool) {
        self.tried += 1.0;
        self.held += f64::from(u8::from(held));
    }

    /// Log-likelihood of it all at its own best rate.
    fn likelihood(&self) -> f64 {
        let term = |count: f64| if count > 0.0 { count * ln(count / self.tried) } else { 0.0 };
        term(self.held) + term(self.tried - self.held)
    }
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    depth: usize,
    held: bool,
    /// The logarithm of its chance, as foretold.
    foretold: f64,
}

/// Verdicts over drafted tokens, and what they foretell.
#[derive(Clone, Debug)]
pub struct Runs {
    guess: Tally,
    all: Tally,
    depths: [Tally; DEPTHS],
    /// The newest first.
    recent: VecDeque<Heard>,
    depth: usize,
}

impl Runs {
    /// Begins with a guess of the acceptance, between 0 and 1, that weighs as much as `weight` verdicts.
    pub fn new(acceptance: f64, weight: f64) -> Self {
        Self {
            guess: Tally { tried: weight, held: weight * acceptance },
            all: Tally::default(),
            depths: [Tally::default(); DEPTHS],
            recent: VecDeque::new(),
            depth: 0,
        }
    }

    /// A drafted token held, or not; after one that did not a new round begins.
    pub fn hear(&mut self, held: bool) {
        let chance = self.acceptance_at(self.depth).clamp(0.01, 0.99);
        let foretold = ln(if held { chance } else { 1.0 - chance });
        [&mut self.all].into_iter().chain(&mut self.depths).for_each(|tally| {
            tally.tried *= KEPT;
            tally.held *= KEPT;
        });
        self.count(self.depth, held);
        self.recent.push_front(Heard { depth: self.depth, held, foretold });
        self.recent.truncate(RECENT);
        self.depth = if held { self.depth + 1 } else { 0 };
        if let Some(newest) = self.changed_before() {
            self.recent.truncate(newest);
            self.all = Tally::default();
            self.depths = [Tally::default(); DEPTHS];
            for Heard { depth, held, .. } in self.recent.clone() {
                self.count(depth, held);
            }
        }
    }

    /// A token came that nobody had drafted: a new round begins.
    pub fn pause(&mut self) {
        self.depth = 0;
    }

    fn count(&mut self, depth: usize, held: bool) {
        self.all.hear(held);
        self.depths[depth.min(DEPTHS - 1)].hear(held);
    }

    /// After how many of the newest verdicts the text seems to have changed.
    fn changed_before(&self) -> Option<usize> {
        let (mut new, mut foretold) = (Tally::default(), 0.0);
        let mut best = (CHANGED, None);
        for (index, heard) in self.recent.iter().enumerate() {
            new.hear(heard.held);
            foretold += heard.foretold;
            let apart = new.likelihood() - foretold;
            if index >= 2 && self.all.tried - new.tried >= KNOWN && apart > best.0 {
                best = (apart, Some(index + 1));
            }
        }
        best.1
    }

    /// Verdicts that count, the guess aside.
    pub fn seen(&self) -> f64 {
        self.all.tried
    }

    /// Verdicts that count, the guess for as many as it weighs.
    pub fn known(&self) -> f64 {
        self.all.tried + self.guess.tried
    }

    /// The chance that a drafted token holds, over all depths.
    pub fn acceptance(&self) -> f64 {
        (self.all.held + self.guess.held) / (self.all.tried + self.guess.tried)
    }

    /// The chance that the token at a depth holds if those before it did.
    pub fn acceptance_at(&self, depth: usize) -> f64 {
        let own = &self.depths[depth.min(DEPTHS - 1)];
        (own.held + LEAN * self.acceptance()) / (own.tried + LEAN)
    }

    /// What is learnt as a guess for the next text, which may be another.
    pub fn fading(&self, weight: f64) -> Self {
        Self::new(self.acceptance(), weight.min(self.all.tried + self.guess.tried))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Noise;

    fn hear(runs: &mut Runs, seed: u64, tokens: u64, acceptance: impl Fn(usize) -> f64) {
        for position in 0..tokens {
            runs.hear(Noise::new(seed, position).uniform(0) < acceptance(runs.depth));
        }
    }

    /// The means over 40 texts. Estimates lean on all depths together, which is 0.9 here, the more the shorter ago something
    /// looked like a change: five misses in a row do, and here they are no rarity. So it is 0.74 and 0.88; depths that were not
    /// told apart would give 10/11 for both.
    #[test]
    fn each_depth_has_its_own_acceptance() {
        let truth = |depth: usize| if depth == 0 { 0.5 } else { 0.95 };
        let (mut first, mut fourth) = (0.0, 0.0);
        for seed in 0..40 {
            let mut runs = Runs::new(0.7, 4.0);
            hear(&mut runs, seed, 800, truth);
            first += runs.acceptance_at(0) / 40.0;
            fourth += runs.acceptance_at(3) / 40.0;
        }
        assert!(first < 0.75 && fourth > 0.86, "{first} {fourth}");
    }

    #[test]
    fn a_change_is_noticed_within_fourteen_tokens_and_chance_is_not() {
        let (mut late, mut wrong) = (0, 0.0);
        for seed in 0..200 {
            let mut runs = Runs::new(0.7, 4.0);
            hear(&mut runs, seed, 128, |_| 0.9);
            wrong += f64::from(u8::from(runs.seen() < 80.0));
            hear(&mut runs, seed + 1_000, 14, |_| 0.3);
            late += u32::from(runs.acceptance() > 0.6);
        }
        // 5 and 17 here, and two standard deviations of such counts more.
        assert!(late < 10, "{late} of 200 late");
        assert!(wrong < 26.0, "{wrong} of 200 alarms in 128 tokens of one text");
    }
}
