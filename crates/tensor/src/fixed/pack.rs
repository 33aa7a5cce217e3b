//! Words to bytes at exactly `bits` bits each, and back.
//!
//! Word `i` of a group of eight takes the bits `i * bits .. (i + 1) * bits` of the group's `bits` bytes, bit 0 being the
//! lowest of the first byte. A last group that is not full is filled with zero words.

use super::{BLOCK, FixedError, check_bits, check_len};

/// The bytes that `words` words of `bits` bits take.
pub fn packed_len(words: usize, bits: u32) -> usize {
    words.div_ceil(8).saturating_mul(bits as usize)
}

/// Packs each word modulo 2^bits. `out` has [`packed_len`] bytes.
pub fn pack(words: &[i64], bits: u32, out: &mut [u8]) -> Result<(), FixedError> {
    let bytes_per_group = check_bits(bits)?;
    check_len("output of pack", packed_len(words.len(), bits), out.len())?;
    let pack_group = PACK[bytes_per_group - 1];
    let (groups, tail) = words.as_chunks::<8>();
    let (full, last) = out.split_at_mut(groups.len() * bytes_per_group);
    pack_group(groups, full);
    if !tail.is_empty() {
        let mut group = [0; 8];
        group[..tail.len()].copy_from_slice(tail);
        pack_group(&[group], last);
    }
    Ok(())
}

/// Unpacks as many words as `out` takes, sign-extended. `packed` has [`packed_len`] bytes.
pub fn unpack(packed: &[u8], bits: u32, out: &mut [i64]) -> Result<(), FixedError> {
    let bytes_per_group = check_bits(bits)?;
    check_len("packed words", packed_len(out.len(), bits), packed.len())?;
    let unpack_group = UNPACK[bytes_per_group - 1];
    let (groups, tail) = out.as_chunks_mut::<8>();
    let (full, last) = packed.split_at(groups.len() * bytes_per_group);
    unpack_group(full, groups);
    if !tail.is_empty() {
        let mut group = [[0; 8]];
        unpack_group(last, &mut group);
        tail.copy_from_slice(&group[0][..tail.len()]);
    }
    Ok(())
}

/// Each word times `step`, rounded to f32 once.
pub fn dequantise(words: &[i64], step: f64, out: &mut [f32]) -> Result<(), FixedError> {
    check_len("output of dequantise", words.len(), out.len())?;
    for (value, word) in out.iter_mut().zip(words) {
        *value = (*word as f64 * step) as f32;
    }
    Ok(())
}

/// [`unpack`] and [`dequantise`] without holding the words.
pub fn dequantise_packed(packed: &[u8], bits: u32, step: f64, out: &mut [f32]) -> Result<(), FixedError> {
    let bytes_per_group = check_bits(bits)?;
    check_len("packed words", packed_len(out.len(), bits), packed.len())?;
    let mut words = [0; BLOCK];
    for (packed, out) in packed.chunks(BLOCK / 8 * bytes_per_group).zip(out.chunks_mut(BLOCK)) {
        let words = &mut words[..out.len()];
        unpack(packed, bits, words)?;
        dequantise(words, step, out)?;
    }
    Ok(())
}

type PackGroups = fn(&[[i64; 8]], &mut [u8]);
type UnpackGroups = fn(&[u8], &mut [[i64; 8]]);

/// One compilation per width: every shift below is then a constant.
const PACK: [PackGroups; 64] = each_width!(pack_groups);
const UNPACK: [UnpackGroups; 64] = each_width!(unpack_groups);

macro_rules! each_width {
    ($function:ident) => {
        each_width!(@list $function
            1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
            33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64)
    };
    (@list $function:ident $($bits:literal)*) => { [$($function::<$bits>),*] };
}
use each_width;

fn pack_groups<const BITS: usize>(groups: &[[i64; 8]], out: &mut [u8]) {
    for (group, out) in groups.iter().zip(out.as_chunks_mut::<BITS>().0) {
        let mut limb = 0u64;
        let mut filled = 0;
        let mut at = 0;
        for word in group {
            let word = *word as u64 & (u64::MAX >> (64 - BITS));
            limb |= word << filled;
            filled += BITS;
            if filled >= 64 {
                out[at..at + 8].copy_from_slice(&limb.to_le_bytes());
                at += 8;
                filled -= 64;
                // The part of the word that did not fit. When all of it did, BITS - filled may be 64.
                limb = if filled == 0 { 0 } else { word >> (BITS - filled) };
            }
        }
        let rest = BITS - at;
        out[at..].copy_from_slice(&limb.to_le_bytes()[..rest]);
    }
}

fn unpack_groups<const BITS: usize>(packed: &[u8], groups: &mut [[i64; 8]]) {
    for (packed, group) in packed.as_chunks::<BITS>().0.iter().zip(groups) {
        // One limb more than 64 bytes need: the word that ends a group may look at it, shifted away.
        let mut bytes = [0; 72];
        bytes[..BITS].copy_from_slice(packed);
        let limbs = bytes.as_chunks::<8>().0;
        for (i, word) in group.iter_mut().enumerate() {
            let (limb, shift) = (i * BITS / 64, i * BITS % 64);
            let low = u64::from_le_bytes(limbs[limb]) >> shift;
            let high = if shift + BITS > 64 { u64::from_le_bytes(limbs[limb + 1]) << (64 - shift) } else { 0 };
            *word = ((low | high) << (64 - BITS)) as i64 >> (64 - BITS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The two's complement value of a word modulo 2^bits.
    fn wrapped(word: i64, bits: u32) -> i64 {
        word << (64 - bits) >> (64 - bits)
    }

    #[test]
    fn three_bits_by_hand() {
        // 1, -1, 3, 0, 2, -4, 1, -2 from the lowest bit up: 001 111 011 000 010 100 001 110
        let mut out = [0; 3];
        pack(&[1, -1, 3, 0, 2, -4, 1, -2], 3, &mut out).unwrap();
        assert_eq!(out, [0b1111_1001, 0b0010_0000, 0b1100_0110]);
    }

    #[test]
    fn a_wrong_length_or_width_is_refused() {
        assert!(matches!(pack(&[0; 8], 3, &mut [0; 4]), Err(FixedError::Length { expected: 3, got: 4, .. })));
        assert!(matches!(unpack(&[0; 3], 3, &mut [0; 9]), Err(FixedError::Length { expected: 6, got: 3, .. })));
        assert!(matches!(pack(&[], 0, &mut []), Err(FixedError::Setting { .. })));
        assert!(matches!(unpack(&[], 65, &mut []), Err(FixedError::Setting { .. })));
    }

    proptest! {
        #[test]
        fn words_survive_packing_at_every_width(words in prop::collection::vec(any::<i64>(), 0..40)) {
            for bits in 1..=64 {
                let mut packed = vec![0xff; packed_len(words.len(), bits)];
                pack(&words, bits, &mut packed).unwrap();
                let mut back = vec![0; words.len()];
                unpack(&packed, bits, &mut back).unwrap();
                let expected: Vec<i64> = words.iter().map(|&word| wrapped(word, bits)).collect();
                prop_assert_eq!(&back, &expected, "{} bits", bits);

                let mut values = vec![0.0; words.len()];
                dequantise_packed(&packed, bits, 0.25, &mut values).unwrap();
                let expected: Vec<f32> = expected.iter().map(|&word| (word as f64 * 0.25) as f32).collect();
                prop_assert_eq!(&values, &expected, "{} bits", bits);
            }
        }
    }
}
