//! A model and a device's rows, as federated algorithms see them: one participation's [`Learner`].

use super::bench::Room;
use crate::job::{LocalText, OptimiserText};
use littoral_fed::learner::{Correct, Learner};
use littoral_model::{Adam, Mismatch, Model, Sgd, View, descend, gradient};

/// One participation's training. The same rows, job and seed give the same steps, whatever the room was used for.
pub struct Training<'a> {
    model: &'a Model,
    view: &'a View,
    local: &'a LocalText,
    /// Decides the order of rows together with the epoch.
    seed: u64,
    room: &'a mut Room,
    optimiser: Optimiser,
    /// Steps made.
    step: usize,
    /// Why a step could not be made; the steps from there on changed nothing.
    fault: Option<Mismatch>,
}

enum Optimiser {
    /// `w -= rate * gradient`, which needs no gradient in memory.
    Plain(f32),
    Sgd(Sgd<f32>),
    Adam(Adam<f32>),
}

/// Rows per step: a batch of 0 takes all rows at once.
pub fn rows_per_step(local: &LocalText, rows: usize) -> usize {
    let all = rows.max(1);
    if local.batch == 0 { all } else { (local.batch as usize).min(all) }
}

impl<'a> Training<'a> {
    /// The view's examples fit the model ([`Model::check`]); `room` is for at least [`rows_per_step`] rows.
    pub fn new(model: &'a Model, view: &'a View, local: &'a LocalText, seed: u64, room: &'a mut Room) -> Self {
        let trained = model.trained_len();
        let optimiser = match local.optimiser {
            OptimiserText::Sgd { learning_rate, momentum: 0.0, weight_decay: 0.0 } => Optimiser::Plain(learning_rate),
            OptimiserText::Sgd { learning_rate, momentum, weight_decay } => {
                Optimiser::Sgd(Sgd::new(trained, learning_rate, momentum, weight_decay))
            }
            OptimiserText::Adam { learning_rate, weight_decay } => {
                let mut adam = Adam::new(trained, learning_rate);
                adam.weight_decay = weight_decay;
                Optimiser::Adam(adam)
            }
        };
        Self { model, view, local, seed, room, optimiser, step: 0, fault: None }
    }

    pub fn steps_made(&self) -> usize {
        self.step
    }

    /// What went wrong, if anything did.
    pub fn fault(self) -> Option<Mismatch> {
        self.fault
    }

    fn steps_per_epoch(&self) -> usize {
        self.view.len().div_ceil(rows_per_step(self.local, self.view.len()))
    }

    /// Gathers the rows of the next step.
    fn fill(&mut self) -> Result<(), Mismatch> {
        let per_epoch = self.steps_per_epoch().max(1);
        let worker = &mut self.room.worker;
        if self.step.is_multiple_of(per_epoch) {
            worker.epoch.shuffle(self.view, self.seed, (self.step / per_epoch) as u64);
        }
        let mut batches = worker.epoch.batches(rows_per_step(self.local, self.view.len()));
        let rows = batches.nth(self.step % per_epoch).unwrap_or_default();
        worker.batch.fill(self.view, rows)
    }
}

impl Learner for Training<'_> {
    fn examples(&self) -> u64 {
        self.view.len() as u64
    }

    fn steps(&self) -> usize {
        self.steps_per_epoch() * self.local.epochs as usize
    }

    fn learning_rate(&self) -> f32 {
        match self.local.optimiser {
            OptimiserText::Sgd { learning_rate, .. } | OptimiserText::Adam { learning_rate, .. } => learning_rate,
        }
    }

    fn momentum(&self) -> f32 {
        match self.local.optimiser {
            OptimiserText::Sgd { momentum, .. } => momentum,
            OptimiserText::Adam { .. } => 0.0,
        }
    }

    fn step(&mut self, w: &mut [f32], correct: Option<Correct<'_>>) -> f32 {
        if self.fault.is_some() {
            return 0.0;
        }
        if let Err(fault) = self.fill() {
            self.fault = Some(fault);
            return 0.0;
        }
        self.step += 1;
        let Self { model, room: Room { worker, gradient: slope }, optimiser, .. } = self;
        if let (Optimiser::Plain(rate), None) = (&optimiser, &correct) {
            return descend(model, w, &worker.batch, &mut worker.scratch, *rate) as f32;
        }
        slope.resize(w.len(), 0.0);
        let loss = gradient(model, w, &worker.batch, &mut worker.scratch, slope);
        if let Some(correct) = correct {
            correct(w, slope);
        }
        // Running statistics lie behind what is trained; they have no slope.
        let trained = model.trained_len();
        let (moved, slope) = (&mut w[..trained], &slope[..trained]);
        match optimiser {
            Optimiser::Plain(rate) => moved.iter_mut().zip(slope).for_each(|(w, g)| *w -= *rate * g),
            Optimiser::Sgd(sgd) => sgd.step(moved, slope),
            Optimiser::Adam(adam) => adam.step(moved, slope),
        }
        model.absorb_statistics(w, &worker.batch, &worker.scratch);
        loss as f32
    }
}
