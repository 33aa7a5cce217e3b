//! Exact integers inside a sum of small words.
//!
//! A count or a sum of squares needs more bits than a word has. An `i128` is cut into **limbs** of `limb_bits` bits,
//! lowest first, one limb per word. A limb leaves room for a cohort's worth of carries in its word, so the sum of
//! each limb is exact; putting the limb sums together modulo 2^128 gives the sum of the integers, negative ones too
//! (two's complement). It is right whenever the true sum fits an `i128`.

/// Limbs that hold 128 bits.
pub fn limbs(limb_bits: u32) -> usize {
    128usize.div_ceil(limb_bits as usize)
}

/// The limbs of `value`, lowest first, each below 2^`limb_bits`; 1 ≤ `limb_bits` ≤ 32.
pub fn split(value: i128, limb_bits: u32) -> impl Iterator<Item = i64> {
    let mask = (1u128 << limb_bits) - 1;
    (0..limbs(limb_bits) as u32).map(move |i| ((value as u128 >> (i * limb_bits)) & mask) as i64)
}

/// The sum of integers from the sums of their limbs.
pub fn join(sums: &[i64], limb_bits: u32) -> i128 {
    let parts = sums.iter().zip(0u32..).map(|(&sum, i)| (i128::from(sum) as u128) << (i * limb_bits));
    parts.fold(0u128, u128::wrapping_add) as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_limbs_are_limbs_of_sums() {
        let values =
            [0, 1, -1, 123_456_789_012_345_678_901, -987_654_321_098_765_432_109, i128::MAX / 4, i128::MIN / 4];
        for limb_bits in 1..=32 {
            let mut sums = vec![0i64; limbs(limb_bits)];
            for value in values {
                sums.iter_mut().zip(split(value, limb_bits)).for_each(|(s, limb)| *s += limb);
            }
            assert_eq!(join(&sums, limb_bits), values.iter().sum::<i128>(), "limbs of {limb_bits} bits");
        }
    }
}
