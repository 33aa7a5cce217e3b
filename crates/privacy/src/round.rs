//! Conditional stochastic rounding to whole numbers: Kairouz, Liu and Steinke 2021 (arXiv:2102.06387), section 4.1 and step 3 of
//! algorithm 1.
//!
//! Each coordinate is rounded up or down at random so that its mean stays; that can lengthen a vector by √d. Drawing again
//! while the result is longer than a bound that it keeps with probability at least 1 - β gives a much smaller bound, and that
//! is what the sensitivity of the noise after it rests on:
//!
//! - equation 18, always: ‖round(x)‖ ≤ ‖x‖ + √d;
//! - equation 19, with probability 1 - β: ‖round(x)‖² ≤ ‖x‖² + d/4 + √(2 ln(1/β)) (‖x‖ + √d/2).
//!
//! Drawing again moves the mean by a share of at most β; rounding by itself is unbiased up to 2^-32. The norm is checked in
//! whole numbers. Rounding hides nothing by itself.

use rand_core::CryptoRng;
use thiserror::Error;

/// How vectors become whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounding {
    /// Coordinates are multiplied by this first.
    pub scale: f64,
    /// The L2 norm of what comes in is at most this.
    pub clip: f64,
    /// β, at least 0 and below 1. 0 never draws again and keeps equation 18 only.
    pub beta: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum RoundError {
    #[error("{what}: {expected} expected, got {got}")]
    Parameter { what: &'static str, expected: &'static str, got: f64 },
    #[error("a vector with an L2 norm of at most {clip} expected, got {got}")]
    TooLong { clip: f64, got: f64 },
    #[error("{expected} coordinates of room expected, got {got}")]
    Room { expected: usize, got: usize },
}

/// What the L2 norm of a rounded vector is at most, for a vector of norm `l2` with `dim` coordinates before: the least of
/// equations 18 and 19.
pub fn l2_bound(l2: f64, beta: f64, dim: u64) -> f64 {
    let d = dim as f64;
    let always = l2 + d.sqrt();
    if beta <= 0.0 {
        return always;
    }
    let mostly = l2 * l2 + d / 4.0 + (2.0 * (1.0 / beta).ln()).sqrt() * (l2 + d.sqrt() / 2.0);
    always.min(mostly.sqrt())
}

/// Draws before the vector is rounded towards zero, which never lengthens it: β^64.
const DRAWS: usize = 64;

impl Rounding {
    /// Rounds `scale · x` into `out`; returns the L2 bound, in whole units, that `out` now keeps for certain.
    pub fn round<R: CryptoRng>(&self, x: &[f32], out: &mut [i64], rng: &mut R) -> Result<f64, RoundError> {
        let parameter = |what, expected, got| Err(RoundError::Parameter { what, expected, got });
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return parameter("scale", "a finite number above 0", self.scale);
        }
        // So that squares of coordinates add up to less than 2^127.
        if !(self.clip > 0.0 && self.clip * self.scale <= (1u64 << 52) as f64) {
            return parameter("clip · scale", "above 0 and at most 2^52", self.clip * self.scale);
        }
        if !(0.0..1.0).contains(&self.beta) {
            return parameter("beta", "at least 0 and below 1", self.beta);
        }
        if x.len() != out.len() {
            return Err(RoundError::Room { expected: x.len(), got: out.len() });
        }
        let norm = crate::clip::l2_norm(x);
        if norm.is_nan() || norm > self.clip {
            return Err(RoundError::TooLong { clip: self.clip, got: norm });
        }
        let bound = l2_bound(self.scale * self.clip, self.beta, x.len() as u64);
        // Rounded down: what passes is within the bound for certain.
        let most = (bound * bound * (1.0 - 1e-12)) as u128;
        for _ in 0..if x.is_empty() { 0 } else { DRAWS } {
            if self.draw(x, out, rng) <= most {
                return Ok(bound);
            }
        }
        for (whole, &v) in out.iter_mut().zip(x) {
            *whole = (f64::from(v) * self.scale).trunc() as i64;
        }
        Ok(bound)
    }

    /// One draw; returns the squared norm.
    fn draw<R: CryptoRng>(&self, x: &[f32], out: &mut [i64], rng: &mut R) -> u128 {
        let mut squares = 0u128;
        let mut coins = [0u8; 4 * COINS];
        for (x, out) in x.chunks(COINS).zip(out.chunks_mut(COINS)) {
            rng.fill_bytes(&mut coins[..4 * x.len()]);
            let mut sum = 0f64;
            for ((whole, &v), coin) in out.iter_mut().zip(x).zip(coins.chunks_exact(4)) {
                let scaled = f64::from(v) * self.scale;
                let down = scaled.floor();
                let coin = f64::from(u32::from_le_bytes([coin[0], coin[1], coin[2], coin[3]]));
                let up = coin < (scaled - down) * (1u64 << 32) as f64;
                *whole = down as i64 + i64::from(up);
                sum += (down + f64::from(u8::from(up))).powi(2);
            }
            // Whole numbers below 2^53 are exact in a float; a longer sum is taken in whole numbers.
            squares += if sum < (1u64 << 53) as f64 {
                sum as u128
            } else {
                out.iter().map(|&whole| u128::from(whole.unsigned_abs()).pow(2)).sum()
            };
        }
        squares
    }
}

