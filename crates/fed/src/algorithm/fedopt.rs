//! What FedAdagrad, FedAdam and FedYogi share: Reddi et al. 2021, "Adaptive Federated Optimization"
//! (arXiv:2003.00295), Algorithm 2.
//!
//! ```text
//! device   as FedAvg
//! cloud    Δ = Σ p_i Δ_i
//!          m ← β1 m + (1 − β1) Δ                 m starts at 0
//!          v ← each one's own                    v starts at τ²
//!          w ← w + η m / (√v + τ)
//! ```
//!
//! As in the paper there is no bias correction.

use super::{ApplyError, Chunk, Initial, StateSlice, StateVector};
use crate::open::Mean;

/// m and v, as every member of the family keeps them.
pub fn moments(tau: f32) -> Vec<StateVector> {
    vec![
        StateVector { name: "first moment", initial: Initial::Real(0.0), broadcast: false },
        StateVector { name: "second moment", initial: Initial::Real(tau * tau), broadcast: false },
    ]
}

/// The cloud's step; `second(v, Δ²)` is the next v.
pub struct Step {
    pub algorithm: &'static str,
    pub learning_rate: f32,
    pub beta1: f32,
    pub tau: f32,
}

impl Step {
    pub fn apply(self, mean: Mean, chunk: &mut Chunk<'_>, second: impl Fn(f32, f32) -> f32) -> Result<(), ApplyError> {
        let Self { algorithm, learning_rate, beta1, tau } = self;
        let [StateSlice::Real(m), StateSlice::Real(v)] = &mut *chunk.state else {
            return Err(ApplyError::WrongState { algorithm, expected: "two real vectors, the moments" });
        };
        let coordinates = chunk.model.iter_mut().zip(&mut **m).zip(&mut **v).zip(chunk.sum);
        for (((w, m), v), &sum) in coordinates {
            let delta = mean.of(sum) as f32;
            *m = beta1 * *m + (1.0 - beta1) * delta;
            *v = second(*v, delta * delta);
            *w += learning_rate * *m / (v.sqrt() + tau);
        }
        Ok(())
    }
}
