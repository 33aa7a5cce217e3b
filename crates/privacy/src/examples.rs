//! Sums over a secret sample of examples, each example's vector clipped, with discrete Gaussian noise: the release of a step of
//! DP-SGD.
//!
//! Abadi et al. 2016, "Deep learning with differential privacy" (arXiv:1607.00133), algorithm 1, with the noise of Canonne,
//! Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy" (arXiv:2004.00010), on a grid:
//!
//! - Sample: each row by itself with probability q ([`sample`]); 64 random bits decide, and q is rounded down to them.
//! - Grid: the sum is rounded to the nearest multiples of a step. Adding or removing an example moves the sum by at most
//!   C (1 + μ), and rounding two vectors moves their difference by at most one step per coordinate: in steps, the L2
//!   sensitivity is Δ = C (1 + μ) / step + √d, rounded up to a whole number.
//! - Noise: N_ℤ(0, σ²) with σ ≥ z Δ on every coordinate, exactly sampled: Δ² / 2σ² ≤ 1 / 2z² concentrated (theorem 4), also of a
//!   vector. Scaling back to floats is post-processing.
//! - Account ([`Grid::loss`]): the Poisson-sampled Gaussian that the noise rounds ([`Release::near_gaussian`]), and where that is
//!   less, the Rényi divergence of the discrete one. Neighbours differ by one example that is there or not. The number of
//!   rows is in no figure: neither rate, number of steps nor divisor hang on it.
//!
//! μ is for what floats do before they come here. Let each example's vector be no longer than C, and the same whoever else is in
//! the sample; let vectors be summed in batches of up to 16, each of whose sums errs by at most P 2^-33 C (of a single one P 2^-41 C),
//! where P says how many products an example's vector is the sum of; and let the batches' sums be added in f64. Then those of two
//! neighbouring samples of up to n rows are off by at most n P 2^-36 C, and by n² 2^-52 C for the last sum: less than μ C for up to
//! [`rows_max`] rows.
//!
//! Not protected: all examples of a device together (a device with n examples has n times this; that is another statement), whether
//! it has more than [`rows_max`] of them, and how long a step takes, which tells of the sample's size.

use crate::account::distributed::{PlanError, Release};
use crate::account::{AccountError, Accountant, Composition, Loss, Mechanism, Method, Sampling};
use crate::noise::{DiscreteGaussian, NoiseError};
use rand_core::CryptoRng;
use thiserror::Error;

/// μ.
pub const MARGIN: f64 = 1.0 / 256.0;

/// The most rows that a sum may be drawn from, where an example's vector is a sum of up to `terms` products.
pub fn rows_max(terms: usize) -> usize {
    ((1 << 27) / terms.max(1)).min(1 << 20)
}

