//! Blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! ```text
//! fifth bit:  1 vector: bit g belongs to group g
//! four bits:  4 vectors: low nibbles are column groups 0 to 3, high ones 4 to 7
//! eight bits: 8 vectors
//! d:          16 d (f16), then for the _1 kinds 16 m
//! ```

use super::{Format, fifth_bit, groups, next, number, place, put_half, take_half, unroll, weights};
use crate::quant::Kind;
use crate::quant::activations::{Blocks, D_32, DS_32, SUM_32};
use crate::quant::lanes::{Lanes, ROWS};

/// Four bits and perhaps a fifth; around zero, or above an own minimum.
pub struct Nibbles<const FIVE: bool, const MINIMUM: bool>;

pub type Q4_0 = Nibbles<false, false>;
pub type Q4_1 = Nibbles<false, true>;
pub type Q5_0 = Nibbles<true, false>;
pub type Q5_1 = Nibbles<true, true>;

impl<const FIVE: bool, const MINIMUM: bool> Nibbles<FIVE, MINIMUM> {
    /// Where a block's bits begin: the fifth ones, then the nibbles.
    const FIFTH: usize = if MINIMUM { 4 } else { 2 };
    const LOW: usize = Self::FIFTH + if FIVE { 4 } else { 0 };
    /// Where a tile's nibbles begin, and d.
    const NIBBLES: usize = if FIVE { 64 } else { 0 };
    const D: usize = Self::NIBBLES + 256;
}

impl<const FIVE: bool, const MINIMUM: bool> Format for Nibbles<FIVE, MINIMUM> {
    const KIND: Kind = match (FIVE, MINIMUM) {
        (false, false) => Kind::Q4_0,
        (false, true) => Kind::Q4_1,
        (true, false) => Kind::Q5_0,
        (true, true) => Kind::Q5_1,
    };
    const ACTIVATIONS: Blocks = Blocks::Of32;
    const TILE: usize = Self::D + 32 + if MINIMUM { 32 } else { 0 };

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            put_half(block, 0, row, &mut tile[Self::D..]);
            if MINIMUM {
                put_half(block, 2, row, &mut tile[Self::D + 32..]);
            }
            for i in 0..16 {
                // In the file the high nibble of byte i is column i + 16: group i / 4 + 4, as here.
                tile[Self::NIBBLES + place(i, row)] = block[Self::LOW + i];
            }
            if FIVE {
                for column in 0..32 {
                    let bit = block[Self::FIFTH + column / 8] >> (column % 8) & 1;
                    tile[row * 4 + column % 4] |= bit << (column / 4);
                }
            }
        }
    }

    fn unpack(tile: &[u8], row: usize, block: &mut [u8]) {
        take_half(&tile[Self::D..], row, block, 0);
        if MINIMUM {
            take_half(&tile[Self::D + 32..], row, block, 2);
        }
        for i in 0..16 {
            block[Self::LOW + i] = tile[Self::NIBBLES + place(i, row)];
        }
        if FIVE {
            block[Self::FIFTH..Self::FIFTH + 4].fill(0);
            for column in 0..32 {
                let bit = tile[row * 4 + column % 4] >> (column / 4) & 1;
                block[Self::FIFTH + column / 8] |= bit << (column % 8);
            }
        }
    }

    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize>(tile: *const u8, panel: *const u8, totals: &mut [L::Floats; M]) {
        // SAFETY: the caller's promise; every address lies in the tile or the block of the panel.
        unsafe {
            let mut sums = [L::zero(); M];
            if !MINIMUM {
                // Stored weights are 8 or 16 too big: that times the sum of the activations goes off beforehand, exactly.
                let shift = if FIVE { 4 } else { 3 };
                L::start(&mut sums, |m| -(number(panel.add(SUM_32 * M + m * 4)) << shift));
            }
            let fifth = if FIVE { next::<L, M>(tile) } else { L::load(tile) };
            unroll!(TURN in [0, 1] {
                unroll!(FOUR in [0, 1, 2, 3] {
                    if TURN < L::TURNS && FOUR.is_multiple_of(L::TURNS) {
                        let packed = |four| next::<L, M>(tile.add(Self::NIBBLES + four * 64));
                        let packed = weights::<L>(TURN, FOUR, packed);
                        let mut halves = [L::low(packed), L::high(packed)];
                        if FIVE {
                            // Bits of the next group stand one higher.
                            let lowered = |by| if by == 0 { fifth } else { L::down::<1>(fifth, 0x7f) };
                            let fifth = weights::<L>(TURN, 0, lowered);
                            halves[0] = L::or(halves[0], fifth_bit::<L>(fifth, FOUR));
                            halves[1] = L::or(halves[1], fifth_bit::<L>(fifth, FOUR + 4));
                        }
                        for (half, w) in halves.into_iter().enumerate() {
                            L::dots(&mut sums, TURN, w, panel.add((4 * half + FOUR) * M * 4));
                        }
                    }
                });
            });
            L::apart(&mut sums);
            let d = L::halves(tile.add(Self::D));
            for (m, total) in totals.iter_mut().enumerate() {
                let (da, dsa) = (L::every(panel.add(D_32 * M + m * 4)), panel.add(DS_32 * M + m * 4));
                if MINIMUM {
                    *total = L::fused(L::halves(tile.add(Self::D + 32)), L::every(dsa), *total);
                }
                *total = L::fused(L::to_floats(sums[m]), L::multiply(d, da), *total);
            }
        }
    }
}

/// Eight bits.
pub struct Q8_0;

impl Format for Q8_0 {
    const KIND: Kind = Kind::Q8_0;
    const ACTIVATIONS: Blocks = Blocks::Of32;
    const TILE: usize = 512 + 32;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            put_half(block, 0, row, &mut tile[512..]);
            for i in 0..32 {
                tile[place(i, row)] = block[2 + i];
            }
        }
    }

    fn unpack(tile: &[u8], row: usize, block: &mut [u8]) {
        take_half(&tile[512..], row, block, 0);
        for i in 0..32 {
            block[2 + i] = tile[place(i, row)];
        }
    }

    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize>(tile: *const u8, panel: *const u8, totals: &mut [L::Floats; M]) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [L::zero(); M];
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = L::start_signed(panel.add(SUM_32 * M + m * 4));
            }
            groups!(TURN, group of 8 with L {
                let w = weights::<L>(TURN, group, |group| next::<L, M>(tile.add(group * 64)));
                L::dots_signed(&mut sums, TURN, w, panel.add(group * M * 4));
            });
            L::apart(&mut sums);
            let d = L::halves(tile.add(512));
            for (m, total) in totals.iter_mut().enumerate() {
                let da = L::every(panel.add(D_32 * M + m * 4));
                *total = L::fused(L::to_floats(sums[m]), L::multiply(d, da), *total);
            }
        }
    }
}
