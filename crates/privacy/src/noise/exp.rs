//! exp(-x) between two integers, in units of 2^-54: fast for words, to any precision for [`Fixed`].

use super::cells::UNIT_BITS;
use super::fixed::Fixed;

/// Beyond this exp(-x) is below 2^-57.
const FAR: u64 = 40;

/// ⌊2^63 exp(-i)⌋ for the whole part of x.
#[derive(Clone, Debug)]
pub(super) struct Exp([u64; FAR as usize]);

impl Exp {
    pub fn new() -> Self {
        // Wrong by far less than 2^-63, and rounded down.
        Self(std::array::from_fn(|i| Fixed::ratio(i as u128, 1, 3).exp_neg().top(63)))
    }

    /// Integers around 2^54 exp(-x), x = whole + fraction / 2^64.
    ///
    /// Horner's rule for exp(-f), f < 1: t₂₂ = 1, tⱼ = 1 - f · tⱼ₊₁ / j, in units of 2^-63. A step rounds by at most 2
    /// units and divides what was wrong by j ≥ 2 until the last, so t₁ is wrong by less than 8; 22 terms leave out
    /// 1 / 22! < 2^-69. Times exp(-whole), which is wrong by 1 unit: below 10 · 2^-63 in all, a fiftieth of what 1 unit of
    /// 2^-54 covers.
    #[inline]
    pub fn neg(&self, whole: u64, fraction: u64) -> (u64, u64) {
        if whole >= FAR {
            return (0, 1);
        }
        let mut t = 1u64 << 63;
        for j in (1..=21).rev() {
            let ft = ((u128::from(fraction) * u128::from(t)) >> 64) as u64;
            t = (1 << 63) - ft / j;
        }
        let value = ((u128::from(t) * u128::from(self.0[whole as usize])) >> 63) as u64;
        let units = value >> (63 - UNIT_BITS);
        (units.saturating_sub(1), units + 2)
    }

    /// exp(-a / b).
    #[inline]
    pub fn neg_ratio(&self, a: u128, b: u64) -> (u64, u64) {
        let b = u128::from(b);
        let whole = a / b;
        if whole >= u128::from(FAR) {
            return (0, 1);
        }
        // A fraction that is rounded down by 2^-64 makes exp larger by as much: within the margin of `neg`.
        self.neg(whole as u64, (((a % b) << 64) / b) as u64)
    }
}

/// exp(-a / b) to `places` limbs, for a / b below 2^8; beyond, only that it is below exp(-255).
pub(super) fn enclose_neg(a: u128, b: u64, places: usize) -> (Fixed, Fixed) {
    // One limb more: what `exp_neg` and the division are wrong by, less than 2^31 ulp, stays inside it.
    let exponent =
        if a / u128::from(b) < 255 { Fixed::ratio(a, b, places + 1) } else { Fixed::ratio(255, 1, places + 1) };
    let (low, high) = exponent.exp_neg().enclosure();
    if a / u128::from(b) < 255 { (low, high) } else { (Fixed::ratio(0, 1, places), high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_agree_with_big_numbers() {
        let exp = Exp::new();
        let mut a = 1u128;
        for b in [1, 2, 3, 1000, (1 << 40) + 7, (1 << 62) + 1] {
            for i in 0..300u128 {
                a = (a.wrapping_mul(0x9E37_79B9_7F4A_7C15) + i) % (45 * u128::from(b));
                let (low, high) = exp.neg_ratio(a, b);
                let (low_big, high_big) = enclose_neg(a, b, 2);
                let (low_big, high_big) = (low_big.top(UNIT_BITS), high_big.top(UNIT_BITS));
                assert!(
                    low <= low_big && high_big < high && high - low <= 3,
                    "{a}/{b}: {low} {low_big} {high_big} {high}"
                );
            }
        }
    }
}
