//! A random rotation x ↦ H D x in blocks: random signs D, then the Walsh-Hadamard transform H, scaled to keep lengths.
//!
//! Ailon and Chazelle 2009, "The fast Johnson-Lindenstrauss transform"; Suresh et al. 2017, "Distributed mean estimation with limited
//! communication", section 3. It spreads a vector's energy over its block, so that rounding, quantising and sums modulo
//! 2^bits lose little; Kairouz, Liu and Steinke 2021 (arXiv:2102.06387) use it so. Nothing is padded: blocks have 2^12
//! coordinates, and what is left at the end is cut into powers of two, so its last few coordinates are hardly mixed.
//!
//! The rotation is linear, the same for all who know the seed, and secret from nobody: it protects nothing by itself.
//!
//! Floats: a stage rounds each coordinate once, so a norm changes by at most (12 + 2) · 2^-24 of itself: [`MARGIN`] is more.
//! Coordinates must stay below 2^127 / 2^12, which any clipped vector does.

use rand_core::CryptoRng;

/// The norm after a rotation is within this share of the norm before.
pub const MARGIN: f64 = 1.0 / (1u32 << 20) as f64;

const BLOCK: usize = 1 << 12;

/// Random signs for vectors of one length.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The sign bits of 32 coordinates in each word.
    signs: Vec<u32>,
    len: usize,
}

