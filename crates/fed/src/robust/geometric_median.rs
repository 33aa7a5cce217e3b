//! The geometric median by the smoothed Weiszfeld algorithm: Pillutla, Kakade and Harchaoui 2022, "Robust Aggregation for
//! Federated Learning" (IEEE Transactions on Signal Processing; arXiv:1912.13445), RFA, Algorithm 2.
//!
//! ```text
//! v ← mean of x_i
//! R times:   β_i = 1 / max(ν, ‖v − x_i‖)        v ← Σ β_i x_i / Σ β_i
//! ```
//!
//! It approaches the point with the least sum of distances to all updates; while fewer than half of the devices lie, that
//! point stays near the honest ones. The paper finds R = 3 steps to be enough. Each step needs sums only, of weighted
//! updates, so it could be done under masks; here the updates are at hand, and each step reads all of them once.
//!
//! ν keeps an update that v comes to lie on from taking all the weight.

use super::distance::add_squares;
use super::{Block, Judge, Rule, RuleName};

#[derive(Clone, Debug)]
pub struct GeometricMedian {
    /// R.
    pub iterations: u32,
    /// ν, in the model's units.
    pub smoothing: f32,
}

struct Weiszfeld {
    steps_left: u32,
    /// ν in steps of fixed point.
    smoothing: f64,
    /// How much each device counts; together 1.
    shares: Vec<f64>,
    /// ‖v − x_i‖², as far as coordinates were seen.
    squares: Vec<f64>,
}

impl Rule for GeometricMedian {
    fn name(&self) -> RuleName {
        RuleName::GeometricMedian
    }

    fn least(&self) -> usize {
        1
    }

    fn judge(&self, devices: usize, step: f64) -> Box<dyn Judge> {
        Box::new(Weiszfeld {
            steps_left: self.iterations,
            smoothing: f64::from(self.smoothing) / step,
            shares: vec![1.0 / devices as f64; devices],
            squares: vec![0.0; devices],
        })
    }

    fn bears(&self) -> String {
        "fewer than half of the devices".into()
    }
}

impl Weiszfeld {
    /// v at the block's coordinates.
    fn point(&self, block: &Block<'_>, point: &mut [f64]) {
        point.fill(0.0);
        for (row, share) in block.rows().zip(&self.shares) {
            point.iter_mut().zip(row).for_each(|(v, x)| *v += share * f64::from(*x));
        }
    }
}

impl Judge for Weiszfeld {
    fn looks(&self) -> bool {
        self.steps_left > 0
    }

    fn look(&mut self, block: &Block<'_>) {
        let mut point = vec![0.0; block.len()];
        self.point(block, &mut point);
        for (row, square) in block.rows().zip(&mut self.squares) {
            add_squares(&point, row, |v, x| v - f64::from(x), square);
        }
    }

    fn looked(&mut self) {
        self.steps_left -= 1;
        let weights = self.squares.iter().map(|square| 1.0 / square.sqrt().max(self.smoothing));
        self.shares = weights.collect();
        let sum: f64 = self.shares.iter().sum();
        self.shares.iter_mut().for_each(|share| *share /= sum);
        self.squares.fill(0.0);
    }

    fn sum(&self, block: &Block<'_>, out: &mut [f64]) {
        self.point(block, out);
        out.iter_mut().for_each(|out| *out *= block.devices() as f64);
    }
}
