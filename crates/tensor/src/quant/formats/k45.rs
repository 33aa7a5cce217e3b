//! Q4_K and Q5_K: 256 columns in eight sub-blocks of 32, each with a six-bit scale and a six-bit minimum.
//!
//! ```text
//! six bits: 128 bytes, low nibble: low four bits of a scale, high nibble: of a minimum; then 64 bytes with their upper
//!           two: those of byte i and of byte i + 64, scales in bits 0 to 3, minima in bits 4 to 7
//! nibbles:  32 vectors; vector 8 p + g has group g of sub-block 2 p in low nibbles, of 2 p + 1 in high ones
//! fifth:    8 vectors (Q5_K), vector g before nibbles g; bit j of it belongs to group g of sub-block j
//! d:        16 d (f16), 16 dmin
//! ```
//! The scale of sub-block j and row r is number 16 j + r. Minima come in pairs of sub-blocks, as `dot_pairs` wants them:
//! that of j and r is number 32 (j / 2) + 2 r + j % 2.

use super::{Format, fifth_bit, groups, min_at, next, place, put_half, scale_at, take_half, unroll, weights};
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

/// Where a vector of nibbles begins in a tile, one of fifth bits, and d.
const fn nibbles(five: bool, i: usize) -> usize {
    let fifths = match i {
        _ if !five => 0,
        0..8 => i + 1,
        _ => 8,
    };
    192 + 64 * (i + fifths)
}
const fn fifth(i: usize) -> usize {
    192 + 128 * i
}
const fn d(five: bool) -> usize {
    nibbles(five, 32)
}

impl<const FIVE: bool> Format for K45<FIVE> {
    const KIND: Kind = if FIVE { Kind::Q5_K } else { Kind::Q4_K };
    const ACTIVATIONS: Blocks = Blocks::Of256;
    const TILE: usize = d(FIVE) + 64;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            put_half(block, 0, row, &mut tile[d(FIVE)..]);
            put_half(block, 2, row, &mut tile[d(FIVE) + 32..]);
            for i in 0..128 {
                tile[nibbles(FIVE, i / 4) + place(i % 4, row)] = block[low(FIVE) + i];
            }
            if FIVE {
                for i in 0..32 {
                    tile[fifth(i / 4) + place(i % 4, row)] = block[16 + i];
                }
            }
            let (lower, upper) = tile.split_at_mut(128);
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

    fn unpack(tile: &[u8], row: usize, block: &mut [u8]) {
        take_half(&tile[d(FIVE)..], row, block, 0);
        take_half(&tile[d(FIVE) + 32..], row, block, 2);
        for i in 0..128 {
            block[low(FIVE) + i] = tile[nibbles(FIVE, i / 4) + place(i % 4, row)];
        }
        if FIVE {
            for i in 0..32 {
                block[16 + i] = tile[fifth(i / 4) + place(i % 4, row)];
            }
        }
        let (lower, upper) = tile.split_at(128);
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
    unsafe fn step<L: Lanes, const M: usize>(tile: *const u8, panel: *const u8, totals: &mut [L::Floats; M]) {
        // SAFETY: the caller's promise.
        unsafe {
            let (mut scale_of, mut min_of) = ([0u8; 128], [0u8; 128]);
            let (first, second) = (next::<L, M>(tile), next::<L, M>(tile.add(64)));
            let upper = next::<L, M>(tile.add(128));
            L::put_bytes(L::or(L::low(first), L::up::<4>(upper, 0x30)), scale_of.as_mut_ptr());
            L::put_bytes(L::or(L::low(second), L::up::<2>(upper, 0x30)), scale_of.as_mut_ptr().add(64));
            L::put_bytes(L::or(L::high(first), L::up::<0>(upper, 0x30)), min_of.as_mut_ptr());
            L::put_bytes(L::or(L::high(second), L::down::<2>(upper, 0x30)), min_of.as_mut_ptr().add(64));

            let mut sums = [L::zero(); M];
            unroll!(PAIR in [0, 1, 2, 3] {
                let mut subs = [[L::zero(); M]; 2];
                groups!(TURN, group of 8 with L {
                    let fifth = weights::<L>(TURN, group, |group| match (FIVE, PAIR) {
                        (false, _) => L::load(tile),
                        (true, 0) => next::<L, M>(tile.add(fifth(group))),
                        _ => L::load(tile.add(fifth(group))),
                    });
                    let packed = |group| next::<L, M>(tile.add(nibbles(FIVE, PAIR * 8 + group)));
                    let packed = weights::<L>(TURN, group, packed);
                    let mut halves = [L::low(packed), L::high(packed)];
                    if FIVE {
                        halves[0] = L::or(halves[0], fifth_bit::<L>(fifth, 2 * PAIR));
                        halves[1] = L::or(halves[1], fifth_bit::<L>(fifth, 2 * PAIR + 1));
                    }
                    for (half, w) in halves.into_iter().enumerate() {
                        L::dots(&mut subs[half], TURN, w, panel.add(((2 * PAIR + half) * 8 + group) * M * 4));
                    }
                });
                for (half, subs) in subs.into_iter().enumerate() {
                    let scale = L::unsigned(scale_of.as_ptr().add(16 * (2 * PAIR + half)));
                    L::add_scaled(&mut sums, subs, scale);
                }
            });
            L::apart(&mut sums);
            let (d, dmin) = (L::halves(tile.add(d(FIVE))), L::halves(tile.add(d(FIVE) + 32)));
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
