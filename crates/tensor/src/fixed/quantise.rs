//! Floats to words.
//!
//! The definition, which every path below follows to the bit:
//! `p = value * inv_step` in f32; `r` = `p` rounded to the nearest integer, halves away from zero;
//! `v = min(max(r, -levels), levels - 1)`; the word is `v * weight`. A coordinate with `v != r` is *saturated*.

use super::{BLOCK, FixedError, check_bits, check_len, pack, packed_len};
use crate::processor::for_this_processor;

/// Up to this many levels a limited value can be read from the mantissa of a float (see [`limited`]).
const NARROW_LEVELS: i64 = 1 << 22;

/// Writes the word of each value into `out` and returns how many were saturated.
///
/// `inv_step` is levels divided by range: finite and above 0. `levels` is at least 1 and `levels * weight` fits in i64.
/// An infinite value saturates. A value that is not a number is an error with its index, and leaves `out` unspecified.
pub fn quantise(values: &[f32], inv_step: f32, levels: i64, weight: i64, out: &mut [i64]) -> Result<u64, FixedError> {
    check_len("output of quantise", values.len(), out.len())?;
    check_scale(inv_step, levels, weight)?;
    let tally = if levels <= NARROW_LEVELS {
        narrow_words(values, inv_step, levels as i32, weight, out)
    } else {
        wide_words(values, inv_step, levels, weight, out)
    };
    tally.report(values)
}

/// [`quantise()`] and [`pack()`] in one pass: `out` has [`packed_len`] bytes and gets words of `bits` bits.
pub fn quantise_pack(
    values: &[f32],
    inv_step: f32,
    levels: i64,
    weight: i64,
    bits: u32,
    out: &mut [u8],
) -> Result<u64, FixedError> {
    if bits == 32 && levels <= NARROW_LEVELS {
        return quantise_pack32(values, inv_step, levels, weight, out);
    }
    if bits == 32 && levels <= WIDE_LEVELS {
        return quantise_pack_wide32(values, inv_step, levels, weight, out);
    }
    let bytes_per_group = check_bits(bits)?;
    check_len("output of quantise_pack", packed_len(values.len(), bits), out.len())?;
    let mut words = [0; BLOCK];
    let mut saturated = 0;
    for (block, (values, out)) in values.chunks(BLOCK).zip(out.chunks_mut(BLOCK / 8 * bytes_per_group)).enumerate() {
        let words = &mut words[..values.len()];
        saturated += quantise(values, inv_step, levels, weight, words).map_err(|error| match error {
            FixedError::NotANumber { index } => FixedError::NotANumber { index: block * BLOCK + index },
            other => other,
        })?;
        pack(words, bits, out)?;
    }
    Ok(saturated)
}

/// [`quantise_pack`] for 32 bits, the usual width, without an intermediate copy. At most 2^22 levels.
pub fn quantise_pack32(
    values: &[f32],
    inv_step: f32,
    levels: i64,
    weight: i64,
    out: &mut [u8],
) -> Result<u64, FixedError> {
    check_len("output of quantise_pack32", packed_len(values.len(), 32), out.len())?;
    check_scale(inv_step, levels, weight)?;
    if levels > NARROW_LEVELS {
        return Err(FixedError::Setting { field: "levels", expected: "at most 2^22", got: levels.to_string() });
    }
    let (words, padding) = out.split_at_mut(values.len() * 4);
    padding.fill(0);
    // Modulo 2^32 the high half of the weight has no part in the product.
    narrow_bytes(values, inv_step, levels as i32, weight as i32, words).report(values)
}

/// Up to this many levels the word before weighting fits in i32.
const WIDE_LEVELS: i64 = 1 << 31;

/// [`quantise_pack32`] for more levels, up to 2^31: as many as a small cohort leaves room for in 32 bits.
fn quantise_pack_wide32(
    values: &[f32],
    inv_step: f32,
    levels: i64,
    weight: i64,
    out: &mut [u8],
) -> Result<u64, FixedError> {
    check_len("output of quantise_pack", packed_len(values.len(), 32), out.len())?;
    check_scale(inv_step, levels, weight)?;
    let (words, padding) = out.split_at_mut(values.len() * 4);
    padding.fill(0);
    let limits = WideLimits {
        least: (-levels) as i32,
        most: (levels - 1) as i32,
        low: -largest_up_to(levels),
        high: largest_up_to(levels - 1),
    };
    wide_bytes(values, inv_step, limits, weight as i32, words).report(values)
}

