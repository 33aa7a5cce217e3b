//! FedAvgM: Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
//! Classification" (arXiv:1909.06335), section 4.3; η as in Reddi et al. 2021.
//!
//! ```text
//! device   as FedAvg
//! cloud    v ← β v + Σ p_i Δ_i
//!          w ← w + η v
//! ```
//!
//! Momentum over versions evens out cohorts that see different data. β = 0, η = 1 is FedAvg, bit for bit.

use super::{Algorithm, ApplyError, Chunk, Initial, LocalError, SpecError, Start, StateSlice, StateVector};
use super::{above_zero, fedavg, zero_to_one};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedAvgM {
    /// β, 0 ≤ β < 1; 0 forgets.
    pub beta: f32,
    /// η > 0.
    pub learning_rate: f32,
}

impl Default for FedAvgM {
    fn default() -> Self {
        Self { beta: 0.9, learning_rate: 1.0 }
    }
}

impl Algorithm for FedAvgM {
    fn name(&self) -> &'static str {
        "fedavgm"
    }

    fn check(&self) -> Result<(), SpecError> {
        zero_to_one("beta", self.beta)?;
        above_zero("learning_rate", self.learning_rate)
    }

    fn cloud_state(&self) -> Vec<StateVector> {
        vec![StateVector { name: "velocity", initial: Initial::Real(0.0), broadcast: false }]
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        Ok(fedavg::local(start, learner))
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let [StateSlice::Real(velocity)] = &mut *chunk.state else {
            return Err(ApplyError::WrongState { algorithm: self.name(), expected: "one real vector, the velocity" });
        };
        let mean = totals.mean(plan, section)?;
        for ((w, v), &sum) in chunk.model.iter_mut().zip(&mut **velocity).zip(chunk.sum) {
            *v = self.beta * *v + mean.of(sum) as f32;
            *w += self.learning_rate * *v;
        }
        Ok(())
    }
}
