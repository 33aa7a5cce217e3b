//! FedAsync: Xie et al. 2019, "Asynchronous Federated Optimization" (arXiv:1903.03934), Algorithm 1.
//!
//! ```text
//! device   minimises F_i(w_i) + ρ/2 ‖w_i − w_v‖² from version v, and sends Δ_i = w_i − w_v
//! cloud    w ← (1 − α_t) w + α_t w_i,  α_t = α s(τ),  w_i = w_v + Δ_i;   τ: versions made since v
//! ```
//!
//! Every update makes a version by itself. It moves the model towards where the device is, and not by what the device has
//! learnt: with α = 1 and a fresh update the model becomes the device's. s is the job's (`pace.staleness`).
//!
//! A version of one update tells that update: it cannot hide among others, so there is nothing for masks to do, and a
//! masked job is refused.

use super::{Algorithm, ApplyError, Chunk, LocalError, SpecError, Start, fedprox, within};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedAsync {
    /// 0 < α ≤ 1, how far the model goes towards a fresh update.
    pub alpha: f32,
    /// ρ ≥ 0, the pull towards where training began.
    pub rho: f32,
}

impl Default for FedAsync {
    /// The paper's α of its experiments, without the pull.
    fn default() -> Self {
        Self { alpha: 0.6, rho: 0.0 }
    }
}

impl Algorithm for FedAsync {
    fn name(&self) -> &'static str {
        "fedasync"
    }

    fn check(&self) -> Result<(), SpecError> {
        within(self.alpha > 0.0 && self.alpha <= 1.0, "alpha", self.alpha, "above 0, at most 1")?;
        within(self.rho >= 0.0 && self.rho.is_finite(), "rho", self.rho, "a finite number, 0 or more")
    }

    fn alone(&self) -> bool {
        true
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        fedprox::FedProx { mu: self.rho }.local(start, learner)
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let mean = totals.mean(plan, section)?;
        let alpha = self.alpha * chunk.began.map_or(1.0, |began| began.weight);
        for (i, (w, &sum)) in chunk.model.iter_mut().zip(chunk.sum).enumerate() {
            let began = chunk.began.map_or(*w, |began| began.model[i]);
            let theirs = began + mean.of(sum) as f32;
            *w = if alpha == 1.0 { theirs } else { *w + alpha * (theirs - *w) };
        }
        Ok(())
    }
}