/// A word's limits, and the floats that are nearest to them from inside: those beyond 2^24 need not be floats.
#[derive(Clone, Copy)]
struct WideLimits {
    least: i32,
    most: i32,
    low: f32,
    high: f32,
}

/// The largest float that is no larger than `n`; 0 ≤ `n` ≤ 2^31.
fn largest_up_to(n: i64) -> f32 {
    let nearest = n as f32;
    if nearest as i64 > n { nearest.next_down() } else { nearest }
}

fn check_scale(inv_step: f32, levels: i64, weight: i64) -> Result<(), FixedError> {
    if !(inv_step.is_finite() && inv_step > 0.0) {
        return Err(FixedError::Setting {
            field: "inv_step",
            expected: "finite and above 0",
            got: inv_step.to_string(),
        });
    }
    if levels < 1 {
        return Err(FixedError::Setting { field: "levels", expected: "at least 1", got: levels.to_string() });
    }
    if levels.checked_mul(weight).is_none() {
        let got = format!("{weight} with {levels} levels");
        return Err(FixedError::Setting { field: "weight", expected: "levels * weight within i64", got });
    }
    Ok(())
}

/// What a pass over the values counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    saturated: u64,
    not_numbers: u64,
}

impl Tally {
    /// The search for the index is left to the rare case, so that the pass itself has no branch.
    fn report(self, values: &[f32]) -> Result<u64, FixedError> {
        if self.not_numbers == 0 {
            return Ok(self.saturated);
        }
        // inv_step is finite and above 0, so that only a NaN gives a NaN.
        let index = values.iter().position(|value| value.is_nan()).unwrap_or(values.len());
        Err(FixedError::NotANumber { index })
    }
}

/// The rounded value, limited to `low..=high`, and whether it had to be.
#[inline(always)]
fn limited(product: f32, low: f32, high: f32) -> (i32, bool) {
    let rounded = product.round();
    // `max` and `min` drop a NaN; it is counted apart.
    let limited = rounded.max(low).min(high);
    // From 2^23 to 2^24 floats are the integers, in the order of their bits. A cast would do the same, but it saturates, and
    // for that the compiler leaves the vector.
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23
    let integer = (limited + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
    (integer, limited != rounded)
}

for_this_processor! {
    fn narrow_words(values: &[f32], inv_step: f32, levels: i32, weight: i64, out: &mut [i64]) -> Tally {
        let (low, high) = (-levels as f32, (levels - 1) as f32);
        let mut tally = Tally::default();
        for (values, out) in values.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
            let (mut saturated, mut not_numbers) = (0u32, 0u32);
            for (value, word) in values.iter().zip(out) {
                let product = value * inv_step;
                let (v, beyond) = limited(product, low, high);
                // A block has fewer values than a u32 counts; plain `+=` would check in development builds, one by one.
                saturated = saturated.wrapping_add(u32::from(beyond));
                not_numbers = not_numbers.wrapping_add(u32::from(product.is_nan()));
                *word = i64::from(v).wrapping_mul(weight);
            }
            tally.saturated += u64::from(saturated);
            tally.not_numbers += u64::from(not_numbers);
        }
        tally
    }
}

for_this_processor! {
    fn narrow_bytes(values: &[f32], inv_step: f32, levels: i32, weight: i32, out: &mut [u8]) -> Tally {
        let (low, high) = (-levels as f32, (levels - 1) as f32);
        let mut tally = Tally::default();
        let (out, _) = out.as_chunks_mut::<4>();
        for (values, out) in values.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
            let (mut saturated, mut not_numbers) = (0u32, 0u32);
            for (value, word) in values.iter().zip(out) {
                let product = value * inv_step;
                let (v, beyond) = limited(product, low, high);
                // A block has fewer values than a u32 counts; plain `+=` would check in development builds, one by one.
                saturated = saturated.wrapping_add(u32::from(beyond));
                not_numbers = not_numbers.wrapping_add(u32::from(product.is_nan()));
                *word = v.wrapping_mul(weight).to_le_bytes();
            }
            tally.saturated += u64::from(saturated);
            tally.not_numbers += u64::from(not_numbers);
        }
        tally
    }
}

