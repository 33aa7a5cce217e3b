//! Q3_K: 256 columns in sixteen sub-blocks of 16, each with a six-bit scale around 32; values of three bits around 4.
//!
//! ```text
//! six bits: 128 bytes: low nibbles of scale i and, in the high nibble, of scale i + 128; then 64 bytes with their upper
//!           pairs: of scales i, i + 64, i + 128, i + 192. Scale number 16 j + r.
//! upper:    8 vectors, pairs: 16 vectors, each four bytes of every row as in the file
//! d:        16 d (f16)
//! ```
//! The kernel multiplies with eight times the value, so that "4 too big" is the same 32 as Q6_K's, and takes d / 8, which
//! is exact.

use super::{Format, groups, next, number, place, put_half, take_half, unroll, weights};
use crate::quant::Kind;
use crate::quant::activations::{Blocks, D_256, N32};
use crate::quant::lanes::{Lanes, ROWS};

pub struct Q3K;

const UPPER: usize = 192;
const PAIRS: usize = UPPER + 512;
const D: usize = PAIRS + 1024;

impl Format for Q3K {
    const KIND: Kind = Kind::Q3_K;
    const ACTIVATIONS: Blocks = Blocks::Of256;
    const TILE: usize = D + 32;

    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8]) {
        for (row, block) in rows.into_iter().enumerate() {
            (0..32).for_each(|i| tile[UPPER + place(i, row)] = block[i]);
            (0..64).for_each(|i| tile[PAIRS + place(i, row)] = block[32 + i]);
            for j in 0..16 {
                let low = if j < 8 { block[96 + j] & 15 } else { block[96 + j - 8] >> 4 };
                let upper = block[104 + j % 4] >> (j / 4 * 2) & 3;
                let at = 16 * j + row;
                tile[at % 128] |= low << (at / 128 * 4);
                tile[128 + at % 64] |= upper << (at / 64 * 2);
            }
            put_half(block, 108, row, &mut tile[D..]);
        }
    }

    fn unpack(tile: &[u8], row: usize, block: &mut [u8]) {
        (0..32).for_each(|i| block[i] = tile[UPPER + place(i, row)]);
        (0..64).for_each(|i| block[32 + i] = tile[PAIRS + place(i, row)]);
        block[96..108].fill(0);
        for j in 0..16 {
            let at = 16 * j + row;
            let low = tile[at % 128] >> (at / 128 * 4) & 15;
            let upper = tile[128 + at % 64] >> (at / 64 * 2) & 3;
            block[96 + j % 8] |= low << (j / 8 * 4);
            block[104 + j % 4] |= upper << (j / 4 * 2);
        }
        take_half(&tile[D..], row, block, 108);
    }

    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize>(tile: *const u8, panel: *const u8, totals: &mut [L::Floats; M]) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut scale_of = [0u8; 256];
            let to = scale_of.as_mut_ptr();
            let (first, second) = (next::<L, M>(tile), next::<L, M>(tile.add(64)));
            let upper = next::<L, M>(tile.add(128));
            L::put_bytes(L::or(L::low(first), L::up::<4>(upper, 0x30)), to);
            L::put_bytes(L::or(L::low(second), L::up::<2>(upper, 0x30)), to.add(64));
            L::put_bytes(L::or(L::high(first), L::up::<0>(upper, 0x30)), to.add(128));
            L::put_bytes(L::or(L::high(second), L::down::<2>(upper, 0x30)), to.add(192));

            let mut sums = [L::zero(); M];
            unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
                let mut sub = [L::zero(); M];
                L::start(&mut sub, |m| number(panel.add(N32 * M + (J * M + m) * 4)));
                groups!(TURN, group of 4 with L {
                    let w = weights::<L>(TURN, group, |group| {
                        let place = tile.add(PAIRS + (J / 8 * 8 + J % 2 * 4 + group) * 64);
                        let pairs = if J % 8 < 2 { next::<L, M>(place) } else { L::load(place) };
                        let place = tile.add(UPPER + (J % 2 * 4 + group) * 64);
                        let upper = if J < 2 { next::<L, M>(place) } else { L::load(place) };
                        // Eight times the pair, in bits 3 and 4.
                        let low = match J % 8 / 2 {
                            0 => L::up::<3>(pairs, 0x18),
                            1 => L::up::<1>(pairs, 0x18),
                            2 => L::down::<1>(pairs, 0x18),
                            _ => L::down::<3>(pairs, 0x18),
                        };
                        // Bit J / 2 becomes bit 5.
                        let high = match J / 2 {
                            0 => L::up::<5>(upper, 0x20),
                            1 => L::up::<4>(upper, 0x20),
                            2 => L::up::<3>(upper, 0x20),
                            3 => L::up::<2>(upper, 0x20),
                            4 => L::up::<1>(upper, 0x20),
                            5 => L::up::<0>(upper, 0x20),
                            6 => L::down::<1>(upper, 0x20),
                            _ => L::down::<2>(upper, 0x20),
                        };
                        L::or(low, high)
                    });
                    L::dots(&mut sub, TURN, w, panel.add((J * 4 + group) * M * 4));
                });
                let scale = L::unsigned(scale_of.as_ptr().add(16 * J));
                // sub (scale - 32), still an integer: 16 * 8 * 4 * 127 * 32 * 16 < 2^26.
                let scale = L::multiply_add(scale, L::same(-1), L::same(32));
                L::add_scaled(&mut sums, sub, scale);
            });
            L::apart(&mut sums);
            let d = L::multiply(L::halves(tile.add(D)), L::every((&raw const EIGHTH).cast()));
            for (m, total) in totals.iter_mut().enumerate() {
                let da = L::every(panel.add(D_256 * M + m * 4));
                *total = L::fused(L::to_floats(sums[m]), L::multiply(d, da), *total);
            }
        }
    }
}

static EIGHTH: f32 = 0.125;
