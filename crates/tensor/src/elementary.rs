//! The exponential, the logarithm and what follows from them, with the same bits on every machine.
//!
//! The standard library's `f32::exp` is the platform's own: its last bit differs between platforms, and a loop over
//! it is not vectorised. This one is range reduction by powers of two and a polynomial (Cephes `expf`, S. Moshier),
//! without branches and without fused multiply-add, so the compiler vectorises it and no machine rounds it differently.
//! The logarithm is built in the same manner (FreeBSD `e_log.c`, Sun Microsystems 1993).

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

/// e^x, within 2 units in the last place; 0 where it would be below the normal range of f32, infinity above it.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_f32(x)
}

/// The natural logarithm, within 1 unit in the last place. -infinity of zero, NaN of anything negative.
///
/// x is 2^k m with m between sqrt(1/2) and sqrt(2); ln m is an odd series in s = (m - 1) / (m + 1), and k ln 2 is added
/// in two parts, of which the first is exact.
#[inline]
pub fn ln(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const MANTISSA: u64 = (1 << 52) - 1;
    /// The high word of sqrt(1/2), with zeros below.
    const ROOT_OF_HALF: u64 = 0x3fe6_a09e_0000_0000;
    const ONE: u64 = 0x3ff0_0000_0000_0000;

    if !(x > 0.0 && x < f64::INFINITY) {
        return if x == 0.0 {
            f64::NEG_INFINITY
        } else if x == f64::INFINITY {
            x
        } else {
            f64::NAN
        };
    }
    // A subnormal is brought into the normal range by 2^54, which is exact.
    let (bits, lift) =
        if x < f64::MIN_POSITIVE { ((x * 18_014_398_509_481_984.0).to_bits(), 54) } else { (x.to_bits(), 0) };
    let moved = bits + (ONE - ROOT_OF_HALF);
    let k = ((moved >> 52) as i32 - 1023 - lift) as f64;
    let f = f64::from_bits((moved & MANTISSA) + ROOT_OF_HALF) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = w * (3.999_999_999_940_942e-1 + w * (2.222_219_843_214_978_4e-1 + w * 1.531_383_769_920_937_3e-1));
    let odd = z
        * (6.666_666_666_666_735e-1
            + w * (2.857_142_874_366_239e-1 + w * (1.818_357_216_161_805e-1 + w * 1.479_819_860_511_658_6e-1)));
    let half_square = 0.5 * f * f;
    s * (half_square + (even + odd)) + k * LN2_LOW - half_square + f + k * LN2_HIGH
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
    fn ln_is_within_one_unit_in_the_last_place() {
        // Steps of 0.37 % through the whole range, subnormals included, then closely around 1, where bits cancel.
        let wide = (0..400_000).map(|i| 5e-324 * 1.0037f64.powi(i)).take_while(|x| x.is_finite());
        let near_one = (-20_000..20_000).map(|i| 1.0 + f64::from(i) * 1.3e-5);
        for x in wide.chain(near_one) {
            let exact = x.ln();
            let unit = f64::from_bits(exact.abs().to_bits() + 1) - exact.abs();
            // The reference is itself up to one unit away from the truth.
            assert!((ln(x) - exact).abs() <= 2.0 * unit, "ln({x}) is {} and not {exact}", ln(x));
        }
    }

    #[test]
    fn ln_has_the_right_ends() {
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert_eq!(ln(f64::INFINITY), f64::INFINITY);
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan());
        assert_eq!(ln(std::f64::consts::E), 1.0);
    }

    /// Found on x86-64; a machine that rounds one of these otherwise fails here.
    #[test]
    fn exp_and_ln_have_the_bits_that_were_agreed() {
        let mut digest = 0xcbf2_9ce4_8422_2325u64;
        for i in 0..20_000u32 {
            let x = (f64::from(i) - 10_000.0) * 0.008_7;
            for bits in [u64::from(exp(x as f32).to_bits()), ln(x.abs() * x.abs()).to_bits()] {
                digest = (digest ^ bits).wrapping_mul(0x0100_0000_01b3);
            }
        }
        assert_eq!(digest, 0x75b3_b7a2_de63_994b, "{digest:#018x}");
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
