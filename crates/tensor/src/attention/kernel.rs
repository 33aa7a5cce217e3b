//! The two loops of attention that take its time, over [`Lanes`]: scores of keys, sums of values; each for both types of
//! cache. An element of q8_0 is made of its scale and its integer, exactly, since 11 and 8 bits fit in 24; what follows is
//! the same, in the same order.

#![allow(unsafe_code)]

use super::cache::{BLOCK, CacheType, GROUP, TILE};
use crate::quant::Instructions;
use crate::quant::lanes::{Lanes, scalar::Scalar};

/// For some queries at once, whose number it was chosen for.
#[derive(Clone, Copy)]
pub struct Kernel {
    scores: unsafe fn(keys: *const u8, blocks: usize, width: usize, queries: *const f32, scores: *mut f32),
    sums: unsafe fn(values: *const u8, positions: usize, width: usize, weights: *const f32, sums: *mut f32),
    cache_type: CacheType,
    queries: usize,
}

impl Kernel {
    /// `scores[n blocks BLOCK + p]` of query n and position p of whole blocks of keys; element d of query n is at
    /// `queries[d N + n]`.
    pub fn scores(&self, keys: &[u8], width: usize, queries: &[f32], scores: &mut [f32]) {
        let block_bytes = self.cache_type.head_bytes(BLOCK, width);
        let blocks = keys.len() / block_bytes;
        assert_eq!(keys.len(), blocks * block_bytes, "whole blocks of keys");
        assert!(width.is_multiple_of(self.cache_type.elements()), "whole groups of elements");
        assert_eq!(queries.len(), width * self.queries, "elements of the queries");
        assert_eq!(scores.len(), blocks * BLOCK * self.queries, "a score for each key and query");
        // SAFETY: the lengths are those that the loops run over, and [`kernel`] saw that this processor has the instructions.
        unsafe { (self.scores)(keys.as_ptr(), blocks, width, queries.as_ptr(), scores.as_mut_ptr()) }
    }

    /// `sums[n width + d]`: the weighted sum of element d of the first `positions` values, for query n; the weight of
    /// position p is at `weights[p N + n]`. Elements behind the last sixteen of a width that is no multiple are left out.
    pub fn sums(&self, values: &[u8], positions: usize, width: usize, weights: &[f32], sums: &mut [f32]) {
        assert!(width.is_multiple_of(self.cache_type.elements()), "whole groups of elements");
        // Tiles are whole; rows of halves end where they end.
        let bytes = match self.cache_type {
            CacheType::F16 => positions * self.cache_type.row_bytes(width),
            CacheType::Q8_0 => self.cache_type.head_bytes(positions, width),
        };
        assert!(values.len() >= bytes, "so many values");
        assert!(weights.len() >= positions * self.queries, "a weight for each value and query");
        assert_eq!(sums.len(), width * self.queries, "sums of each query");
        // SAFETY: as above; of halves, the last sixteen elements read end at or before the last value's end.
        unsafe { (self.sums)(values.as_ptr(), positions, width, weights.as_ptr(), sums.as_mut_ptr()) }
    }
}