/// For more levels: limits compare as integers.
fn wide_words(values: &[f32], inv_step: f32, levels: i64, weight: i64, out: &mut [i64]) -> Tally {
    let mut tally = Tally::default();
    for (value, word) in values.iter().zip(out) {
        let product = value * inv_step;
        let rounded = product.round();
        // The cast saturates at the ends of i64; levels are fewer than either end, so a value beyond differs from `v`.
        let exact = rounded as i64;
        let v = exact.clamp(-levels, levels - 1);
        let beyond = v != exact;
        tally.saturated += u64::from(beyond);
        tally.not_numbers += u64::from(product.is_nan());
        *word = v.wrapping_mul(weight);
    }
    tally
}

for_this_processor! {
    fn wide_bytes(values: &[f32], inv_step: f32, limits: WideLimits, weight: i32, out: &mut [u8]) -> Tally {
        let WideLimits { low, high, .. } = limits;
        let mut tally = Tally::default();
        let (out, _) = out.as_chunks_mut::<4>();
        for (values, out) in values.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
            let mut beyond = 0u32;
            for (value, word) in values.iter().zip(&mut *out) {
                let rounded = (value * inv_step).round();
                // Written so that a NaN becomes a limit, in one instruction each.
                let inside = if rounded > low { rounded } else { low };
                let inside = if inside < high { inside } else { high };
                beyond = beyond.wrapping_add(u32::from(inside != rounded));
                // SAFETY: `inside` is no NaN and lies in `low..=high`, which lies in -2^31..=2^31 - 1: both are the
                // limits of an i32, brought inwards to floats. An `as` would check that again, value by value,
                // outside the vector registers.
                #[allow(unsafe_code)]
                let v = unsafe { inside.to_int_unchecked::<i32>() };
                *word = v.wrapping_mul(weight).to_le_bytes();
            }
            // Few updates have any value beyond the limits: only such a block is looked at again.
            if beyond > 0 {
                let again = wide_block(values, inv_step, limits, weight, out);
                tally.saturated += again.saturated;
                tally.not_numbers += again.not_numbers;
            }
        }
        tally
    }
}

