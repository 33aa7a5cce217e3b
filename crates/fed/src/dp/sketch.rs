//! A sketch of a device's rows ([`crate::drift`]) beside its update, in one noised release.
//!
//! ```text
//! device   appends h · s to its clipped update;  s: its histograms, ‖s‖ ≤ √H
//! cloud    has Σ h · s with the noise of all coordinates
//! ```
//!
//! Update and sketch together are never longer than √(C² + H h²), and all coordinates get noise of one σ, so that nothing of plan or
//! account changes. Only where the cloud adds the noise ([`DifferentialPrivacy::refuses_sketch`]). With σ = z √(C² + H h²) and noise of deviation ν on each bin of the mean of `target` devices, h = σ / (ν target),
//! so that
//!
//! ```text
//! σ = z C / √(1 − H (z / (ν target))²)
//! ```
//!
//! which is what the sketch costs the update.

use super::{DifferentialPrivacy, MechanismName};
use crate::drift::Layout;

/// How a sketch is appended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SketchNoise {
    /// h: how a device's histogram is sent, in units of the update.
    pub height: f32,
    /// Update and sketch together are never longer.
    pub l2: f32,
    /// Coordinates.
    pub bins: usize,
}

/// Room for the rounding of products to floats.
const MARGIN: f64 = 1e-6;

impl DifferentialPrivacy {
    /// Does noise of this kind have room for a sketch? Why not, if it has none.
    pub fn refuses_sketch(&self) -> Option<&'static str> {
        match self.mechanism {
            _ if self.adaptive_clip.is_some() => Some("adaptive_clip is appended where a sketch would be"),
            MechanismName::Central => None,
            // All devices' histograms are alike, and the rotation spreads what stands behind a model over few coordinates: their sum
            // would wrap around a ring that is made for updates.
            MechanismName::DistributedDiscreteGaussian
            | MechanismName::DistributedSkellam
            | MechanismName::DpFtrl
            | MechanismName::LocalDiscreteGaussian
            | MechanismName::ExampleGaussian => Some("only noise of the mechanism `central` has room for a sketch"),
        }
    }

    /// In sums that are divided by `target`, with noise of deviation `noise` on each bin of the mean device. `Err`: it must be more than
    /// this.
    pub fn sketch(&self, layout: &Layout, noise: f64, target: u32) -> Result<SketchNoise, f64> {
        let z = self.noise_multiplier * f64::from(self.vectors_changed());
        let (histograms, target) = (layout.histograms() as f64, f64::from(target));
        let part = histograms * (z / (noise * target)).powi(2);
        let least = z * histograms.sqrt() / target;
        if !(part < 1.0 && part.is_finite()) {
            return Err(least);
        }
        let clip = f64::from(self.clip as f32);
        let l2 = clip / (1.0 - part).sqrt();
        let height = z * l2 / (noise * target);
        let sketch =
            SketchNoise { height: height as f32, l2: ((l2 * (1.0 + MARGIN)) as f32).next_up(), bins: layout.bins() };
        match sketch.l2.is_finite() && sketch.height > 0.0 {
            true => Ok(sketch),
            false => Err(least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_on_bins_is_what_the_job_says_and_nothing_is_longer_than_accounted_for() {
        let dp: DifferentialPrivacy =
            toml::from_str("mechanism = \"central\"\nclip = 0.3\nnoise_multiplier = 1.2\nepsilon = 9.0").unwrap();
        let layout = Layout::new(vec![10, 8, 8, 8, 8]).unwrap();
        let sketch = dp.sketch(&layout, 0.05, 100).unwrap();
        // All in one bin is the longest a histogram can be.
        let longest = (f64::from(0.3f32).powi(2) + 5.0 * f64::from(sketch.height).powi(2)).sqrt();
        assert!(longest <= f64::from(sketch.l2) && longest * (1.0 + 3e-6) > f64::from(sketch.l2));
        let sigma = 1.2 * f64::from(sketch.l2);
        assert!((sigma / f64::from(sketch.height) / 100.0 - 0.05).abs() < 1e-6);
        // z √5 / 100.
        let least = dp.sketch(&layout, 0.0268, 100).unwrap_err();
        assert!((least - 0.026_832_8).abs() < 1e-6, "{least}");
        assert!(dp.sketch(&layout, 0.0269, 100).is_ok() && dp.sketch(&layout, f64::NAN, 100).is_err());
    }
}
