use crate::layers::squares::{self, Length, Work};
use crate::layers::{Room, Sizes};
use crate::sink::Sink;
use littoral_tensor::{Matrix, Real, gemm, sigmoid, tanh};
use std::ops::Range;

/// `r, z = sigmoid(..)` of `x W_x + h' W_h + b`; `n = tanh(x W_x + b + r (h' W_h + b_h))`; `h = (1 - z) n + z h'`. Gates lie
/// in the order r, z, n. PyTorch has a second bias for r and z too; their sum is `bias`.
#[derive(Clone, Debug)]
pub(crate) struct Gru {
    pub inputs: usize,
    pub hidden: usize,
    /// Time steps of a sequence.
    pub steps: usize,
    /// (inputs, 3 hidden)
    pub input_weight: Range<usize>,
    /// (hidden, 3 hidden)
    pub hidden_weight: Range<usize>,
    /// (3 hidden)
    pub bias: Range<usize>,
    /// (hidden): b_h, inside the product with r
    pub hidden_bias: Range<usize>,
}

impl Gru {
    pub fn sizes(&self, rows: usize) -> Sizes {
        // Kept: gates, and q = h' W_h + b_h of the candidate, of all time. Work: one step of 3 gates and of dh.
        Sizes { kept: 4 * rows * self.hidden, chosen: 0, work: 4 * (rows / self.steps) * self.hidden }
    }

    pub fn forward<T: Real>(&self, weights: &[T], x: &[T], y: &mut [T], room: Room<'_, T>) {
        let rows = x.len() / self.inputs;
        let (sequences, hidden) = (rows / self.steps, self.hidden);
        let one_step = sequences * hidden;
        let (gates, candidates) = room.kept.split_at_mut(3 * rows * hidden);
        let from_state = &mut room.work[..3 * one_step];
        for row in gates.chunks_exact_mut(3 * hidden) {
            row.copy_from_slice(&weights[self.bias.clone()]);
        }
        let input_weight = Matrix::new(&weights[self.input_weight.clone()], self.inputs, 3 * hidden);
        let hidden_weight = Matrix::new(&weights[self.hidden_weight.clone()], hidden, 3 * hidden);
        let hidden_bias = &weights[self.hidden_bias.clone()];
        gemm(T::ONE, gates, T::ONE, Matrix::new(x, rows, self.inputs), input_weight);
        for step in 0..self.steps {
            let now = step * one_step;
            let (past, y) = y.split_at_mut(now);
            let before = &past[now.saturating_sub(one_step)..];
            if step > 0 {
                gemm(T::ZERO, from_state, T::ONE, Matrix::new(before, sequences, hidden), hidden_weight);
            } else {
                from_state.fill(T::ZERO);
            }
            for sequence in 0..sequences {
                let at = sequence * hidden;
                let gates = &mut gates[3 * (now + at)..][..3 * hidden];
                let (r, rest) = gates.split_at_mut(hidden);
                let (z, n) = rest.split_at_mut(hidden);
                let (from_r, rest) = from_state[3 * at..3 * (at + hidden)].split_at(hidden);
                let (from_z, from_n) = rest.split_at(hidden);
                let (y, q) = (&mut y[at..at + hidden], &mut candidates[now + at..][..hidden]);
                for j in 0..hidden {
                    r[j] = sigmoid(r[j] + from_r[j]);
                    z[j] = sigmoid(z[j] + from_z[j]);
                    q[j] = from_n[j] + hidden_bias[j];
                    n[j] = tanh(n[j] + r[j] * q[j]);
                    y[j] = (T::ONE - z[j]) * n[j];
                }
                if step > 0 {
                    for (j, before) in before[at..at + hidden].iter().enumerate() {
                        y[j] += z[j] * *before;
                    }
                }
            }
        }
    }