#[inline(always)]
unsafe fn scores_f16<L: Lanes, const N: usize>(
    keys: *const u8,
    blocks: usize,
    width: usize,
    queries: *const f32,
    scores: *mut f32,
) {
    unsafe {
        for block in 0..blocks {
            let keys = keys.add(2 * block * BLOCK * width);
            let mut sums = [L::zeros(); N];
            for d in 0..width {
                let key = L::halves(keys.add(2 * d * BLOCK));
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
unsafe fn sums_f16<L: Lanes, const N: usize>(
    values: *const u8,
    positions: usize,
    width: usize,
    weights: *const f32,
    sums: *mut f32,
) {
    unsafe {
        for sixteen in 0..width / 16 {
            let first = 16 * sixteen;
            let mut parts = [L::zeros(); N];
            for position in 0..positions {
                let value = L::halves(values.add(2 * (position * width + first)));
                for (n, part) in parts.iter_mut().enumerate() {
                    *part = L::fused(L::every(weights.add(position * N + n).cast()), value, *part);
                }
            }
            for (n, part) in parts.into_iter().enumerate() {
                L::put(part, sums.add(n * width + first));
            }
        }
    }
}

#[inline(always)]
unsafe fn scores_q8_0<L: Lanes, const N: usize>(
    keys: *const u8,
    blocks: usize,
    width: usize,
    queries: *const f32,
    scores: *mut f32,
) {
    unsafe {
        let block_bytes = width / GROUP * TILE;
        let mut block = 0;
        // A sum waits for its last addition; two blocks' sums wait side by side.
        while N <= 2 && block + 2 <= blocks {
            let keys = keys.add(block * block_bytes);
            scores_of::<L, N, 2>(keys, blocks, width, queries, scores.add(block * BLOCK));
            block += 2;
        }
        while block < blocks {
            let keys = keys.add(block * block_bytes);
            scores_of::<L, N, 1>(keys, blocks, width, queries, scores.add(block * BLOCK));
            block += 1;
        }
    }
}

/// Scores of `B` of the blocks.
#[inline(always)]
unsafe fn scores_of<L: Lanes, const N: usize, const B: usize>(
    keys: *const u8,
    blocks: usize,
    width: usize,
    queries: *const f32,
    scores: *mut f32,
) {
    unsafe {
        let mut sums = [[L::zeros(); N]; B];
        for group in 0..width / GROUP {
            let mut tiles = [keys; B];
            let mut scales = [L::zeros(); B];
            for (b, (tile, scale)) in tiles.iter_mut().zip(&mut scales).enumerate() {
                *tile = keys.add((b * (width / GROUP) + group) * TILE);
                *scale = L::halves(*tile);
            }
            let queries = queries.add(group * GROUP * N);
            for d in 0..GROUP {
                for (b, sums) in sums.iter_mut().enumerate() {
                    let integers = L::signed(tiles[b].add(2 * BLOCK + d * BLOCK));
                    let key = L::multiply(L::to_floats(integers), scales[b]);
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = L::fused(L::every(queries.add(d * N + n).cast()), key, *sum);
                    }
                }
            }
        }
        for (b, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                L::put(sum, scores.add((n * blocks + b) * BLOCK));
            }
        }
    }
}

/// Tile after tile, as they lie; sums wait in memory meanwhile.
#[inline(always)]
unsafe fn sums_q8_0<L: Lanes, const N: usize>(
    values: *const u8,
    positions: usize,
    width: usize,
    weights: *const f32,
    sums: *mut f32,
) {
    unsafe {
        for part in 0..N * width / 16 {
            L::put(L::zeros(), sums.add(16 * part));
        }
        let mut scales = [0f32; BLOCK];
        for block in 0..positions.div_ceil(BLOCK) {
            let weights = weights.add(block * BLOCK * N);
            let count = if positions - block * BLOCK < BLOCK { positions - block * BLOCK } else { BLOCK };
            for group in 0..width / GROUP {
                let tile = values.add((block * (width / GROUP) + group) * TILE);
                L::put(L::halves(tile), scales.as_mut_ptr());
                for half in 0..GROUP / 16 {
                    let (integers, sums) = (tile.add(2 * BLOCK + 16 * half), sums.add(group * GROUP + 16 * half));
                    let mut parts = [L::zeros(); N];
                    for (n, part) in parts.iter_mut().enumerate() {
                        *part = L::floats(sums.add(n * width).cast());
                    }
                    for position in 0..count {
                        let scale = L::every(scales.as_ptr().add(position).cast());
                        let value = L::multiply(L::to_floats(L::signed(integers.add(position * GROUP))), scale);
                        for (n, part) in parts.iter_mut().enumerate() {
                            *part = L::fused(L::every(weights.add(position * N + n).cast()), value, *part);
                        }
                    }
                    for (n, part) in parts.into_iter().enumerate() {
                        L::put(part, sums.add(n * width));
                    }
                }
            }
        }
    }
}

macro_rules! kernels {
    ($(#[$attribute:meta])* $name:ident, $lanes:ty) => {
        mod $name {
            use super::*;

            $(#[$attribute])*
            unsafe fn scores_f16<const N: usize>(
                keys: *const u8, blocks: usize, width: usize, queries: *const f32, scores: *mut f32,
            ) {
                unsafe { super::scores_f16::<$lanes, N>(keys, blocks, width, queries, scores) }
            }

            $(#[$attribute])*
            unsafe fn sums_f16<const N: usize>(
                values: *const u8, positions: usize, width: usize, weights: *const f32, sums: *mut f32,
            ) {
                unsafe { super::sums_f16::<$lanes, N>(values, positions, width, weights, sums) }
            }

            $(#[$attribute])*
            unsafe fn scores_q8_0<const N: usize>(
                keys: *const u8, blocks: usize, width: usize, queries: *const f32, scores: *mut f32,
            ) {
                unsafe { super::scores_q8_0::<$lanes, N>(keys, blocks, width, queries, scores) }
            }

            $(#[$attribute])*
            unsafe fn sums_q8_0<const N: usize>(
                values: *const u8, positions: usize, width: usize, weights: *const f32, sums: *mut f32,
            ) {
                unsafe { super::sums_q8_0::<$lanes, N>(values, positions, width, weights, sums) }
            }

            pub fn kernel<const N: usize>(cache_type: CacheType) -> Kernel {
                match cache_type {
                    CacheType::F16 => Kernel { scores: scores_f16::<N>, sums: sums_f16::<N>, cache_type, queries: N },
                    CacheType::Q8_0 => Kernel { scores: scores_q8_0::<N>, sums: sums_q8_0::<N>, cache_type, queries: N },
                }
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

/// The kernel for `N` queries over a cache of that type.
///
/// # Panics
/// If this processor has not got the instructions.
pub fn kernel<const N: usize>(instructions: Instructions, cache_type: CacheType) -> Kernel {
    assert!(instructions.is_here(), "{} on a processor without it", instructions.name());
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => avx512::kernel::<N>(cache_type),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => avx2::kernel::<N>(cache_type),
        #[cfg(target_arch = "aarch64")]
        Instructions::NeonI8mm | Instructions::Neon => neon::kernel::<N>(cache_type),
        Instructions::Scalar => scalar::kernel::<N>(cache_type),
    }
}
