//! Chance, all of it from one seed.
//!
//! Every purpose has a stream of its own, so that one more draw for one kind of fault shifts no other kind. Only
//! integers are drawn: no result depends on a machine's floating-point library.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// ChaCha8 under a key made of the seed and the purpose.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

/// 32 bytes that depend on the seed, the purpose and a number, for keys and such.
pub fn derive(seed: u64, purpose: &str, number: u64) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_derive_key("littoral sim 1");
    hash.update(&seed.to_le_bytes());
    hash.update(&number.to_le_bytes());
    hash.update(purpose.as_bytes());
    *hash.finalize().as_bytes()
}

impl Stream {
    pub fn new(seed: u64, purpose: &str) -> Self {
        #[cfg(feature = "broken-same-seed")]
        let seed = seed ^ std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), purpose);
        Self(ChaCha8Rng::from_seed(derive(seed, purpose, 0)))
    }

    /// Uniform below `end`; 0 if `end` is 0. The bias of the multiplication, below 2^-32 for the ends used here, does
    /// not matter.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// True with probability `p`. Draws nothing if that is certain either way.
    pub fn chance(&mut self, p: f64) -> bool {
        if p <= 0.0 {
            return false;
        }
        p >= 1.0 || f64::from(self.0.next_u32()) < p * 4_294_967_296.0
    }

    /// A waiting time with this mean: uniform from 1 to twice the mean.
    pub fn around(&mut self, mean: u64) -> u64 {
        1 + self.below(mean.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_apart_and_repeatable() {
        let draw = |seed, purpose| {
            let mut stream = Stream::new(seed, purpose);
            (stream.below(u64::MAX), stream.below(u64::MAX))
        };
        assert_eq!(draw(7, "loss"), draw(7, "loss"));
        assert_ne!(draw(7, "loss"), draw(7, "jitter"));
        assert_ne!(draw(7, "loss"), draw(8, "loss"));
    }

    #[test]
    fn chances_are_what_they_say() {
        let mut stream = Stream::new(1, "test");
        let hits = (0..100_000).filter(|_| stream.chance(0.3)).count();
        // Standard deviation 145; six of them.
        assert!((29_130..30_870).contains(&hits), "{hits}");
        assert!(!stream.chance(0.0) && stream.chance(1.0));
    }
}
