//! One linear map after another, and rounding by chance to the grid on which words count.
//!
//! [`Then`] is linear as both its parts are. [`to_grid`] is the last step before a section is rounded to few levels: each
//! coordinate goes to a neighbouring multiple of the step, up or down by chance so that the mean is the coordinate
//! (stochastic rounding; Suresh et al. 2017, section 2). Rounding to the nearest would err the same way on every device that
//! has the same coordinate, and 50 equal errors do not average out. After it the plan's own rounding changes nothing.

use super::random::{Draws, Seed, derive};
use super::{CompressError, Linear, finite};

/// `A`, then `B`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Then<A, B>(pub A, pub B);

impl<A: Linear, B: Linear> Linear for Then<A, B> {
    fn name(&self) -> &'static str {
        self.1.name()
    }

    fn sent_len(&self, len: usize) -> usize {
        self.1.sent_len(self.0.sent_len(len))
    }

    fn forward(&self, x: &[f32], seed: &Seed) -> Vec<f32> {
        self.1.forward(&self.0.forward(x, &derive(seed, "first", 0)), &derive(seed, "then", 0))
    }

    fn backward(&self, sent: &[f32], len: usize, seed: &Seed) -> Vec<f32> {
        let between = self.1.backward(sent, self.0.sent_len(len), &derive(seed, "then", 0));
        self.0.backward(&between, len, &derive(seed, "first", 0))
    }

    fn l2_bound(&self, before: f64, len: usize) -> Option<f64> {
        self.1.l2_bound(self.0.l2_bound(before, len)?, self.0.sent_len(len))
    }

    fn needs_residual(&self) -> bool {
        self.0.needs_residual() || self.1.needs_residual()
    }
}

/// x_i ← a multiple of `step` (finite, above 0) next to x_i, E = x_i. The seed is the device's own. A coordinate moves by
/// less than a step, so an L2 bound grows by at most [`grid_bound`].
pub fn to_grid(x: &mut [f32], step: f64, seed: &Seed) -> Result<(), CompressError> {
    finite(x)?;
    let mut draws = Draws::new(seed);
    for v in x {
        let steps = draws.round(f64::from(v.abs()) / step);
        let on_grid = (f64::from(steps) * step) as f32;
        *v = if *v < 0.0 { -on_grid } else { on_grid };
    }
    Ok(())
}

/// What [`to_grid`] adds to an L2 bound at worst: it grows the norm, though its mean does not.
pub fn grid_bound(before: f64, len: usize, step: f64) -> f64 {
    before + step * (len as f64).sqrt()
}
