//! Q2_K: 256 columns in sixteen sub-blocks of 16, each with a four-bit scale and a four-bit minimum.
//!
//! ```text
//! pairs:  16 vectors, four bytes of every row as in the file
//! fours:  256 bytes, low nibble: scale number 16 j + r, high nibble: minimum number 32 (j / 2) + 2 r + j % 2
//! scales: 16 d (f16), 16 dmin
//! ```

use super::{Format, min_at, place, put_half, scale_at, take_half};
use crate::quant::Kind;
use crate::quant::activations::{Blocks, D_256, PAIRS_16};
use crate::quant::lanes::{Lanes, ROWS};

pub struct Q2K;

const FOURS: usize = 1024;

impl Format for Q2K {
    const KIND: Kind = Kind::Q2_K;
    const ACTIVATIONS: Blocks = Blocks::Of256;
    const TILE: usize = FOURS + 256;
    const SCALES: usize = 64;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8], scales: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            for j in 0..16 {
                tile[FOURS + scale_at(j, row)] |= block[j] & 15;
                tile[FOURS + min_at(j, row)] |= block[j] & 0xf0;
            }
            (0..64).for_each(|i| tile[place(i, row)] = block[16 + i]);
            put_half(block, 80, row, scales);
            put_half(block, 82, row, &mut scales[32..]);
        }
    }

    fn unpack(tile: &[u8], scales: &[u8], row: usize, block: &mut [u8]) {
        for j in 0..16 {
            block[j] = tile[FOURS + scale_at(j, row)] & 15 | tile[FOURS + min_at(j, row)] & 0xf0;
        }
        (0..64).for_each(|i| block[16 + i] = tile[place(i, row)]);
        take_half(scales, row, block, 80);
        take_half(&scales[32..], row, block, 82);
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
            let (mut scale_of, mut min_of) = ([0u8; 256], [0u8; 256]);
            for i in 0..4 {
                let fours = L::load(tile.add(FOURS + 64 * i));
                L::put_bytes(L::low(fours), scale_of.as_mut_ptr().add(64 * i));
                L::put_bytes(L::high(fours), min_of.as_mut_ptr().add(64 * i));
            }
            let mut sums = [L::zero(); M];
            for j in 0..16 {
                let mut sub = [L::zero(); M];
                for group in 0..4 {
                    let pairs = L::load(tile.add((j / 8 * 8 + j % 2 * 4 + group) * 64));
                    let w = match j % 8 / 2 {
                        0 => L::down::<0>(pairs, 3),
                        1 => L::down::<2>(pairs, 3),
                        2 => L::down::<4>(pairs, 3),
                        _ => L::down::<6>(pairs, 3),
                    };
                    for (m, sub) in sub.iter_mut().enumerate() {
                        *sub = L::dot(*sub, w, panel.add(((j * 4 + group) * M + m) * 4));
                    }
                }
                let scale = L::unsigned(scale_of.as_ptr().add(16 * j));
                for (sum, sub) in sums.iter_mut().zip(sub) {
                    *sum = L::multiply_add(*sum, sub, scale);
                }
            }
            let (d, dmin) = (L::halves(scales), L::halves(scales.add(32)));
            for (m, total) in totals.iter_mut().enumerate() {
                let mut mins = L::zero();
                for pair in 0..8 {
                    let sums_of = panel.add(PAIRS_16 * M + (pair * M + m) * 4);
                    mins = L::dot_pairs(mins, min_of.as_ptr().add(32 * pair), sums_of);
                }
                let da = L::every(panel.add(D_256 * M + m * 4));
                *total = L::fused(L::to_floats(sums[m]), L::multiply(d, da), *total);
                *total = L::fused_from(L::to_floats(mins), L::multiply(dmin, da), *total);
            }
        }
    }
}
