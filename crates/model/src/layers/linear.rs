//! `y = x W + b`, with W stored (inputs, outputs): the transpose of PyTorch's, so that the forward product and the
//! update read W row by row.

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

    pub fn backward<T: Real>(&self, x: &[T], dy: &[T], dx: Option<&mut [T]>, sink: &mut Sink<'_, T>) {
        let rows = x.len() / self.inputs;
        let x = Matrix::new(x, rows, self.inputs);
        let dy_matrix = Matrix::new(dy, rows, self.outputs);
        if let Some(dx) = dx {
            let weight = Matrix::new(sink.weights(&self.weight), self.inputs, self.outputs);
            gemm(T::ZERO, dx, T::ONE, dy_matrix, weight.t());
        }
        sink.target(&self.weight).product(x.t(), dy_matrix);
        sink.target(&self.bias).sum_of_rows(dy);
    }
}
