//! Activations as small integers: what a kernel multiplies quantised weights with.
//!
//! A token's vector is cut into blocks of 32 or of 256 values, as the weights want; each block has one f32 scale `d` and
//! integers from -127 to 127. Up to [`TOKENS_MAX`] tokens lie side by side in a *panel*, four columns of each in turn, so
//! that a kernel reads forward; eight, where kernels multiply so many at once ([`super::Instructions::columns`]). What a
//! token's numbers are does not depend on who lies beside it.
//!
//! ```text
//! 32:   q: 8 groups x M x 4 i8 | d: M f32 | ds: M f32 | sum: M i32          d times the sum of q; the sum of q
//! 256:  q: 64 x M x 4 i8 | d: M f32 | n32: 16 x M i32 | pairs16: 8 x M x 2 i16 | pairs32: 4 x M x 2 i16
//! ```
//! `n32` is -32 times the sum of 16 q; `pairs16` and `pairs32` hold sums of 16 and 32 of them.

use crate::processor::for_this_processor;

/// Tokens in a panel.
pub const TOKENS_MAX: usize = 12;

/// Values that share a scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocks {
    Of32,
    Of256,
}

impl Blocks {
    pub const fn columns(self) -> usize {
        match self {
            Blocks::Of32 => 32,
            Blocks::Of256 => 256,
        }
    }

    /// Bytes of one block of a panel of `tokens`.
    pub const fn bytes(self, tokens: usize) -> usize {
        tokens
            * match self {
                Blocks::Of32 => 32 + 4 + 4 + 4,
                Blocks::Of256 => 256 + 4 + 64 + 32 + 16,
            }
    }
}

/// Where the parts of a block of 256 begin, per token in the panel.
pub(super) const D_256: usize = 256;
pub(super) const N32: usize = D_256 + 4;
pub(super) const PAIRS_16: usize = N32 + 64;
pub(super) const PAIRS_32: usize = PAIRS_16 + 32;
/// And of a block of 32.
pub(super) const D_32: usize = 32;
pub(super) const DS_32: usize = D_32 + 4;
pub(super) const SUM_32: usize = DS_32 + 4;

/// The number of tokens for which kernels are fastest: the sums of more do not fit into registers beside all else.
const BEST: usize = 8;

/// Sizes of panels, of those that kernels take: the best one while many tokens are left, then the biggest that fits.
pub fn panels(mut tokens: usize, sizes: &[usize]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let fits = |size: &usize| *size <= tokens && (*size <= BEST || tokens < 2 * BEST);
        let size = sizes.iter().rev().copied().find(fits)?;
        tokens -= size;
        Some(size)
    })
}

/// The scale of a block, and its integers.
#[inline(always)]
fn quantise_block(x: &[f32], q: &mut [i8]) -> f32 {
    let mut lanes = [0f32; 16];
    for chunk in x.chunks_exact(16) {
        for (most, v) in lanes.iter_mut().zip(chunk) {
            *most = if v.abs() > *most { v.abs() } else { *most };
        }
    }
    let most = lanes.iter().fold(0f32, |most, v| most.max(*v));
    let scale = if most > 0.0 { 127.0 / most } else { 0.0 };
    for (q, v) in q.iter_mut().zip(x) {
        // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even, which then is in the low bits.
        *q = (v * scale + 12_582_912.0).to_bits() as i8;
    }
    most / 127.0
}

/// Writes token `at` of a panel of `tokens` with `x`, whose length is a multiple of the blocks' columns; `together` of
/// them lie side by side, four or eight.
pub fn quantise(blocks: Blocks, x: &[f32], at: usize, tokens: usize, together: usize, panel: &mut [u8]) {
    match together {
        4 => quantise_row::<4>(blocks, x, at, tokens, panel),
        8 => quantise_row::<8>(blocks, x, at, tokens, panel),
        _ => unreachable!("four or eight columns together"),
    }
}

