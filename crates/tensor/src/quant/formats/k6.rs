//! Q6_K: 256 columns in sixteen sub-blocks of 16, each with a signed scale of eight bits; values around 32.
//!
//! ```text
//! scales: 256 bytes: sub-block 0 of all rows, sub-block 1, …
//! halves: for each half of the columns u0 l0 u1 l1 … u7 l7 l8 … l15, vectors of four bytes of every row as in the file,
//!         u of the upper bits and l of the low ones; in the order of their first use
//! d:      16 d (f16)
//! ```

use super::{Format, groups, next, number, place, put_half, take_half, unroll, weights};
use crate::quant::Kind;
use crate::quant::activations::{Blocks, D_256, N32};
use crate::quant::lanes::{Lanes, ROWS};

pub struct Q6K;

const D: usize = 256 + 2 * 1536;

/// Where vector u of a half begins.
const fn upper(half: usize, u: usize) -> usize {
    256 + 1536 * half + 128 * u
}

/// And vector l.
const fn low(half: usize, l: usize) -> usize {
    if l < 8 { upper(half, l) + 64 } else { upper(half, 8) + 64 * (l - 8) }
}

impl Format for Q6K {
    const KIND: Kind = Kind::Q6_K;
    const ACTIVATIONS: Blocks = Blocks::Of256;
    const TILE: usize = D + 32;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            (0..128).for_each(|i| tile[low(i / 64, i % 64 / 4) + place(i % 4, row)] = block[i]);
            (0..64).for_each(|i| tile[upper(i / 32, i % 32 / 4) + place(i % 4, row)] = block[128 + i]);
            (0..16).for_each(|j| tile[16 * j + row] = block[192 + j]);
            put_half(block, 208, row, &mut tile[D..]);
        }
    }

    fn unpack(tile: &[u8], row: usize, block: &mut [u8]) {
        (0..128).for_each(|i| block[i] = tile[low(i / 64, i % 64 / 4) + place(i % 4, row)]);
        (0..64).for_each(|i| block[128 + i] = tile[upper(i / 32, i % 32 / 4) + place(i % 4, row)]);
        (0..16).for_each(|j| block[192 + j] = tile[16 * j + row]);
        take_half(&tile[D..], row, block, 208);
    }

    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize>(tile: *const u8, panel: *const u8, totals: &mut [L::Floats; M]) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [L::zero(); M];
            // Column 128 h + 32 q + i: quarters 0 and 2 share the vectors of low bits, so do 1 and 3.
            unroll!(PART in [0, 1, 2, 3, 4, 5, 6, 7] {
                const HALF: usize = PART / 4;
                const QUARTER: usize = PART % 4 / 2;
                const SIXTEEN: usize = PART % 2;
                const J: [usize; 2] = [HALF * 8 + QUARTER * 2 + SIXTEEN, HALF * 8 + QUARTER * 2 + 4 + SIXTEEN];
                let mut subs = [[L::zero(); M]; 2];
                for (subs, j) in subs.iter_mut().zip(J) {
                    L::start(subs, |m| number(panel.add(N32 * M + (j * M + m) * 4)));
                }
                groups!(TURN, group of 4 with L {
                    let upper = weights::<L>(TURN, group, |group| {
                        let place = tile.add(upper(HALF, SIXTEEN * 4 + group));
                        if QUARTER == 0 { next::<L, M>(place) } else { L::load(place) }
                    });
                    let low = |group| next::<L, M>(tile.add(low(HALF, QUARTER * 8 + SIXTEEN * 4 + group)));
                    let low = weights::<L>(TURN, group, low);
                    let pair = if QUARTER == 0 {
                        [L::or(L::low(low), L::up::<4>(upper, 0x30)), L::or(L::high(low), L::up::<0>(upper, 0x30))]
                    } else {
                        [L::or(L::low(low), L::up::<2>(upper, 0x30)), L::or(L::high(low), L::down::<2>(upper, 0x30))]
                    };
                    for ((subs, w), j) in subs.iter_mut().zip(pair).zip(J) {
                        L::dots(subs, TURN, w, panel.add((j * 4 + group) * M * 4));
                    }
                });
                for (subs, j) in subs.into_iter().zip(J) {
                    let scale = L::signed(tile.add(16 * j));
                    L::add_scaled(&mut sums, subs, scale);
                }
            });
            L::apart(&mut sums);
            let d = L::halves(tile.add(D));
            for (m, total) in totals.iter_mut().enumerate() {
                let da = L::every(panel.add(D_256 * M + m * 4));
                *total = L::fused(L::to_floats(sums[m]), L::multiply(d, da), *total);
            }
        }
    }
}
