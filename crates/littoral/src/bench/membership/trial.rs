//! Models of which each has seen a random half of a pool of rows, and what each says of all of them.

use super::attack::Told;
use crate::bench::{broken, team};
use crate::output::Failure;
use littoral_fed::dp::ExampleNoise;
use littoral_fed::learner::Learner;
use littoral_model::{Clipping, Examples, Model, View};
use littoral_node::job::{LocalText, OptimiserText};
use littoral_node::role::Entropy;
use littoral_node::work::{Room, Training};
use littoral_privacy::examples::sample;
use std::sync::Arc;

pub struct World {
    pub model: Model,
    pub pool: Arc<Examples>,
    pub test: Arc<Examples>,
    pub local: LocalText,
    pub private_learning_rate: f64,
    /// Of private models.
    pub clip: f64,
    pub seed: u64,
    pub threads: usize,
}

pub struct Trained {
    /// Per model, what it says of each row of the pool.
    pub told: Vec<Vec<Told>>,
    /// Mean over the models.
    pub test_accuracy: f64,
    pub train_accuracy: f64,
}

struct One {
    told: Vec<Told>,
    test: f64,
    train: f64,
}

impl World {
    /// Each model has each row with probability 1/2, the same rows whatever the noise.
    pub fn train(&self, models: usize, noise: Option<&ExampleNoise>) -> Result<Trained, Failure> {
        let done = std::sync::Mutex::new(Vec::new());
        let mut rooms: Vec<Option<Room>> = (0..self.threads.max(1)).map(|_| None).collect();
        team::share(&mut rooms, models, |room, index| {
            let one = self.one(index, noise, room)?;
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, one));
            Ok::<(), Failure>(())
        })?;
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        let mean = |of: fn(&One) -> f64| done.iter().map(|(_, one)| of(one)).sum::<f64>() / models.max(1) as f64;
        let (test_accuracy, train_accuracy) = (mean(|one| one.test), mean(|one| one.train));
        Ok(Trained { told: done.into_iter().map(|(_, one)| one.told).collect(), test_accuracy, train_accuracy })
    }

    fn one(&self, index: usize, noise: Option<&ExampleNoise>, room: &mut Option<Room>) -> Result<One, Failure> {
        let broken = broken("littoral bench membership");
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&(index as u64).to_le_bytes());
        let entropy = Entropy::new(bytes);
        let mut member = vec![false; self.pool.rows()];
        sample(member.len(), 0.5, &mut entropy.generator("members"), |row| member[row] = true);
        let rows = (0..member.len() as u32).filter(|row| member[*row as usize]).collect();
        let view = View::new(Arc::clone(&self.pool), rows).map_err(|e| broken(&e))?;

        let room = Room::of(room, &self.model, Clipping::block().max(self.local.batch as usize));
        let mut w = self.model.init(self.seed ^ ((index as u64) << 32));
        let mut local = self.local.clone();
        if let (Some(_), OptimiserText::Sgd { learning_rate, .. }) = (noise, &mut local.optimiser) {
            *learning_rate = self.private_learning_rate as f32;
        }
        let mut training = match noise {
            None => Training::new(&self.model, &view, &local, self.seed ^ index as u64, room),
            Some(noise) => {
                let generator = entropy.generator("samples and noise");
                Training::private(&self.model, &view, &local, noise, generator, room).map_err(|e| broken(&e))?
            }
        };
        for _ in 0..training.steps() {
            training.step(&mut w, None);
        }
        if let Some(fault) = training.fault() {
            return Err(broken(&fault));
        }

        let mut told = Vec::with_capacity(member.len());
        for (row, &member) in member.iter().enumerate() {
            let one = View::new(Arc::clone(&self.pool), vec![row as u32]).map_err(|e| broken(&e))?;
            let loss = room.worker.evaluate(&self.model, &w, &one).map_err(|e| broken(&e))?.loss_sum;
            // A model that diverged says nothing.
            told.push(Told { member, loss: if loss.is_finite() { loss } else { 1e3 } });
        }
        let mut accuracy = |view: &View| {
            let found = room.worker.evaluate(&self.model, &w, view).map_err(|e| broken(&e))?;
            Ok::<f64, Failure>(found.correct as f64 / found.rows.max(1) as f64)
        };
        Ok(One { told, test: accuracy(&View::all(Arc::clone(&self.test)))?, train: accuracy(&view)? })
    }
}
