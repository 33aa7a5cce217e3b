//! FedPer: Arivazhagan et al. 2019, "Federated Learning with Personalization Layers" (arXiv:1912.00818), Algorithms 1 and 2.
//!
//! ```text
//! device   w_i, h_i ← local SGD from (w, h_i)    h_i: its last layers
//!          Δ_i = w_i − w
//! cloud    w ← w + Σ p_i Δ_i, as FedAvg          w: the layers before
//! ```
//!
//! For devices that mean different things by the same inputs: what inputs are made into is learnt together, what is said of it
//! is each device's own and never leaves. A device that has not trained yet has the first model's last layers, which have
//! learnt nothing.

use super::{Algorithm, ApplyError, Chunk, HomeError, Keeps, LocalError, Personal, Start, fedavg, personal};
use crate::home::{Home, Places};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedPer {
    /// Last layers that stay on devices: 1 or more, and fewer than the model has.
    pub layers: u32,
}

impl Default for FedPer {
    fn default() -> Self {
        Self { layers: 1 }
    }
}

/// The last so many layers stay.
pub(super) fn last(layers: u32, places: &Places) -> Result<Home, HomeError> {
    let most = places.layers.len().saturating_sub(1);
    let kept = layers as usize;
    if !(1..=most).contains(&kept) {
        return Err(HomeError::Layers { most, got: layers });
    }
    let last = &places.layers[places.layers.len() - kept..];
    Ok(Home::of(places.params, last.iter().flatten().cloned()))
}

impl Algorithm for FedPer {
    fn name(&self) -> &'static str {
        "fedper"
    }

    fn keeps(&self) -> Option<Keeps> {
        Some(Keeps::Segments)
    }

    fn home(&self, places: &Places) -> Result<Home, HomeError> {
        last(self.layers, places)
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
