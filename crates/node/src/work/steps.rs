//! Private steps: the slope of one is a noised sum of clipped gradients over a secret sample of the device's rows.
//!
//! The rows of a sample pass in blocks of one size, the last one filled up with rows that do not count, so that what a row adds does
//! not hang on who else is there. Neither the number of steps nor what a sum is divided by depends on the rows.

use littoral_fed::dp::ExampleNoise;
use littoral_model::{Clip, Clipping, Coupled, Model, View, Worker, clipped_gradient};
use littoral_privacy::examples::{BLOCK, sample};
use rand_chacha::ChaCha20Rng;

pub struct Steps<'a> {
    model: &'a Model,
    noise: &'a ExampleNoise,
    /// The rows that a step is expected to have: what every sum is divided by.
    expected: f64,
    generator: ChaCha20Rng,
    clipping: Clipping<f32>,
    rows: Vec<u32>,
    sum: Vec<f64>,
}

impl<'a> Steps<'a> {
    pub fn new(
        model: &'a Model,
        noise: &'a ExampleNoise,
        expected: u32,
        generator: ChaCha20Rng,
    ) -> Result<Self, Coupled> {
        let clipping = Clipping::new(model, BLOCK)?;
        let (rows, sum) = (Vec::new(), vec![0.0; model.trained_len()]);
        Ok(Self { model, noise, expected: expected.max(1).into(), generator, clipping, rows, sum })
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
        let Self { model, noise, expected, generator, clipping, rows, sum } = self;
        rows.clear();
        sample(view.len(), noise.rate, generator, |place| rows.push(view.rows()[place]));
        sum.fill(0.0);
        let (sampled, mut losses) = (rows.len(), 0.0);
        while !rows.is_empty() {
            let counted = rows.len().min(BLOCK);
            let from = rows.len() - counted;
            let mut block = [rows[from]; BLOCK];
            block[..counted].copy_from_slice(&rows[from..]);
            worker.batch.fill(view, &block).map_err(|fault| fault.to_string())?;
            let clip = Clip { bound: noise.clip, counted };
            match clipped_gradient(model, w, &worker.batch, &mut worker.scratch, clipping, clip, slope) {
                Ok(found) => {
                    losses += found.loss * counted as f64;
                    sum.iter_mut().zip(&*slope).for_each(|(sum, part)| *sum += f64::from(*part));
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
