//! DP-FTRL: noise that is correlated over versions, so that models get little of it and no law of sampling is needed.
//!
//! Kairouz et al. 2021, "Practical and private (deep) learning without sampling or shuffling" (arXiv:2103.00039), with matrices
//! instead of trees (Denisov et al. 2022; Choquette-Choo et al. 2023): the mechanism and its proof are
//! [`littoral_privacy::noise::matrix`]'s. Here it meets a job: the cloud holds the sums and adds the noise; a device is part of at
//! most one of `bands` versions in a row, which the cloud sees to and each device insists on; after `restart_rounds` versions the
//! noise begins anew, and both stretches are composed.

use super::{DifferentialPrivacy, DpError, Noise, Summed, wrong};
use littoral_privacy::account::distributed::Release;
use littoral_privacy::noise::Ratio;
use littoral_privacy::noise::matrix::Matrix;

/// Bands that a job may have: what the cloud remembers of each is 16 bytes per parameter.
pub const BANDS_MAX: u32 = 1024;
/// log2 of the steps of the matrix's grid in 1: fine enough for 1,024 bands, coarse enough for fine updates beside the noise.
const GRID_BITS: u32 = 8;
/// σ that the exact sampler reaches, in steps of the grid, with room for what rounding adds to an update's norm.
const SIGMA_MAX: f64 = (1u64 << 25) as f64 / 1.2;

/// Noise with a memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Correlated {
    pub matrix: Matrix,
    /// σ² of the white noise, on the matrix's grid.
    pub variance: Ratio,
    /// Versions until it begins anew.
    pub segment: u64,
}

impl Correlated {
    /// Is this the first version of a stretch?
    pub fn begins(&self, version: u64) -> bool {
        version.is_multiple_of(self.segment)
    }
}

impl DifferentialPrivacy {
    /// Versions in a row of which a device is part of one at most.
    pub fn spacing(&self) -> u64 {
        self.bands.unwrap_or(1).max(1).into()
    }

    /// Versions in one stretch of correlated noise, and how often one device is part of it at most.
    pub fn stretch(&self, rounds: u64) -> (u64, u32) {
        let all = rounds.max(1);
        let versions = self.restart_rounds.unwrap_or(all).clamp(1, all);
        let times = versions.div_ceil(self.spacing().max(1));
        let times = if self.participations_max == 0 { times } else { times.min(self.participations_max) };
        (versions, times.min(u32::MAX.into()) as u32)
    }

    fn matrix(&self) -> Result<Matrix, DpError> {
        let expected = || format!("1 to {BANDS_MAX}, for dp-ftrl");
        let Some(bands) = self.bands else { return wrong("bands", expected(), "none") };
        if !(1..=BANDS_MAX).contains(&bands) {
            return wrong("bands", expected(), bands);
        }
        if self.restart_rounds == Some(0) {
            return wrong("restart_rounds", "1 or more", 0);
        }
        Matrix::on_grid(bands as usize, GRID_BITS).map_err(|e| DpError {
            field: "bands",
            expected: e.to_string(),
            got: bands.to_string(),
        })
    }

    /// Levels of a clip: as many as the sampler's reach leaves, a power of two.
    pub(super) fn ftrl_levels(&self, rounds: u64) -> Result<u32, DpError> {
        let matrix = self.matrix()?;
        let (_, times) = self.stretch(rounds);
        let most = SIGMA_MAX / (self.noise_multiplier * matrix.sensitivity(times) * matrix.grid());
        match most {
            most if most >= 256.0 => Ok(1 << most.log2().floor().min(20.0) as u32),
            _ => {
                let largest = self.noise_multiplier * most / 256.0;
                wrong(
                    "noise_multiplier",
                    format!("at most {largest:.1}, for so many participations"),
                    self.noise_multiplier,
                )
            }
        }
    }

    pub(super) fn ftrl(&self, Summed { len, l2, step }: Summed, rounds: u64) -> Result<Noise, DpError> {
        let matrix = self.matrix()?;
        let (segment, times) = self.stretch(rounds);
        let one = crate::seal::l2_after_rounding(l2, step, len) / step;
        // All versions of a stretch are one release, with so many coordinates.
        let dim = (len as u64).saturating_mul(segment);
        let release = Release::alone(self.noise_multiplier, one * matrix.sensitivity(times) * matrix.grid(), dim);
        let release =
            release.map_err(|e| DpError { field: "noise_multiplier", expected: e.expected, got: e.got.to_string() })?;
        let correlated = Correlated { matrix, variance: release.share_variance, segment };
        let levels = self.ftrl_levels(rounds)?;
        Ok(Noise { spec: self.clone(), release, levels, bit: None, sketch: None, correlated: Some(correlated) })
    }
}
