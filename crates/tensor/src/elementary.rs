//! The exponential and what follows from it, with the same bits on every machine.
//!
//! The standard library's `f32::exp` is the platform's own: its last bit differs between platforms, and a loop over
//! it is not vectorised. This one is range reduction by powers of two and a polynomial (Cephes `expf`, S. Moshier),
//! without branches and without fused multiply-add, so the compiler vectorises it and no machine rounds it differently.

use crate::Real;

/// e^x for f32, within 2 units in the last place between the limits below; 0 below them, infinity above.
#[inline(always)]
pub(crate) fn exp_f32(x: f32) -> f32 {
    // Beyond these the result leaves the normal range of f32.
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.722_84;
    // ln 2 in two parts: the first is exact in few bits, so that n * LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer.
    const ROUNDER: f32 = 12_582_912.0;

    let clamped = x.clamp(LOWEST, HIGHEST);
    let n = (clamped * std::f32::consts::LOG2_E + ROUNDER) - ROUNDER;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let value = (p * r * r + r) + 1.0;
    // 2^n in two factors, since n may be 128 and 2^128 is not an f32.
    let half = (n * 0.5 + ROUNDER) - ROUNDER;
    let scaled = value * power_of_two(half) * power_of_two(n - half);
    let scaled = if x < LOWEST { 0.0 } else { scaled };
    let scaled = if x > HIGHEST { f32::INFINITY } else { scaled };
    if x.is_nan() { x } else { scaled }
}

/// 2^n for an integer n in -126..=127.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    // The integer is read from the mantissa of n + ROUNDER: a conversion that saturates would not vectorise as well.
    let mantissa = (n + 12_582_912.0).to_bits().wrapping_sub(12_582_912.0f32.to_bits());
    f32::from_bits(mantissa.wrapping_add(127) << 23)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// The hyperbolic tangent, as 1 - 2 / (e^2x + 1). Near zero its error is absolute (one unit of 1.0), not relative.
#[inline(always)]
pub fn tanh<T: Real>(x: T) -> T {
    let two = T::ONE + T::ONE;
    T::ONE - two / ((two * x).exp() + T::ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut x = -87.3f32;
        while x < 88.7 {
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            let error = (f64::from(exp_f32(x)) - exact).abs() / unit;
            assert!(error <= 2.0, "exp({x}) is {error} units away");
            x += 0.000_97;
        }
    }

    #[test]
    fn exp_has_the_right_ends() {
        assert_eq!(exp_f32(0.0), 1.0);
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(-1e4), 0.0);
        assert_eq!(exp_f32(1e4), f32::INFINITY);
        assert!(exp_f32(f32::NAN).is_nan());
        assert!(exp_f32(88.7).is_finite());
    }

    #[test]
    fn tanh_and_sigmoid_saturate() {
        assert_eq!(tanh(100.0f32), 1.0);
        assert_eq!(tanh(-100.0f32), -1.0);
        assert_eq!(sigmoid(-200.0f32), 0.0);
        assert_eq!(sigmoid(200.0f32), 1.0);
        assert!((tanh(0.3f64) - 0.3f64.tanh()).abs() < 1e-15);
    }
}
