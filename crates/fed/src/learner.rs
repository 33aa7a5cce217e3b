//! What an algorithm needs of a model and a device's data, and nothing else.
//!
//! A neural network with a data loader is a learner; so is a quadratic whose optimum is known, which is how the
//! algorithms are tested.

/// One participation's training on one device. The optimiser's own state (momentum) starts at zero with it.
///
/// The model is a flat slice of parameters `w`; its length never changes. It is the whole model, what a device keeps to itself
/// among it ([`crate::home`]).
pub trait Learner {
    /// Local training rows.
    fn examples(&self) -> u64;

    /// Optimiser steps of one participation at most: epochs × batches, or as many as were asked for.
    fn steps(&self) -> usize;

    /// Whether the device's time is up: asked after each step, and at least one is made.
    fn spent(&self) -> bool {
        false
    }

    /// Mean loss of all local training rows at `w`.
    fn loss(&mut self, w: &[f32]) -> f64;

    /// Of the local optimiser, above 0.
    fn learning_rate(&self) -> f32;

    /// Of the local optimiser, 0 ≤ ρ < 1; 0 is plain SGD.
    fn momentum(&self) -> f32;

    /// One optimiser step on `w` in place. `correct(w, gradient)` may change the gradient before it is used; without
    /// it the learner may fuse gradient and step. Returns the batch's mean loss before the step.
    fn step(&mut self, w: &mut [f32], correct: Option<Correct<'_>>) -> f32;

    /// Writes the gradient of the mean loss at `w`, and returns that loss. Nothing moves, the optimiser's state neither.
    fn gradient(&mut self, w: &[f32], batch: Batch, gradient: &mut [f32]) -> f32;

    /// One optimiser step on `w` by a gradient that was worked out elsewhere.
    fn descend(&mut self, w: &mut [f32], gradient: &mut [f32]);

    /// Another training begins in the same participation: the optimiser's state starts at zero, and rows come as they did first.
    /// Time goes on.
    fn restart(&mut self);
}

/// Of which rows a gradient is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Of those that the next step would have taken; it then takes the ones after.
    Next,
    /// Of the same as the gradient or step before.
    Same,
}

/// Changes a gradient, given where it was taken: `correct(w, gradient)`.
pub type Correct<'a> = &'a mut dyn FnMut(&[f32], &mut [f32]);