for_this_processor! {
    fn quantise_row<const TOGETHER: usize>(blocks: Blocks, x: &[f32], at: usize, tokens: usize, panel: &mut [u8]) {
        let (columns, bytes) = (blocks.columns(), blocks.bytes(tokens));
        let mut q = [0i8; 256];
        for (x, block) in x.chunks_exact(columns).zip(panel.chunks_exact_mut(bytes)) {
            let q = &mut q[..columns];
            let d = quantise_block(x, q);
            let places = block.chunks_exact_mut(TOGETHER).skip(at).step_by(tokens);
            for (place, values) in places.zip(q.chunks_exact(TOGETHER)) {
                place.iter_mut().zip(values).for_each(|(byte, q)| *byte = *q as u8);
            }
            // Part `part` of a token's numbers, the `i`-th of several.
            let mut put = |part: usize, i: usize, value: [u8; 4]| {
                block[part * tokens + (i * tokens + at) * 4..][..4].copy_from_slice(&value);
            };
            let mut sums = [0i16; 16];
            for (sum, q) in sums.iter_mut().zip(q.chunks_exact(16)) {
                *sum = q.iter().map(|q| i16::from(*q)).sum();
            }
            match blocks {
                Blocks::Of32 => {
                    let sum = i32::from(sums[0] + sums[1]);
                    put(D_32, 0, d.to_le_bytes());
                    put(DS_32, 0, (d * sum as f32).to_le_bytes());
                    put(SUM_32, 0, sum.to_le_bytes());
                }
                Blocks::Of256 => {
                    put(D_256, 0, d.to_le_bytes());
                    let pair = |a: i16, b: i16| {
                        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
                        [a[0], a[1], b[0], b[1]]
                    };
                    for (i, sum) in sums.iter().enumerate() {
                        put(N32, i, (-32 * i32::from(*sum)).to_le_bytes());
                    }
                    for i in 0..8 {
                        put(PAIRS_16, i, pair(sums[2 * i], sums[2 * i + 1]));
                    }
                    for i in 0..4 {
                        put(PAIRS_32, i, pair(sums[4 * i] + sums[4 * i + 1], sums[4 * i + 2] + sums[4 * i + 3]));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_the_nearest_and_do_not_depend_on_the_panel() {
        let x: Vec<f32> = (0..512).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
        for blocks in [Blocks::Of32, Blocks::Of256] {
            let alone = {
                let mut panel = vec![0; x.len() / blocks.columns() * blocks.bytes(1)];
                quantise(blocks, &x, 0, 1, 4, &mut panel);
                panel
            };
            for (x, block) in x.chunks(blocks.columns()).zip(alone.chunks(blocks.bytes(1))) {
                let d = f32::from_le_bytes(block[blocks.columns()..][..4].try_into().unwrap());
                let most = x.iter().fold(0f32, |m, v| m.max(v.abs()));
                assert_eq!(d, most / 127.0);
                for (x, q) in x.iter().zip(block) {
                    let exact = f64::from(*x) * 127.0 / f64::from(most);
                    assert!((exact - f64::from(*q as i8)).abs() <= 0.5 + 1e-4, "{x} became {}", *q as i8);
                }
            }
            // The same token as the third of four.
            for together in [4, 8] {
                let mut panel = vec![0xee; x.len() / blocks.columns() * blocks.bytes(4)];
                quantise(blocks, &x, 2, 4, together, &mut panel);
                for (one, four) in alone.chunks(blocks.bytes(1)).zip(panel.chunks(blocks.bytes(4))) {
                    let (q, rest) = four.split_at(4 * blocks.columns());
                    let q = q.chunks(4 * together).flat_map(|all| &all[2 * together..3 * together]);
                    let third: Vec<u8> = q.chain(rest.chunks(16).flat_map(|all| &all[8..12])).copied().collect();
                    assert_eq!(one, third);
                }
            }
        }
    }

    #[test]
    fn zeros_and_the_widest_values() {
        let mut q = [1i8; 32];
        assert_eq!((quantise_block(&[0.0; 32], &mut q), q), (0.0, [0; 32]));
        let mut x = [f32::MAX; 32];
        x[1] = -f32::MAX;
        quantise_block(&x, &mut q);
        assert_eq!((q[0], q[1]), (127, -127));
    }

    #[test]
    fn panels_take_the_best_size_and_few_panels_of_a_rest() {
        assert_eq!(panels(31, &[1, 2, 4, 8, 12]).collect::<Vec<_>>(), [8, 8, 12, 2, 1]);
        assert_eq!(panels(16, &[1, 2, 4, 8, 12]).collect::<Vec<_>>(), [8, 8]);
        assert_eq!(panels(7, &[1, 2, 4]).collect::<Vec<_>>(), [4, 2, 1]);
    }
}
