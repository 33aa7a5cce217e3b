//! How long drafts hold: measured for each position of a round, since a draft that held three times is a better guesser than one
//! that begins.
//!
//! Of each position in a round, its *depth*, we count how often drafts got there and how often they held. Rounds of all lengths
//! teach about the same depths, and a round that ended unrefuted (censored, in the words of Kaplan and Meier 1958) about those it
//! reached. Where little was seen the estimate leans on all depths together.
//!
//! Old verdicts fade. Where the last ones fit the ones before so badly that both can hardly be one text, the older are forgotten
//! at once: a generalised likelihood ratio (Willsky and Jones 1976).

use littoral_tensor::ln;

/// Depths that are told apart; deeper ones count as the last.
const DEPTHS: usize = 12;
/// What a verdict weighs after the next: 512 count.
const KEPT: f64 = 1.0 - 1.0 / 512.0;
/// Verdicts that the estimate of all depths together counts for at each.
const LEAN: f64 = 12.0;
/// Verdicts that may be compared with the ones before.
const RECENT: usize = 24;
/// Log-likelihood by which two texts must explain verdicts better than one; a chance of 1 in 600 at each comparison.
const CHANGED: f64 = 5.0;

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

/// Verdicts over drafted tokens, and what they foretell.
#[derive(Clone, Debug)]
pub struct Runs {
    guess: Tally,
    all: Tally,
    depths: [Tally; DEPTHS],
    /// The latest verdicts with their depths, the newest first.
    recent: Vec<(usize, bool)>,
    depth: usize,
}

impl Runs {
    /// Begins with a guess of the acceptance, between 0 and 1, that weighs as much as `weight` verdicts.
    pub fn new(acceptance: f64, weight: f64) -> Self {
        Self {
            guess: Tally { tried: weight, held: weight * acceptance },
            all: Tally::default(),
            depths: [Tally::default(); DEPTHS],
            recent: Vec::new(),
            depth: 0,
        }
    }

    /// A drafted token held, or not; after one that did not a new round begins.
    pub fn hear(&mut self, held: bool) {
        [&mut self.all].into_iter().chain(&mut self.depths).for_each(|tally| {
            tally.tried *= KEPT;
            tally.held *= KEPT;
        });
        self.count(self.depth, held);
        self.recent.insert(0, (self.depth, held));
        self.recent.truncate(RECENT);
        self.depth = if held { self.depth + 1 } else { 0 };
        if let Some(newest) = self.changed_before() {
            self.recent.truncate(newest);
            self.all = Tally::default();
            self.depths = [Tally::default(); DEPTHS];
            for (depth, held) in self.recent.clone() {
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
        let together = self.all.likelihood();
        let mut new = Tally::default();
        let mut best = (CHANGED, None);
        for (index, &(_, held)) in self.recent.iter().enumerate() {
            new.hear(held);
            let old = Tally { tried: self.all.tried - new.tried, held: (self.all.held - new.held).max(0.0) };
            if index < 2 || old.tried < 8.0 {
                continue;
            }
            let old = Tally { held: old.held.min(old.tried), ..old };
            let apart = new.likelihood() + old.likelihood() - together;
            if apart > best.0 {
                best = (apart, Some(index + 1));
            }
        }
        best.1
    }

    /// Verdicts that count, the guess aside.
    pub fn seen(&self) -> f64 {
        self.all.tried
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

    /// 512 verdicts count, so the standard error is 0.022 at most; the lean costs 12 verdicts at each depth.
    #[test]
    fn each_depth_has_its_own_acceptance() {
        let truth = |depth: usize| if depth == 0 { 0.5 } else { 0.95 };
        let mut runs = Runs::new(0.7, 4.0);
        hear(&mut runs, 1, 2_000, truth);
        assert!((runs.acceptance_at(0) - 0.5).abs() < 0.2, "{}", runs.acceptance_at(0));
        assert!(runs.acceptance_at(3) > runs.acceptance_at(0) + 0.15, "{runs:?}");
    }

    #[test]
    fn a_change_is_noticed_within_twelve_tokens_and_chance_is_not() {
        let (mut late, mut wrong) = (0, 0.0);
        for seed in 0..200 {
            let mut runs = Runs::new(0.7, 4.0);
            hear(&mut runs, seed, 128, |_| 0.9);
            wrong += f64::from(u8::from(runs.seen() < 80.0));
            hear(&mut runs, seed + 1_000, 12, |_| 0.3);
            late += u32::from(runs.acceptance() > 0.6);
        }
        assert!(late < 20, "{late} of 200 late");
        assert!(wrong < 40.0, "{wrong} of 200 alarms in 128 tokens of one text");
    }
}
