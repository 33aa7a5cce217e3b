//! Seeded draws for splits and partitions: ChaCha8 with a key from (purpose, seed).
//!
//! The same on every machine, Gamma draws too: logarithm and cosine are `libm`'s, since the standard library's are the
//! platform's own and may differ in the last bit.

use libm::{cos, log};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A generator whose stream depends on both arguments: one seed gives unrelated draws for a split and a partition.
pub(super) fn seeded(purpose: &str, seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(blake3::derive_key(purpose, &seed.to_le_bytes()))
}

/// A uniform integer in `0..bound`; 0 if `bound` is 0.
pub(super) fn below(random: &mut impl Rng, bound: usize) -> usize {
    // Lemire's multiplication; words that would favour some results are drawn again.
    let bound = bound as u64;
    if bound == 0 {
        return 0;
    }
    let unfair = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(random.next_u64()) * u128::from(bound);
        if product as u64 >= unfair {
            return (product >> 64) as usize;
        }
    }
}

/// Fisher and Yates.
pub(super) fn shuffle<T>(random: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(random, last + 1));
    }
}

/// Uniform in (0, 1), 53 bits, never 0.
pub(super) fn unit(random: &mut impl Rng) -> f64 {
    ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Box and Muller.
pub(super) fn normal(random: &mut impl Rng) -> f64 {
    (-2.0 * log(unit(random))).sqrt() * cos(std::f64::consts::TAU * unit(random))
}

/// The logarithm of a Gamma(shape, 1) draw: Marsaglia and Tsang 2000, "A simple method for generating gamma variables".
/// The logarithm, since for a small shape the draw itself is often below the smallest f64.
pub(super) fn ln_gamma_draw(random: &mut impl Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        // Section 6 there: Gamma(a) = Gamma(a + 1) * U^(1/a).
        return ln_gamma_draw(random, shape + 1.0) + log(unit(random)) / shape;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let root = 1.0 + c * x;
        let v = root * root * root;
        if v > 0.0 && log(unit(random)) < 0.5 * x * x + d - d * v + d * log(v) {
            return log(d) + log(v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_has_its_mean_and_variance() {
        for shape in [0.1, 0.5, 1.0, 5.0] {
            let mut random = seeded("test", 1);
            let count = 200_000;
            let draws: Vec<f64> = (0..count).map(|_| ln_gamma_draw(&mut random, shape).exp()).collect();
            let mean = draws.iter().sum::<f64>() / f64::from(count);
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(count);
            // Mean and variance are both `shape`. Five standard errors: of the mean sqrt(shape / n), of the variance
            // sqrt((2 shape^2 + 6 shape) / n) from the fourth moment.
            let n = f64::from(count);
            assert!((mean - shape).abs() < 5.0 * (shape / n).sqrt(), "{shape}: mean {mean}");
            let error = ((2.0 * shape * shape + 6.0 * shape) / n).sqrt();
            assert!((variance - shape).abs() < 5.0 * error, "{shape}: variance {variance}");
        }
    }

    #[test]
    fn draws_below_a_bound_are_even() {
        let mut random = seeded("test", 2);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[below(&mut random, 6)] += 1;
        }
        // Standard deviation of each count: sqrt(60000 * 5 / 36) = 91; five of them.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 460), "{counts:?}");
        assert_eq!(below(&mut random, 0), 0);
    }
}
