//! Draws that every machine makes alike.
//!
//! A seed is handed in; [`derive`] makes unrelated ones of it by purpose and number (BLAKE3's key derivation), [`Draws`] are
//! ChaCha8's words. Decisions are integer comparisons, so no rounding of a platform's library can turn one.
//!
//! Not for privacy: who knows the seed knows the draws. Noise draws its own, from secret entropy.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub type Seed = [u8; 32];

/// A seed for one purpose, unrelated to those for others.
pub fn derive(seed: &Seed, purpose: &str, number: u64) -> Seed {
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(&number.to_le_bytes());
    hasher.update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}

/// A stream of uniform words.
#[derive(Clone, Debug)]
pub struct Draws(ChaCha8Rng);

impl Draws {
    pub fn new(seed: &Seed) -> Self {
        Self(ChaCha8Rng::from_seed(*seed))
    }

    pub fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    pub fn wide(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// True with probability `part` / `whole`, to 2^-64; `part` ≤ `whole`, `whole` ≥ 1.
    pub fn chance(&mut self, part: u64, whole: u64) -> bool {
        (u128::from(self.wide()) * u128::from(whole)) >> 64 < u128::from(part)
    }

    /// Rounds a finite `value` of at least 0 down or up, so that the mean is the value: unbiased to 2^-32. Values of 2^31 and
    /// more stay at 2^31.
    pub fn round(&mut self, value: f64) -> u32 {
        // A product with a power of two is exact, and the cast cuts below 2^-32.
        let fixed = (value.min(2_147_483_648.0) * 4_294_967_296.0) as u64;
        (fixed >> 32) as u32 + u32::from(self.word() < fixed as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ChaCha8 with an all-zero key: the first words of its key stream as published (Strombergson's test vectors, TC1).
    #[test]
    fn the_stream_is_chacha8() {
        let mut draws = Draws::new(&[0; 32]);
        assert_eq!(draws.word().to_le_bytes(), [0x3e, 0x00, 0xef, 0x2f]);
        assert_eq!(draws.word().to_le_bytes(), [0x89, 0x5f, 0x40, 0xd6]);
    }

    #[test]
    fn rounding_has_the_value_as_its_mean() {
        let mut draws = Draws::new(&derive(&[1; 32], "test", 0));
        for value in [0.0, 0.25, 1.0, 2.75, 1e-3] {
            let mean = (0..40_000).map(|_| f64::from(draws.round(value))).sum::<f64>() / 40_000.0;
            // Five standard deviations of a mean of 40,000 draws of deviation 1/2 at most.
            assert!((mean - value).abs() <= 5.0 * 0.5 / 200.0, "{value}: {mean}");
        }
        assert_eq!(draws.round(3.0), 3, "whole numbers stay");
        assert_ne!(derive(&[1; 32], "test", 0), derive(&[1; 32], "test", 1));
    }
}