/// [`wide_bytes`] for values of which some are beyond the limits, where the float next to a limit is not the limit.
fn wide_block(values: &[f32], inv_step: f32, limits: WideLimits, weight: i32, out: &mut [[u8; 4]]) -> Tally {
    let WideLimits { least, most, low, high } = limits;
    let mut tally = Tally::default();
    for (value, word) in values.iter().zip(out) {
        let rounded = (value * inv_step).round();
        let v = if rounded < low {
            least
        } else if rounded > high {
            most
        } else {
            rounded as i32
        };
        tally.saturated += u64::from(rounded < low || rounded > high);
        tally.not_numbers += u64::from(rounded.is_nan());
        *word = v.wrapping_mul(weight).to_le_bytes();
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_go_away_from_zero_and_limits_hold() {
        let values = [0.0, 0.49, 0.5, -0.5, 1.5, -1.5, 6.6, 7.4, 7.5, -8.4, -8.5, f32::INFINITY, f32::NEG_INFINITY];
        let mut words = [0; 13];
        let saturated = quantise(&values, 1.0, 8, 3, &mut words).unwrap();
        assert_eq!(words.map(|word| word / 3), [0, 0, 1, -1, 2, -2, 7, 7, 7, -8, -8, 7, -8]);
        assert_eq!(saturated, 4); // 7.5, -8.5 and both infinities
    }

    #[test]
    fn the_largest_value_below_one_half_stays_zero() {
        let mut word = [0];
        quantise(&[0.499_999_97], 1.0, 8, 1, &mut word).unwrap();
        assert_eq!(word, [0]); // adding one half and cutting would give 1
    }

    #[test]
    fn not_a_number_is_an_error_with_its_index() {
        let mut values = vec![1.0; 1300];
        values[1200] = f32::NAN;
        let expected = Err(FixedError::NotANumber { index: 1200 });
        assert_eq!(quantise(&values, 1.0, 8, 1, &mut vec![0; 1300]), expected);
        assert_eq!(quantise(&values, 1.0, 1 << 40, 1, &mut vec![0; 1300]), expected);
        assert_eq!(quantise_pack(&values, 1.0, 8, 1, 20, &mut vec![0; packed_len(1300, 20)]), expected);
        assert_eq!(quantise_pack(&values, 1.0, 8, 1, 32, &mut vec![0; packed_len(1300, 32)]), expected);
    }

    #[test]
    fn meaningless_settings_are_refused() {
        for (inv_step, levels, weight) in
            [(0.0, 8, 1), (f32::NAN, 8, 1), (f32::INFINITY, 8, 1), (-1.0, 8, 1), (1.0, 0, 1), (1.0, 1 << 40, 1 << 40)]
        {
            assert!(matches!(quantise(&[1.0], inv_step, levels, weight, &mut [0]), Err(FixedError::Setting { .. })));
        }
        assert!(matches!(quantise(&[1.0], 1.0, 8, 1, &mut []), Err(FixedError::Length { .. })));
        assert!(matches!(quantise_pack(&[1.0], 1.0, 8, 1, 65, &mut []), Err(FixedError::Setting { .. })));
    }

    proptest! {
        #[test]
        fn every_compilation_gives_the_same_bits(
            patterns in prop::collection::vec(any::<u32>(), 0..100),
            usual in prop::collection::vec(-300f32..300.0, 0..1200),
            levels in prop_oneof![1i32..300, Just(1 << 22)],
            weight in -1000i64..1000,
        ) {
            let values: Vec<f32> = patterns.into_iter().map(f32::from_bits).chain(usual).collect();
            let mut plain = vec![0; values.len()];
            let expected = narrow_words::plain(&values, 1.7, levels, weight, &mut plain);
            let mut words = vec![0; values.len()];
            prop_assert_eq!(narrow_words(&values, 1.7, levels, weight, &mut words), expected);
            prop_assert_eq!(&words, &plain);
            wide_words(&values, 1.7, i64::from(levels), weight, &mut words);
            for (i, value) in values.iter().enumerate() {
                prop_assert!(value.is_nan() || words[i] == plain[i]);
            }
            let mut bytes = vec![0; values.len() * 4];
            let mut plain_bytes = bytes.clone();
            prop_assert_eq!(narrow_bytes(&values, 1.7, levels, weight as i32, &mut bytes), expected);
            narrow_bytes::plain(&values, 1.7, levels, weight as i32, &mut plain_bytes);
            prop_assert_eq!(&bytes, &plain_bytes);
            for (word, bytes) in plain.iter().zip(bytes.as_chunks::<4>().0) {
                prop_assert_eq!(*word as i32, i32::from_le_bytes(*bytes));
            }
        }

        #[test]
        fn many_levels_in_32_bits_are_the_definition_on_every_processor(
            patterns in prop::collection::vec(any::<u32>(), 0..100),
            usual in prop::collection::vec(-1.1f32..1.1, 0..1200),
            levels in prop_oneof![1i64..300, Just(1 << 24), Just((1 << 24) + 1), Just(42_949_672), Just((1i64 << 31) - 1), Just(1 << 31)],
            weight in -1000i64..1000,
        ) {
            // The usual ones reach just beyond the limits; among the patterns are the infinities' neighbours.
            let values: Vec<f32> = patterns.into_iter().map(f32::from_bits).filter(|value| !value.is_nan())
                .chain(usual).chain([1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY]).collect();
            let inv_step = levels as f32;
            let mut words = vec![0; values.len()];
            let expected = wide_words(&values, inv_step, levels, weight, &mut words);
            let mut bytes = vec![0xff; packed_len(values.len(), 32)];
            prop_assert_eq!(quantise_pack_wide32(&values, inv_step, levels, weight, &mut bytes).unwrap(), expected.saturated);
            for (i, (word, bytes)) in words.iter().zip(bytes.as_chunks::<4>().0).enumerate() {
                prop_assert_eq!(*word as i32, i32::from_le_bytes(*bytes), "{} of {}", values[i], levels);
            }
            let limits = WideLimits {
                least: (-levels) as i32, most: (levels - 1) as i32,
                low: -largest_up_to(levels), high: largest_up_to(levels - 1),
            };
            let mut plain = vec![0; values.len() * 4];
            prop_assert_eq!(wide_bytes::plain(&values, inv_step, limits, weight as i32, &mut plain), expected);
            prop_assert_eq!(&plain, &bytes[..plain.len()]);
        }

        #[test]
        fn fused_packing_is_quantise_then_pack(
            values in prop::collection::vec(-300f32..300.0, 0..1200),
            bits in 1u32..=64,
            levels in prop_oneof![1i64..300, Just(1 << 30)],
        ) {
            let mut words = vec![0; values.len()];
            let saturated = quantise(&values, 1.3, levels, 5, &mut words).unwrap();
            let mut expected = vec![0xff; packed_len(values.len(), bits)];
            pack(&words, bits, &mut expected).unwrap();
            let mut fused = vec![0xff; expected.len()];
            prop_assert_eq!(quantise_pack(&values, 1.3, levels, 5, bits, &mut fused).unwrap(), saturated);
            prop_assert_eq!(fused, expected);
        }
    }
}
