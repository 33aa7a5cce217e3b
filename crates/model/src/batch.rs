//! Rows made ready for a step: shuffled, gathered, converted, standardised.

use crate::examples::{Features, Labels, Mismatch, Shape, Standardise, View};
use crate::model::Model;
use crate::spec::Loss;
use littoral_tensor::Real;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// The order of a view's rows in one epoch. Keeps its memory from epoch to epoch.
#[derive(Clone, Debug, Default)]
pub struct Epoch {
    order: Vec<u32>,
}

impl Epoch {
    /// Room for a view of that many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self { order: Vec::with_capacity(rows) }
    }

    /// Puts the rows of `view` into the order that belongs to the seed and the epoch (Fisher and Yates, ChaCha8).
    pub fn shuffle(&mut self, view: &View, seed: u64, epoch: u64) {
        self.order.clear();
        self.order.extend_from_slice(view.rows());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch);
        for last in (1..self.order.len()).rev() {
            // A product of 64 random bits: the deviation from uniform is below 2^-32.
            let other = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
            self.order.swap(last, other as usize);
        }
    }

    /// The rows in groups of `size`, of which the last may be smaller; 0 means all at once.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = &[u32]> {
        let size = if size == 0 { self.order.len().max(1) } else { size };
        self.order.chunks(size)
    }
}

/// Rows as a model reads them. Room for the largest batch is allocated once.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    model: Expected,
    rows: usize,
    rows_max: usize,
    /// Per row the width of the features; nothing for text.
    values: Vec<T>,
    /// For text, by time: the first token of all rows, then the second of all rows, …
    tokens: Vec<u32>,
    classes: Vec<u32>,
    targets: Vec<T>,
}