/// How a sum comes onto whole numbers, and with what noise.
#[derive(Clone, Debug)]
pub struct Grid {
    step: f64,
    /// In steps.
    release: Release,
    noise: DiscreteGaussian,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum GridError {
    #[error("{what}: {expected} expected, got {got}")]
    Range { what: &'static str, expected: &'static str, got: f64 },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Noise(#[from] NoiseError),
}

/// A sum that is not made of numbers, or too long for any sample.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error("coordinate {index} of a sum is {value}: a finite value of at most 2^40 times the clip expected")]
pub struct SumError {
    pub index: usize,
    pub value: f64,
}

impl Grid {
    /// For sums of vectors of `dim` coordinates and an L2 norm of at most `clip`; z is the noise's σ over the sensitivity. Δ is as
    /// large as the sampler's range allows, up to 4096 √d, where rounding costs 1/4096 of the noise.
    pub fn new(clip: f64, dim: usize, noise_multiplier: f64) -> Result<Self, GridError> {
        let range = |what, expected, got| Err(GridError::Range { what, expected, got });
        if !(1e-30..=1e30).contains(&clip) {
            return range("clip", "1e-30 to 1e30", clip);
        }
        if !(1e-3..=1e6).contains(&noise_multiplier) {
            return range("noise multiplier", "0.001 to 1000000", noise_multiplier);
        }
        let root = (dim as f64).sqrt();
        // σ² is at most 2^51: σ below 2^25.
        let most = (1u64 << 25) as f64 / noise_multiplier / 1.01 - root - 1.0;
        let steps = (4096.0 * root.max(1.0)).min(most).min((1u64 << 30) as f64);
        if !(dim > 0 && steps >= 16.0 * root) {
            return range(
                "coordinates",
                "1 to as many as the noise's range allows (fewer with more noise)",
                dim as f64,
            );
        }
        // A power of two, so that scaling is exact.
        let step = 2f64.powi((clip * (1.0 + MARGIN) / steps).log2().ceil() as i32);
        let sensitivity = (clip * (1.0 + MARGIN) / step + root).ceil();
        let release = Release::alone(noise_multiplier, sensitivity, dim as u64)?;
        Ok(Self { step, release, noise: DiscreteGaussian::new(release.share_variance)? })
    }

    /// The noise's σ, in the units of the vectors.
    pub fn sigma(&self) -> f64 {
        self.noise.variance().to_f64().sqrt() * self.step
    }

    /// What one release is to an account, but for sampling.
    pub fn law(&self) -> Release {
        self.release
    }

    /// `count` releases, each over a sample of the examples with rate `rate`.
    pub fn loss(&self, rate: f64, count: u64) -> Loss {
        Loss { mechanism: Mechanism::Distributed(self.release), sampling: Sampling::Poisson { rate }, count }
    }

    /// ε of [`loss`](Self::loss), under adding or removing one example.
    pub fn epsilon(&self, rate: f64, count: u64, delta: f64) -> Result<f64, AccountError> {
        let mut all = Composition::new();
        all.add(self.loss(rate, count))?;
        let by = |accountant| all.epsilon(delta, Method { accountant, ..Method::default() });
        // Noise that is next to nothing has Rényi bounds only.
        by(Accountant::Pld).or_else(|_| by(Accountant::Rdp))
    }

    /// Rounds the sum, adds the noise, and writes it into `out`, divided by `divisor`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn release<R: CryptoRng>(
        &self,
        sum: &[f64],
        divisor: f64,
        out: &mut [f32],
        rng: &mut R,
    ) -> Result<(), SumError> {
        assert_eq!(sum.len(), out.len(), "sum and what is released");
        let mut whole = [0i64; 1024];
        for (part, (sum, out)) in sum.chunks(whole.len()).zip(out.chunks_mut(whole.len())).enumerate() {
            let whole = &mut whole[..sum.len()];
            for (at, (whole, sum)) in whole.iter_mut().zip(sum).enumerate() {
                let steps = sum / self.step;
                // A clip is below 2^31 steps, so 2^40 of them are below 2^71; what is in a sum of examples is far below 2^62.
                let fits = steps.abs() < (1u64 << 62) as f64;
                if !fits {
                    return Err(SumError { index: part * 1024 + at, value: *sum });
                }
                *whole = steps.round_ties_even() as i64;
            }
            self.noise.add_to(whole, rng);
            for (out, whole) in out.iter_mut().zip(whole) {
                *out = (*whole as f64 * self.step / divisor) as f32;
            }
        }
        Ok(())
    }
}

/// A sample of the rows below `rows`, each by itself with probability `rate`, 0 to 1.
pub fn sample<R: CryptoRng>(rows: usize, rate: f64, rng: &mut R, mut take: impl FnMut(usize)) {
    if rate >= 1.0 {
        return (0..rows).for_each(take);
    }
    // Exact: a power of two times a float; a fraction is cut off.
    let below = (rate * 2f64.powi(64)) as u64;
    for row in 0..rows {
        if rng.next_u64() < below {
            take(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn the_account_is_a_sampled_gaussians() {
        // σ ≥ z Δ: what the Gaussian with the multiplier z costs, but for roundings of variances and losses.
        for (z, rate, count) in [(1.1, 0.01, 1000), (0.7, 0.1, 50), (4.0, 1.0, 100)] {
            let grid = Grid::new(0.5, 10_000, z).unwrap();
            let found = grid.epsilon(rate, count, 1e-5).unwrap();
            let mut gaussian = Composition::new();
            let mechanism = Mechanism::Gaussian { noise_multiplier: z };
            gaussian.add(Loss { mechanism, sampling: Sampling::Poisson { rate }, count }).unwrap();
            let wanted = gaussian.epsilon(1e-5, Method::default()).unwrap();
            assert!((found / wanted - 1.0).abs() < 1e-5, "{z} {rate} {count}: {found} {wanted}");
            // Not from thin air: Rényi figures of the discrete Gaussian itself are above, by what they are known to lose.
            let mut discrete = Composition::new();
            discrete.add(grid.loss(rate, count)).unwrap();
            let renyi = discrete.epsilon(1e-5, Method { accountant: Accountant::Rdp, ..Method::default() }).unwrap();
            assert!((1.0..1.5).contains(&(renyi / found)), "{z} {rate} {count}: {found} {renyi}");
        }
    }

    #[test]
    fn margins_hold_up_to_the_most_rows() {
        for terms in [1, 50, 784, 4096, 1 << 20] {
            let (rows, terms) = (rows_max(terms) as f64, terms as f64);
            let off = (rows + 16.0) * terms * 2f64.powi(-36) + rows * rows * 2f64.powi(-52);
            assert!(rows >= 128.0 && off < MARGIN, "{terms}: {rows} {off}");
        }
    }

    #[test]
    fn the_sensitivity_covers_two_roundings() {
        for (clip, dim, z) in [(1.0, 1, 1.0), (0.01, 7850, 0.5), (3.3, 1_000_000, 8.0), (1e-9, 1 << 20, 1.0)] {
            let grid = Grid::new(clip, dim, z).unwrap();
            let steps = grid.release.l2;
            assert!(steps >= clip * (1.0 + MARGIN) / grid.step + (dim as f64).sqrt());
            assert!(grid.noise.variance().to_f64() >= (z * steps).powi(2));
            // Margin and grid cost little noise.
            let lost = grid.sigma() / (z * clip) - 1.0;
            assert!((0.0..0.02).contains(&lost), "{clip} {dim} {z}: {lost}");
        }
        // Neighbours that a grid moves apart as far as it can: just below and above a half in every coordinate.
        let grid = Grid::new(1.0, 4, 1.0).unwrap();
        let at = |part: f64| (part * grid.step / grid.step).round_ties_even();
        assert_eq!(at(1.5 + 1e-9) - at(0.5 - 1e-9), 2.0);
    }

    #[test]
    fn what_is_released_is_the_sum_with_noise_of_that_deviation() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let grid = Grid::new(0.5, 20_000, 1.5).unwrap();
        let sum: Vec<f64> = (0..20_000).map(|i| f64::from(i).sin()).collect();
        let mut out = vec![0.0; sum.len()];
        grid.release(&sum, 10.0, &mut out, &mut rng).unwrap();
        let noise: Vec<f64> = out.iter().zip(&sum).map(|(out, sum)| f64::from(*out) * 10.0 - sum).collect();
        let variance = noise.iter().map(|n| n * n).sum::<f64>() / noise.len() as f64;
        let mean = noise.iter().sum::<f64>() / noise.len() as f64;
        // The variance of 20,000 draws is within 5 · √(2 / 20,000) of its law's; the mean within 5 σ / √20,000.
        assert!((variance / grid.sigma().powi(2) - 1.0).abs() < 0.05, "{variance}");
        assert!(mean.abs() < 5.0 * grid.sigma() / 20_000f64.sqrt(), "{mean}");
        assert!((0.75..0.77).contains(&grid.sigma()));
        let bad = grid.release(&[0.0, f64::NAN], 1.0, &mut [0.0; 2], &mut rng).unwrap_err();
        assert_eq!(bad.index, 1);
    }

    #[test]
    fn a_sample_has_its_rate() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        for (rate, least, most) in [(0.1, 9_500, 10_500), (1.0, 100_000, 100_000), (0.0, 0, 0)] {
            let mut taken = Vec::new();
            sample(100_000, rate, &mut rng, |row| taken.push(row));
            assert!((least..=most).contains(&taken.len()) && taken.is_sorted(), "{rate}: {}", taken.len());
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (clip, dim, z) in [(0.0, 1, 1.0), (f64::NAN, 1, 1.0), (1.0, 0, 1.0), (1.0, 1, 0.0), (1.0, 1 << 28, 1e3)] {
            assert!(Grid::new(clip, dim, z).is_err(), "{clip} {dim} {z}");
        }
    }
}