impl Rotation {
    /// For vectors of `len` coordinates. Who draws from the same seed gets the same rotation.
    pub fn new<R: CryptoRng>(len: usize, rng: &mut R) -> Self {
        let signs = (0..len.div_ceil(32)).map(|_| rng.next_u32()).collect();
        Self { signs, len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rotates in place.
    ///
    /// # Panics
    /// If `x` has another length than the rotation.
    pub fn forward(&self, x: &mut [f32]) {
        assert_eq!(x.len(), self.len, "a rotation is of one length");
        self.blocks(x, |signs, block| {
            flip(signs, block);
            hadamard(block);
        });
    }

    /// Rotates back, up to rounding: H is its own inverse, then the signs.
    ///
    /// # Panics
    /// If `x` has another length than the rotation.
    pub fn inverse(&self, x: &mut [f32]) {
        assert_eq!(x.len(), self.len, "a rotation is of one length");
        self.blocks(x, |signs, block| {
            hadamard(block);
            flip(signs, block);
        });
    }

    /// [`Rotation::inverse`] for a part of the vector, its coordinates from `first` on.
    ///
    /// # Panics
    /// If `first` is no multiple of 2^12, or the part ends at none and before the vector does.
    pub fn inverse_from(&self, first: usize, x: &mut [f32]) {
        let end = first + x.len();
        let whole = first.is_multiple_of(BLOCK) && (end == self.len || end < self.len && end.is_multiple_of(BLOCK));
        assert!(whole, "a part of a rotation is whole blocks");
        self.blocks_from(first, x, |signs, block| {
            hadamard(block);
            flip(signs, block);
        });
    }

    fn blocks(&self, x: &mut [f32], each: impl Fn(Signs<'_>, &mut [f32])) {
        self.blocks_from(0, x, each);
    }

    fn blocks_from(&self, first: usize, x: &mut [f32], each: impl Fn(Signs<'_>, &mut [f32])) {
        let mut rest = x;
        let mut start = first;
        while !rest.is_empty() {
            // The largest power of two that is left.
            let size = BLOCK.min(1 << rest.len().ilog2());
            let (block, others) = rest.split_at_mut(size);
            each(Signs { words: &self.signs, start }, block);
            start += size;
            rest = others;
        }
    }
}

/// The signs from coordinate `start` on.
#[derive(Clone, Copy)]
struct Signs<'a> {
    words: &'a [u32],
    start: usize,
}

/// Blocks begin at multiples of their size, or at ones of 32: larger powers of two come first.
fn flip(signs: Signs<'_>, block: &mut [f32]) {
    if signs.start.is_multiple_of(32) {
        for (chunk, &word) in block.chunks_mut(32).zip(&signs.words[signs.start / 32..]) {
            for (i, v) in chunk.iter_mut().enumerate() {
                *v = f32::from_bits(v.to_bits() ^ (word >> i << 31));
            }
        }
    } else {
        for (at, v) in (signs.start..).zip(block) {
            *v = f32::from_bits(v.to_bits() ^ (signs.words[at / 32] >> (at % 32) << 31));
        }
    }
}

/// H / √n, n a power of two. Two stages in one pass over the block while there are two left; the order of stages is free.
fn hadamard(x: &mut [f32]) {
    let n = x.len();
    let mut half = n / 2;
    while half >= 2 * LANES {
        let quarter = half / 2;
        for four in x.chunks_exact_mut(2 * half) {
            let (left, right) = four.split_at_mut(half);
            let (a, b) = left.split_at_mut(quarter);
            let (c, d) = right.split_at_mut(quarter);
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (p, q, r, s) = (*a + *c, *b + *d, *a - *c, *b - *d);
                (*a, *b, *c, *d) = (p + q, p - q, r + s, r - s);
            }
        }
        half /= 4;
    }
    while half >= LANES {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half /= 2;
    }
    let scale = 1.0 / (n as f32).sqrt();
    let mut rows = x.chunks_exact_mut(LANES);
    for row in &mut rows {
        let mut lanes = [0f32; LANES];
        lanes.copy_from_slice(row);
        for step in [8, 4, 2, 1] {
            let mut next = [0f32; LANES];
            for i in 0..LANES {
                next[i] = if i & step == 0 { lanes[i] + lanes[i ^ step] } else { lanes[i ^ step] - lanes[i] };
            }
            lanes = next;
        }
        row.iter_mut().zip(lanes).for_each(|(v, lane)| *v = lane * scale);
    }
    let short = rows.into_remainder();
    let mut half = short.len() / 2;
    while half >= 1 {
        for pair in short.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half /= 2;
    }
    short.iter_mut().for_each(|v| *v *= scale);
}

/// The last four stages happen in registers.
const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::l2_norm;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn rotation(len: usize) -> Rotation {
        Rotation::new(len, &mut ChaCha20Rng::seed_from_u64(len as u64))
    }

    #[test]
    fn it_is_the_hadamard_matrix() {
        for n in [1usize, 2, 4, 8, 16, 32, 64, 128, 1024] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 1.7).cos()).collect();
            let mut fast = x.clone();
            hadamard(&mut fast);
            for (i, found) in fast.iter().enumerate() {
                let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                let direct: f64 = x.iter().enumerate().map(|(j, v)| sign(j) * f64::from(*v)).sum();
                // log2(n) roundings of sums of at most n terms below 1.
                assert!((f64::from(*found) - direct / (n as f64).sqrt()).abs() < 1e-5, "{n} {i}");
            }
        }
    }

    #[test]
    fn lengths_stay_and_the_inverse_undoes() {
        for len in [0usize, 1, 5, 31, 100, 4095, 4096, 10_000, 12_345] {
            let rotation = rotation(len);
            let x: Vec<f32> = (0..len).map(|i| ((i * i) as f32 * 0.11).sin() * (i % 7) as f32).collect();
            let mut y = x.clone();
            rotation.forward(&mut y);
            let (before, after) = (l2_norm(&x), l2_norm(&y));
            assert!((after - before).abs() <= MARGIN * before, "{len}: {before} {after}");
            rotation.inverse(&mut y);
            let error: Vec<f32> = x.iter().zip(&y).map(|(a, b)| a - b).collect();
            assert!(l2_norm(&error) <= 2.0 * MARGIN * before, "{len}");
        }
    }

    #[test]
    fn a_spike_is_spread_and_signs_matter() {
        let rotation = rotation(2 * BLOCK);
        let mut x = vec![0f32; 2 * BLOCK];
        x[5000] = 64.0;
        rotation.forward(&mut x);
        // √4096 = 64: every coordinate of the second block is ±1, the first is empty.
        assert!(x[..BLOCK].iter().all(|&v| v == 0.0) && x[BLOCK..].iter().all(|&v| v.abs() == 1.0));
        // A constant vector is a spike without signs: with them, no coordinate exceeds 6 deviations.
        let mut x = vec![1f32; 2 * BLOCK];
        rotation.forward(&mut x);
        assert!(x.iter().all(|v| v.abs() < 6.0));
    }
}
