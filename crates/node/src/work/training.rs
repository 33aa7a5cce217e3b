//! A model and a device's rows, as federated algorithms see them: one participation's [`Learner`].
//!
//! Its steps are plain ones, over all rows in turn; or private ones, over secret samples ([`Steps`]).

use super::Watch;
use super::bench::Room;
use super::steps::{Steps, StepsError};
use crate::job::{LocalText, OptimiserText};
use littoral_fed::dp::ExampleNoise;
use littoral_fed::learner::{Batch, Correct, Learner};
use littoral_model::{Adam, Mismatch, Model, Sgd, View, descend, gradient};
use rand_chacha::ChaCha20Rng;

/// One participation's training. The same rows, job and seed give the same steps, whatever the room was used for.
pub struct Training<'a> {
    model: &'a Model,
    view: &'a View,
    local: &'a LocalText,
    order: Order<'a>,
    room: &'a mut Room,
    optimiser: Optimiser,
    /// Batches taken since the training began, or began anew.
    taken: usize,
    /// Steps made in all.
    step: usize,
    /// Steps at most; 0: as the job says.
    steps_max: usize,
    /// Training ends after so long.
    time: Option<(u64, &'a dyn Watch)>,
    /// Why a step could not be made; the steps from there on changed nothing.
    fault: Option<String>,
}

/// Which rows a step takes.
enum Order<'a> {
    /// All in turn; the seed decides with the epoch.
    Shuffled(u64),
    Sampled(Box<Steps<'a>>),
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
        Self::in_order(model, view, local, Order::Shuffled(seed), room)
    }

    /// Steps of which each hardly depends on any one row. `generator` is secret; `room` is for at least
    /// [`Clipping::block`](littoral_model::Clipping::block) rows.
    pub fn private(
        model: &'a Model,
        view: &'a View,
        local: &'a LocalText,
        noise: &'a ExampleNoise,
        generator: ChaCha20Rng,
        room: &'a mut Room,
    ) -> Result<Self, StepsError> {
        let steps = Steps::new(model, noise, view.len(), local.batch, generator)?;
        Ok(Self::in_order(model, view, local, Order::Sampled(Box::new(steps)), room))
    }

    fn in_order(model: &'a Model, view: &'a View, local: &'a LocalText, order: Order<'a>, room: &'a mut Room) -> Self {
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
        Self { model, view, local, order, room, optimiser, taken: 0, step: 0, steps_max: 0, time: None, fault: None }
    }

    /// Ends training after so many steps, 0: as many as the job says; and when its time is up. Steps on samples are as many as their
    /// account says.
    pub fn within(mut self, steps_max: usize, time_ms: Option<u64>, watch: &'a dyn Watch) -> Self {
        if matches!(self.order, Order::Shuffled(_)) {
            self.steps_max = steps_max;
            self.time = time_ms.map(|ms| (ms, watch));
        }
        self
    }

    pub fn steps_made(&self) -> usize {
        self.step
    }

    /// What went wrong, if anything did.
    pub fn fault(self) -> Option<String> {
        self.fault
    }

    fn steps_per_epoch(&self) -> usize {
        self.view.len().div_ceil(rows_per_step(self.local, self.view.len()))
    }

    /// Gathers the rows of the next step in an order that `seed` decides.
    fn fill(&mut self, seed: u64) -> Result<(), Mismatch> {
        let per_epoch = self.steps_per_epoch().max(1);
        let worker = &mut self.room.worker;
        if self.taken.is_multiple_of(per_epoch) {
            worker.epoch.shuffle(self.view, seed, (self.taken / per_epoch) as u64);
        }
        let mut batches = worker.epoch.batches(rows_per_step(self.local, self.view.len()));
        let rows = batches.nth(self.taken % per_epoch).unwrap_or_default();
        self.taken += 1;
        worker.batch.fill(self.view, rows)
    }
}

