//! FedProx: Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv:1812.06127), Algorithm 2 and
//! equation 2.
//!
//! ```text
//! device   minimises F_i(w_i) + μ/2 ‖w_i − w‖², that is: gradient ← gradient + μ (w_i − w)
//! cloud    w ← w + Σ p_i Δ_i, as FedAvg
//! ```
//!
//! μ holds devices together that train long on different data. μ = 0 is FedAvg, bit for bit. For a local optimum to be
//! approached at all, the learning rate times (curvature + μ) must stay below 2.

use super::{Algorithm, ApplyError, Chunk, LocalError, SpecError, Start, Trained, fedavg, train, within};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FedProx {
    /// μ ≥ 0, the strength of the pull; 0 is FedAvg.
    pub mu: f32,
}

impl Algorithm for FedProx {
    fn name(&self) -> &'static str {
        "fedprox"
    }

    fn check(&self) -> Result<(), SpecError> {
        within(self.mu >= 0.0 && self.mu.is_finite(), "mu", self.mu, "a finite number, 0 or more; 0 is FedAvg")
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        if self.mu == 0.0 {
            return Ok(fedavg::local(start, learner));
        }
        let mut pull = |local: &[f32], gradient: &mut [f32]| {
            for ((g, &w_i), &w) in gradient.iter_mut().zip(local).zip(start.w) {
                *g += self.mu * (w_i - w);
            }
        };
        let Trained { delta, loss, .. } = train(start, learner, Some(&mut pull));
        Ok(Raw { examples: learner.examples(), loss, wholes: Vec::new(), sections: vec![delta] })
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        fedavg::FedAvg {}.apply(plan, totals, section, chunk)
    }
}
