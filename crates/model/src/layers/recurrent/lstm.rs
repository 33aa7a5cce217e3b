use crate::layers::squares::{self, Length, Work};
use crate::layers::{Room, Sizes};
use crate::sink::Sink;
use littoral_tensor::{Matrix, Real, gemm, sigmoid, tanh};
use std::ops::Range;

/// `i, f, o = sigmoid(..)`, `g = tanh(..)` of `x W_x + h' W_h + b`; `c = f c' + i g`; `h = o tanh(c)`. Gates lie in the order i, f, g, o.
/// PyTorch adds two biases; their sum is this one.
#[derive(Clone, Debug)]
pub(crate) struct Lstm {
    pub inputs: usize,
    pub hidden: usize,
    /// Time steps of a sequence.
    pub steps: usize,
    /// (inputs, 4 hidden)
    pub input_weight: Range<usize>,
    /// (hidden, 4 hidden)
    pub hidden_weight: Range<usize>,
    /// (4 hidden)
    pub bias: Range<usize>,
}

impl Lstm {
    pub fn sizes(&self, rows: usize) -> Sizes {
        // Kept: gates and cells of all time. Work: dh and dc of one step.
        Sizes { kept: 5 * rows * self.hidden, chosen: 0, work: 2 * (rows / self.steps) * self.hidden }
    }

    pub fn forward<T: Real>(&self, weights: &[T], x: &[T], y: &mut [T], kept: &mut [T]) {
        let rows = x.len() / self.inputs;
        let (sequences, hidden) = (rows / self.steps, self.hidden);
        let (gates, cells) = kept.split_at_mut(4 * rows * hidden);
        for row in gates.chunks_exact_mut(4 * hidden) {
            row.copy_from_slice(&weights[self.bias.clone()]);
        }
        let input_weight = Matrix::new(&weights[self.input_weight.clone()], self.inputs, 4 * hidden);
        let hidden_weight = Matrix::new(&weights[self.hidden_weight.clone()], hidden, 4 * hidden);
        gemm(T::ONE, gates, T::ONE, Matrix::new(x, rows, self.inputs), input_weight);
        let one_step = sequences * hidden;
        for step in 0..self.steps {
            let now = step * one_step;
            let gates = &mut gates[4 * now..4 * (now + one_step)];
            let (past_y, y) = y.split_at_mut(now);
            let (past_cells, cells) = cells.split_at_mut(now);
            let last = now.saturating_sub(one_step);
            let (h, c) = (&past_y[last..], &past_cells[last..]);
            if step > 0 {
                gemm(T::ONE, gates, T::ONE, Matrix::new(h, sequences, hidden), hidden_weight);
            }
            for (sequence, gates) in gates.chunks_exact_mut(4 * hidden).enumerate() {
                let (i, rest) = gates.split_at_mut(hidden);
                let (f, rest) = rest.split_at_mut(hidden);
                let (g, o) = rest.split_at_mut(hidden);
                let at = sequence * hidden;
                let (y, cell) = (&mut y[at..at + hidden], &mut cells[at..at + hidden]);
                for j in 0..hidden {
                    i[j] = sigmoid(i[j]);
                    f[j] = sigmoid(f[j]);
                    g[j] = tanh(g[j]);
                    o[j] = sigmoid(o[j]);
                    cell[j] = i[j] * g[j];
                }
                if step > 0 {
                    for (j, before) in c[at..at + hidden].iter().enumerate() {
                        cell[j] += f[j] * *before;
                    }
                }
                for j in 0..hidden {
                    y[j] = o[j] * tanh(cell[j]);
                }
            }
        }
    }

