//! Matrix products over row-major slices, on one thread.
//!
//! A wrapper over the `gemm` crate, which chooses its kernel for the processor it runs on. It is never parallel inside:
//! training runs clients side by side instead. On one machine the same shapes give the same bits; between machines
//! with other vector widths or caches they may differ, because the order of summation does.

use crate::Real;

/// A matrix in a slice, row by row, perhaps to be read as its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// `values` holds `rows` rows of `columns` values each.
    ///
    /// # Panics
    /// If the length is another one.
    pub fn new(values: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(Some(values.len()), rows.checked_mul(columns), "a matrix of {rows} x {columns}");
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transpose; nothing is moved.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `C = alpha * C + beta * A * B`, where `A` is (rows, inner), `B` is (inner, columns) and `c` is (rows, columns).
/// With `alpha` zero `c` is written without being read.
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm<T: Real>(alpha: T, c: &mut [T], beta: T, a: Matrix<'_, T>, b: Matrix<'_, T>) {
    assert_eq!(a.columns, b.rows, "inner sizes of a matrix product");
    assert_eq!(Some(c.len()), a.rows.checked_mul(b.columns), "a product of {} x {}", a.rows, b.columns);
    if T::tiled(alpha, c, beta, a, b) {
        return;
    }
    // SAFETY: each slice has exactly rows * columns values (`Matrix::new` and the assert above), and the strides are
    // (columns, 1) of those or, transposed, (1, columns); so every index i * row_stride + j * column_stride lies
    // inside its slice. `c` is borrowed mutably and therefore overlaps neither operand. Sizes of slices fit in isize.
    // `T` is f32 or f64, since `Real` is sealed.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            c.as_mut_ptr(),
            1,
            b.columns as isize,
            alpha != T::ZERO,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            alpha,
            beta,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Is a row of a product of f32 the same bits whichever rows of `A` stand beside it, in products of one size? Kernels of ours are
/// so, by going along the inner side in one order for all; elsewhere nothing is promised.
pub fn rows_apart() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::tile::here();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(len: usize) -> Vec<f64> {
        // Small integers: sums are exact, so equality is.
        (0..len).map(|i| ((i * 7 + 3) % 11) as f64 - 5.0).collect()
    }

    fn check<T: Real>(rows: usize, inner: usize, columns: usize, a_t: bool, b_t: bool, alpha: f64, beta: f64) {
        let a = counting(rows * inner);
        let b = counting(inner * columns);
        let mut expected = counting(rows * columns);
        for i in 0..rows {
            for j in 0..columns {
                let at = |k: usize| {
                    if a_t { a[k * rows + i] } else { a[i * inner + k] }
                };
                let bt = |k: usize| {
                    if b_t { b[j * inner + k] } else { b[k * columns + j] }
                };
                let dot: f64 = (0..inner).map(|k| at(k) * bt(k)).sum();
                let c = &mut expected[i * columns + j];
                *c = if alpha == 0.0 { 0.0 } else { alpha * *c } + beta * dot;
            }
        }
        let cast = |values: &[f64]| values.iter().map(|&v| T::from_f64(v)).collect::<Vec<_>>();
        let (a, b, mut c) = (cast(&a), cast(&b), cast(&counting(rows * columns)));
        if alpha == 0.0 {
            c.fill(T::from_f64(f64::NAN)); // must not be read
        }
        let a = if a_t { Matrix::new(&a, inner, rows).t() } else { Matrix::new(&a, rows, inner) };
        let b = if b_t { Matrix::new(&b, columns, inner).t() } else { Matrix::new(&b, inner, columns) };
        gemm(T::from_f64(alpha), &mut c, T::from_f64(beta), a, b);
        let c: Vec<f64> = c.iter().map(|v| v.to_f64()).collect();
        assert_eq!(c, expected, "{rows} x {inner} x {columns}, transposed {a_t} {b_t}, {alpha} {beta}");
    }

    #[test]
    fn agrees_with_the_definition() {
        for (rows, inner, columns) in [
            (1, 1, 1),
            (1, 9, 5),
            (10, 784, 20),
            (7, 1, 3),
            (7, 2, 3),
            (64, 33, 17),
            (3, 40, 1),
            (10, 300, 200),
            (10, 203, 37),
            (65, 70, 45),
            (50, 300, 41),
            (8, 17, 19),
            (13, 16, 3),
            (0, 3, 2),
            (3, 0, 2),
        ] {
            for (a_t, b_t) in [(false, false), (true, false), (false, true), (true, true)] {
                for (alpha, beta) in [(0.0, 1.0), (1.0, 1.0), (1.0, -0.5), (2.0, 0.25)] {
                    check::<f32>(rows, inner, columns, a_t, b_t, alpha, beta);
                    check::<f64>(rows, inner, columns, a_t, b_t, alpha, beta);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "inner sizes")]
    fn shapes_that_do_not_fit_are_refused() {
        gemm(0.0, &mut [0.0f32; 4], 1.0, Matrix::new(&[0.0; 6], 2, 3), Matrix::new(&[0.0; 4], 2, 2));
    }
}
