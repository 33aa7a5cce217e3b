//! Exact sums of f64 values: a 192-bit fixed-point number in six limbs of 32 bits.
//!
//! A sum of floats depends on the order of the addends; sums of integers do not. A [`Wide`] is a two's-complement
//! integer of 192 bits in units of 2^-80, kept as six i64 words that each carry 32 bits. Words of many devices may be
//! added limb by limb, in any order and through any tree, with ordinary 64-bit additions: after up to 2^31 addends no
//! word has overflowed, and [`Wide::normalised`] carries once at the end. So the fleet's sum has the same bits however
//! the rows lie on the devices: it *is* the central sum.
//!
//! 192 bits = 80 below the point + 80 above + 31 for the number of addends + 1 for the sign. A value (and one device's
//! sum) must be below 2^80 = 1.2e24 in size; the smallest step is 2^-80 = 8.3e-25, values are rounded to it (half to
//! even). Squares of values from 1e-11 to 1e11 keep at least two digits, most keep all.

/// Words of one number.
pub const LIMBS: usize = 6;
/// Binary digits below the point.
pub const FRACTION_BITS: i32 = 80;
/// Values and one device's sums stay below 2 to this in size.
pub const MAGNITUDE_BITS: i32 = 80;
/// Most numbers that may be added limb by limb before [`Wide::normalised`].
pub const ADDENDS_MAX: u64 = 1 << 31;

const LIMB_BITS: u32 = 32;
const LIMB_MASK: i64 = (1 << LIMB_BITS) - 1;

/// A value that is not finite, or whose size passes 2^80.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("number outside the range of the exact sum: expected a finite value below 2^80 in size")]
pub struct OutOfRange;

/// A sum in units of 2^-80; limb `i` counts 2^(32 i).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wide {
    limbs: [i64; LIMBS],
}

impl Wide {
    /// Adds a value, rounded to a multiple of 2^-80. At most [`ADDENDS_MAX`] additions before [`Wide::normalised`].
    pub fn add(&mut self, value: f64) -> Result<(), OutOfRange> {
        let size = value.abs();
        if size.is_nan() || size >= power_of_two(MAGNITUDE_BITS) {
            return Err(OutOfRange);
        }
        // value = mantissa * 2^exponent, mantissa below 2^53.
        let bits = size.to_bits();
        let biased = (bits >> 52) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | (1 << 52), biased - 1075) };
        let shift = exponent + FRACTION_BITS;
        let (mantissa, shift) = if shift >= 0 { (mantissa, shift as u32) } else { (half_even(mantissa, -shift), 0) };
        // At most 53 + 31 bits across three limbs; value < 2^80 keeps the last of them within limb 4.
        let spread = u128::from(mantissa) << (shift % LIMB_BITS);
        let sign = if value < 0.0 { -1 } else { 1 };
        let first = (shift / LIMB_BITS) as usize;
        for (offset, limb) in self.limbs[first..].iter_mut().take(3).enumerate() {
            let part = (spread >> (LIMB_BITS * offset as u32)) as i64 & LIMB_MASK;
            *limb = limb.wrapping_add(sign * part);
        }
        Ok(())
    }

    /// Adds another sum limb by limb. Wraps only after more than [`ADDENDS_MAX`] addends.
    pub fn merge(&mut self, other: &Self) {
        for (limb, more) in self.limbs.iter_mut().zip(&other.limbs) {
            *limb = limb.wrapping_add(*more);
        }
    }

    /// The words, for a sum over devices.
    pub fn limbs(&self) -> [i64; LIMBS] {
        self.limbs
    }

    /// A number from words, as they are: each may be a sum over devices.
    pub fn from_limbs(limbs: [i64; LIMBS]) -> Self {
        Self { limbs }
    }

    /// The same number with every limb but the top one in `0..2^32`. Equal numbers have equal normal forms.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let mut limbs = self.limbs;
        let mut carry = 0i128;
        for limb in &mut limbs[..LIMBS - 1] {
            let sum = i128::from(*limb) + carry;
            *limb = (sum & i128::from(LIMB_MASK)) as i64;
            carry = sum >> LIMB_BITS;
        }
        // The carry is below 2^33 in size. A top limb from hostile words may not hold it: it saturates, and
        // `fits_device` and the range of any true sum then say that it is wrong.
        let top = i128::from(limbs[LIMBS - 1]) + carry;
        limbs[LIMBS - 1] = top.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Self { limbs }
    }

    /// True if the size is at most 2^80, so that the sum may be one addend among 2^31 devices.
    pub fn fits_device(&self) -> bool {
        matches!(self.normalised().limbs[LIMBS - 1], 0 | -1)
    }

    /// The number as an unevaluated sum of two f64 (high, low): about 106 significant bits.
    pub fn to_f64_pair(&self) -> (f64, f64) {
        let limbs = self.normalised().limbs;
        let (mut high, mut low) = (0.0, 0.0);
        for (index, limb) in limbs.iter().enumerate().rev() {
            // Exact: a limb has fewer than 53 bits, but for a top limb that is out of range anyway.
            let part = *limb as f64 * power_of_two(LIMB_BITS as i32 * index as i32 - FRACTION_BITS);
            let (sum, error) = two_sum(high, part);
            let (sum, error) = two_sum(sum, low + error);
            (high, low) = (sum, error);
        }
        (high, low)
    }

    /// The nearest f64, to within one unit in the last place.
    pub fn to_f64(&self) -> f64 {
        let (high, low) = self.to_f64_pair();
        high + low
    }
}

