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
        let mut parts = [[L::zeros(); M]; 4];
        let column = |k: usize, part: &mut [L::Floats; M]| {
            let w = W::load::<L>(strip.add(k * ROWS * W::KIND.bytes()));
            for (m, sum) in part.iter_mut().enumerate() {
                *sum = L::fused(w, L::every(panel.add((k * M + m) * 4)), *sum);
            }
        };
        let whole = columns / 4 * 4;
        for k in (0..whole).step_by(4) {
            for (i, part) in parts.iter_mut().enumerate() {
                column(k + i, part);
            }
        }
        for k in whole..columns {
            column(k, &mut parts[k % 4]);
        }
        let mut totals = [L::zeros(); M];
        for (m, total) in totals.iter_mut().enumerate() {
            *total = L::add(L::add(parts[0][m], parts[1][m]), L::add(parts[2][m], parts[3][m]));
        }
        totals
    }
}
