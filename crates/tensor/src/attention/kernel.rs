//! The two loops of attention that take its time, over [`Lanes`]: scores of keys, sums of values.

#![allow(unsafe_code)]

use super::BLOCK;
use crate::quant::Instructions;
use crate::quant::lanes::{Lanes, scalar::Scalar};

/// For some queries at once, whose number it was chosen for.
#[derive(Clone, Copy)]
pub struct Kernel {
    scores: unsafe fn(keys: *const u16, blocks: usize, width: usize, queries: *const f32, scores: *mut f32),
    sums: unsafe fn(values: *const u16, positions: usize, width: usize, weights: *const f32, sums: *mut f32),
    queries: usize,
}

impl Kernel {
    /// `scores[n blocks BLOCK + p]` of query n and position p of whole blocks of keys; element d of query n is at
    /// `queries[d N + n]`.
    pub fn scores(&self, keys: &[u16], width: usize, queries: &[f32], scores: &mut [f32]) {
        let blocks = keys.len() / (BLOCK * width);
        assert_eq!(keys.len(), blocks * BLOCK * width, "whole blocks of keys");
        assert_eq!(queries.len(), width * self.queries, "elements of the queries");
        assert_eq!(scores.len(), blocks * BLOCK * self.queries, "a score for each key and query");
        // SAFETY: the lengths are those that the loops run over, and [`kernel`] saw that this processor has the instructions.
        unsafe { (self.scores)(keys.as_ptr(), blocks, width, queries.as_ptr(), scores.as_mut_ptr()) }
    }

    /// `sums[16 n + i]`: the weighted sum of element `part + i` of all positions, for query n; the weight of position p
    /// is at `weights[p N + n]`.
    pub fn sums(&self, values: &[u16], width: usize, part: usize, weights: &[f32], sums: &mut [f32]) {
        let positions = values.len() / width;
        assert!(part + 16 <= width && values.len() == positions * width, "sixteen elements of whole values");
        assert!(weights.len() >= positions * self.queries, "a weight for each value and query");
        assert_eq!(sums.len(), 16 * self.queries, "sixteen sums of each query");
        // SAFETY: the last sixteen elements read begin at (positions - 1) width + part, the others by the lengths above.
        unsafe {
            (self.sums)(values.as_ptr().add(part), positions, width, weights.as_ptr(), sums.as_mut_ptr());
        }
    }
}

#[inline(always)]
unsafe fn scores<L: Lanes, const N: usize>(
    keys: *const u16,
    blocks: usize,
    width: usize,
    queries: *const f32,
    scores: *mut f32,
) {
    unsafe {
        for block in 0..blocks {
            let keys = keys.add(block * BLOCK * width);
            let mut sums = [L::zeros(); N];
            for d in 0..width {
                let key = L::halves(keys.add(d * BLOCK).cast());
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = L::fused(L::every(queries.add(d * N + n).cast()), key, *sum);
                }
            }
            for (n, sum) in sums.into_iter().enumerate() {
                L::put(sum, scores.add((n * blocks + block) * BLOCK));
            }
        }
    }
}

#[inline(always)]
unsafe fn sums<L: Lanes, const N: usize>(
    values: *const u16,
    positions: usize,
    width: usize,
    weights: *const f32,
    sums: *mut f32,
) {
    unsafe {
        let mut parts = [L::zeros(); N];
        for position in 0..positions {
            let value = L::halves(values.add(position * width).cast());
            for (n, part) in parts.iter_mut().enumerate() {
                *part = L::fused(L::every(weights.add(position * N + n).cast()), value, *part);
            }
        }
        for (n, part) in parts.into_iter().enumerate() {
            L::put(part, sums.add(16 * n));
        }
    }
}

macro_rules! kernels {
    ($(#[$attribute:meta])* $name:ident, $lanes:ty) => {
        mod $name {
            use super::*;

            $(#[$attribute])*
            unsafe fn scores<const N: usize>(
                keys: *const u16, blocks: usize, width: usize, queries: *const f32, scores: *mut f32,
            ) {
                unsafe { super::scores::<$lanes, N>(keys, blocks, width, queries, scores) }
            }

            $(#[$attribute])*
            unsafe fn sums<const N: usize>(
                values: *const u16, positions: usize, width: usize, weights: *const f32, sums: *mut f32,
            ) {
                unsafe { super::sums::<$lanes, N>(values, positions, width, weights, sums) }
            }

            pub fn kernel<const N: usize>() -> Kernel {
                Kernel { scores: scores::<N>, sums: sums::<N>, queries: N }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    avx512,
    crate::quant::lanes::avx512::Avx512
);
#[cfg(target_arch = "x86_64")]
kernels!(
    #[target_feature(enable = "avx2,fma,f16c")]
    avx2,
    crate::quant::lanes::avx2::Avx2
);
#[cfg(target_arch = "aarch64")]
kernels!(
    #[target_feature(enable = "neon,dotprod")]
    neon,
    crate::quant::lanes::neon::Neon<false>
);
kernels!(
    #[inline(never)]
    scalar,
    Scalar
);

/// The kernel for `N` queries.
///
/// # Panics
/// If this processor has not got the instructions.
pub fn kernel<const N: usize>(instructions: Instructions) -> Kernel {
    assert!(instructions.is_here(), "{} on a processor without it", instructions.name());
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => avx512::kernel::<N>(),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => avx2::kernel::<N>(),
        #[cfg(target_arch = "aarch64")]
        Instructions::NeonI8mm | Instructions::Neon => neon::kernel::<N>(),
        Instructions::Scalar => scalar::kernel::<N>(),
    }
}
