//! Where a backward pass puts the derivative of a parameter.
//!
//! Every parameter's derivative is a sum of matrix products, or of rows. A layer computes it once and says "here"; whether
//! that fills a gradient (`G = dW`) or moves the weights at once (`W = W - rate * dW`, inside the same
//! matrix product) is decided by who started the pass. The second form neither writes nor reads a gradient.

use littoral_tensor::{Matrix, Real, gemm};
use std::ops::Range;

pub(crate) enum Sink<'a, T> {
    Gradient { weights: &'a [T], gradient: &'a mut [T] },
    Descend { weights: &'a mut [T], rate: T },
}

impl<T: Real> Sink<'_, T> {
    /// The weights as they were in the forward pass, except where a target has been filled already: a layer
    /// reads a segment before it asks for it as a target.
    pub fn weights(&self) -> &[T] {
        match self {
            Self::Gradient { weights, .. } => weights,
            Self::Descend { weights, .. } => weights,
        }
    }

    /// Each trained segment is asked for exactly once in a pass.
    pub fn target(&mut self, segment: &Range<usize>) -> Target<'_, T> {
        match self {
            Self::Gradient { gradient, .. } => {
                Target { values: &mut gradient[segment.clone()], keep: T::ZERO, scale: T::ONE }
            }
            Self::Descend { weights, rate } => {
                Target { values: &mut weights[segment.clone()], keep: T::ONE, scale: -*rate }
            }
        }
    }
}

/// `values = keep * values + scale * derivative` for the first part of a derivative; further parts add.
pub(crate) struct Target<'a, T> {
    values: &'a mut [T],
    keep: T,
    scale: T,
}

impl<T: Real> Target<'_, T> {
    /// Takes in the product A * B.
    pub fn product(&mut self, a: Matrix<'_, T>, b: Matrix<'_, T>) {
        gemm(self.keep, self.values, self.scale, a, b);
        self.keep = T::ONE;
    }

    /// Takes in the sum of the rows of a matrix.
    pub fn sum_of_rows(&mut self, matrix: &[T]) {
        self.begin();
        for row in matrix.chunks_exact(self.values.len()) {
            for (value, part) in self.values.iter_mut().zip(row) {
                *value += self.scale * *part;
            }
        }
    }

    /// Adds to a few values beginning at `offset`; for derivatives that are zero elsewhere.
    pub fn add_at(&mut self, offset: usize, part: &[T]) {
        self.begin();
        for (value, part) in self.values[offset..offset + part.len()].iter_mut().zip(part) {
            *value += self.scale * *part;
        }
    }

    /// Makes sure that a gradient nothing is added to is zero.
    pub fn begin(&mut self) {
        if self.keep == T::ZERO {
            self.values.fill(T::ZERO);
            self.keep = T::ONE;
        }
    }
}