    /// Leaves the derivatives of gates, before their functions, where gates were kept.
    pub fn inputs<T: Real>(&self, weights: &[T], dy: &[T], dx: Option<&mut [T]>, room: &mut Room<'_, T>) {
        let rows = dy.len() / self.hidden;
        let (sequences, hidden) = (rows / self.steps, self.hidden);
        let one_step = sequences * hidden;
        let (gates, cells) = room.kept.split_at_mut(4 * rows * hidden);
        let (dh, dc) = room.work[..2 * one_step].split_at_mut(one_step);
        dh.fill(T::ZERO);
        dc.fill(T::ZERO);
        for step in (0..self.steps).rev() {
            let now = step * one_step;
            let gates = &mut gates[4 * now..4 * (now + one_step)];
            // Each gate is replaced by its derivative before the sigmoid or tanh.
            for (sequence, gates) in gates.chunks_exact_mut(4 * hidden).enumerate() {
                let (i, rest) = gates.split_at_mut(hidden);
                let (f, rest) = rest.split_at_mut(hidden);
                let (g, o) = rest.split_at_mut(hidden);
                let at = sequence * hidden;
                let (dh, dc) = (&dh[at..at + hidden], &mut dc[at..at + hidden]);
                let (dy, cell) = (&dy[now + at..][..hidden], &cells[now + at..][..hidden]);
                for j in 0..hidden {
                    let t = tanh(cell[j]);
                    let d = dh[j] + dy[j];
                    let d_cell = dc[j] + d * o[j] * (T::ONE - t * t);
                    let before = if step > 0 { cells[now + at + j - one_step] } else { T::ZERO };
                    let (d_i, d_g) = (d_cell * g[j], d_cell * i[j]);
                    dc[j] = d_cell * f[j];
                    o[j] = d * t * o[j] * (T::ONE - o[j]);
                    f[j] = d_cell * before * f[j] * (T::ONE - f[j]);
                    i[j] = d_i * i[j] * (T::ONE - i[j]);
                    g[j] = d_g * (T::ONE - g[j] * g[j]);
                }
            }
            if step > 0 {
                let hidden_weight = Matrix::new(&weights[self.hidden_weight.clone()], hidden, 4 * hidden);
                gemm(T::ZERO, dh, T::ONE, Matrix::new(gates, sequences, 4 * hidden), hidden_weight.t());
            }
        }
        if let Some(dx) = dx {
            let input_weight = Matrix::new(&weights[self.input_weight.clone()], self.inputs, 4 * hidden);
            gemm(T::ZERO, dx, T::ONE, Matrix::new(gates, rows, 4 * hidden), input_weight.t());
        }
    }

    pub fn squares<T: Real>(&self, x: &[T], y: &[T], kept: &[T], work: &mut Work<T>, lengths: &mut [Length]) {
        let (examples, hidden) = (lengths.len(), self.hidden);
        for (example, length) in lengths.iter_mut().enumerate() {
            let at = |step: usize| step * examples + example;
            let x = |step, out: &mut [T]| out.copy_from_slice(&x[at(step) * self.inputs..][..self.inputs]);
            let gates = |step| &kept[4 * at(step) * hidden..][..4 * hidden];
            let before = |step, out: &mut [T]| out.copy_from_slice(&y[at(step) * hidden..][..hidden]);
            let later = |step, out: &mut [T]| out.copy_from_slice(gates(step + 1));
            *length +=
                work.of_rows(self.steps, [self.inputs, 4 * hidden], x, |step, out| out.copy_from_slice(gates(step)));
            *length += work.of_sum(4 * hidden, (0..self.steps).map(gates));
            if self.steps > 1 {
                *length += work.of_rows(self.steps - 1, [hidden, 4 * hidden], before, later);
            }
        }
    }

    /// Multiplies what [`inputs`](Self::inputs) left of each example by its factor.
    pub fn scale(&self, kept: &mut [f64], factors: &[f64]) {
        let gates = &mut kept[..4 * factors.len() * self.steps * self.hidden];
        squares::scale(gates, 4 * self.hidden, factors);
    }

    /// After [`inputs`](Self::inputs).
    pub fn parameters<T: Real>(&self, x: &[T], y: &[T], kept: &[T], sink: &mut Sink<'_, T>) {
        let rows = x.len() / self.inputs;
        let (sequences, hidden) = (rows / self.steps, self.hidden);
        let one_step = sequences * hidden;
        let gates = &kept[..4 * rows * hidden];
        let d_gates = Matrix::new(gates, rows, 4 * hidden);
        sink.target(&self.input_weight).product(Matrix::new(x, rows, self.inputs).t(), d_gates);
        // The state before step t is the output of step t - 1.
        let later = rows - sequences;
        let before = Matrix::new(&y[..later * hidden], later, hidden);
        let d_later = Matrix::new(&gates[4 * one_step..], later, 4 * hidden);
        sink.target(&self.hidden_weight).product(before.t(), d_later);
        sink.target(&self.bias).sum_of_rows(gates);
    }
}
