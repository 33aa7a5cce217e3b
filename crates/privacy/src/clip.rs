//! Clipping to an L2 ball: McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models"
//! (arXiv:1710.06963), section 3: x ← x · min(1, S / ‖x‖₂).
//!
//! The bound is what a sensitivity proof rests on, so it holds for the floats that come out and not only for the reals
//! that were meant: the norm is taken in f64 and a clipped vector ends a hair inside its ball.

use thiserror::Error;

/// What clipping found and what holds now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped {
    /// ‖x‖₂ before.
    pub norm: f64,
    /// ‖x‖₂ now is at most this.
    pub bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ClipError {
    #[error("coordinate {index} is {value}: only finite values can be clipped")]
    NotFinite { index: usize, value: f32 },
    #[error("a clipping bound is a finite number above 0, got {got}")]
    Bound { got: f32 },
}

/// Rounding a scaled coordinate to f32 moves the norm by at most 2^-24 of itself, and summing squares in f64 by far
/// less; this margin covers both.
const INSIDE: f64 = 1.0 - 1.0 / (1u32 << 22) as f64;

/// Scales `x` down so that ‖x‖₂ ≤ `bound`; a vector inside the ball keeps its bits.
pub fn l2(x: &mut [f32], bound: f32) -> Result<Clipped, ClipError> {
    if !(bound.is_finite() && bound > 0.0) {
        return Err(ClipError::Bound { got: bound });
    }
    let norm = l2_norm(x);
    if !norm.is_finite() {
        let (index, &value) = x.iter().enumerate().find(|(_, v)| !v.is_finite()).unwrap_or((0, &f32::NAN));
        return Err(ClipError::NotFinite { index, value });
    }
    let bound = f64::from(bound);
    if norm > bound {
        let scale = bound / norm * INSIDE;
        x.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
    }
    Ok(Clipped { norm, bound })
}

/// ‖x‖₂ in f64. Finite exactly when every coordinate is: the square of the largest f32, times any length, fits an f64.
///
/// Sixteen sums side by side in a fixed order: as fast as the processor allows, and the same bits everywhere.
pub fn l2_norm(x: &[f32]) -> f64 {
    let mut lanes = [0f64; 16];
    let mut rows = x.chunks_exact(16);
    for row in &mut rows {
        for (lane, &v) in lanes.iter_mut().zip(row) {
            *lane += f64::from(v) * f64::from(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rows.remainder()) {
        *lane += f64::from(v) * f64::from(v);
    }
    lanes.iter().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_inside_keeps_its_bits() {
        let mut x = [3.0, -4.0];
        assert_eq!(l2(&mut x, 5.0), Ok(Clipped { norm: 5.0, bound: 5.0 }));
        assert_eq!(x, [3.0, -4.0]);
    }

    #[test]
    fn a_vector_outside_ends_inside_in_the_same_direction() {
        // Awkward lengths, values and bounds: the bound must hold for the rounded floats, exactly.
        for len in [1, 7, 16, 33, 1000] {
            for bound in [1e-6f32, 0.1, 1.0 / 3.0, 7.7] {
                let before: Vec<f32> = (0..len).map(|i| ((i + 1) as f32 * 0.73).sin() * 1e3 + 0.1).collect();
                let mut x = before.clone();
                let clipped = l2(&mut x, bound).unwrap();
                assert!(clipped.norm > f64::from(bound));
                let after = l2_norm(&x);
                assert!(after <= f64::from(bound), "{len} {bound}: {after}");
                // The margin and one f32 rounding: 2^-22 + 2^-24 < 1e-6.
                assert!(after >= f64::from(bound) * (1.0 - 1e-6), "{len} {bound}: {after}");
                let scale = f64::from(bound) / clipped.norm;
                for (a, b) in x.iter().zip(&before) {
                    assert!((f64::from(*a) - f64::from(*b) * scale).abs() <= 1e-6 * (f64::from(*b) * scale).abs());
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused_by_index() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0, f32::MAX, bad];
            assert!(matches!(l2(&mut x, 1.0), Err(ClipError::NotFinite { index: 2, .. })));
        }
        assert_eq!(l2(&mut [f32::MAX; 40], 1.0).unwrap().bound, 1.0);
        for bound in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(l2(&mut [1.0], bound), Err(ClipError::Bound { .. })));
        }
    }
}