/// `mantissa / 2^shift`, rounded half to even.
fn half_even(mantissa: u64, shift: i32) -> u64 {
    if shift > 54 {
        return 0;
    }
    let quotient = mantissa >> shift;
    let rest = mantissa & ((1 << shift) - 1);
    let half = 1 << (shift - 1);
    quotient + u64::from(rest > half || (rest == half && quotient & 1 == 1))
}

/// 2^exponent, for a normal f64. Made from bits: `exp2` is a platform's own and need not be exact.
pub(super) const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Knuth's exact sum: `a + b = sum + error`.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wide(values: &[f64]) -> Wide {
        let mut sum = Wide::default();
        for value in values {
            sum.add(*value).expect("in range");
        }
        sum
    }

    /// The lower 128 bits of the fixed-point integer: all of it while its size is below 2^127 units = 2^47.
    fn units(wide: &Wide) -> i128 {
        let limbs = wide.normalised().limbs;
        (0..4).fold(0, |sum, i| sum | (i128::from(limbs[i]) << (32 * i)))
    }

    #[test]
    fn ends_of_the_range() {
        let largest = f64::from_bits(power_of_two(80).to_bits() - 1);
        for value in [0.0, -0.0, 1.0, -1.0, 0.1, largest, -largest, power_of_two(-80), 1.5e-8] {
            assert_eq!(wide(&[value]).to_f64(), value);
        }
        for value in [power_of_two(80), -power_of_two(80), f64::INFINITY, f64::NAN] {
            assert_eq!(Wide::default().add(value), Err(OutOfRange));
        }
        // Half of the smallest step is even (0), one and a half steps round to two.
        assert_eq!(wide(&[power_of_two(-81)]).to_f64(), 0.0);
        assert_eq!(wide(&[3.0 * power_of_two(-81)]).to_f64(), power_of_two(-79));
        assert_eq!(wide(&[f64::MIN_POSITIVE, 5e-324]).to_f64(), 0.0);
    }

    #[test]
    fn many_devices_at_the_edge_do_not_overflow() {
        let largest = f64::from_bits(power_of_two(80).to_bits() - 1);
        for sign in [1.0, -1.0] {
            let one = wide(&[sign * largest]);
            assert!(one.fits_device());
            assert!(!wide(&[sign * largest, sign * largest]).fits_device());
            // 2^31 devices at once: each word times 2^31 must still be an i64, before and after carrying.
            for words in [one, one.normalised()] {
                let sum = Wide::from_limbs(words.limbs().map(|limb| limb.checked_mul(1 << 31).expect("no overflow")));
                assert_eq!(sum.to_f64(), sign * largest * power_of_two(31));
            }
        }
    }

    #[test]
    fn hostile_words_do_not_panic() {
        for word in [i64::MIN, i64::MAX, -1] {
            let sum = Wide::from_limbs([word; LIMBS]);
            assert!(sum.to_f64().is_finite());
            assert!(!sum.fits_device());
        }
    }

    /// Multiples of 2^-80 below 2^40, exact in f64 and small enough that a hundred sum within an i128.
    fn exact() -> impl Strategy<Value = f64> {
        (-(1i64 << 53)..(1i64 << 53), -80i32..-13)
            .prop_map(|(mantissa, exponent)| mantissa as f64 * power_of_two(exponent))
    }

    proptest! {
        #[test]
        fn equals_the_sum_of_integers(values in proptest::collection::vec(exact(), 0..100)) {
            // 2^(e + 80) scales each value to an integer below 2^120 without rounding.
            let expected: i128 = values.iter().map(|v| (v * power_of_two(80)) as i128).sum();
            prop_assert_eq!(units(&wide(&values)), expected);
        }

        #[test]
        fn any_order_and_any_tree_give_the_same_bits(
            values in proptest::collection::vec(-1e20f64..1e20, 1..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let (left, right) = values.split_at(cut.index(values.len()));
            let mut tree = wide(right).normalised();
            tree.merge(&wide(left));
            prop_assert_eq!(tree.normalised(), wide(&values).normalised());
        }

        #[test]
        fn one_value_comes_back(value in -1e24f64..1e24) {
            // Rounded to 2^-80 at most: exact here, since an f64 above 2^-27 has no digit below 2^-80.
            let back = wide(&[value]).to_f64();
            prop_assert!(back == value || (back - value).abs() <= power_of_two(-81));
        }

        #[test]
        fn words_survive(words in proptest::array::uniform6(any::<i64>())) {
            let sum = Wide::from_limbs(words);
            prop_assert_eq!(sum.normalised().normalised(), sum.normalised());
        }
    }
}
