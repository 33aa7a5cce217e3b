//! FedBuff: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation" (arXiv:2106.06639), Algorithm 1.
//!
//! ```text
//! device   Δ_i = w_i − w_v                       trained from version v, whatever became current since
//! cloud    w ← w + η_g · 1/K Σ s(τ_i) Δ_i        of the first K that are ready; τ_i: versions made since v
//! ```
//!
//! A slow device holds nobody up, and what it sends late counts for less. s is the job's (`pace.staleness`); means are over
//! devices by their weights, and an old update makes the mean shorter, as in the paper: it is divided by what the updates
//! would weigh if all were fresh. With K the whole cohort nothing is ever stale, and with η_g = 1 it is FedAvg, bit for bit.
//!
//! Momentum and step sizes per coordinate at the cloud: `fedavgm`, `fedadam` and the others take old updates just so.

use super::{Algorithm, ApplyError, Chunk, LocalError, SpecError, Start, above_zero, fedavg};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedBuff {
    /// η_g > 0, the cloud's step.
    pub learning_rate: f32,
}

impl Default for FedBuff {
    fn default() -> Self {
        Self { learning_rate: 1.0 }
    }
}

impl Algorithm for FedBuff {
    fn name(&self) -> &'static str {
        "fedbuff"
    }

    fn check(&self) -> Result<(), SpecError> {
        above_zero("learning_rate", self.learning_rate)
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        Ok(fedavg::local(start, learner))
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let mean = totals.mean(plan, section)?;
        for (w, &sum) in chunk.model.iter_mut().zip(chunk.sum) {
            *w += self.learning_rate * mean.of(sum) as f32;
        }
        Ok(())
    }
}
