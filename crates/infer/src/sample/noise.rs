//! Noise that is a function of (seed, position, token id).
//!
//! Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a counter goes in, four words
//! come out, and no state lies between two calls. It passes BigCrush and takes a few nanoseconds; that it is no cipher
//! does not matter here, since whoever may see the noise of a request may see its seed.

use littoral_tensor::ln;

/// What noise is for: that of two purposes is independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The sampler's own draw.
    Sample = 0,
    /// The draw of a token that is declared with its distribution (`speculate::accept`).
    Draft = 1,
    /// Whether such a token holds.
    Accept = 2,
    /// The draw of what stands in its place.
    Residual = 3,
}

/// The noise of one position of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    seed: u64,
    position: u64,
    purpose: Purpose,
}

impl Noise {
    pub fn new(seed: u64, position: u64) -> Self {
        Self::for_purpose(seed, position, Purpose::Sample)
    }

    pub fn for_purpose(seed: u64, position: u64, purpose: Purpose) -> Self {
        Self { seed, position, purpose }
    }

    /// Uniform between 0 and 1, both excluded, on the odd multiples of 2^-53: it and 1 minus it are exact.
    pub fn uniform(&self, id: u32) -> f64 {
        self.pair(id / 2)[id as usize % 2]
    }

    /// Exponential with mean 1: token v wins a draw if `exponential(v) / p(v)` is the least.
    pub fn exponential(&self, id: u32) -> f64 {
        -ln(self.uniform(id))
    }

    /// Standard Gumbel, the same noise in another form: token v wins if `ln p(v) + gumbel(v)` is the greatest.
    pub fn gumbel(&self, id: u32) -> f64 {
        -ln(self.exponential(id))
    }

    /// The uniforms of tokens `2 index` and `2 index + 1`: one block of the generator serves two.
    #[inline(always)]
    pub(super) fn pair(&self, index: u32) -> [f64; 2] {
        let counter = [index, self.purpose as u32, self.position as u32, (self.position >> 32) as u32];
        let [a, b, c, d] = philox(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        [unit(a, b), unit(c, d)]
    }
}

/// The upper 52 bits, moved by half a step away from 0.
#[inline(always)]
fn unit(low: u32, high: u32) -> f64 {
    // The exponent of 1.0 over 52 random bits is uniform in 1..2.
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 12;
    (f64::from_bits(0x3ff0_0000_0000_0000 | bits) - 1.0) + 1.110_223_024_625_156_5e-16
}

#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let first = u64::from(a) * 0xd251_1f53;
        let second = u64::from(c) * 0xcd9e_8d57;
        counter = [(second >> 32) as u32 ^ b ^ key[0], second as u32, (first >> 32) as u32 ^ d ^ key[1], first as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of Random123, philox4x32 with 10 rounds.
    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniforms_exclude_both_ends() {
        assert_eq!(unit(0, 0), 2f64.powi(-53));
        assert_eq!(1.0 - unit(!0, !0), 2f64.powi(-53));
    }

    #[test]
    fn every_bit_of_seed_position_and_id_matters() {
        let at = |seed, position, id| Noise::new(seed, position).uniform(id).to_bits();
        let one_bit = (0..64).flat_map(|bit| [at(1 << bit, 0, 0), at(0, 1 << bit, 0)]);
        let all: Vec<u64> = one_bit.chain((0..32).map(|bit| at(0, 0, 1 << bit))).chain([at(0, 0, 0)]).collect();
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }

    /// Mean and variance of the standard Gumbel are Euler's constant and pi^2 / 6. 200 000 draws: the standard errors are
    /// 0.0029 and 0.0079 (its kurtosis is 5.4), and the bounds are five of them.
    #[test]
    fn gumbel_has_its_mean_and_variance() {
        let draws: Vec<f64> = (0..200).flat_map(|t| (0..1000).map(move |id| Noise::new(3, t).gumbel(id))).collect();
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let variance = draws.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / n;
        assert!((mean - 0.577_215_66).abs() < 0.0145, "{mean}");
        assert!((variance - std::f64::consts::PI.powi(2) / 6.0).abs() < 0.04, "{variance}");
    }
}
