//! DP-FTRL by matrix factorisation: noise that is correlated over rounds, so that sums of rounds get little of it.
//!
//! Prefix sums of rounds, A x with A the lower triangle of ones, are released as B (C x + z), A = B C: z is white, what a
//! sum gets is B z. C is Toeplitz with coefficients binom(2k, k) / 4^k, the square root of A (Fichtenberger, Henzinger and
//! Upadhyay 2023, "Constant matters"; Denisov et al. 2022, arXiv:2202.08312), cut after `bands` of them (Choquette-Choo et
//! al. 2023, "(Amplified) banded matrix factorization", arXiv:2306.08153): memory and sensitivity are then bounded.
//!
//! - Sensitivity: a record that takes part at most k times, any two of them at least `bands` rounds apart, touches columns of C that do
//!   not overlap, so ‖C Δ‖ is at most √k times a column's norm times the norm of one contribution (there, theorem 2). All k
//!   releases together are *one* Gaussian mechanism.
//! - Exactness: coefficients are multiples of 2^-20, or of a coarser grid, and rounds are whole numbers, so C x is on that grid, and z
//!   is discrete Gaussian noise on it. [`Decoder`] computes with floats, from what was released only: post-processing. On a coarse
//!   grid C is another matrix than the square root, hardly a worse one, and exactly the one that is accounted for.
//! - Who begins anew with empty memories has another mechanism, and both are composed.
//!
//! For a centre that sees the sums of rounds before they are noised; under masks nobody does, so this is not for masked sums.

use super::{DiscreteGaussian, NoiseError, Ratio};
use rand_core::CryptoRng;
use std::collections::VecDeque;
use thiserror::Error;

/// log2 of the steps in 1 of the finest grid.
pub const GRID_BITS_MAX: u32 = 20;

#[derive(Clone, Debug, PartialEq, Error)]
pub enum MatrixError {
    #[error("bands: 1 to 65536 expected, got {got}")]
    Bands { got: usize },
    #[error("a grid of 2^-1 to 2^-20 expected, got 2^-{got}")]
    Grid { got: u32 },
    #[error("a round of {expected} coordinates expected, got {got}")]
    Length { expected: usize, got: usize },
    #[error("a coordinate of a round is at most 2^33 in size, got {got}")]
    Size { got: i64 },
    #[error(transparent)]
    Noise(#[from] NoiseError),
}

/// The first column of C, in steps of the grid; its first is 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    coefficients: Vec<i64>,
    grid_bits: u32,
}

impl Matrix {
    /// The square root of the prefix sums with `bands` coefficients; as many as there are rounds leaves it whole.
    pub fn sqrt_toeplitz(bands: usize) -> Result<Self, MatrixError> {
        Self::on_grid(bands, GRID_BITS_MAX)
    }

    /// The same in steps of 2^-`grid_bits`, 1 to 20: the coarser, the larger a clip has room beside its noise.
    pub fn on_grid(bands: usize, grid_bits: u32) -> Result<Self, MatrixError> {
        if !(1..=1 << 16).contains(&bands) {
            return Err(MatrixError::Bands { got: bands });
        }
        if !(1..=GRID_BITS_MAX).contains(&grid_bits) {
            return Err(MatrixError::Grid { got: grid_bits });
        }
        let grid = (1u64 << grid_bits) as f64;
        Ok(Self { coefficients: coefficients(bands).map(|c| (c * grid).round() as i64).collect(), grid_bits })
    }

    pub fn bands(&self) -> usize {
        self.coefficients.len()
    }

    /// Steps of the grid in 1.
    pub fn grid(&self) -> f64 {
        (1u64 << self.grid_bits) as f64
    }

    fn coefficient(&self, c: i64) -> f64 {
        c as f64 / self.grid()
    }

    /// The L2 norm of a column: the sensitivity to a record of norm 1 that takes part once.
    pub fn column_norm(&self) -> f64 {
        self.coefficients.iter().map(|&c| self.coefficient(c).powi(2)).sum::<f64>().sqrt()
    }

    /// The sensitivity to a record of norm 1 that takes part at most so often, at least `bands` rounds apart.
    pub fn sensitivity(&self, participations: u32) -> f64 {
        f64::from(participations).sqrt() * self.column_norm()
    }

    /// The largest variance that a sum of the first rounds has, of `rounds`, for white noise of variance 1 in C x + z: the largest
    /// row of B, squared.
    pub fn max_prefix_variance(&self, rounds: usize) -> f64 {
        // B = A C^-1: its first column is the running sum of C^-1's, and its rows are made of that.
        let mut inverse: Vec<f64> = Vec::with_capacity(rounds);
        let (mut running, mut variance) = (0.0, 0.0);
        for t in 0..rounds {
            let past = self.coefficients.iter().skip(1).zip(inverse.iter().rev());
            let next = if t == 0 { 1.0 } else { -past.map(|(&c, y)| self.coefficient(c) * y).sum::<f64>() };
            inverse.push(next);
            running += next;
            variance += running * running;
        }
        variance
    }
}

