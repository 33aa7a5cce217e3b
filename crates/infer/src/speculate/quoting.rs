//! How long drafts from the text itself hold, which costs nothing to learn: of every token that is committed, drafted or not, the
//! text had foretold one or none.
//!
//! Matches are told apart by their length, in classes. A match of length L whose next token came again is a match of L + 1 at the
//! next position, so that the first d drafts hold with the product of the acceptances of L, L + 1, …

use super::rate::Survival;
use super::runs::Runs;

/// The shortest match of each class, and the acceptance to begin with: longer matches hold more often.
pub(super) const CLASSES: [(usize, f64); 6] = [(2, 0.35), (3, 0.5), (4, 0.6), (6, 0.7), (9, 0.8), (14, 0.85)];
/// Verdicts that the beginning weighs as much as.
pub(super) const GUESS: f64 = 4.0;

pub(super) fn class(length: usize) -> usize {
    CLASSES.iter().rposition(|(shortest, _)| *shortest <= length).unwrap_or(0)
}

/// How often what followed a match followed again, by the length of the match.
#[derive(Clone, Debug)]
pub struct Matches([Runs; CLASSES.len()]);

impl Default for Matches {
    fn default() -> Self {
        Self(CLASSES.map(|(_, acceptance)| Runs::new(acceptance, GUESS)))
    }
}

impl Matches {
    /// For the next answer: what was learnt as a guess.
    pub fn next_answer(&self) -> Self {
        Self(self.0.each_ref().map(|runs| runs.fading(2.0 * GUESS)))
    }

    /// The token after a match of this length came again, or another did.
    pub fn hear(&mut self, length: usize, held: bool) {
        let runs = &mut self.0[class(length)];
        runs.hear(held);
        // The next verdict is over a match of another length.
        runs.pause();
    }

    /// The chance that the token after a match of this length comes again.
    pub fn acceptance(&self, length: usize) -> f64 {
        self.0[class(length)].acceptance()
    }

    /// Of drafts from a match of this length.
    pub fn survival(&self, length: usize) -> Survival {
        let chances = self.0.each_ref().map(Runs::acceptance);
        Survival::of_each(|depth| chances[class(length + depth)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::lookup::Lookup;
    use super::*;
    use crate::sample::Noise;

    fn learnt(text: impl IntoIterator<Item = u32>) -> Matches {
        let (mut lookup, mut matches) = (Lookup::beside(&[]), Matches::default());
        for token in text {
            let verdict = lookup.follow(token);
            verdict.into_iter().for_each(|(length, held)| matches.hear(length, held));
        }
        matches
    }

    /// Nobody drafts: a text that repeats itself for ever, one of two letters at random, and one in which a passage of ten tokens
    /// comes again and again, followed by something else each time.
    #[test]
    fn every_text_teaches_how_long_its_matches_hold() {
        let period = learnt((0..600).map(|at| at % 7));
        assert!(period.acceptance(14) > 0.97, "{}", period.acceptance(14));
        let noise = learnt((0..600).map(|at| (Noise::new(1, at).uniform(0) * 2.0) as u32));
        assert!([4, 6, 9].iter().all(|&length| (noise.acceptance(length) - 0.5).abs() < 0.12), "{noise:?}");
        let quotes = learnt((0..1_200).map(|at| if at % 12 < 10 { at % 12 } else { 100 + at }));
        // Of lengths 9 and 10 one token is foretold, and the one after it is not.
        assert!(quotes.acceptance(3) > 0.9 && quotes.acceptance(6) > 0.9, "{quotes:?}");
        assert!((quotes.acceptance(9) - 0.5).abs() < 0.1, "{}", quotes.acceptance(9));
        // Longer ones were never seen: as guessed. And what was learnt goes on as a guess.
        assert!((quotes.acceptance(14) - 0.85).abs() < 1e-9);
        assert!((quotes.next_answer().acceptance(6) - quotes.acceptance(6)).abs() < 1e-9);
    }

    #[test]
    fn a_match_that_holds_becomes_a_longer_one() {
        let mut matches = Matches::default();
        (0..400).for_each(|_| matches.hear(2, false));
        (0..400).for_each(|_| matches.hear(3, true));
        let (two, three) = (matches.acceptance(2), matches.acceptance(3));
        assert!(two < 0.05 && three > 0.95);
        let survival = matches.survival(2);
        for (drafted, expected) in [(0, 1.0), (1, two), (2, two * three), (3, two * three * 0.6)] {
            assert!((survival.of_first(drafted) - expected).abs() < 1e-9, "{drafted}: {survival:?}");
        }
        assert!(matches.survival(3).of_first(1) > 0.95);
    }
}
