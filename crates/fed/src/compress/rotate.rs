//! Randomised Hadamard rotation: Ailon and Chazelle 2009; for mean estimation Suresh et al. 2017, "Distributed Mean
//! Estimation with Limited Communication" (ICML), section 3. z = H D x: random signs, then the Walsh-Hadamard transform,
//! orthonormal.
//!
//! Afterwards every coordinate is a random mixture of all in its block, near to normal with the block's mean square, so few
//! levels suit all of them. Blocks have 2^12 coordinates; what is left is cut into ever smaller powers of two down to 2^6,
//! and fewer than 2^6 coordinates stay as they are. So a vector never grows: nothing is padded.
//!
//! An isometry: the L2 bound stays, but for f32's rounding (2^-24 per level of additions, covered by the factor below). It
//! hides nothing: the seed is public.

use super::random::{Draws, Seed};
use super::{BLOCK, Linear};
use std::ops::Range;

/// log2 of the smallest block that mixes enough to be worth it.
const SMALLEST: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation;

/// The blocks of a vector, largest first, without the plain tail.
pub fn blocks(len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = len - start;
        let size = if left >= BLOCK { BLOCK } else { 1 << left.checked_ilog2()? };
        (size >= 1 << SMALLEST).then(|| {
            start += size;
            start - size..start
        })
    })
}

/// The coordinates that no block has: fewer than 64, the last ones.
pub fn tail(len: usize) -> Range<usize> {
    len - len % (1 << SMALLEST)..len
}

/// x ← H D x. `x` has a power of two coordinates. Signs are drawn in order: 32 per word.
pub fn rotate(x: &mut [f32], draws: &mut Draws) {
    flip(x, draws);
    hadamard(x);
}

/// x ← D H x, which undoes [`rotate`] with the same draws.
pub fn unrotate(x: &mut [f32], draws: &mut Draws) {
    hadamard(x);
    flip(x, draws);
}

fn flip(x: &mut [f32], draws: &mut Draws) {
    for group in x.chunks_mut(32) {
        let signs = draws.word();
        for (i, v) in group.iter_mut().enumerate() {
            *v = f32::from_bits(v.to_bits() ^ (signs >> i & 1) << 31);
        }
    }
}

/// The orthonormal Walsh-Hadamard transform in place: additions in a fixed order, one product at the end.
fn hadamard(x: &mut [f32]) {
    debug_assert!(x.len().is_power_of_two());
    // Halves of 1, 2 and 4 in registers: slices so short would be added one by one.
    let (eights, rest) = x.as_chunks_mut::<8>();
    for v in eights {
        for half in [1, 2, 4] {
            let before = *v;
            for (i, v) in v.iter_mut().enumerate() {
                *v = if i & half == 0 { before[i] + before[i + half] } else { before[i - half] - before[i] };
            }
        }
    }
    let mut half = if rest.is_empty() { 8 } else { 1 };
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    // A square root is rounded correctly on every machine.
    let scale = (1.0 / (x.len() as f64).sqrt()) as f32;
    x.iter_mut().for_each(|v| *v *= scale);
}

impl Linear for Rotation {
    fn name(&self) -> &'static str {
        "rotation"
    }

    fn sent_len(&self, len: usize) -> usize {
        len
    }

    fn forward(&self, x: &[f32], seed: &Seed) -> Vec<f32> {
        let (mut z, mut draws) = (x.to_vec(), Draws::new(seed));
        blocks(x.len()).for_each(|block| rotate(&mut z[block], &mut draws));
        z
    }

    fn backward(&self, sent: &[f32], len: usize, seed: &Seed) -> Vec<f32> {
        assert_eq!(sent.len(), len);
        let (mut x, mut draws) = (sent.to_vec(), Draws::new(seed));
        blocks(len).for_each(|block| unrotate(&mut x[block], &mut draws));
        x
    }

    /// Twelve levels of additions and a product, each within 2^-24 of its result; errors of a level have at most the norm of
    /// its results times 2^-24, and every level is √2 times an isometry.
    fn l2_bound(&self, before: f64, _: usize) -> Option<f64> {
        Some(before * (1.0 + 14.0 * 2f64.powi(-24)))
    }

    fn needs_residual(&self) -> bool {
        false
    }
}
