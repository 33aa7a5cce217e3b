//! Q6_K: 256 columns in sixteen sub-blocks of 16, each with a signed scale of eight bits; values around 32.
//!
//! ```text
//! low:    32 vectors, upper: 16 vectors, each four bytes of every row as in the file
//! scales: 256 bytes: sub-block 0 of all rows, sub-block 1, …; then, apart, 16 d (f16)
//! ```

use super::{Format, place, put_half, take_half};
use crate::quant::Kind;
use crate::quant::activations::{Blocks, D_256, N32};
use crate::quant::lanes::{Lanes, ROWS};

pub struct Q6K;

const UPPER: usize = 2048;
const SIGNED: usize = UPPER + 1024;

impl Format for Q6K {
    const KIND: Kind = Kind::Q6_K;
    const ACTIVATIONS: Blocks = Blocks::Of256;
    const TILE: usize = SIGNED + 256;
    const SCALES: usize = 32;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8], scales: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            (0..128).for_each(|i| tile[place(i, row)] = block[i]);
            (0..64).for_each(|i| tile[UPPER + place(i, row)] = block[128 + i]);
            (0..16).for_each(|j| tile[SIGNED + 16 * j + row] = block[192 + j]);
            put_half(block, 208, row, scales);
        }
    }

    fn unpack(tile: &[u8], scales: &[u8], row: usize, block: &mut [u8]) {
        (0..128).for_each(|i| block[i] = tile[place(i, row)]);
        (0..64).for_each(|i| block[128 + i] = tile[UPPER + place(i, row)]);
        (0..16).for_each(|j| block[192 + j] = tile[SIGNED + 16 * j + row]);
        take_half(scales, row, block, 208);
    }

    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize>(
        tile: *const u8,
        scales: *const u8,
        panel: *const u8,
        totals: &mut [L::Floats; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [L::zero(); M];
            // Column 128 h + 32 q + i: quarters 0 and 2 share the vectors of low bits, so do 1 and 3.
            for j in 0..16 {
                let (half, quarter, sixteen) = (j / 8, j % 8 / 2, j % 2);
                let mut sub = [L::zero(); M];
                for (m, sub) in sub.iter_mut().enumerate() {
                    *sub = L::all(panel.add(N32 * M + (j * M + m) * 4));
                }
                for group in 0..4 {
                    let at = sixteen * 4 + group;
                    let low = L::load(tile.add((half * 16 + quarter % 2 * 8 + at) * 64));
                    let upper = L::load(tile.add(UPPER + (half * 8 + at) * 64));
                    let w = match quarter {
                        0 => L::or(L::low(low), L::up::<4>(upper, 0x30)),
                        1 => L::or(L::low(low), L::up::<2>(upper, 0x30)),
                        2 => L::or(L::high(low), L::up::<0>(upper, 0x30)),
                        _ => L::or(L::high(low), L::down::<2>(upper, 0x30)),
                    };
                    for (m, sub) in sub.iter_mut().enumerate() {
                        *sub = L::dot(*sub, w, panel.add(((j * 4 + group) * M + m) * 4));
                    }
                }
                let scale = L::signed(tile.add(SIGNED + 16 * j));
                for (sum, sub) in sums.iter_mut().zip(sub) {
                    *sum = L::multiply_add(*sum, sub, scale);
                }
            }
            let d = L::halves(scales);
            for (m, total) in totals.iter_mut().enumerate() {
                let da = L::every(panel.add(D_256 * M + m * 4));
                *total = L::fused(L::to_floats(sums[m]), L::multiply(d, da), *total);
            }
        }
    }
}
