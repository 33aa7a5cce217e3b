//! FedBN: Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization" (arXiv:2102.07623),
//! Algorithm 1.
//!
//! ```text
//! device   w_i, n_i ← local SGD from (w, n_i)    n_i: all of its normalisation layers, running statistics too
//!          Δ_i = w_i − w
//! cloud    w ← w + Σ p_i Δ_i, as FedAvg          w: all other parameters
//! ```
//!
//! For devices whose inputs look different, other scanners or other light, and mean the same. What normalises inputs is each
//! device's own; it never leaves. For batch and for group norm (the paper: batch norm). A device that has not trained yet has
//! the first model's normalisation, which knows nothing of its inputs: FedBN has no answer for new devices.

use super::{Algorithm, ApplyError, Chunk, HomeError, Keeps, LocalError, Personal, Start, fedavg, personal};
use crate::home::{Home, Places};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FedBn {}

impl Algorithm for FedBn {
    fn name(&self) -> &'static str {
        "fedbn"
    }

    fn keeps(&self) -> Option<Keeps> {
        Some(Keeps::Segments)
    }

    fn home(&self, places: &Places) -> Result<Home, HomeError> {
        match places.norms.is_empty() {
            true => Err(HomeError::NoNorm),
            false => Ok(Home::of(places.params, places.norms.iter().cloned())),
        }
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        Ok(fedavg::local(start, learner))
    }

    fn local_personal(
        &self,
        start: &Start<'_>,
        personal: &mut Personal<'_>,
        learner: &mut dyn Learner,
    ) -> Result<Raw, LocalError> {
        personal::train_whole(start, personal, learner)
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        fedavg::FedAvg {}.apply(plan, totals, section, chunk)
    }
}
