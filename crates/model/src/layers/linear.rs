//! `y = x W + b`, with W stored (inputs, outputs): the transpose of PyTorch's, so that the forward product and the
//! update read W row by row.

use super::squares::{self, Length, Work};
use crate::sink::Sink;
use littoral_tensor::{Matrix, Real, gemm};
use std::ops::Range;

#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub inputs: usize,
    pub outputs: usize,
    /// (inputs, outputs)
    pub weight: Range<usize>,
    /// (outputs)
    pub bias: Range<usize>,
}

impl Linear {
    pub fn forward<T: Real>(&self, weights: &[T], x: &[T], y: &mut [T]) {
        let rows = x.len() / self.inputs;
        let bias = &weights[self.bias.clone()];
        for row in y.chunks_exact_mut(self.outputs) {
            row.copy_from_slice(bias);
        }
        let weight = Matrix::new(&weights[self.weight.clone()], self.inputs, self.outputs);
        gemm(T::ONE, y, T::ONE, Matrix::new(x, rows, self.inputs), weight);
    }

    pub fn inputs<T: Real>(&self, weights: &[T], dy: &[T], dx: Option<&mut [T]>) {
        let Some(dx) = dx else { return };
        let weight = Matrix::new(&weights[self.weight.clone()], self.inputs, self.outputs);
        gemm(T::ZERO, dx, T::ONE, Matrix::new(dy, dy.len() / self.outputs, self.outputs), weight.t());
    }

    pub fn parameters<T: Real>(&self, x: &[T], dy: &[T], sink: &mut Sink<'_, T>) {
        let rows = x.len() / self.inputs;
        let product = (Matrix::new(x, rows, self.inputs).t(), Matrix::new(dy, rows, self.outputs));
        sink.target(&self.weight).product(product.0, product.1);
        sink.target(&self.bias).sum_of_rows(dy);
    }

    pub fn squares<T: Real>(&self, x: &[T], dy: &[T], work: &mut Work<T>, lengths: &mut [Length]) {
        let (examples, steps) = (lengths.len(), x.len() / self.inputs / lengths.len());
        for (example, length) in lengths.iter_mut().enumerate() {
            let x_at = |step: usize| &x[(step * examples + example) * self.inputs..][..self.inputs];
            let dy_at = |step: usize| &dy[(step * examples + example) * self.outputs..][..self.outputs];
            if steps == 1 {
                *length += Length::one((squares::of(x_at(0)) + 1.0) * squares::of(dy_at(0)));
                continue;
            }
            let widths = [self.inputs, self.outputs];
            let copy = |row: &[T], out: &mut [T]| out.copy_from_slice(row);
            *length +=
                work.of_rows(steps, widths, |step, out| copy(x_at(step), out), |step, out| copy(dy_at(step), out));
            *length += work.of_sum(self.outputs, (0..steps).map(dy_at));
        }
    }
}