impl Learner for Training<'_> {
    fn examples(&self) -> u64 {
        match &self.order {
            Order::Shuffled(_) => self.view.len() as u64,
            // That number is not told.
            Order::Sampled(_) => 1,
        }
    }

    fn steps(&self) -> usize {
        match &self.order {
            Order::Shuffled(_) if self.steps_max > 0 => self.steps_max,
            Order::Shuffled(_) => self.steps_per_epoch() * self.local.epochs as usize,
            Order::Sampled(steps) => steps.count(),
        }
    }

    fn spent(&self) -> bool {
        self.time.is_some_and(|(ms, watch)| watch.ms(self.step as u64) >= ms)
    }

    fn loss(&mut self, w: &[f32]) -> f64 {
        if self.fault.is_some() {
            return 0.0;
        }
        match self.room.worker.evaluate(self.model, w, self.view) {
            Ok(evaluation) => evaluation.loss_sum / self.view.len().max(1) as f64,
            Err(fault) => {
                self.fault = Some(fault.to_string());
                0.0
            }
        }
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
        let filled = match &self.order {
            Order::Shuffled(seed) => self.fill(*seed).map_err(|fault| fault.to_string()),
            Order::Sampled(_) => Ok(()),
        };
        if let Err(fault) = filled {
            self.fault = Some(fault);
            return 0.0;
        }
        self.step += 1;
        let Self { model, view, room: Room { worker, gradient: slope }, optimiser, order, .. } = self;
        if let (Optimiser::Plain(rate), None, Order::Shuffled(_)) = (&optimiser, &correct, &order) {
            return descend(model, w, &worker.batch, &mut worker.scratch, *rate) as f32;
        }
        slope.resize(w.len(), 0.0);
        let loss = match order {
            Order::Shuffled(_) => gradient(model, w, &worker.batch, &mut worker.scratch, slope),
            Order::Sampled(steps) => match steps.slope(w, view, worker, slope) {
                Ok(loss) => loss,
                Err(fault) => {
                    self.fault = Some(fault);
                    return 0.0;
                }
            },
        };
        if let Some(correct) = correct {
            correct(w, slope);
        }
        optimiser.step(model, w, slope);
        // A model whose examples are private has none.
        model.absorb_statistics(w, &worker.batch, &worker.scratch);
        loss as f32
    }

    fn gradient(&mut self, w: &[f32], batch: Batch, slope: &mut [f32]) -> f32 {
        slope.fill(0.0);
        if self.fault.is_some() {
            return 0.0;
        }
        let filled = match (&self.order, batch) {
            (Order::Shuffled(seed), Batch::Next) => self.fill(*seed).map_err(|fault| fault.to_string()),
            (Order::Shuffled(_), Batch::Same) => Ok(()),
            // Each sample of rows is noised and accounted for once.
            (Order::Sampled(_), _) => Err("an algorithm that takes one gradient in each step expected".into()),
        };
        if let Err(fault) = filled {
            self.fault = Some(fault);
            return 0.0;
        }
        let worker = &mut self.room.worker;
        gradient(self.model, w, &worker.batch, &mut worker.scratch, slope) as f32
    }

    /// Running statistics move towards those of the last gradient's batch.
    fn descend(&mut self, w: &mut [f32], slope: &mut [f32]) {
        if self.fault.is_some() {
            return;
        }
        self.step += 1;
        self.optimiser.step(self.model, w, slope);
        let worker = &self.room.worker;
        self.model.absorb_statistics(w, &worker.batch, &worker.scratch);
    }

    fn restart(&mut self) {
        self.taken = 0;
        match &mut self.optimiser {
            Optimiser::Plain(_) => {}
            Optimiser::Sgd(sgd) => sgd.reset(),
            Optimiser::Adam(adam) => adam.reset(),
        }
    }
}

impl Optimiser {
    /// Running statistics lie behind what is trained; they have no slope.
    fn step(&mut self, model: &Model, w: &mut [f32], slope: &[f32]) {
        let trained = model.trained_len();
        let (moved, slope) = (&mut w[..trained], &slope[..trained]);
        match self {
            Self::Plain(rate) => moved.iter_mut().zip(slope).for_each(|(w, g)| *w -= *rate * g),
            Self::Sgd(sgd) => sgd.step(moved, slope),
            Self::Adam(adam) => adam.step(moved, slope),
        }
    }
}
