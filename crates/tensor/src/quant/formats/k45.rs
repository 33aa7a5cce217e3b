//! Q4_K and Q5_K: 256 columns in eight sub-blocks of 32, each with a six-bit scale and a six-bit minimum.
//!
//! ```text
//! nibbles:  32 vectors; vector 8 p + g has group g of sub-block 2 p in low nibbles, of 2 p + 1 in high ones
//! fifth:    8 vectors (Q5_K); bit j of vector g belongs to group g of sub-block j
//! six bits: 128 bytes, low nibble: low four bits of a scale, high nibble: of a minimum; then 64 bytes with their upper
//!           two: those of byte i and of byte i + 64, scales in bits 0 to 3, minima in bits 4 to 7
//! scales:   16 d (f16), 16 dmin
//! ```
//! The scale of sub-block j and row r is number 16 j + r. Minima come in pairs of sub-blocks, as `dot_pairs` wants them:
//! that of j and r is number 32 (j / 2) + 2 r + j % 2.

use super::{Format, fifth_bit, min_at, place, put_half, scale_at, take_half};
use crate::quant::Kind;
use crate::quant::activations::{Blocks, D_256, PAIRS_32};
use crate::quant::dequantise::six_bits;
use crate::quant::lanes::{Lanes, ROWS};

pub struct K45<const FIVE: bool>;
pub type Q4K = K45<false>;
pub type Q5K = K45<true>;

/// Where the low nibbles begin in a block of the file.
const fn low(five: bool) -> usize {
    if five { 48 } else { 16 }
}

/// Where the six-bit numbers begin in a tile.
const fn six(five: bool) -> usize {
    2048 + if five { 512 } else { 0 }
}

impl<const FIVE: bool> Format for K45<FIVE> {
    const KIND: Kind = if FIVE { Kind::Q5_K } else { Kind::Q4_K };
    const ACTIVATIONS: Blocks = Blocks::Of256;
    const TILE: usize = six(FIVE) + 192;
    const SCALES: usize = 64;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8], scales: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            put_half(block, 0, row, scales);
            put_half(block, 2, row, &mut scales[32..]);
            for i in 0..128 {
                tile[place(i, row)] = block[low(FIVE) + i];
            }
            if FIVE {
                for i in 0..32 {
                    tile[2048 + place(i, row)] = block[16 + i];
                }
            }
            let (lower, upper) = tile[six(FIVE)..].split_at_mut(128);
            for j in 0..8 {
                let (scale, min) = six_bits(&block[4..16], j);
                let (s, m) = (scale_at(j, row), min_at(j, row));
                lower[s] |= scale & 15;
                lower[m] |= (min & 15) << 4;
                upper[s % 64] |= scale >> 4 << (s / 64 * 2);
                upper[m % 64] |= min >> 4 << (4 + m / 64 * 2);
            }
        }
    }

    fn unpack(tile: &[u8], scales: &[u8], row: usize, block: &mut [u8]) {
        take_half(scales, row, block, 0);
        take_half(&scales[32..], row, block, 2);
        for i in 0..128 {
            block[low(FIVE) + i] = tile[place(i, row)];
        }
        if FIVE {
            for i in 0..32 {
                block[16 + i] = tile[2048 + place(i, row)];
            }
        }
        let (lower, upper) = tile[six(FIVE)..].split_at(128);
        block[4..16].fill(0);
        for j in 0..8 {
            let (s, m) = (scale_at(j, row), min_at(j, row));
            let scale = lower[s] & 15 | (upper[s % 64] >> (s / 64 * 2) & 3) << 4;
            let min = lower[m] >> 4 | (upper[m % 64] >> (4 + m / 64 * 2) & 3) << 4;
            if j < 4 {
                block[4 + j] |= scale;
                block[8 + j] |= min;
            } else {
                block[8 + j] |= scale & 15 | (min & 15) << 4;
                block[j] |= scale >> 4 << 6;
                block[4 + j] |= min >> 4 << 6;
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
        // SAFETY: the caller's promise.
        unsafe {
            let (mut scale_of, mut min_of) = ([0u8; 128], [0u8; 128]);
            let upper = L::load(tile.add(six(FIVE) + 128));
            let (first, second) = (L::load(tile.add(six(FIVE))), L::load(tile.add(six(FIVE) + 64)));
            L::put_bytes(L::or(L::low(first), L::up::<4>(upper, 0x30)), scale_of.as_mut_ptr());
            L::put_bytes(L::or(L::low(second), L::up::<2>(upper, 0x30)), scale_of.as_mut_ptr().add(64));
            L::put_bytes(L::or(L::high(first), L::up::<0>(upper, 0x30)), min_of.as_mut_ptr());
            L::put_bytes(L::or(L::high(second), L::down::<2>(upper, 0x30)), min_of.as_mut_ptr().add(64));

            let mut sums = [L::zero(); M];
            for j in 0..8 {
                let mut sub = [L::zero(); M];
                for group in 0..8 {
                    let packed = L::load(tile.add((j / 2 * 8 + group) * 64));
                    let mut w = if j % 2 == 0 { L::low(packed) } else { L::high(packed) };
                    if FIVE {
                        let fifth = L::load(tile.add(2048 + group * 64));
                        let bit = fifth_bit::<L>(fifth, j);
                        w = L::or(w, bit);
                    }
                    for (m, sub) in sub.iter_mut().enumerate() {
                        *sub = L::dot(*sub, w, panel.add(((j * 8 + group) * M + m) * 4));
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
                for pair in 0..4 {
                    let sums_of = panel.add(PAIRS_32 * M + (pair * M + m) * 4);
                    mins = L::dot_pairs(mins, min_of.as_ptr().add(32 * pair), sums_of);
                }
                let da = L::every(panel.add(D_256 * M + m * 4));
                *total = L::fused(L::to_floats(sums[m]), L::multiply(d, da), *total);
                *total = L::fused_from(L::to_floats(mins), L::multiply(dmin, da), *total);
            }
        }
    }
}
