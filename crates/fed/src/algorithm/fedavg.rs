//! FedAvg: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data"
//! (arXiv:1602.05629), Algorithm 1.
//!
//! ```text
//! device   w_i ← local SGD from w                Δ_i = w_i − w
//! cloud    w ← w + Σ p_i Δ_i                     p_i = weight_i / Σ weight
//! ```
//!
//! With one full-batch step per device and everybody in, it is gradient descent on all data in one place.

use super::{Algorithm, ApplyError, Chunk, LocalError, Start, Trained, train};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FedAvg {}

impl Algorithm for FedAvg {
    fn name(&self) -> &'static str {
        "fedavg"
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        Ok(local(start, learner))
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let mean = totals.mean(plan, section)?;
        for (w, &sum) in chunk.model.iter_mut().zip(chunk.sum) {
            *w += mean.of(sum) as f32;
        }
        Ok(())
    }
}

/// FedAvg's device half, which algorithms that differ at the cloud only share.
pub(super) fn local(start: &Start<'_>, learner: &mut dyn Learner) -> Raw {
    let Trained { delta, loss, .. } = train(start, learner, None);
    Raw { examples: learner.examples(), loss, wholes: Vec::new(), sections: vec![delta] }
}