/// What the model that a batch was made for takes.
#[derive(Clone, Debug)]
struct Expected {
    inputs: Shape,
    outputs: usize,
    loss: Loss,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Targets<'a, T> {
    Classes(&'a [u32]),
    Values(&'a [T]),
}

impl<T: Real> Batch<T> {
    pub fn new(model: &Model, rows_max: usize) -> Self {
        let positions = rows_max * model.steps();
        let (values, tokens) = match model.inputs() {
            Shape::Values { width } => (rows_max * width, 0),
            Shape::Tokens { .. } => (0, positions),
        };
        let (classes, targets) = match model.loss() {
            Loss::CrossEntropy => (positions, 0),
            Loss::Mse => (0, rows_max * model.outputs()),
        };
        Self {
            model: Expected { inputs: model.inputs(), outputs: model.outputs(), loss: model.loss() },
            rows: 0,
            rows_max,
            values: vec![T::ZERO; values],
            tokens: vec![0; tokens],
            classes: vec![0; classes],
            targets: vec![T::ZERO; targets],
        }
    }

    /// How many rows were gathered last.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Gathers some rows of the view's examples. A missing value becomes 0, which after standardisation is the mean: it
    /// says nothing either way. The caller has asked [`Model::check`] whether they fit the model;
    /// here the shapes, the room and each index are checked, so that a wrong one is an error and not a panic.
    pub fn fill(&mut self, view: &View, rows: &[u32]) -> Result<(), Mismatch> {
        let examples = view.examples();
        let mismatch = |what, expected: String, got: String| Err(Mismatch { what, expected, got });
        if rows.len() > self.rows_max {
            return mismatch("batch", format!("at most {} rows", self.rows_max), rows.len().to_string());
        }
        if examples.shape() != self.model.inputs {
            return mismatch("features", self.model.inputs.to_string(), examples.shape().to_string());
        }
        if let Some(row) = rows.iter().find(|&&row| row as usize >= examples.rows()) {
            return mismatch("batch", format!("rows below {}", examples.rows()), row.to_string());
        }
        self.rows = rows.len();
        match examples.features() {
            Features::F32 { width, values } => {
                // A missing value takes the column's mean, which standardising then makes 0; without means it is 0.
                let means = view.standardise().map_or(&[][..], Standardise::mean);
                for (row, out) in rows.iter().zip(self.values.chunks_exact_mut(*width)) {
                    for (column, (out, value)) in out.iter_mut().zip(row_of(values, *row, *width)).enumerate() {
                        let missing = || means.get(column).copied().unwrap_or(0.0);
                        *out = T::from_f32(if value.is_nan() { missing() } else { *value });
                    }
                }
            }
            Features::U8 { width, values, scale, offset } => {
                for (row, out) in rows.iter().zip(self.values.chunks_exact_mut(*width)) {
                    for (out, byte) in out.iter_mut().zip(row_of(values, *row, *width)) {
                        *out = T::from_f32(f32::from(*byte) * scale + offset);
                    }
                }
            }
            Features::Tokens { ids, window } => {
                for (place, row) in rows.iter().enumerate() {
                    // One token more than the window: each is the label of the one before.
                    let text = &ids[*row as usize * window..][..window + 1];
                    for step in 0..*window {
                        let at = step * rows.len() + place;
                        self.tokens[at] = u32::from(text[step]);
                        self.classes[at] = u32::from(text[step + 1]);
                    }
                }
            }
        }
        if let Some(standardise) = view.standardise() {
            for row in self.values.chunks_exact_mut(standardise.mean().len()).take(rows.len()) {
                for ((value, mean), inv_std) in row.iter_mut().zip(standardise.mean()).zip(standardise.inv_std()) {
                    *value = (*value - T::from_f32(*mean)) * T::from_f32(*inv_std);
                }
            }
        }
        match (examples.labels(), self.model.loss) {
            (Labels::Classes { ids, classes }, Loss::CrossEntropy) if *classes as usize <= self.model.outputs => {
                for (out, row) in self.classes.iter_mut().zip(rows) {
                    *out = ids[*row as usize];
                }
            }
            (Labels::Values { width, values }, Loss::Mse) if *width == self.model.outputs => {
                for (out, row) in self.targets.chunks_exact_mut(*width).zip(rows) {
                    for (out, value) in out.iter_mut().zip(row_of(values, *row, *width)) {
                        *out = T::from_f32(*value);
                    }
                }
            }
            (Labels::NextToken, Loss::CrossEntropy) if examples.tokens() <= self.model.outputs => {}
            _ => {
                return mismatch(
                    "labels",
                    format!("{} outputs of the model's loss", self.model.outputs),
                    "others".into(),
                );
            }
        }
        Ok(())
    }

    pub(crate) fn values(&self) -> &[T] {
        match self.model.inputs {
            Shape::Values { width } => &self.values[..self.rows * width],
            Shape::Tokens { .. } => &[],
        }
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens[..self.positions().min(self.tokens.len())]
    }

    pub(crate) fn targets(&self) -> Targets<'_, T> {
        match self.model.loss {
            Loss::CrossEntropy => Targets::Classes(&self.classes[..self.positions()]),
            Loss::Mse => Targets::Values(&self.targets[..self.rows * self.model.outputs]),
        }
    }

    fn positions(&self) -> usize {
        match self.model.inputs {
            Shape::Values { .. } => self.rows,
            Shape::Tokens { window } => self.rows * window,
        }
    }
}

fn row_of<V>(values: &[V], row: u32, width: usize) -> &[V] {
    &values[row as usize * width..][..width]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::Examples;
    use crate::spec::ModelSpec;
    use std::sync::Arc;

    #[test]
    fn a_missing_value_is_the_mean_or_nothing() {
        let features = Features::F32 { width: 2, values: vec![3.0, f32::NAN, f32::NAN, 7.0] };
        let examples = Arc::new(Examples::new(features, Labels::Classes { ids: vec![0, 1], classes: 2 }).unwrap());
        let plain = View::all(examples);
        // A mean of 0.1 is not exact, and must still leave exactly 0.
        let standardise = Arc::new(Standardise::new(vec![1.0, 0.1], vec![0.5, 2.0]).unwrap());
        let standardised = plain.clone().standardised(standardise).unwrap();
        let model = Model::build(&ModelSpec::Softmax {}, plain.examples().shape(), 2).unwrap();
        let mut batch = Batch::<f64>::new(&model, 2);
        batch.fill(&plain, &[0, 1]).unwrap();
        assert_eq!(batch.values(), [3.0, 0.0, 0.0, 7.0]);
        batch.fill(&standardised, &[1, 0]).unwrap();
        assert_eq!(batch.values(), [0.0, (7.0 - f64::from(0.1f32)) * 2.0, 1.0, 0.0]);
    }
}
