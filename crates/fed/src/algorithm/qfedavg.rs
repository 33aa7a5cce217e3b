//! q-FedAvg: Li et al. 2020, "Fair Resource Allocation in Federated Learning" (arXiv:1905.10497), Algorithm 2.
//!
//! ```text
//! device   F_i = F_i(w);  Δ_i from local training;  L = 1/η
//!          a_i = F_i^q · L (−Δ_i)
//!          h_i = q F_i^(q−1) · L² ‖Δ_i‖² + L F_i^q
//! cloud    w ← w − Σ p_i a_i / Σ p_i h_i
//! ```
//!
//! A device that the model serves badly pulls more, the more so the larger q is: accuracies over devices come closer to each
//! other, at some cost of their mean. q = 0 is FedAvg, bit for bit.
//!
//! Both sums are divided by L · `loss_max`^q on devices, so that a delta is never longer than FedAvg's: a loss above
//! `loss_max` counts as that. h travels as an exact integer in steps of 2^-32, and tells of a sum of losses what a_i does.

use super::{Algorithm, ApplyError, Chunk, LocalError, SpecError, Start, Trained, above_zero, train, within};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

const STEPS: f64 = 4_294_967_296.0;
/// F_i^(q−1) has a pole at 0 for q below 1.
const LOSS_MIN: f64 = 1e-6;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QFedAvg {
    /// q, 0 to 16; 0 is FedAvg.
    pub q: f32,
    /// Above 0; about what a model that has learnt nothing has.
    pub loss_max: f32,
}

impl Default for QFedAvg {
    fn default() -> Self {
        Self { q: 1.0, loss_max: 5.0 }
    }
}

impl Algorithm for QFedAvg {
    fn name(&self) -> &'static str {
        "qfedavg"
    }

    fn check(&self) -> Result<(), SpecError> {
        within((0.0..=16.0).contains(&self.q), "q", self.q, "0 to 16; 0 is FedAvg")?;
        above_zero("loss_max", self.loss_max)
    }

    /// Σ weight_i h_i.
    fn wholes(&self) -> usize {
        1
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        let rate = f64::from(learner.learning_rate());
        if !(rate.is_finite() && rate > 0.0) {
            return Err(LocalError::Divisor { algorithm: self.name(), what: "the learning rate", got: rate });
        }
        let (q, most) = (f64::from(self.q), f64::from(self.loss_max));
        let loss = if q == 0.0 { most } else { learner.loss(start.w).clamp(LOSS_MIN, most) };
        let Trained { mut delta, loss: mean_loss, .. } = train(start, learner, None);
        let share = libm::pow(loss / most, q);
        if share != 1.0 {
            delta.iter_mut().for_each(|d| *d = (f64::from(*d) * share) as f32);
        }
        // Of what is sent, so that both halves are of one vector: ‖F^q Δ‖² / F^2q.
        let squares: f64 = delta.iter().map(|d| f64::from(*d) * f64::from(*d)).sum();
        let h = q * squares / (share * loss * rate) + share;
        let examples = learner.examples();
        let weight = i128::from(start.plan.weight(examples).value);
        let wholes = vec![weight * (h * STEPS).round() as i128];
        Ok(Raw { examples, loss: mean_loss, wholes, sections: vec![delta] })
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let mean = totals.mean(plan, section)?;
        let Some(&h) = totals.wholes.first().filter(|h| **h > 0) else {
            return Err(ApplyError::Shape {
                what: "wholes of q-FedAvg above 0",
                expected: 1,
                got: totals.wholes.len(),
            });
        };
        let scale = totals.weight_sum as f64 / (h as f64 / STEPS);
        for (w, &sum) in chunk.model.iter_mut().zip(chunk.sum) {
            *w += (mean.of(sum) * scale) as f32;
        }
        Ok(())
    }
}
