//! How sixteen rows of each kind lie together, and the kernel that multiplies them.
//!
//! A *strip* is sixteen rows of a matrix: a tile of [`Format::TILE`] bytes for each block of columns, one after another.
//! A tile takes exactly the bytes that its sixteen rows have in the file, in another order: four columns of row 0, the
//! same four of row 1, and so on, so that one vector holds four columns of all rows ([`super::lanes`]).
//!
//! Kernels read a strip from front to back and leave nothing out. That matters more than alignment: with the scales apart,
//! at the end of each strip, the processor's own prefetching lost its thread, and a third of the bandwidth was left.

mod float;
mod k2;
mod k3;
mod k45;
mod k6;
mod small;

pub use float::{Brain, Float, Half, Single, strip as float_strip};
pub use k2::Q2K;
pub use k3::Q3K;
pub use k6::Q6K;
pub use k45::{Q4K, Q5K};
pub use small::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

use super::Kind;
use super::activations::Blocks;
use super::lanes::{Lanes, ROWS};
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// One kind of quantised weights.
pub trait Format {
    const KIND: Kind;
    const ACTIVATIONS: Blocks;
    /// Bytes of a tile: those of sixteen blocks in the file.
    const TILE: usize;

    /// Lays sixteen blocks, one of each row, into a tile, which is zeroed.
    fn pack(rows: [&[u8]; ROWS], tile: &mut [u8]);

    /// The block of one row again.
    fn unpack(tile: &[u8], row: usize, block: &mut [u8]);

    /// Adds the products of one block of columns with `M` tokens to their totals.
    ///
    /// # Safety
    /// The processor has the instructions of `L`; `tile` has `TILE` bytes, and `panel` is a block of a panel of `M` tokens.
    unsafe fn step<L: Lanes, const M: usize>(tile: *const u8, panel: *const u8, totals: &mut [L::Floats; M]);
}

/// The place in a tile's plane of byte `i` of row `row`, four columns of each row in turn.
fn place(i: usize, row: usize) -> usize {
    i / 4 * 64 + row * 4 + i % 4
}

/// Two bytes of a block to their row's place among sixteen.
fn put_half(block: &[u8], at: usize, row: usize, to: &mut [u8]) {
    to[2 * row..2 * row + 2].copy_from_slice(&block[at..at + 2]);
}

fn take_half(from: &[u8], row: usize, block: &mut [u8], at: usize) {
    block[at..at + 2].copy_from_slice(&from[2 * row..2 * row + 2]);
}

/// The number of the scale of sub-block `j` and a row.
fn scale_at(j: usize, row: usize) -> usize {
    16 * j + row
}

/// That of a minimum: sub-blocks in pairs, as [`Lanes::dot_pairs`] wants them.
fn min_at(j: usize, row: usize) -> usize {
    32 * (j / 2) + 2 * row + j % 2
}

/// Writes a block out once for each number, a constant in it: what depends on the number costs nothing, and no branch
/// stands between a load and the next.
macro_rules! unroll {
    ($number:ident in [$($value:literal),+] $block:block) => {
        $({
            const $number: usize = $value;
            $block
        })+
    };
}
use unroll;

/// Goes through `$count` groups of four columns: one `$group` after the other, or, where rows take turns ([`Lanes::TURNS`]),
/// every other one for each turn, since [`weights`] then have those of the next group in them.
macro_rules! groups {
    ($turn:ident, $group:ident of $count:literal with $lanes:ident $block:block) => {
        unroll!($turn in [0, 1] {
            if $turn < $lanes::TURNS {
                for vector in 0..$count / $lanes::TURNS {
                    let $group = vector * $lanes::TURNS;
                    $block
                }
            }
        })
    };
}
use groups;

/// The weights of a turn and a group, which `load` loads, and of the next group if there are two turns.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn weights<L: Lanes>(turn: usize, group: usize, load: impl Fn(usize) -> L::Bytes) -> L::Bytes {
    if L::TURNS == 1 { load(group) } else { unsafe { L::together(turn, load(group), load(group + 1)) } }
}

/// How far ahead of its use a line of a strip is asked for, by a kernel of many tokens.
const AHEAD: usize = 2048;

/// Loads 64 bytes of a tile for the first time in a step.
///
/// First loads stay in the order of their addresses, whatever the compiler would prefer: the processor's own prefetching
/// follows that, up to all the bandwidth there is, as long as loads come quickly one after another. It needs no requests
/// of ours then, and suffers from them. With eight tokens and more there is so much to do for each line that it loses its
/// thread; from there on we ask.
///
/// # Safety
/// That of [`Lanes::load`].
#[inline(always)]
unsafe fn next<L: Lanes, const M: usize>(at: *const u8) -> L::Bytes {
    unsafe {
        compiler_fence(SeqCst);
        if M >= 8 {
            L::soon(at.wrapping_add(AHEAD));
        }
        L::load(at)
    }
}

/// An i32 of a panel.
///
/// # Safety
/// It lies at `at`.
#[inline(always)]
unsafe fn number(at: *const u8) -> i32 {
    unsafe { at.cast::<i32>().read_unaligned() }
}

/// Bit `index` of each byte, as bit 4.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn fifth_bit<L: Lanes>(bits: L::Bytes, index: usize) -> L::Bytes {
    unsafe {
        match index {
            0 => L::up::<4>(bits, 16),
            1 => L::up::<3>(bits, 16),
            2 => L::up::<2>(bits, 16),
            3 => L::up::<1>(bits, 16),
            4 => L::up::<0>(bits, 16),
            5 => L::down::<1>(bits, 16),
            6 => L::down::<2>(bits, 16),
            _ => L::down::<3>(bits, 16),
        }
    }
}
