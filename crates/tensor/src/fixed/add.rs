//! Adding packed words where they lie, and subtracting them.
//!
//! Words of any width are added 64 bits at a time, whatever boundaries a limb of 64 bits cuts (the carry-save trick of
//! SIMD within a register). Let H mark the top bit of each word. Without the top bits, `(a & !H) + (b & !H)`
//! cannot carry out of a word; the top bits themselves add without carry, `^ ((a ^ b) & H)`. A word that lies across two
//! limbs hands at most one carry to the next limb, and there the carry ends below or at that limb's first marked bit,
//! which is clear on both sides. So no carry runs through a limb, all carries are known at once, and the loop vectorises.
//!
//! A difference is a sum of complements: `a - b = !(!a + b)` in each word, since `!a = -1 - a`.

use super::{FixedError, check_bits, check_len};
use crate::processor::for_this_processor;

/// `acc[i] = (acc[i] + other[i]) mod 2^bits` for packed words. Both slices have the same length, whole groups of `bits` bytes.
pub fn add_packed(acc: &mut [u8], other: &[u8], bits: u32) -> Result<(), FixedError> {
    let bytes_per_group = check(acc, other, bits)?;
    match bits {
        8 => add8(acc, other),
        16 => add16(acc, other),
        32 => add32(acc, other),
        64 => add64(acc, other),
        _ => add_any(acc, other, bytes_per_group),
    }
    Ok(())
}

/// `acc[i] = (acc[i] - other[i]) mod 2^bits` for packed words. Both slices have the same length, whole groups of `bits` bytes.
pub fn sub_packed(acc: &mut [u8], other: &[u8], bits: u32) -> Result<(), FixedError> {
    let bytes_per_group = check(acc, other, bits)?;
    match bits {
        8 => sub8(acc, other),
        16 => sub16(acc, other),
        32 => sub32(acc, other),
        64 => sub64(acc, other),
        _ => sub_any(acc, other, bytes_per_group),
    }
    Ok(())
}

fn check(acc: &[u8], other: &[u8], bits: u32) -> Result<usize, FixedError> {
    let bytes_per_group = check_bits(bits)?;
    check_len("other packed words", acc.len(), other.len())?;
    if !acc.len().is_multiple_of(bytes_per_group) {
        let expected = acc.len().next_multiple_of(bytes_per_group);
        return Err(FixedError::Length { what: "packed words", expected, got: acc.len() });
    }
    Ok(bytes_per_group)
}

macro_rules! whole_words {
    ($name:ident, $word:ty, $bytes:literal, $operation:ident) => {
        for_this_processor! {
            fn $name(acc: &mut [u8], other: &[u8]) {
                for (a, b) in acc.as_chunks_mut::<$bytes>().0.iter_mut().zip(other.as_chunks::<$bytes>().0) {
                    *a = <$word>::from_le_bytes(*a).$operation(<$word>::from_le_bytes(*b)).to_le_bytes();
                }
            }
        }
    };
}

whole_words!(add8, u8, 1, wrapping_add);
whole_words!(add16, u16, 2, wrapping_add);
whole_words!(add32, u32, 4, wrapping_add);
whole_words!(add64, u64, 8, wrapping_add);
whole_words!(sub8, u8, 1, wrapping_sub);
whole_words!(sub16, u16, 2, wrapping_sub);
whole_words!(sub32, u32, 4, wrapping_sub);
whole_words!(sub64, u64, 8, wrapping_sub);

for_this_processor! {
    fn add_any(acc: &mut [u8], other: &[u8], bits: usize) {
        any_words::<false>(acc, other, bits);
    }
}

for_this_processor! {
    fn sub_any(acc: &mut [u8], other: &[u8], bits: usize) {
        any_words::<true>(acc, other, bits);
    }
}

/// Adds, or with `SUBTRACT` takes away, words of any width.
#[inline(always)]
fn any_words<const SUBTRACT: bool>(acc: &mut [u8], other: &[u8], bits: usize) {
    // The marks repeat after 64 words, that is after `bits` limbs. Vectors take eight limbs, so most of the work is done in
    // stretches of periods that eight divides.
    let mut top = [0u64; 512];
    for word in 1..=64 {
        let bit = word * bits - 1;
        top[bit / 64] |= 1 << (bit % 64);
    }
    let periods = 8 >> bits.trailing_zeros().min(3);
    for period in 1..periods {
        top.copy_within(..bits, period * bits);
    }
    let mut carry = [0u64; 513];
    let (mut acc, mut other) = (acc, other);
    for limbs in [periods * bits, bits] {
        let whole = acc.len() / (limbs * 8) * (limbs * 8);
        let (acc_whole, acc_rest) = acc.split_at_mut(whole);
        let (other_whole, other_rest) = other.split_at(whole);
        for (acc, other) in acc_whole.chunks_exact_mut(limbs * 8).zip(other_whole.chunks_exact(limbs * 8)) {
            stretch::<SUBTRACT>(acc, other, &top[..limbs], &mut carry);
        }
        (acc, other) = (acc_rest, other_rest);
    }
    if !acc.is_empty() {
        let (mut a, mut b) = ([0; 512], [0; 512]);
        a[..acc.len()].copy_from_slice(acc);
        b[..other.len()].copy_from_slice(other);
        stretch::<SUBTRACT>(&mut a[..bits * 8], &b[..bits * 8], &top[..bits], &mut carry);
        acc.copy_from_slice(&a[..acc.len()]);
    }
}

