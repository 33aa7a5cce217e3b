//! Blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! ```text
//! four bits:  4 vectors: low nibbles are column groups 0 to 3, high ones 4 to 7
//! fifth bit:  1 vector: bit g belongs to group g
//! eight bits: 8 vectors
//! scales:     16 d (f16), then for the _1 kinds 16 m
//! ```

use super::{Format, fifth_bit, place, put_half, take_half};
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
}

impl<const FIVE: bool, const MINIMUM: bool> Format for Nibbles<FIVE, MINIMUM> {
    const KIND: Kind = match (FIVE, MINIMUM) {
        (false, false) => Kind::Q4_0,
        (false, true) => Kind::Q4_1,
        (true, false) => Kind::Q5_0,
        (true, true) => Kind::Q5_1,
    };
    const ACTIVATIONS: Blocks = Blocks::Of32;
    const TILE: usize = 256 + if FIVE { 64 } else { 0 };
    const SCALES: usize = 32 + if MINIMUM { 32 } else { 0 };

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8], scales: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            put_half(block, 0, row, scales);
            if MINIMUM {
                put_half(block, 2, row, &mut scales[32..]);
            }
            for i in 0..16 {
                // In the file the high nibble of byte i is column i + 16: group i / 4 + 4, as here.
                tile[place(i, row)] = block[Self::LOW + i];
            }
            if FIVE {
                for column in 0..32 {
                    let bit = block[Self::FIFTH + column / 8] >> (column % 8) & 1;
                    tile[256 + row * 4 + column % 4] |= bit << (column / 4);
                }
            }
        }
    }

    fn unpack(tile: &[u8], scales: &[u8], row: usize, block: &mut [u8]) {
        take_half(scales, row, block, 0);
        if MINIMUM {
            take_half(&scales[32..], row, block, 2);
        }
        for i in 0..16 {
            block[Self::LOW + i] = tile[place(i, row)];
        }
        if FIVE {
            block[Self::FIFTH..Self::FIFTH + 4].fill(0);
            for column in 0..32 {
                let bit = tile[256 + row * 4 + column % 4] >> (column / 4) & 1;
                block[Self::FIFTH + column / 8] |= bit << (column % 8);
            }
        }
    }

    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize>(
        tile: *const u8,
        scales: *const u8,
        panel: *const u8,
        totals: &mut [L::Floats; M],
    ) {
        // SAFETY: the caller's promise; every address lies in the tile, the scales or the block of the panel.
        unsafe {
            let mut sums = [L::zero(); M];
            if !MINIMUM {
                // Stored weights are 8 or 16 too big: that times the sum of the activations goes off beforehand, exactly.
                let shift = if FIVE { 4 } else { 3 };
                for (m, sum) in sums.iter_mut().enumerate() {
                    let all: i32 = panel.add(SUM_32 * M + m * 4).cast::<i32>().read_unaligned();
                    *sum = L::same(-(all << shift));
                }
            }
            let fifth = if FIVE { L::load(tile.add(256)) } else { L::load(tile) };
            for group in 0..8 {
                let packed = L::load(tile.add(group % 4 * 64));
                let mut w = if group < 4 { L::low(packed) } else { L::high(packed) };
                if FIVE {
                    let bit = fifth_bit::<L>(fifth, group);
                    w = L::or(w, bit);
                }
                for (m, sum) in sums.iter_mut().enumerate() {
                    *sum = L::dot(*sum, w, panel.add((group * M + m) * 4));
                }
            }
            let d = L::halves(scales);
            for (m, total) in totals.iter_mut().enumerate() {
                let (da, dsa) = (L::every(panel.add(D_32 * M + m * 4)), panel.add(DS_32 * M + m * 4));
                if MINIMUM {
                    *total = L::fused(L::halves(scales.add(32)), L::every(dsa), *total);
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
    const TILE: usize = 512;
    const SCALES: usize = 32;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8], scales: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            put_half(block, 0, row, scales);
            for i in 0..32 {
                tile[place(i, row)] = block[2 + i];
            }
        }
    }

    fn unpack(tile: &[u8], scales: &[u8], row: usize, block: &mut [u8]) {
        take_half(scales, row, block, 0);
        for i in 0..32 {
            block[2 + i] = tile[place(i, row)];
        }
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
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = L::start_signed(panel.add(SUM_32 * M + m * 4));
            }
            for group in 0..8 {
                let w = L::load(tile.add(group * 64));
                for (m, sum) in sums.iter_mut().enumerate() {
                    *sum = L::dot_signed(*sum, w, panel.add((group * M + m) * 4));
                }
            }
            let d = L::halves(scales);
            for (m, total) in totals.iter_mut().enumerate() {
                let da = L::every(panel.add(D_32 * M + m * 4));
                *total = L::fused(L::to_floats(sums[m]), L::multiply(d, da), *total);
            }
        }
    }
}
