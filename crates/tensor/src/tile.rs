//! Matrix products of f32 for x86-64 without packing and without allocation.
//!
//! A training step multiplies small matrices: ten rows of a batch by weights that lie in the second-level cache. There
//! the usual way, to copy both operands into panels first, costs as much as the product, and allocates. Here a tile of C
//! stays in registers while the rows of B stream by ([`Product::tile`]). B must have contiguous rows for that. Where B is a
//! transpose there are two ways: few rows of A make dot products ([`Product::dots`]); many make it worth while to
//! copy a piece of B, turned, onto the stack ([`Product::turned`]).
//!
//! One body serves every vector width through [`Lanes`]; it is compiled for AVX-512 and for AVX2 with FMA. Everywhere
//! else, and for f64, the `gemm` crate does the work.

#![cfg(target_arch = "x86_64")]
// Vectors are read from and written to slices by address, and live in functions that only some processors can run.
#![allow(unsafe_code)]
// Rows and vectors of a tile are counted by constants, so that the compiler unrolls them into registers.
#![allow(clippy::needless_range_loop)]

use crate::gemm::Matrix;
use std::arch::x86_64::*;

/// `c = alpha c + beta a b`, if this processor and these operands are ones for which tiles are made; else false and
/// `c` is untouched.
///
/// # Panics
/// If `c` has another length than rows times columns, or the inner sizes differ.
pub(crate) fn product(alpha: f32, c: &mut [f32], beta: f32, a: Matrix<'_, f32>, b: Matrix<'_, f32>) -> bool {
    assert!(a.columns == b.rows && c.len() == a.rows * b.columns, "shapes of a product");
    if b.row_stride != 1 && b.column_stride != 1 {
        return false;
    }
    let product = Product { alpha, beta, a, b };
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the processor has the features that the function was compiled for; it was just asked.
        unsafe { avx512(&product, c) };
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: as above.
        unsafe { avx2(&product, c) };
    } else {
        return false;
    }
    true
}

#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn avx512(product: &Product<'_>, c: &mut [f32]) {
    // SAFETY: this function is compiled for AVX-512.
    unsafe { product.run::<__m512>(c) };
}

#[target_feature(enable = "avx2,fma")]
fn avx2(product: &Product<'_>, c: &mut [f32]) {
    // SAFETY: this function is compiled for AVX2 and FMA.
    unsafe { product.run::<__m256>(c) };
}

