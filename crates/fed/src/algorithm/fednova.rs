//! FedNova: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization"
//! (arXiv:2007.07481), equations 6 and 9.
//!
//! ```text
//! device   d_i = Δ_i / ‖a_i‖₁                    ‖a_i‖₁: the plain steps that its steps amount to
//! cloud    w ← w + τ_eff Σ p_i d_i               τ_eff = Σ p_i ‖a_i‖₁
//! ```
//!
//! Devices that take more steps would otherwise pull the model towards their own optimum; divided by its steps, each
//! gives a mean direction, and all together go as far as they would have. (The paper's d_i is this one over −η.)
//!
//! ‖a_i‖₁ is the number of steps for plain SGD, and counts each step's echoes with momentum. With equal steps everywhere
//! it is FedAvg; bit for bit so if `reference_steps` is that number.

use super::{Algorithm, ApplyError, Chunk, LocalError, SpecError, Start, Trained, above_zero, effective_steps, train};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

/// ‖a_i‖₁ travels as an exact integer in these steps.
const PER_STEP: f64 = 4_294_967_296.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedNova {
    /// Above 0. A device sends its mean step times this, so that the delta's range means the length of this many steps. It
    /// changes the fixed point's resolution and not the algorithm.
    pub reference_steps: f32,
}

impl Default for FedNova {
    fn default() -> Self {
        Self { reference_steps: 1.0 }
    }
}

impl Algorithm for FedNova {
    fn name(&self) -> &'static str {
        "fednova"
    }

    fn check(&self) -> Result<(), SpecError> {
        above_zero("reference_steps", self.reference_steps)
    }

    /// Σ weight_i ‖a_i‖₁.
    fn wholes(&self) -> usize {
        1
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        let Trained { mut delta, loss, steps } = train(start, learner, None);
        let steps = effective_steps(learner, steps);
        if !(steps.is_finite() && steps > 0.0) {
            return Err(LocalError::Divisor { algorithm: self.name(), what: "the number of steps", got: steps });
        }
        let scale = f64::from(self.reference_steps) / steps;
        delta.iter_mut().for_each(|d| *d = (f64::from(*d) * scale) as f32);
        let examples = learner.examples();
        let weight = i128::from(start.plan.weight(examples).value);
        let wholes = vec![weight * (steps * PER_STEP).round() as i128];
        Ok(Raw { examples, loss, wholes, sections: vec![delta] })
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let mean = totals.mean(plan, section)?;
        let Some(&weighted_steps) = totals.wholes.first() else {
            return Err(ApplyError::Shape { what: "wholes of FedNova", expected: 1, got: 0 });
        };
        // Divided as integers first: equal steps come out exactly.
        let (whole, rest) =
            (weighted_steps / i128::from(totals.weight_sum), weighted_steps % i128::from(totals.weight_sum));
        let tau_eff = (whole as f64 + rest as f64 / totals.weight_sum as f64) / PER_STEP;
        let scale = tau_eff / f64::from(self.reference_steps);
        for (w, &sum) in chunk.model.iter_mut().zip(chunk.sum) {
            *w += (mean.of(sum) * scale) as f32;
        }
        Ok(())
    }
}