/// binom(2k, k) / 4^k.
fn coefficients(n: usize) -> impl Iterator<Item = f64> {
    (0..n).scan(1.0, |c, k| {
        if k > 0 {
            *c *= (2 * k - 1) as f64 / (2 * k) as f64;
        }
        Some(*c)
    })
}

/// The releasing half: it keeps the last `bands - 1` rounds in the clear.
#[derive(Clone, Debug)]
pub struct Encoder {
    matrix: Matrix,
    noise: DiscreteGaussian,
    past: VecDeque<Vec<i64>>,
    len: usize,
}

impl Encoder {
    /// For rounds of `len` coordinates; `variance` is on the grid, as [`Matrix::variance`] has it.
    pub fn new(matrix: Matrix, variance: Ratio, len: usize) -> Result<Self, MatrixError> {
        Ok(Self { matrix, noise: DiscreteGaussian::new(variance)?, past: VecDeque::new(), len })
    }

    /// Goes on where another one stopped: with its last rounds, the newest first. More than it needs are left away.
    pub fn after(mut self, past: impl IntoIterator<Item = Vec<i64>>) -> Result<Self, MatrixError> {
        self.past = past.into_iter().take(self.matrix.bands() - 1).collect();
        match self.past.iter().find(|round| round.len() != self.len) {
            Some(round) => Err(MatrixError::Length { expected: self.len, got: round.len() }),
            None => Ok(self),
        }
    }

    /// The last rounds, the newest first, at most `bands - 1`: what [`Encoder::after`] needs. Not released.
    pub fn past(&self) -> impl Iterator<Item = &[i64]> {
        self.past.iter().take(self.matrix.bands() - 1).map(Vec::as_slice)
    }

    /// What is released for this round, in steps of the grid: its row of C x + z.
    pub fn release<R: CryptoRng>(&mut self, round: &[i64], rng: &mut R) -> Result<Vec<i64>, MatrixError> {
        if round.len() != self.len {
            return Err(MatrixError::Length { expected: self.len, got: round.len() });
        }
        // Coefficients add up to less than 2 √bands ≤ 2^9: 2^(33 + 20 + 9) is below 2^63, and the noise adds some 2^30 at most.
        if let Some(&got) = round.iter().find(|v| v.unsigned_abs() > 1 << 33) {
            return Err(MatrixError::Size { got });
        }
        if self.matrix.bands() > 1 {
            if self.past.len() == self.matrix.bands() {
                self.past.pop_back();
            }
            self.past.push_front(round.to_vec());
        }
        let mut out: Vec<i64> = round.iter().map(|&v| v << self.matrix.grid_bits).collect();
        for (&c, past) in self.matrix.coefficients.iter().zip(&self.past).skip(1) {
            out.iter_mut().zip(past).for_each(|(out, &v)| *out += c * v);
        }
        self.noise.add_to(&mut out, rng);
        Ok(out)
    }
}

/// The reading half: x̂ₜ = wₜ - Σ cⱼ x̂ₜ₋ⱼ, from releases only; it keeps the last `bands - 1` results.
#[derive(Clone, Debug)]
pub struct Decoder {
    matrix: Matrix,
    past: VecDeque<Vec<f64>>,
}

impl Decoder {
    pub fn new(matrix: Matrix) -> Self {
        Self { matrix, past: VecDeque::new() }
    }

    /// As [`Encoder::after`], with the last results. Results of another length are refused.
    pub fn after(mut self, past: impl IntoIterator<Item = Vec<f64>>, len: usize) -> Result<Self, MatrixError> {
        self.past = past.into_iter().take(self.matrix.bands() - 1).collect();
        match self.past.iter().find(|round| round.len() != len) {
            Some(round) => Err(MatrixError::Length { expected: len, got: round.len() }),
            None => Ok(self),
        }
    }

    /// As [`Encoder::past`]. It follows from what was released.
    pub fn past(&self) -> impl Iterator<Item = &[f64]> {
        self.past.iter().map(Vec::as_slice)
    }

