//! Log-probabilities under the model's own distribution, as OpenAI's `logprobs` reports them: before penalties,
//! temperature and filters.

use super::rank::{best, highest};
use littoral_tensor::ln;
use littoral_tensor::weights::{ONE, total_mass};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogProb {
    pub id: u32,
    pub logprob: f32,
}

/// One position's distribution.
#[derive(Clone, Copy, Debug)]
pub struct LogProbs<'a> {
    logits: &'a [f32],
    highest: f32,
    /// ln of the sum of e^(logit - highest).
    normaliser: f64,
}

impl<'a> LogProbs<'a> {
    /// One pass over the logits. Where none is finite, every log-probability is minus infinity.
    pub fn of(logits: &'a [f32]) -> Self {
        let highest = highest(logits);
        let normaliser = match highest.is_finite() {
            true => ln(total_mass(logits, highest) as f64 / ONE as f64),
            false => f64::INFINITY,
        };
        Self { logits, highest, normaliser }
    }

    /// Natural logarithm; minus infinity for an id beyond the vocabulary.
    pub fn get(&self, id: u32) -> f32 {
        match self.logits.get(id as usize) {
            Some(&logit) if logit > f32::NEG_INFINITY && self.highest.is_finite() => {
                (f64::from(logit) - f64::from(self.highest) - self.normaliser) as f32
            }
            _ => f32::NEG_INFINITY,
        }
    }

    /// 1 and the number of tokens that are more probable, or as probable and of a lower id.
    pub fn rank(&self, id: u32) -> usize {
        let own = self.logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let before = |(other, logit): &(usize, &f32)| **logit > own || (**logit == own && *other < id as usize);
        1 + self.logits.iter().enumerate().filter(before).count()
    }

    /// The `n` most probable tokens, the most probable first and the lower id first among equals.
    pub fn top(&self, n: usize) -> Vec<TokenLogProb> {
        let mut kept = Vec::new();
        if n > 0 {
            best(self.logits, n, &mut kept);
        }
        kept.iter().map(|s| TokenLogProb { id: s.id, logprob: self.get(s.id) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_of_a_known_distribution() {
        // ln of 1, 2, 4, 1 (over 8), moved by a constant that must not matter.
        let logits = [1f32, 2.0, 4.0, 1.0].map(|x| x.ln() + 50.0);
        let logprobs = LogProbs::of(&logits);
        let top = logprobs.top(3);
        assert_eq!(top.iter().map(|t| t.id).collect::<Vec<_>>(), [2, 1, 0]);
        for (t, p) in top.iter().zip([0.5f32, 0.25, 0.125]) {
            // Logits near 50 are themselves rounded to 2e-6.
            assert!((t.logprob - p.ln()).abs() < 8e-6, "{t:?}");
        }
        assert_eq!(logprobs.get(99), f32::NEG_INFINITY);
    }

    #[test]
    fn no_number_has_no_probability() {
        let logprobs = LogProbs::of(&[f32::NAN, f32::NEG_INFINITY]);
        assert_eq!(logprobs.get(0), f32::NEG_INFINITY);
        assert!(logprobs.top(5).is_empty());
    }
}
