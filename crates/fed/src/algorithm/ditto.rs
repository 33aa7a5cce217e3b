//! Ditto: Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization" (arXiv:2012.04221), Algorithm 1.
//!
//! ```text
//! device   w_i ← local SGD from w, Δ_i = w_i − w         as FedAvg
//!          v_i ← v_i − η (∇F_i(v_i) + λ (v_i − w))       as many steps again
//! cloud    w ← w + Σ p_i Δ_i, as FedAvg
//! ```
//!
//! v_i is the device's own model, which it keeps and uses; it begins as the version that the device first trains on. λ = 0
//! trains it on the device's data alone, as if there were no federation; the larger λ, the nearer it stays to the version
//! (within max ‖∇F_i‖ / λ of it). For v_i to come to rest, the learning rate times (curvature + λ) must stay below 2. The
//! version is FedAvg's, bit for bit, whatever λ.

use super::{Algorithm, ApplyError, Chunk, Keeps, LocalError, Personal, SpecError, Start, fedavg, run, within};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ditto {
    /// λ ≥ 0, the strength of the pull towards the version; 0 is local training.
    pub lambda: f32,
}

impl Default for Ditto {
    fn default() -> Self {
        Self { lambda: 0.1 }
    }
}

impl Algorithm for Ditto {
    fn name(&self) -> &'static str {
        "ditto"
    }

    fn check(&self) -> Result<(), SpecError> {
        let lambda = self.lambda;
        within(lambda >= 0.0 && lambda.is_finite(), "lambda", lambda, "a finite number, 0 or more; 0 is local training")
    }

    fn keeps(&self) -> Option<Keeps> {
        Some(Keeps::Model)
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
        let (expected, got) = (start.w.len(), personal.own.len());
        if expected != got {
            return Err(LocalError::Shape { what: "parameters of the device's own model", expected, got });
        }
        let raw = fedavg::local(start, learner);
        learner.restart();
        let steps = learner.steps();
        let mut pull = |v: &[f32], gradient: &mut [f32]| {
            for ((g, &v), &w) in gradient.iter_mut().zip(v).zip(start.w) {
                *g += self.lambda * (v - w);
            }
        };
        match self.lambda == 0.0 {
            true => run(&mut personal.own, steps, learner, None),
            false => run(&mut personal.own, steps, learner, Some(&mut pull)),
        };
        Ok(raw)
    }

    fn own_model(&self, _: &[f32], personal: &Personal<'_>, _: &mut dyn Learner) -> Result<Vec<f32>, LocalError> {
        Ok(personal.own.clone())
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        fedavg::FedAvg {}.apply(plan, totals, section, chunk)
    }
}
