//! FedAdam: Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv:2003.00295), Algorithm 2.
//!
//! ```text
//! v ← β2 v + (1 − β2) Δ²
//! ```
//!
//! Old deltas are forgotten, so a coordinate can speed up again.
//! The rest of the step, and where the moments start, is in `fedopt`.

use super::fedopt::{Step, moments};
use super::{Algorithm, ApplyError, Chunk, LocalError, SpecError, Start, StateVector, above_zero, fedavg, zero_to_one};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedAdam {
    /// η > 0. A coordinate moves by about η per version, whatever the size of the deltas.
    pub learning_rate: f32,
    /// 0 ≤ β1 < 1, momentum.
    pub beta1: f32,
    /// 0 ≤ β2 < 1, how slowly the second moment forgets.
    pub beta2: f32,
    /// τ > 0, the degree of adaptivity: deltas well below τ move the model by η Δ / τ, as FedAvg does with that rate.
    pub tau: f32,
}

impl Default for FedAdam {
    fn default() -> Self {
        Self { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 }
    }
}

impl Algorithm for FedAdam {
    fn name(&self) -> &'static str {
        "fedadam"
    }

    fn check(&self) -> Result<(), SpecError> {
        above_zero("learning_rate", self.learning_rate)?;
        zero_to_one("beta1", self.beta1)?;
        zero_to_one("beta2", self.beta2)?;
        above_zero("tau", self.tau)
    }

    fn cloud_state(&self) -> Vec<StateVector> {
        moments(self.tau)
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        Ok(fedavg::local(start, learner))
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let step = Step { algorithm: self.name(), learning_rate: self.learning_rate, beta1: self.beta1, tau: self.tau };
        step.apply(totals.mean(plan, section)?, chunk, |v, delta2| self.beta2 * v + (1.0 - self.beta2) * delta2)
    }
}
