//! FedRep: Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning" (arXiv:2102.07078),
//! Algorithm 1.
//!
//! ```text
//! device   h_i ← τ steps of SGD on h_i           with the body w as it came
//!          w_i ← local SGD from w                with the head h_i as it is then
//!          Δ_i = w_i − w
//! cloud    w ← w + Σ p_i Δ_i, as FedAvg
//! ```
//!
//! As FedPer, in this order: a body that is moved under a head which fits it is moved towards what all devices share. In the
//! paper's linear model the body's distance from the true one then shrinks by a factor in each round. While one moves, the
//! other stays bit for bit, whatever the optimiser; the optimiser starts anew in between. Running statistics of batch norm
//! move with their layers.

use super::{
    Algorithm, ApplyError, Chunk, HomeError, Keeps, LocalError, Personal, SpecError, Start, fedavg, fedper, personal,
    within,
};
use crate::home::{Home, Places};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedRep {
    /// Last layers that stay on devices: 1 or more, and fewer than the model has.
    pub layers: u32,
    /// τ, optimiser steps of the head in each round, before the job's own steps of the body; 1 to 1,000,000.
    pub head_steps: u32,
}

impl Default for FedRep {
    fn default() -> Self {
        Self { layers: 1, head_steps: 10 }
    }
}

impl Algorithm for FedRep {
    fn name(&self) -> &'static str {
        "fedrep"
    }

    fn check(&self) -> Result<(), SpecError> {
        let steps = self.head_steps;
        within((1..=1_000_000).contains(&steps), "head_steps", steps as f32, "1 to 1000000")
    }

    fn keeps(&self) -> Option<Keeps> {
        Some(Keeps::Segments)
    }

    fn home(&self, places: &Places) -> Result<Home, HomeError> {
        fedper::last(self.layers, places)
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
        let home = personal.home;
        let mut w = home.whole(start.w, &personal.own)?;
        let steps = learner.steps();
        personal::train_but(&home.shared(), &mut w, self.head_steps as usize, learner);
        learner.restart();
        let loss = personal::train_but(home.own(), &mut w, steps, learner);
        Ok(personal::told(start, personal, &w, loss, learner))
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        fedavg::FedAvg {}.apply(plan, totals, section, chunk)
    }
}