    /// The round with its correlated noise.
    pub fn round(&mut self, released: &[i64]) -> Vec<f64> {
        let grid = self.matrix.grid();
        let mut out: Vec<f64> = released.iter().map(|&w| w as f64 / grid).collect();
        for (&c, past) in self.matrix.coefficients.iter().skip(1).zip(&self.past) {
            out.iter_mut().zip(past).for_each(|(out, v)| *out -= c as f64 / grid * v);
        }
        if self.matrix.bands() > 1 {
            if self.past.len() == self.matrix.bands() - 1 {
                self.past.pop_back();
            }
            self.past.push_front(out.clone());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn coefficients_and_prefix_variances_are_the_published_ones() {
        let first: Vec<f64> = coefficients(6).collect();
        assert_eq!(first, [1.0, 0.5, 0.375, 0.3125, 0.2734375, 0.24609375]);
        // The largest variance of a prefix sum at sensitivity 1.
        for (n, wanted) in [(128, 6.8126), (1024, 10.7096), (2048, 12.2026)] {
            let matrix = Matrix::sqrt_toeplitz(n).unwrap();
            let found = matrix.max_prefix_variance(n) * matrix.sensitivity(1).powi(2);
            // Four decimals are published; rounding coefficients to 2^-20 moves less.
            assert!((found - wanted).abs() < 1e-4, "{n}: {found}");
        }
        // One band is independent noise: a sum of n rounds has n times the variance.
        assert_eq!(Matrix::sqrt_toeplitz(1).unwrap().max_prefix_variance(128), 128.0);
        // Bands cost variance in sums and gain sensitivity over participations.
        let (banded, whole) = (Matrix::sqrt_toeplitz(16).unwrap(), Matrix::sqrt_toeplitz(128).unwrap());
        assert!(banded.max_prefix_variance(128) > whole.max_prefix_variance(128));
        assert_eq!(banded.sensitivity(4), 2.0 * banded.column_norm());
        assert!(Matrix::sqrt_toeplitz(0).is_err() && Matrix::on_grid(4, 0).is_err());
        // Half a hundredth more noise for a grid 4,096 times as coarse.
        let (fine, coarse) = (Matrix::sqrt_toeplitz(128).unwrap(), Matrix::on_grid(128, 8).unwrap());
        let noise = |m: &Matrix| m.max_prefix_variance(128) * m.sensitivity(1).powi(2);
        assert!(noise(&coarse) < noise(&fine) * 1.005, "{} {}", noise(&coarse), noise(&fine));
    }

    #[test]
    fn the_sensitivity_is_that_of_the_worst_record() {
        // A record of norm 1 in rounds 0, 5, 10 of twenty: ‖C Δ‖ by hand.
        let matrix = Matrix::sqrt_toeplitz(5).unwrap();
        let c: Vec<f64> = coefficients(5).collect();
        let row = |t: usize| [0, 5, 10].iter().filter_map(|&s| t.checked_sub(s).and_then(|k| c.get(k))).sum::<f64>();
        let norm = (0..20).map(|t| row(t).powi(2)).sum::<f64>().sqrt();
        assert!((matrix.sensitivity(3) - norm).abs() < 1e-6);
    }

    #[test]
    fn sums_of_rounds_have_the_noise_that_is_promised() {
        let (rounds, len) = (64, 4000);
        for (bands, grid_bits) in [(1, 20), (8, 20), (64, 20), (8, 6)] {
            let matrix = Matrix::on_grid(bands, grid_bits).unwrap();
            let variance = Ratio::at_least((3.0 * matrix.grid()).powi(2)).unwrap();
            let mut rng = ChaCha20Rng::seed_from_u64(bands as u64);
            for segment in 0..2 {
                let mut encoder = Encoder::new(matrix.clone(), variance, len).unwrap();
                let mut decoder = Decoder::new(matrix.clone());
                let mut sum = vec![0.0; len];
                let mut truth = vec![0i64; len];
                for t in 0..rounds {
                    let round: Vec<i64> = (0..len as i64).map(|i| (i * 7 + t as i64 * 13) % 101 - 50).collect();
                    // Whoever stops in between goes on from what was kept.
                    let (rounds, results): (Vec<_>, Vec<_>) =
                        (encoder.past().map(<[i64]>::to_vec).collect(), decoder.past().map(<[f64]>::to_vec).collect());
                    encoder = Encoder::new(matrix.clone(), variance, len).unwrap().after(rounds).unwrap();
                    decoder = Decoder::new(matrix.clone()).after(results, len).unwrap();
                    let released = encoder.release(&round, &mut rng).unwrap();
                    sum.iter_mut().zip(decoder.round(&released)).for_each(|(sum, v)| *sum += v);
                    truth.iter_mut().zip(&round).for_each(|(sum, v)| *sum += v);
                }
                let error: f64 = sum.iter().zip(&truth).map(|(a, &b)| (a - b as f64).powi(2)).sum::<f64>() / len as f64;
                let wanted = 9.0 * matrix.max_prefix_variance(rounds);
                // 4000 samples of a variance: a relative error of √(2/4000) = 2.2 %; five of them.
                assert!((error / wanted - 1.0).abs() < 0.11, "{bands} {segment}: {error} {wanted}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let matrix = Matrix::sqrt_toeplitz(4).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut encoder = Encoder::new(matrix.clone(), Ratio::at_least(100.0).unwrap(), 2).unwrap();
        assert_eq!(encoder.release(&[1], &mut rng), Err(MatrixError::Length { expected: 2, got: 1 }));
        assert_eq!(encoder.release(&[1, i64::MIN], &mut rng), Err(MatrixError::Size { got: i64::MIN }));
        let other = encoder.clone().after([vec![1]]).map(|_| ());
        assert_eq!(other, Err(MatrixError::Length { expected: 2, got: 1 }));
    }
}