const COINS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn the_bound_is_that_of_the_paper() {
        // Norm 1, grid γ, β, d; then the bound in units of 1: the values with which TensorFlow Federated tests equations 18 and 19.
        for (gamma, beta, wanted) in [
            (1e-9, 0.0, 1.0000316227766017),
            (1e-2, 0.0, 317.2277660168379),
            (1e-9, 0.01, 1.000000001642451),
            (1e-2, 0.01, 158.13231445360802),
            (1e-9, 0.5, 1.0000000007137142),
            (1e-2, 0.5, 158.12296930808552),
        ] {
            let found = gamma * l2_bound(1.0 / gamma, beta, 1_000_000_000);
            assert!((found / wanted - 1.0f64).abs() < 1e-12, "{gamma} {beta}: {found}");
        }
    }

    #[test]
    fn rounding_keeps_its_bound_and_its_mean() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 0.04).collect();
        let clip = crate::clip::l2_norm(&x);
        for (scale, beta) in [(3.0, 0.6), (40.0, 0.6), (40.0, 1e-3), (1e6, 0.6), (40.0, 0.0)] {
            let rounding = Rounding { scale, clip, beta };
            let mut out = vec![0; x.len()];
            let mut sums = vec![0.0; x.len()];
            for _ in 0..400 {
                let bound = rounding.round(&x, &mut out, &mut rng).unwrap();
                let norm = out.iter().map(|v| (v * v) as f64).sum::<f64>().sqrt();
                assert!(norm <= bound, "{scale} {beta}: {norm} {bound}");
                sums.iter_mut().zip(&out).for_each(|(sum, v)| *sum += *v as f64);
            }
            // The mean of 400 roundings is within 6 · 0.5 / √400 of the value; a thousand coordinates. Conditioning shrinks a
            // coordinate by less than that.
            for (sum, v) in sums.iter().zip(&x) {
                assert!((sum / 400.0 - f64::from(*v) * scale).abs() < 0.15, "{scale} {beta}: {sum}");
            }
        }
    }

    #[test]
    fn what_is_too_long_or_not_a_number_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let rounding = Rounding { scale: 10.0, clip: 1.0, beta: 0.5 };
        let mut out = [0; 2];
        assert!(matches!(rounding.round(&[1.0, 1.0], &mut out, &mut rng), Err(RoundError::TooLong { .. })));
        assert!(matches!(rounding.round(&[f32::NAN, 0.0], &mut out, &mut rng), Err(RoundError::TooLong { .. })));
        assert!(matches!(rounding.round(&[0.5], &mut out, &mut rng), Err(RoundError::Room { expected: 1, got: 2 })));
        for bad in [
            Rounding { scale: 0.0, ..rounding },
            Rounding { beta: 1.0, ..rounding },
            Rounding { clip: 1e18, ..rounding },
        ] {
            assert!(matches!(bad.round(&[0.5, 0.5], &mut out, &mut rng), Err(RoundError::Parameter { .. })));
        }
        assert_eq!(rounding.round(&[], &mut [], &mut rng), Ok(10.0), "no coordinate, no rounding");
    }
}
