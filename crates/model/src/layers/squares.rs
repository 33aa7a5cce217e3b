//! Squared L2 norms of one example's derivative by some weights, while the examples' derivatives are never all in memory.
//!
//! Goodfellow 2015, "Efficient per-example gradient computations" (arXiv:1510.01799): a linear layer's derivative for one row
//! is the outer product of its input and its upstream derivative, and so ‖xᵀ d‖² = ‖x‖² ‖d‖². Where an example has several
//! rows (pixels, time steps) it is a sum of such products; then either the sum is formed, for one example at a time, or, where
//! weights are many and steps few, both Gram matrices are: ‖Σ xₜᵀ dₜ‖² = Σ (xₜ·xᵤ)(dₜ·dᵤ) (Li et al. 2022, "Large language models
//! can be strong differentially private learners", arXiv:2110.05679, section 4).
//!
//! Squares are added in f64, and Gram matrices are f64: their terms cancel.
//!
//! How much a sum of products may be off is told by its terms, not by what is left of them: beside the norm of a sum goes the sum of
//! its terms' norms.

use littoral_tensor::{Matrix, Real, gemm};

/// How long one example's derivative is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Length {
    /// ‖Σ termₜ‖², summed over the layers' weights.
    pub square: f64,
    /// (Σ ‖termₜ‖)², summed over the same: what the square would be if nothing cancelled.
    pub terms: f64,
}

impl Length {
    /// Of one term.
    pub fn one(square: f64) -> Self {
        Self { square, terms: square }
    }
}

impl std::ops::AddAssign for Length {
    fn add_assign(&mut self, other: Self) {
        self.square += other.square;
        self.terms += other.terms;
    }
}

/// Room for one example at a time; grows to what the first pass needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work<T> {
    left: Vec<T>,
    right: Vec<T>,
    product: Vec<T>,
    pub wide: Vec<f64>,
}

impl<T: Real> Work<T> {
    /// Of Σ leftₜᵀ rightₜ over `steps` rows of widths `widths`, which the closures write.
    pub fn of_rows(
        &mut self,
        steps: usize,
        widths: [usize; 2],
        left: impl Fn(usize, &mut [T]),
        right: impl Fn(usize, &mut [T]),
    ) -> Length {
        self.left.resize(steps * widths[0], T::ZERO);
        self.right.resize(steps * widths[1], T::ZERO);
        self.left.chunks_exact_mut(widths[0]).enumerate().for_each(|(step, row)| left(step, row));
        self.right.chunks_exact_mut(widths[1]).enumerate().for_each(|(step, row)| right(step, row));
        of_product(&self.left, &self.right, widths, &mut self.product, &mut self.wide)
    }

    /// The same of rows that lie one after another.
    pub fn of_product(&mut self, left: &[T], right: &[T], widths: [usize; 2]) -> Length {
        of_product(left, right, widths, &mut self.product, &mut self.wide)
    }

    /// Of Σ rowₜ.
    pub fn of_sum<'a>(&mut self, width: usize, rows: impl Iterator<Item = &'a [T]>) -> Length {
        self.left.clear();
        self.left.resize(width, T::ZERO);
        let mut terms = 0.0;
        for row in rows {
            terms += of(row).sqrt();
            self.left.iter_mut().zip(row).for_each(|(sum, value)| *sum += *value);
        }
        Length { square: of(&self.left), terms: terms * terms }
    }
}

fn of_product<T: Real>(
    left: &[T],
    right: &[T],
    widths: [usize; 2],
    product: &mut Vec<T>,
    wide: &mut Vec<f64>,
) -> Length {
    let steps = left.len() / widths[0];
    if steps == 1 {
        return Length::one(of(left) * of(right));
    }
    let rows = left.chunks_exact(widths[0]).zip(right.chunks_exact(widths[1]));
    let terms: f64 = rows.map(|(left, right)| (of(left) * of(right)).sqrt()).sum();
    Length { square: square_of_product(left, right, widths, product, wide), terms: terms * terms }
}

fn square_of_product<T: Real>(
    left: &[T],
    right: &[T],
    widths: [usize; 2],
    product: &mut Vec<T>,
    wide: &mut Vec<f64>,
) -> f64 {
    let steps = left.len() / widths[0];
    // An f64 product takes about three times as long as an f32 one.
    if 3 * steps * (widths[0] + widths[1]) >= widths[0] * widths[1] {
        product.resize(widths[0] * widths[1], T::ZERO);
        let left = Matrix::new(left, steps, widths[0]).t();
        gemm(T::ZERO, product, T::ONE, left, Matrix::new(right, steps, widths[1]));
        return of(product);
    }
    wide.clear();
    wide.extend(left.iter().chain(right).map(|value| value.to_f64()));
    wide.resize(left.len() + right.len() + 2 * steps * steps, 0.0);
    let (values, grams) = wide.split_at_mut(left.len() + right.len());
    let (of_left, of_right) = grams.split_at_mut(steps * steps);
    for (gram, values, width) in
        [(&mut *of_left, &values[..left.len()], widths[0]), (&mut *of_right, &values[left.len()..], widths[1])]
    {
        let values = Matrix::new(values, steps, width);
        gemm(0.0, gram, 1.0, values, values.t());
    }
    // Rounding may leave a hair below 0; a NaN stays one.
    let square: f64 = of_left.iter().zip(of_right.iter()).map(|(left, right)| left * right).sum();
    if square < 0.0 { 0.0 } else { square }
}

/// ‖x‖², in eight sums side by side.
pub(crate) fn of<T: Real>(x: &[T]) -> f64 {
    let mut lanes = [0f64; 8];
    let mut rows = x.chunks_exact(8);
    for row in &mut rows {
        for (lane, value) in lanes.iter_mut().zip(row) {
            *lane += value.to_f64() * value.to_f64();
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rows.remainder()) {
        *lane += value.to_f64() * value.to_f64();
    }
    lanes.iter().sum()
}

/// Multiplies the rows of each example by its factor. Rows are those of all examples' first step, then of all second ones, …
pub(crate) fn scale(rows: &mut [f64], width: usize, factors: &[f64]) {
    for (row, factor) in rows.chunks_exact_mut(width).zip(factors.iter().cycle()) {
        if *factor != 1.0 {
            row.iter_mut().for_each(|value| *value *= *factor);
        }
    }
}
