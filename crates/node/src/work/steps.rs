//! Private steps: the slope of one is a noised sum of clipped gradients over a secret sample of the device's rows.
//!
//! The rows of a sample pass in blocks of one size, the last one filled up with rows that do not count, so that what a row adds does
//! not hang on who else is there. Neither the number of steps nor what a sum is divided by depends on the rows. What floats may
//! get wrong is in the account, up to [`rows_max`] rows.

use littoral_fed::dp::ExampleNoise;
use littoral_model::{Clip, Clipping, Coupled, Model, View, Worker, clipped_gradient};
use littoral_privacy::examples::{rows_max, sample};
use rand_chacha::ChaCha20Rng;
use thiserror::Error;

pub struct Steps<'a> {
    model: &'a Model,
    noise: &'a ExampleNoise,
    /// The rows that a step is expected to have: what every sum is divided by.
    expected: f64,
    generator: ChaCha20Rng,
    clipping: Clipping<f32>,
    rows: Vec<u32>,
    block: Vec<u32>,
    part: Vec<f64>,
    sum: Vec<f64>,
}

/// Rows whose steps cannot be private.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum StepsError {
    #[error(transparent)]
    Coupled(#[from] Coupled),
    #[error(
        "at most {most} training rows expected, since this model's sums over more are not known to be private, got {rows}"
    )]
    Rows { rows: usize, most: usize },
}

impl<'a> Steps<'a> {
    pub fn new(
        model: &'a Model,
        noise: &'a ExampleNoise,
        rows: usize,
        expected: u32,
        generator: ChaCha20Rng,
    ) -> Result<Self, StepsError> {
        let clipping = Clipping::new(model, Clipping::block())?;
        let most = rows_max(clipping.terms());
        if rows > most {
            return Err(StepsError::Rows { rows, most });
        }
        let (part, sum) = (vec![0.0; model.layout().len()], vec![0.0; model.trained_len()]);
        let (rows, block) = (Vec::new(), Vec::new());
        Ok(Self { model, noise, expected: expected.max(1).into(), generator, clipping, rows, block, part, sum })
    }

    /// Steps of a participation.
    pub fn count(&self) -> usize {
        self.noise.steps as usize
    }

    /// Writes the next step's slope, and returns the mean loss of the sample, which is for the device alone. A row whose gradient is
    /// not finite adds nothing.
    pub fn slope(
        &mut self,
        w: &[f32],
        view: &View,
        worker: &mut Worker<f32>,
        slope: &mut [f32],
    ) -> Result<f64, String> {
        let Self { model, noise, expected, generator, clipping, rows, block, part, sum } = self;
        rows.clear();
        sample(view.len(), noise.rate, generator, |place| rows.push(view.rows()[place]));
        sum.fill(0.0);
        let (sampled, mut losses) = (rows.len(), 0.0);
        while !rows.is_empty() {
            let counted = rows.len().min(Clipping::block());
            let from = rows.len() - counted;
            block.clear();
            block.extend_from_slice(&rows[from..]);
            block.resize(Clipping::block(), rows[from]);
            worker.batch.fill(view, block).map_err(|fault| fault.to_string())?;
            let clip = Clip { bound: noise.clip, counted };
            match clipped_gradient(model, w, &worker.batch, &mut worker.scratch, clipping, clip, part) {
                Ok(found) => {
                    losses += found.loss * counted as f64;
                    sum.iter_mut().zip(&*part).for_each(|(sum, part)| *sum += *part);
                    rows.truncate(from);
                }
                // What fills a block is its first row again.
                Err(bad) => {
                    rows.remove(from + if bad.row < counted { bad.row } else { 0 });
                }
            }
        }
        let trained = sum.len();
        noise.grid.release(sum, *expected, &mut slope[..trained], generator).map_err(|error| error.to_string())?;
        Ok(losses / sampled.max(1) as f64)
    }
}