/// Does this processor have what tiles need?
pub(crate) fn here() -> bool {
    let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
    avx512 || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// A vector register of f32.
///
/// # Safety
/// All functions: the processor has the instructions. Those with an address: `COUNT` values, or the first `some` of
/// them, may be read or written there. `some` is at most `COUNT`.
trait Lanes: Copy {
    const COUNT: usize;
    unsafe fn splat(value: f32) -> Self;
    /// One value, in all lanes.
    unsafe fn broadcast(from: *const f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_some(from: *const f32, some: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_some(self, to: *mut f32, some: usize);
    /// self * factor + term
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    unsafe fn sum(self) -> f32;
}

impl Lanes for __m512 {
    const COUNT: usize = 16;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> Self {
        unsafe { _mm512_broadcastss_ps(_mm_load_ss(from)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // A plain load in the end; but `_mm512_loadu_ps` brings a check along in development builds, in the middle of the
        // innermost loop.
        unsafe { _mm512_maskz_loadu_ps(u16::MAX, from) }
    }
    #[inline(always)]
    unsafe fn load_some(from: *const f32, some: usize) -> Self {
        unsafe { _mm512_maskz_loadu_ps(((1u32 << some) - 1) as u16, from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, some: usize) {
        unsafe { _mm512_mask_storeu_ps(to, ((1u32 << some) - 1) as u16, self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, factor, term) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self) }
    }
}

/// All bits set in the first `some` lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn first_lanes(some: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(some as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

impl Lanes for __m256 {
    const COUNT: usize = 8;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> Self {
        unsafe { _mm256_broadcastss_ps(_mm_load_ss(from)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // As above.
        unsafe { _mm256_maskload_ps(from, _mm256_set1_epi32(-1)) }
    }
    #[inline(always)]
    unsafe fn load_some(from: *const f32, some: usize) -> Self {
        unsafe { _mm256_maskload_ps(from, first_lanes(some)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, some: usize) {
        unsafe { _mm256_maskstore_ps(to, first_lanes(some), self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        unsafe { _mm256_fmadd_ps(self, factor, term) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

struct Product<'a> {
    alpha: f32,
    beta: f32,
    a: Matrix<'a, f32>,
    b: Matrix<'a, f32>,
}

/// A piece of B with contiguous rows, and what of A and C belongs to it.
#[derive(Clone, Copy)]
struct Piece<'a> {
    /// Begins at the piece's first value.
    b: &'a [f32],
    row_stride: usize,
    /// First column of C, and how many.
    column: usize,
    columns: usize,
    /// First of the inner indices, and how many.
    inner: usize,
    inners: usize,
}

/// Inner indices at once when there are many rows: 256 rows of a 32-column panel fill 32 KB.
const INNER_BLOCK: usize = 256;
/// Size of the turned copy of a piece of B: 64 inner indices, 32 columns.
const TURNED: [usize; 2] = [64, 32];
/// From so many rows of A on a turned copy costs less than sums across vectors.
const TURNED_ROWS: usize = 48;

/// The functions below are unsafe only in that the processor must have V's instructions; addresses are checked inside.
impl Product<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(&self, c: &mut [f32]) {
        let (rows, inners, columns) = (self.a.rows, self.a.columns, self.b.columns);
        if rows == 0 || columns == 0 {
            return;
        }
        if inners == 0 {
            for c in c {
                *c = if self.alpha == 0.0 { 0.0 } else { self.alpha * *c };
            }
            return;
        }
        if self.b.column_stride != 1 {
            if rows < TURNED_ROWS && inners >= V::COUNT && self.a.column_stride == 1 {
                unsafe { self.dots_all::<V>(c) };
            } else {
                unsafe { self.turned::<V>(c) };
            }
            return;
        }
        let row_stride = self.b.row_stride;
        // B's rows stream by for each ten rows of C; with many rows of C, a piece that stays in the first-level cache does.
        let (block, panel) = if rows <= 40 || inners <= 64 { (inners, columns) } else { (INNER_BLOCK, 2 * V::COUNT) };
        for column in (0..columns).step_by(panel) {
            for inner in (0..inners).step_by(block) {
                let b = &self.b.values[inner * row_stride + column..];
                let (columns, inners) = (panel.min(columns - column), block.min(inners - inner));
                unsafe { self.piece::<V>(c, Piece { b, row_stride, column, columns, inner, inners }) };
            }
        }
    }

    /// All rows of A times a piece of B.
    #[inline(always)]
    unsafe fn piece<V: Lanes>(&self, c: &mut [f32], piece: Piece<'_>) {
        let mut row = 0;
        while row < self.a.rows {
            let left = self.a.rows - row;
            row += unsafe {
                if left >= 10 && !(left.is_multiple_of(8) && left < 40) {
                    self.across::<10, V>(c, row, piece)
                } else if left >= 8 {
                    self.across::<8, V>(c, row, piece)
                } else if left >= 4 {
                    self.across::<4, V>(c, row, piece)
                } else {
                    self.across::<1, V>(c, row, piece)
                }
            };
        }
    }

    /// ROWS rows of A times a piece of B, in tiles of two vectors and of one.
    #[inline(always)]
    unsafe fn across<const ROWS: usize, V: Lanes>(&self, c: &mut [f32], row: usize, piece: Piece<'_>) -> usize {
        let mut done = 0;
        while done < piece.columns {
            let left = piece.columns - done;
            unsafe {
                if left > V::COUNT {
                    // With AVX2's sixteen registers ten rows of two vectors would not fit.
                    if V::COUNT == 8 && ROWS > 4 {
                        self.tile::<ROWS, 1, V>(c, row, piece, done, V::COUNT);
                        done += V::COUNT;
                    } else {
                        self.tile::<ROWS, 2, V>(c, row, piece, done, left.min(2 * V::COUNT));
                        done += left.min(2 * V::COUNT);
                    }
                } else {
                    self.tile::<ROWS, 1, V>(c, row, piece, done, left);
                    done += left;
                }
            }
        }
        ROWS
    }

    /// ROWS rows and `width` columns of C, held in registers; `width` fills all vectors but perhaps the last.
    #[inline(always)]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize, V: Lanes>(
        &self,
        c: &mut [f32],
        row: usize,
        piece: Piece<'_>,
        done: usize,
        width: usize,
    ) {
        let (row_stride, column_stride) = (self.a.row_stride, self.a.column_stride);
        let a = &self.a.values[row * row_stride + piece.inner * column_stride..];
        let b = &piece.b[done..];
        let first = row * self.b.columns + piece.column + done;
        let c = &mut c[first..];
        let last = width - (VECTORS - 1) * V::COUNT;
        let whole = last == V::COUNT;
        assert!((1..=V::COUNT).contains(&last));
        assert!((ROWS - 1) * row_stride + (piece.inners - 1) * column_stride < a.len());
        assert!((piece.inners - 1) * piece.row_stride + width <= b.len());
        assert!((ROWS - 1) * self.b.columns + width <= c.len());
        // SAFETY: every row of A, B and C that is touched ends inside its slice by the asserts above: A at
        // (r, k) with r < ROWS and k < inners, B at rows k and C at rows r with `width` values each. The last vector of
        // a row touches `last` values, the others COUNT.
        unsafe {
            let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
            let (mut a, mut b) = (a.as_ptr(), b.as_ptr());
            if whole {
                for _ in 0..piece.inners {
                    let mut row = [V::splat(0.0); VECTORS];
                    for v in 0..VECTORS {
                        row[v] = V::load(b.wrapping_add(v * V::COUNT));
                    }
                    add_outer(&mut sums, a, row_stride, row);
                    (a, b) = (a.wrapping_add(column_stride), b.wrapping_add(piece.row_stride));
                }
            } else {
                for _ in 0..piece.inners {
                    let mut row = [V::splat(0.0); VECTORS];
                    for v in 0..VECTORS - 1 {
                        row[v] = V::load(b.wrapping_add(v * V::COUNT));
                    }
                    row[VECTORS - 1] = V::load_some(b.wrapping_add((VECTORS - 1) * V::COUNT), last);
                    add_outer(&mut sums, a, row_stride, row);
                    (a, b) = (a.wrapping_add(column_stride), b.wrapping_add(piece.row_stride));
                }
            }
            // Later pieces of the inner indices add to what the first has left.
            let alpha = if piece.inner == 0 { self.alpha } else { 1.0 };
            let (keep, scale, zero) = (V::splat(alpha), V::splat(self.beta), V::splat(0.0));
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    let to = c.as_mut_ptr().wrapping_add(r.wrapping_mul(self.b.columns) + v * V::COUNT);
                    let some = if v == VECTORS - 1 { last } else { V::COUNT };
                    let old = if alpha == 0.0 {
                        zero
                    } else if some == V::COUNT {
                        V::load(to).mul_add(keep, zero)
                    } else {
                        V::load_some(to, some).mul_add(keep, zero)
                    };
                    let value = sums[r][v].mul_add(scale, old);
                    if some == V::COUNT {
                        value.store(to);
                    } else {
                        value.store_some(to, some);
                    }
                }
            }
        }
    }

    /// For a B whose columns are contiguous: copies pieces of it, turned, and goes on as if they had been rows.
    #[inline(always)]
    unsafe fn turned<V: Lanes>(&self, c: &mut [f32]) {
        let mut copy = [0.0; TURNED[0] * TURNED[1]];
        let (inners, columns) = (self.a.columns, self.b.columns);
        for column in (0..columns).step_by(TURNED[1]) {
            for inner in (0..inners).step_by(TURNED[0]) {
                let (columns, inners) = (TURNED[1].min(columns - column), TURNED[0].min(inners - inner));
                for j in 0..columns {
                    let from = &self.b.values[(column + j) * self.b.column_stride + inner..][..inners];
                    for (i, value) in from.iter().enumerate() {
                        copy[i * TURNED[1] + j] = *value;
                    }
                }
                let piece = Piece { b: &copy, row_stride: TURNED[1], column, columns, inner, inners };
                unsafe { self.piece::<V>(c, piece) };
            }
        }
    }

    /// For a B whose columns are contiguous, and few rows of A that are: each value of C is a dot product.
    #[inline(always)]
    unsafe fn dots_all<V: Lanes>(&self, c: &mut [f32]) {
        let mut row = 0;
        while row < self.a.rows {
            let left = self.a.rows - row;
            let mut column = 0;
            while column < self.b.columns {
                let wide = self.b.columns - column >= 4;
                unsafe {
                    match (left, wide) {
                        (5.., true) => self.dots::<5, 4, V>(c, row, column),
                        (5.., false) => self.dots::<5, 1, V>(c, row, column),
                        (_, true) => self.dots::<1, 4, V>(c, row, column),
                        (_, false) => self.dots::<1, 1, V>(c, row, column),
                    }
                }
                column += if wide { 4 } else { 1 };
            }
            row += if left >= 5 { 5 } else { 1 };
        }
    }

    #[inline(always)]
    unsafe fn dots<const ROWS: usize, const COLUMNS: usize, V: Lanes>(&self, c: &mut [f32], row: usize, column: usize) {
        let inners = self.a.columns;
        let (a_stride, b_stride) = (self.a.row_stride, self.b.column_stride);
        let a = &self.a.values[row * a_stride..];
        let b = &self.b.values[column * b_stride..];
        assert!((ROWS - 1) * a_stride + inners <= a.len());
        assert!((COLUMNS - 1) * b_stride + inners <= b.len());
        // SAFETY: by the asserts `inners` values may be read from r * a_stride and from j * b_stride on; whole vectors
        // stop before that, and the last reads the rest.
        unsafe {
            let (a, b) = (a.as_ptr(), b.as_ptr());
            let mut sums = [[V::splat(0.0); COLUMNS]; ROWS];
            let mut k = 0;
            for _ in 0..inners / V::COUNT {
                let mut columns = [V::splat(0.0); COLUMNS];
                for j in 0..COLUMNS {
                    columns[j] = V::load(b.wrapping_add(j.wrapping_mul(b_stride).wrapping_add(k)));
                }
                for r in 0..ROWS {
                    let row = V::load(a.wrapping_add(r.wrapping_mul(a_stride).wrapping_add(k)));
                    for j in 0..COLUMNS {
                        sums[r][j] = row.mul_add(columns[j], sums[r][j]);
                    }
                }
                k = k.wrapping_add(V::COUNT);
            }
            if k < inners {
                let mut columns = [V::splat(0.0); COLUMNS];
                for j in 0..COLUMNS {
                    columns[j] = V::load_some(b.wrapping_add(j.wrapping_mul(b_stride).wrapping_add(k)), inners - k);
                }
                for r in 0..ROWS {
                    let row = V::load_some(a.wrapping_add(r.wrapping_mul(a_stride).wrapping_add(k)), inners - k);
                    for j in 0..COLUMNS {
                        sums[r][j] = row.mul_add(columns[j], sums[r][j]);
                    }
                }
            }
            for r in 0..ROWS {
                for j in 0..COLUMNS {
                    let c = &mut c[(row + r) * self.b.columns + column + j];
                    let old = if self.alpha == 0.0 { 0.0 } else { self.alpha * *c };
                    *c = old + self.beta * sums[r][j].sum();
                }
            }
        }
    }
}

/// `sums[r] += a[r * stride] * row`. Addresses wrap in here and in the loops around it, since checks for overflow, which
/// development builds make, would cost more than the sums.
///
/// # Safety
/// The processor has V's instructions, and a value may be read at each r * stride.
#[inline(always)]
unsafe fn add_outer<const ROWS: usize, const VECTORS: usize, V: Lanes>(
    sums: &mut [[V; VECTORS]; ROWS],
    a: *const f32,
    stride: usize,
    row: [V; VECTORS],
) {
    for r in 0..ROWS {
        // SAFETY: the caller's promise.
        unsafe {
            let a = V::broadcast(a.wrapping_add(r.wrapping_mul(stride)));
            for v in 0..VECTORS {
                sums[r][v] = a.mul_add(row[v], sums[r][v]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both compilations against the definition; `gemm`'s own test sees only the one that this processor prefers.
    #[test]
    fn every_compilation_agrees_with_the_definition() {
        let integers =
            |len: usize, seed: usize| (0..len).map(|i| ((i * 7 + seed) % 9) as f32 - 4.0).collect::<Vec<_>>();
        for (rows, inners, columns) in
            [(1, 5, 1), (10, 40, 33), (23, 17, 40), (5, 8, 4), (41, 300, 70), (60, 9, 31), (3, 100, 15)]
        {
            let (a, b) = (integers(rows * inners, 3), integers(inners * columns, 5));
            for (a_t, b_t) in [(false, false), (true, false), (false, true)] {
                let a = if a_t { Matrix::new(&a, inners, rows).t() } else { Matrix::new(&a, rows, inners) };
                let b = if b_t { Matrix::new(&b, columns, inners).t() } else { Matrix::new(&b, inners, columns) };
                let before = integers(rows * columns, 1);
                let mut expected = before.clone();
                for (i, c) in expected.iter_mut().enumerate() {
                    let (i, j) = (i / columns, i % columns);
                    let dot: f32 = (0..inners)
                        .map(|k| {
                            a.values[i * a.row_stride + k * a.column_stride]
                                * b.values[k * b.row_stride + j * b.column_stride]
                        })
                        .sum();
                    *c = 2.0 * *c + 0.5 * dot;
                }
                let product = Product { alpha: 2.0, beta: 0.5, a, b };
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                    let mut c = before.clone();
                    // SAFETY: the processor has the features.
                    unsafe { avx512(&product, &mut c) };
                    assert_eq!(c, expected, "AVX-512, {rows} x {inners} x {columns}, transposed {a_t} {b_t}");
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    let mut c = before.clone();
                    // SAFETY: the processor has the features.
                    unsafe { avx2(&product, &mut c) };
                    assert_eq!(c, expected, "AVX2, {rows} x {inners} x {columns}, transposed {a_t} {b_t}");
                }
            }
        }
    }
}
