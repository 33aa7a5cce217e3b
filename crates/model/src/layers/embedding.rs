//! A table with one row per token. Always the first layer; its input is token ids, not values.

use super::squares::{Length, Work};
use crate::sink::Sink;
use littoral_tensor::Real;
use std::ops::Range;

#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    pub width: usize,
    /// (vocabulary, width)
    pub weight: Range<usize>,
}

impl Embedding {
    pub fn forward<T: Real>(&self, weights: &[T], tokens: &[u32], y: &mut [T]) {
        let table = &weights[self.weight.clone()];
        for (token, y) in tokens.iter().zip(y.chunks_exact_mut(self.width)) {
            y.copy_from_slice(&table[*token as usize * self.width..][..self.width]);
        }
    }

    /// A token that an example has twice has one row, and so one sum.
    pub fn squares<T: Real>(&self, tokens: &[u32], dy: &[T], work: &mut Work<T>, lengths: &mut [Length]) {
        let examples = lengths.len();
        for (example, length) in lengths.iter_mut().enumerate() {
            let own = || (example..tokens.len()).step_by(examples);
            for place in own() {
                let same = |other: &usize| tokens[*other] == tokens[place];
                if own().take_while(|other| *other < place).any(|other| same(&other)) {
                    continue;
                }
                let rows = own().filter(same).map(|at| &dy[at * self.width..][..self.width]);
                *length += work.of_sum(self.width, rows);
            }
        }
    }

    pub fn backward<T: Real>(&self, tokens: &[u32], dy: &[T], sink: &mut Sink<'_, T>) {
        let mut target = sink.target(&self.weight);
        target.begin();
        for (token, dy) in tokens.iter().zip(dy.chunks_exact(self.width)) {
            target.add_at(*token as usize * self.width, dy);
        }
    }
}
