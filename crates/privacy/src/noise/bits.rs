//! Random words in blocks, and the exact coins of rational bias.
//!
//! A real number U, uniform in [0, 1), is known by its first bits only; more are drawn when a comparison needs them (Knuth
//! and Yao 1976, "The complexity of nonuniform random number generation"). So "U < a / b" is decided exactly.

use rand_core::CryptoRng;

const BLOCK: usize = 128;

/// Words of a generator, a kilobyte at a time. What is left of a block when this is dropped is never used.
pub(super) struct Bits<'a, R: CryptoRng> {
    rng: &'a mut R,
    block: [u8; 8 * BLOCK],
    at: usize,
    /// How much of the block is filled: small where little will be drawn.
    filled: usize,
}

impl<'a, R: CryptoRng> Bits<'a, R> {
    /// For about `samples` samples.
    pub fn new(rng: &'a mut R, samples: usize) -> Self {
        let filled = samples.saturating_mul(4).clamp(4, BLOCK);
        Self { rng, block: [0; 8 * BLOCK], at: filled, filled }
    }

    #[inline]
    pub fn word(&mut self) -> u64 {
        if self.at == self.filled {
            self.rng.fill_bytes(&mut self.block[..8 * self.filled]);
            self.at = 0;
        }
        let mut word = [0; 8];
        word.copy_from_slice(&self.block[8 * self.at..8 * self.at + 8]);
        self.at += 1;
        u64::from_le_bytes(word)
    }

    /// Uniform in [0, n), n ≥ 1. Lemire 2019, "Fast random integer generation in an interval", algorithm 5: the high half
    /// of word · n, with those words refused that would make a value too frequent.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        let mut wide = u128::from(self.word()) * u128::from(n);
        if (wide as u64) < n {
            let surplus = n.wrapping_neg() % n;
            while (wide as u64) < surplus {
                wide = u128::from(self.word()) * u128::from(n);
            }
        }
        (wide >> 64) as u64
    }

    /// True with probability a / b, b < 2^96: U's digits to base 2^32 against those of a / b, until they differ.
    pub fn coin(&mut self, a: u128, b: u128) -> bool {
        debug_assert!(b > 0 && b < 1 << 96);
        if a >= b {
            return true;
        }
        let mut rest = a;
        loop {
            let dividend = rest << 32;
            let (digit, drawn) = ((dividend / b) as u64, self.word() >> 32);
            if drawn != digit {
                return drawn < digit;
            }
            rest = dividend % b;
            if rest == 0 {
                return false;
            }
        }
    }
}
