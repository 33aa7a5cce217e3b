//! Drafting over a link: up to which round trip it is faster than a stream of the large model's own tokens.
//!
//! A stream pays the round trip once, drafting pays it each round. A round of γ drafts yields E(γ) = (1 - α^(γ+1)) / (1 - α)
//! tokens (Leviathan et al. 2023, for acceptances that are alike) and takes γ t_d + R + T_v(γ); the stream takes T for each. So
//! drafting gains while R is below R* = max over γ of E(γ) T - γ t_d - T_v(γ).

/// Drafts of a round that are considered.
const DRAFTS_MAX: u32 = 64;

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
    /// Expected tokens of a round.
    pub fn tokens(&self, drafts: u32) -> f64 {
        // The sum, not the closed form, which divides by 1 - α.
        let (mut sum, mut product) = (1.0, 1.0);
        for _ in 0..drafts {
            product *= self.acceptance;
            sum += product;
        }
        sum
    }

    /// R*; below 0 if drafting never gains. `None` if the measurements are none.
    pub fn break_even_ms(&self) -> Option<f64> {
        let times = [self.draft_ms, self.step_ms, self.verify_ms, self.verify_per_draft_ms];
        if !(0.0..=1.0).contains(&self.acceptance) || times.iter().any(|t| !(0.0..1e9).contains(t)) {
            return None;
        }
        let at = |drafts: u32| {
            let spent = f64::from(drafts) * (self.draft_ms + self.verify_per_draft_ms) + self.verify_ms;
            self.tokens(drafts) * self.step_ms - spent
        };
        (1..=DRAFTS_MAX).map(at).max_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// t_d = 8, T = 30, T_v = 30 + γ: worked out with exact fractions, rounded up to whole milliseconds.
    #[test]
    fn break_even_by_acceptance() {
        let of = |acceptance| Drafting {
            acceptance,
            draft_ms: 8.0,
            step_ms: 30.0,
            verify_ms: 30.0,
            verify_per_draft_ms: 1.0,
        };
        let found = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95].map(|a| of(a).break_even_ms().map(|ms| ms.ceil()));
        assert_eq!(found, [6.0, 11.0, 19.0, 36.0, 87.0, 188.0].map(Some));
        assert!((of(0.8).tokens(4) - (1.0 - 0.8f64.powi(5)) / 0.2).abs() < 1e-12);
        assert_eq!(of(1.0).tokens(4), 5.0);
        assert!(of(0.0).break_even_ms().is_some_and(|ms| ms < 0.0));
        assert_eq!([of(f64::NAN), of(1.1)].map(|wrong| wrong.break_even_ms()), [None, None]);
    }
}
