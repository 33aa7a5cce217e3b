//! Weights that are floats: F32, F16, BF16. Sixteen rows interleaved, one column after the other; activations stay f32.
//!
//! Column k is added to partial sum k mod 4, and the four are added in pairs at the end: a fixed order, and four
//! independent chains of additions.

use crate::quant::Kind;
use crate::quant::lanes::{Lanes, ROWS};

/// A float that a vector of can be read.
pub trait Float {
    const KIND: Kind;

    /// # Safety
    /// The processor has the instructions of `L`; sixteen of them lie at `at`.
    unsafe fn load<L: Lanes>(at: *const u8) -> L::Floats;
}

pub struct Single;
pub struct Half;
pub struct Brain;

impl Float for Single {
    const KIND: Kind = Kind::F32;
    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const u8) -> L::Floats {
        unsafe { L::floats(at) }
    }
}

impl Float for Half {
    const KIND: Kind = Kind::F16;
    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const u8) -> L::Floats {
        unsafe { L::halves(at) }
    }
}

impl Float for Brain {
    const KIND: Kind = Kind::BF16;
    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const u8) -> L::Floats {
        unsafe { L::upper_halves(at) }
    }
}

/// Sixteen rows times `M` tokens, whose values lie column by column in `panel`.
///
/// # Safety
/// The processor has the instructions of `L`; `strip` has `columns` times sixteen floats of `W`, `panel` `columns` times
/// `M` f32.
#[inline(always)]
pub unsafe fn strip<L: Lanes, W: Float, const M: usize>(
    strip: *const u8,
    columns: usize,
    panel: *const u8,
) -> [L::Floats; M] {
    unsafe {
        let mut totals = [L::zeros(); M];
        match M {
            1 => some::<L, W, 1>(strip, columns, panel, M, &mut totals),
            2 => some::<L, W, 2>(strip, columns, panel, M, &mut totals),
            // Four sums of four tokens are as many as there are registers for.
            _ => {
                for (i, totals) in totals.chunks_exact_mut(4).enumerate() {
                    some::<L, W, 4>(strip, columns, panel.add(16 * i), M, totals);
                }
            }
        }
        totals
    }
}

/// `N` tokens of `tokens` in a panel. Columns 4 i + j add up in sum j; the four become one at the end.
///
/// # Safety
/// As above; `panel` is the first one's place in column 0.
#[inline(always)]
unsafe fn some<L: Lanes, W: Float, const N: usize>(
    strip: *const u8,
    columns: usize,
    panel: *const u8,
    tokens: usize,
    totals: &mut [L::Floats],
) {
    unsafe {
        let mut parts = [[L::zeros(); N]; 4];
        let whole = columns / 4 * 4;
        for k in (0..whole).step_by(4) {
            for (i, part) in parts.iter_mut().enumerate() {
                column::<L, W, N>(strip, panel, k + i, tokens, part);
            }
        }
        for k in whole..columns {
            column::<L, W, N>(strip, panel, k, tokens, &mut parts[k % 4]);
        }
        for (m, total) in totals.iter_mut().enumerate() {
            *total = L::add(L::add(parts[0][m], parts[1][m]), L::add(parts[2][m], parts[3][m]));
        }
    }
}

/// # Safety
/// As above.
#[inline(always)]
unsafe fn column<L: Lanes, W: Float, const N: usize>(
    strip: *const u8,
    panel: *const u8,
    k: usize,
    tokens: usize,
    part: &mut [L::Floats; N],
) {
    unsafe {
        let w = W::load::<L>(strip.add(k * ROWS * W::KIND.bytes()));
        for (m, sum) in part.iter_mut().enumerate() {
            *sum = L::fused(w, L::every(panel.add((k * tokens + m) * 4)), *sum);
        }
    }
}
