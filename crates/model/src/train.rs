//! The three verbs: gradient, descend, evaluate; and a worker that holds the room for them.

use crate::batch::{Batch, Epoch};
use crate::examples::{Mismatch, View};
use crate::layers::Mode;
use crate::model::{Model, Scratch};
use crate::sink::Sink;
use littoral_tensor::Real;

/// Writes the derivative of the mean loss over the batch into `gradient` (as long as the weights; zero for running
/// statistics) and returns that loss. Move the weights, then call [`Model::absorb_statistics`].
///
/// A batch without rows has loss 0 and gradient 0.
///
/// # Panics
/// If slices, batch and scratch are not of this model's sizes.
pub fn gradient<T: Real>(
    model: &Model,
    weights: &[T],
    batch: &Batch<T>,
    scratch: &mut Scratch<T>,
    gradient: &mut [T],
) -> f64 {
    assert_eq!(weights.len(), gradient.len(), "weights and gradient");
    if batch.rows() == 0 {
        gradient.fill(T::ZERO);
        return 0.0;
    }
    let tally = model.forward(weights, batch, scratch, Mode::Train);
    gradient[model.trained_len()..].fill(T::ZERO);
    model.backward(batch, scratch, &mut Sink::Gradient { weights, gradient });
    tally.loss_sum / (batch.rows() * model.steps()) as f64
}

/// One step of plain gradient descent, `w -= learning_rate * gradient`, and the loss before it. The update is part of the
/// matrix products of the backward pass: the result differs from [`gradient`] and a subtraction only by rounding.
///
/// # Panics
/// As [`gradient`].
pub fn descend<T: Real>(
    model: &Model,
    weights: &mut [T],
    batch: &Batch<T>,
    scratch: &mut Scratch<T>,
    learning_rate: T,
) -> f64 {
    if batch.rows() == 0 {
        return 0.0;
    }
    let tally = model.forward(weights, batch, scratch, Mode::Train);
    model.backward(batch, scratch, &mut Sink::Descend { weights, rate: learning_rate });
    model.absorb_statistics(weights, batch, scratch);
    tally.loss_sum / (batch.rows() * model.steps()) as f64
}

/// Counts over a view. For text a row here is a position. Counts of several clients add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    pub rows: u64,
    /// Rows whose largest output is the right class; 0 for regression.
    pub correct: u64,
    pub loss_sum: f64,
}

/// Evaluates all rows of the view, as many at once as the batch has room for.
pub fn evaluate<T: Real>(
    model: &Model,
    weights: &[T],
    view: &View,
    batch: &mut Batch<T>,
    scratch: &mut Scratch<T>,
) -> Result<Evaluation, Mismatch> {
    model.check(view.examples())?;
    let mut evaluation = Evaluation::default();
    for rows in view.rows().chunks(batch.rows_max().max(1)) {
        batch.fill(view, rows)?;
        let tally = model.forward(weights, batch, scratch, Mode::Evaluate);
        evaluation.rows += (rows.len() * model.steps()) as u64;
        evaluation.correct += tally.correct;
        evaluation.loss_sum += tally.loss_sum;
    }
    Ok(evaluation)
}

/// Plain gradient descent over a view for some epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Descent<T> {
    pub epochs: usize,
    /// Rows per step; 0 takes the whole view as one batch.
    pub batch: usize,
    pub learning_rate: T,
    /// Decides the order of the rows, together with the number of the epoch.
    pub seed: u64,
}

/// What a descent did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trained {
    pub steps: u64,
    /// The mean loss of the last epoch's steps, each before its step, weighted by rows; 0 without rows.
    pub loss: f64,
}

/// The room that one thread needs to train and evaluate client after client. It may be sent to another thread.
#[derive(Clone, Debug)]
pub struct Worker<T> {
    pub batch: Batch<T>,
    pub scratch: Scratch<T>,
    pub epoch: Epoch,
}

impl<T: Real> Worker<T> {
    /// Room for batches of up to `rows_max` rows.
    pub fn new(model: &Model, rows_max: usize) -> Self {
        Self { batch: Batch::new(model, rows_max), scratch: Scratch::new(model, rows_max), epoch: Epoch::default() }
    }

    /// Moves `weights` by plain gradient descent over the view.
    pub fn descend(
        &mut self,
        model: &Model,
        weights: &mut [T],
        view: &View,
        descent: &Descent<T>,
    ) -> Result<Trained, Mismatch> {
        model.check(view.examples())?;
        let mut trained = Trained::default();
        for epoch in 0..descent.epochs {
            self.epoch.shuffle(view, descent.seed, epoch as u64);
            let mut loss_sum = 0.0;
            for rows in self.epoch.batches(descent.batch) {
                self.batch.fill(view, rows)?;
                let loss = descend(model, weights, &self.batch, &mut self.scratch, descent.learning_rate);
                loss_sum += loss * rows.len() as f64;
                trained.steps += 1;
            }
            trained.loss = loss_sum / view.len().max(1) as f64;
        }
        Ok(trained)
    }

    /// [`evaluate`] with this worker's room. Larger batches are faster: [`Model::evaluation_rows`].
    pub fn evaluate(&mut self, model: &Model, weights: &[T], view: &View) -> Result<Evaluation, Mismatch> {
        evaluate(model, weights, view, &mut self.batch, &mut self.scratch)
    }
}