    /// Leaves the derivatives of gates and candidates, before their functions, where gates and candidates were kept.
    pub fn inputs<T: Real>(&self, weights: &[T], y: &[T], dy: &[T], dx: Option<&mut [T]>, room: &mut Room<'_, T>) {
        let rows = y.len() / self.hidden;
        let (sequences, hidden) = (rows / self.steps, self.hidden);
        let one_step = sequences * hidden;
        let (gates, candidates) = room.kept[..4 * rows * hidden].split_at_mut(3 * rows * hidden);
        let (d_from_state, dh) = room.work[..4 * one_step].split_at_mut(3 * one_step);
        dh.fill(T::ZERO);
        for step in (0..self.steps).rev() {
            let now = step * one_step;
            // Each gate and each q is replaced by its derivative, r, z and n before the sigmoid or tanh.
            for sequence in 0..sequences {
                let at = sequence * hidden;
                let gates = &mut gates[3 * (now + at)..][..3 * hidden];
                let (r, rest) = gates.split_at_mut(hidden);
                let (z, n) = rest.split_at_mut(hidden);
                let (d_r, rest) = d_from_state[3 * at..3 * (at + hidden)].split_at_mut(hidden);
                let (d_z, d_n) = rest.split_at_mut(hidden);
                let (dh, q) = (&mut dh[at..at + hidden], &mut candidates[now + at..][..hidden]);
                let dy = &dy[now + at..][..hidden];
                for j in 0..hidden {
                    let before = if step > 0 { y[now + at + j - one_step] } else { T::ZERO };
                    let d = dh[j] + dy[j];
                    dh[j] = d * z[j];
                    let d_candidate = d * (T::ONE - z[j]) * (T::ONE - n[j] * n[j]);
                    z[j] = d * (before - n[j]) * z[j] * (T::ONE - z[j]);
                    n[j] = d_candidate;
                    let d_q = d_candidate * r[j];
                    r[j] = d_candidate * q[j] * r[j] * (T::ONE - r[j]);
                    q[j] = d_q;
                    (d_r[j], d_z[j], d_n[j]) = (r[j], z[j], d_q);
                }
            }
            if step > 0 {
                let hidden_weight = Matrix::new(&weights[self.hidden_weight.clone()], hidden, 3 * hidden);
                let d_from_state = Matrix::new(d_from_state, sequences, 3 * hidden);
                gemm(T::ONE, dh, T::ONE, d_from_state, hidden_weight.t());
            }
        }
        if let Some(dx) = dx {
            let input_weight = Matrix::new(&weights[self.input_weight.clone()], self.inputs, 3 * hidden);
            gemm(T::ZERO, dx, T::ONE, Matrix::new(gates, rows, 3 * hidden), input_weight.t());
        }
    }

    pub fn squares<T: Real>(&self, x: &[T], y: &[T], kept: &[T], work: &mut Work<T>, lengths: &mut [Length]) {
        let (examples, hidden) = (lengths.len(), self.hidden);
        let (gates, candidates) = kept.split_at(3 * examples * self.steps * hidden);
        for (example, length) in lengths.iter_mut().enumerate() {
            let at = |step: usize| step * examples + example;
            let x = |step, out: &mut [T]| out.copy_from_slice(&x[at(step) * self.inputs..][..self.inputs]);
            let gates = |step| &gates[3 * at(step) * hidden..][..3 * hidden];
            let candidates = |step| &candidates[at(step) * hidden..][..hidden];
            let before = |step, out: &mut [T]| out.copy_from_slice(&y[at(step) * hidden..][..hidden]);
            *length +=
                work.of_rows(self.steps, [self.inputs, 3 * hidden], x, |step, out| out.copy_from_slice(gates(step)));
            *length += work.of_sum(3 * hidden, (0..self.steps).map(gates));
            *length += work.of_sum(hidden, (0..self.steps).map(candidates));
            if self.steps > 1 {
                *length += work.of_rows(self.steps - 1, [hidden, 3 * hidden], before, |step, out| {
                    out[..2 * hidden].copy_from_slice(&gates(step + 1)[..2 * hidden]);
                    out[2 * hidden..].copy_from_slice(candidates(step + 1));
                });
            }
        }
    }

    /// Multiplies what [`inputs`](Self::inputs) left of each example by its factor.
    pub fn scale(&self, kept: &mut [f64], factors: &[f64]) {
        let (gates, candidates) = kept.split_at_mut(3 * factors.len() * self.steps * self.hidden);
        squares::scale(gates, 3 * self.hidden, factors);
        squares::scale(candidates, self.hidden, factors);
    }

    /// After [`inputs`](Self::inputs), once.
    pub fn parameters<T: Real>(&self, x: &[T], y: &[T], kept: &mut [T], sink: &mut Sink<'_, T>) {
        let rows = x.len() / self.inputs;
        let (sequences, hidden) = (rows / self.steps, self.hidden);
        let one_step = sequences * hidden;
        let (gates, candidates) = kept.split_at_mut(3 * rows * hidden);
        let d_gates = Matrix::new(gates, rows, 3 * hidden);
        sink.target(&self.input_weight).product(Matrix::new(x, rows, self.inputs).t(), d_gates);
        sink.target(&self.bias).sum_of_rows(gates);
        sink.target(&self.hidden_bias).sum_of_rows(candidates);
        // On the side of the state the candidate's part is q, not n.
        for (gates, d_q) in gates.chunks_exact_mut(3 * hidden).zip(candidates.chunks_exact(hidden)) {
            gates[2 * hidden..].copy_from_slice(d_q);
        }
        // The state before step t is the output of step t - 1.
        let later = rows - sequences;
        let before = Matrix::new(&y[..later * hidden], later, hidden);
        let d_later = Matrix::new(&gates[3 * one_step..], later, 3 * hidden);
        sink.target(&self.hidden_weight).product(before.t(), d_later);
    }
}
