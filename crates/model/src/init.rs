//! The weights that training begins from.
//!
//! Linear and convolution weights are uniform in `±gain * sqrt(3 / fan_in)`: gain sqrt(2) before a ReLU or GELU (He et al.
//! 2015), 1 otherwise (or as a spec's [`Initial`](crate::Initial) says); softmax regression begins at zero. Recurrent weights are uniform in `±1/sqrt(hidden)`, embeddings in
//! `±sqrt(3)` (variance 1). Biases are zero, an LSTM's forget gates one (Jozefowicz et al. 2015); norms begin as the identity.
//! One number of ChaCha8 per weight, in the order of the layout: a seed means the same weights on every machine.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Init {
    Zeros,
    Ones,
    /// Uniform in `-bound..bound`.
    Uniform {
        bound: f32,
    },
    /// Zeros, but ones in the second of four quarters.
    ForgetGate,
}

impl Init {
    /// Uniform with variance `gain_squared / inputs`.
    pub fn variance(inputs: usize, gain_squared: f32) -> Self {
        Self::Uniform { bound: (3.0 * gain_squared / inputs as f32).sqrt() }
    }

    fn fill(&self, values: &mut [f32], rng: &mut ChaCha8Rng) {
        match self {
            Self::Zeros => values.fill(0.0),
            Self::Ones => values.fill(1.0),
            Self::Uniform { bound } => {
                for value in values {
                    // 24 random bits: every step of 2^-23 from -1 up to, but without, 1.
                    let unit = (rng.next_u32() >> 8) as f32 * (1.0 / 8_388_608.0) - 1.0;
                    *value = unit * bound;
                }
            }
            Self::ForgetGate => {
                values.fill(0.0);
                let quarter = values.len() / 4;
                values[quarter..2 * quarter].fill(1.0);
            }
        }
    }
}

/// Fills segments of the given lengths one after another.
pub(crate) fn init(segments: impl Iterator<Item = (usize, Init)>, len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = vec![0.0; len];
    let mut rest = weights.as_mut_slice();
    for (len, init) in segments {
        let (segment, after) = rest.split_at_mut(len);
        init.fill(segment, &mut rng);
        rest = after;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_variance_and_the_seed_they_were_given() {
        let draw = |seed| init([(40_000, Init::variance(50, 2.0))].into_iter(), 40_000, seed);
        let weights = draw(4);
        let variance = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / 40_000.0;
        // The deviation of this estimate is 0.9 / sqrt(40,000) of it, 0.45 %; 2 % is four of those.
        assert!((variance - 0.04).abs() < 0.04 * 0.02, "variance {variance}");
        assert_eq!(weights, draw(4));
        assert_ne!(weights, draw(5));
        // Written down once: a change would make other runs of the same seed.
        assert_eq!(weights[..2].iter().map(|w| w.to_bits()).collect::<Vec<_>>(), [1_051_509_759, 1_042_319_820]);
    }

    #[test]
    fn a_forget_gate_begins_open() {
        assert_eq!(init([(8, Init::ForgetGate)].into_iter(), 8, 0), [0., 0., 1., 1., 0., 0., 0., 0.]);
    }
}