/// As many limbs as `top` has, of which the last ends with a word. `carry[0]` is 0 before and after.
#[inline(always)]
fn stretch<const SUBTRACT: bool>(acc: &mut [u8], other: &[u8], top: &[u64], carry: &mut [u64; 513]) {
    let acc = &mut acc.as_chunks_mut::<8>().0[..top.len()];
    let other = &other.as_chunks::<8>().0[..top.len()];
    // Complements everything before and after adding, or nothing.
    let flip = if SUBTRACT { u64::MAX } else { 0 };
    // carry[i] goes into limb i; carry[top.len()] is always 0.
    let carry_out = &mut carry[1..=top.len()];
    for i in 0..top.len() {
        let (a, b) = ((u64::from_le_bytes(acc[i]) ^ flip) & !top[i], u64::from_le_bytes(other[i]) & !top[i]);
        carry_out[i] = u64::from(a.wrapping_add(b) < a);
    }
    let carry_in = &carry[..top.len()];
    for i in 0..top.len() {
        let (a, b) = (u64::from_le_bytes(acc[i]) ^ flip, u64::from_le_bytes(other[i]));
        let sum = (a & !top[i]).wrapping_add(b & !top[i]).wrapping_add(carry_in[i]);
        acc[i] = (sum ^ ((a ^ b) & top[i]) ^ flip).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{pack, packed_len, unpack};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_addition_of_words_modulo_two_to_the_bits(
            words in prop::collection::vec((any::<i64>(), any::<i64>()), 0..1200),
        ) {
            let (left, right): (Vec<i64>, Vec<i64>) = words.into_iter().unzip();
            for bits in 1..=64 {
                let mut acc = vec![0; packed_len(left.len(), bits)];
                let mut other = acc.clone();
                pack(&left, bits, &mut acc).unwrap();
                pack(&right, bits, &mut other).unwrap();
                let mut plain = acc.clone();
                add_packed(&mut acc, &other, bits).unwrap();
                let mut sum = vec![0; left.len()];
                unpack(&acc, bits, &mut sum).unwrap();
                let expected: Vec<i64> = left.iter().zip(&right)
                    .map(|(a, b)| a.wrapping_add(*b) << (64 - bits) >> (64 - bits)).collect();
                prop_assert_eq!(&sum, &expected, "{} bits", bits);

                // The general way, compiled for any processor, agrees with the fast ones.
                add_any::plain(&mut plain, &other, bits as usize);
                prop_assert_eq!(&acc, &plain, "{} bits", bits);

                // Twice the same taken away: once to the beginning, once below it.
                for expected in [&left, &left.iter().zip(&right).map(|(a, b)| a.wrapping_sub(*b)).collect()] {
                    sub_packed(&mut acc, &other, bits).unwrap();
                    sub_any::plain(&mut plain, &other, bits as usize);
                    prop_assert_eq!(&acc, &plain, "{} bits", bits);
                    let mut packed = vec![0; packed_len(expected.len(), bits)];
                    pack(expected, bits, &mut packed).unwrap();
                    prop_assert_eq!(&acc, &packed, "{} bits", bits);
                }
            }
        }
    }

    #[test]
    fn a_carry_runs_to_the_end_of_its_word_and_no_further() {
        for bits in 2..=64 {
            // -1 + 1 in every word: carries as long as they can be.
            let words = 131;
            let mut acc = vec![0; packed_len(words, bits)];
            let mut other = acc.clone();
            pack(&vec![-1; words], bits, &mut acc).unwrap();
            pack(&vec![1; words], bits, &mut other).unwrap();
            add_packed(&mut acc, &other, bits).unwrap();
            assert!(acc.iter().all(|&byte| byte == 0), "{bits} bits");
            // And borrows: 0 - 1 in every word.
            sub_packed(&mut acc, &other, bits).unwrap();
            let mut back = vec![0; words];
            unpack(&acc, bits, &mut back).unwrap();
            assert!(back.iter().all(|&word| word == -1), "{bits} bits");
        }
    }

    #[test]
    fn unequal_or_broken_lengths_are_refused() {
        assert!(matches!(add_packed(&mut [0; 3], &[0; 6], 3), Err(FixedError::Length { .. })));
        assert!(matches!(add_packed(&mut [0; 4], &[0; 4], 3), Err(FixedError::Length { expected: 6, got: 4, .. })));
        assert!(matches!(add_packed(&mut [], &[], 0), Err(FixedError::Setting { .. })));
        assert!(matches!(sub_packed(&mut [0; 3], &[0; 6], 3), Err(FixedError::Length { .. })));
        assert!(matches!(sub_packed(&mut [0; 4], &[0; 4], 3), Err(FixedError::Length { expected: 6, got: 4, .. })));
    }
}
