//! Q2_K: 256 columns in sixteen sub-blocks of 16, each with a four-bit scale and a four-bit minimum.
//!
//! ```text
//! fours: 256 bytes, low nibble: scale number 16 j + r, high nibble: minimum number 32 (j / 2) + 2 r + j % 2
//! pairs: 16 vectors, four bytes of every row as in the file
//! d:     16 d (f16), 16 dmin
//! ```

use super::{Format, groups, min_at, next, place, put_half, scale_at, take_half, unroll, weights};
use crate::quant::Kind;
use crate::quant::activations::{Blocks, D_256, PAIRS_16};
use crate::quant::lanes::{Lanes, ROWS};

pub struct Q2K;

const PAIRS: usize = 256;
const D: usize = PAIRS + 1024;

impl Format for Q2K {
    const KIND: Kind = Kind::Q2_K;
    const ACTIVATIONS: Blocks = Blocks::Of256;
    const TILE: usize = D + 64;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            for j in 0..16 {
                tile[scale_at(j, row)] |= block[j] & 15;
                tile[min_at(j, row)] |= block[j] & 0xf0;
            }
            (0..64).for_each(|i| tile[PAIRS + place(i, row)] = block[16 + i]);
            put_half(block, 80, row, &mut tile[D..]);
            put_half(block, 82, row, &mut tile[D + 32..]);
        }
    }

    fn unpack(tile: &[u8], row: usize, block: &mut [u8]) {
        for j in 0..16 {
            block[j] = tile[scale_at(j, row)] & 15 | tile[min_at(j, row)] & 0xf0;
        }
        (0..64).for_each(|i| block[16 + i] = tile[PAIRS + place(i, row)]);
        take_half(&tile[D..], row, block, 80);
        take_half(&tile[D + 32..], row, block, 82);
    }

    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize>(tile: *const u8, panel: *const u8, totals: &mut [L::Floats; M]) {
        // SAFETY: the caller's promise.
        unsafe {
            let (mut scale_of, mut min_of) = ([0u8; 256], [0u8; 256]);
            for i in 0..4 {
                let fours = next::<L, M>(tile.add(64 * i));
                L::put_bytes(L::low(fours), scale_of.as_mut_ptr().add(64 * i));
                L::put_bytes(L::high(fours), min_of.as_mut_ptr().add(64 * i));
            }
            let mut sums = [L::zero(); M];
            unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
                let mut sub = [L::zero(); M];
                groups!(TURN, group of 4 with L {
                    let pairs = weights::<L>(TURN, group, |group| {
                        let place = tile.add(PAIRS + (J / 8 * 8 + J % 2 * 4 + group) * 64);
                        if J % 8 < 2 { next::<L, M>(place) } else { L::load(place) }
                    });
                    let w = match J % 8 / 2 {
                        0 => L::down::<0>(pairs, 3),
                        1 => L::down::<2>(pairs, 3),
                        2 => L::down::<4>(pairs, 3),
                        _ => L::down::<6>(pairs, 3),
                    };
                    L::dots(&mut sub, TURN, w, panel.add((J * 4 + group) * M * 4));
                });
                let scale = L::unsigned(scale_of.as_ptr().add(16 * J));
                L::add_scaled(&mut sums, sub, scale);
            });
            L::apart(&mut sums);
            let (d, dmin) = (L::halves(tile.add(D)), L::halves(tile.add(D + 32)));
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
