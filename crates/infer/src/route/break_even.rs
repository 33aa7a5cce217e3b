//! Drafting over a link: up to which round trip it is faster than a stream of the large model's own tokens.
//!
//! A stream pays the round trip once, drafting pays it each round; [`rate`](crate::speculate::rate::break_even) has the formula. Here
//! are the measurements of a pair of models, in milliseconds.

use crate::speculate::costs::Affine;
use crate::speculate::rate::break_even;

/// What was measured of the two models; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drafting {
    /// The probability that a drafted token is accepted, 0 to 1.
    pub acceptance: f64,
    /// One token of the small model.
    pub draft_ms: f64,
    /// One token of the large model as it streams.
    pub step_ms: f64,
    /// The large model's pass over a round: this, and so much for each draft.
    pub verify_ms: f64,
    pub verify_per_draft_ms: f64,
}

impl Drafting {
    /// R*; below 0 if drafting never gains. `None` if the measurements are none.
    pub fn break_even_ms(&self) -> Option<f64> {
        let times = [self.draft_ms, self.step_ms, self.verify_ms, self.verify_per_draft_ms];
        if !(0.0..=1.0).contains(&self.acceptance) || times.iter().any(|t| !(0.0..1e9).contains(t)) {
            return None;
        }
        let [draft_s, step_s, fixed_s, per_token_s] = times.map(|ms| ms / 1e3);
        Some(break_even(self.acceptance, draft_s, step_s, Affine { fixed_s, per_token_s }) * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_and_what_is_none() {
        let of = |acceptance| Drafting {
            acceptance,
            draft_ms: 8.0,
            step_ms: 30.0,
            verify_ms: 40.0,
            verify_per_draft_ms: 1.0,
        };
        let near = |got: Option<f64>, ms: f64| assert!(got.is_some_and(|got| (got - ms).abs() < 1e-9), "{got:?}, {ms}");
        // One draft yields 1.5 tokens of 30 ms and takes 49; none yields one.
        near(of(0.5).break_even_ms(), -4.0);
        near(of(0.0).break_even_ms(), -19.0);
        // All of 64: 65 tokens, 64 drafts, one pass.
        near(of(1.0).break_even_ms(), 65.0 * 30.0 - 64.0 * 9.0 - 40.0);
        let slow = Drafting { step_ms: 1e9, ..of(0.5) };
        assert_eq!([of(f64::NAN), of(1.1), slow].map(|wrong| wrong.break_even_ms()), [None; 3]);
    }
}
