//! A clip that follows the updates: Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially private learning with adaptive
//! clipping" (arXiv:1905.03871), algorithm 1.
//!
//! ```text
//! device   clips to C_t; b = whether its update was no longer than C_t
//! cloud    C_(t+1) = C_t · exp(−η (b̄ − γ))      b̄: the noised share of devices with b = 1
//! ```
//!
//! so that C_t comes to the γ-quantile of norms. The bit is one more coordinate of the update, with its own noise, and both are
//! one release: devices scale what they clipped by C_0 / C_t, so that it is never longer than C_0 whatever C_t is, and append
//! the bit as ±h. Such a vector is no longer than √(C_0² + h²), and all its coordinates get noise of one σ. With h as here the
//! split is the paper's (theorem 1; [`split_noise`]): the update has noise of multiplier z_Δ, the sum of bits of σ_b, and
//! together they cost what one Gaussian of multiplier z does. Nothing of plan, ring or account changes with C_t.
//!
//! C_t is a function of noised sums, and released with each version.

use super::{DpError, wrong};
use littoral_privacy::account::split_noise;
use serde::{Deserialize, Serialize};

/// What a job says: `[differential_privacy.adaptive_clip]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveClip {
    /// γ: the share of devices whose updates shall not be longer than the clip, above 0 and below 1. Default a half.
    pub quantile: f64,
    /// η, above 0 and at most 2. Default 0.2.
    pub learning_rate: f64,
    /// σ_b, the noise on the sum of bits, over the cohort's target; above 0. Default 0.05.
    pub bit_noise: f64,
}

impl Default for AdaptiveClip {
    fn default() -> Self {
        Self { quantile: 0.5, learning_rate: 0.2, bit_noise: 0.05 }
    }
}

/// The numbers of a job's clip bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipBit {
    /// C_0: what a clipped update is scaled to, and the first clip.
    pub clip: f32,
    /// h: how the bit is sent.
    pub height: f32,
    /// Update and bit together are never longer.
    pub l2: f32,
    rule: AdaptiveClip,
}

/// The clip never leaves C_0 · 2^±20.
const REACH: f32 = 1_048_576.0;

impl AdaptiveClip {
    /// For noise whose σ is `noise_multiplier` times the norm of one device's vector, on sums of `target` devices.
    pub fn bit(&self, clip: f64, noise_multiplier: f64, target: u32) -> Result<ClipBit, DpError> {
        let Self { quantile, learning_rate, bit_noise } = *self;
        if !(quantile > 0.0 && quantile < 1.0) {
            return wrong("adaptive_clip.quantile", "above 0 and below 1", quantile);
        }
        if !(learning_rate > 0.0 && learning_rate <= 2.0) {
            return wrong("adaptive_clip.learning_rate", "above 0 and at most 2", learning_rate);
        }
        let alone = split_noise(noise_multiplier, bit_noise * f64::from(target));
        let Ok(alone) = alone else {
            let least = noise_multiplier / (2.0 * f64::from(target));
            return wrong(
                "adaptive_clip.bit_noise",
                format!("more than {least:.4}, since the noise on bits is a part of all noise"),
                bit_noise,
            );
        };
        let clip = clip as f32;
        // z √(C² + h²) = z_Δ C.
        let height = (f64::from(clip) * ((alone / noise_multiplier).powi(2) - 1.0).sqrt()) as f32;
        let l2 = (f64::from(clip).powi(2) + f64::from(height).powi(2)).sqrt() as f32;
        Ok(ClipBit { clip, height, l2: l2.next_up(), rule: *self })
    }
}

impl ClipBit {
    /// From a version's clip to the next one's. `sum`: of the bits as they were sent, ±h each, with noise; `devices`: what sums are
    /// divided by.
    pub fn next(&self, clip: f32, sum: f64, devices: f64) -> f32 {
        let share = (sum / (2.0 * f64::from(self.height) * devices) + 0.5).clamp(0.0, 1.0);
        let next = f64::from(clip) * libm::exp(-self.rule.learning_rate * (share - self.rule.quantile));
        (next as f32).clamp(self.clip / REACH, self.clip * REACH)
    }

    /// The clip in a version's own words, or why it cannot be one.
    pub fn check(&self, clip: f32) -> Result<f32, String> {
        let allowed = self.clip / REACH..=self.clip * REACH;
        match allowed.contains(&clip) {
            true => Ok(clip),
            false => Err(format!(
                "a clip of {:e} to {:e} expected, the version has {clip:e}",
                allowed.start(),
                allowed.end()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Norms from 1 to 100, all as likely: without noise the clip comes to the quantile.
    #[test]
    fn the_clip_comes_to_the_quantile() {
        for quantile in [0.2, 0.5, 0.9] {
            let rule = AdaptiveClip { quantile, ..AdaptiveClip::default() };
            let bit = rule.bit(1.0, 1.0, 100).unwrap();
            let mut clip = bit.clip;
            for _ in 0..400 {
                let sum: f32 = (1..=100).map(|norm| if norm as f32 <= clip { bit.height } else { -bit.height }).sum();
                clip = bit.next(clip, sum.into(), 100.0);
            }
            // A hundredth of devices more or less moves the clip by 0.2 %.
            assert!((f64::from(clip) / (100.0 * quantile) - 1.0).abs() < 0.06, "{quantile}: {clip}");
        }
    }

    #[test]
    fn the_split_of_noise_is_the_published_one() {
        // As in privacy: m = 100, z = 1, σ_b = 5.
        let bit = AdaptiveClip::default().bit(0.3, 1.0, 100).unwrap();
        let sigma = f64::from(bit.l2);
        assert!((sigma / 0.3 - 1.005_037_815).abs() < 1e-6, "{}", sigma / 0.3);
        assert!((sigma / (2.0 * f64::from(bit.height)) - 5.0).abs() < 1e-4);
        assert!(f64::from(bit.l2).powi(2) >= f64::from(bit.clip).powi(2) + f64::from(bit.height).powi(2));
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        let rule = AdaptiveClip::default();
        for (rule, z, field) in [
            (AdaptiveClip { quantile: 1.0, ..rule }, 1.0, "adaptive_clip.quantile"),
            (AdaptiveClip { learning_rate: f64::NAN, ..rule }, 1.0, "adaptive_clip.learning_rate"),
            (AdaptiveClip { bit_noise: 0.0, ..rule }, 1.0, "adaptive_clip.bit_noise"),
            (rule, 10.0, "adaptive_clip.bit_noise"),
        ] {
            assert_eq!(rule.bit(1.0, z, 100).unwrap_err().field, field);
        }
        let bit = rule.bit(1.0, 1.0, 100).unwrap();
        assert!(bit.check(f32::NAN).is_err() && bit.check(0.0).is_err() && bit.check(3.0).is_ok());
        assert_eq!(bit.next(bit.clip / REACH, 1e300, 1.0), bit.clip / REACH);
    }
}
