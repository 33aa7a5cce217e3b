//! Per-FedAvg: Fallah et al. 2020, "Personalized Federated Learning with Theoretical Guarantees: A Model-Agnostic Meta-Learning
//! Approach" (NeurIPS; arXiv:2002.07948), Algorithm 1, with both of its stochastic gradients (section 5).
//!
//! ```text
//! device   w̃ = w_i − α ∇F_i(w_i; D)
//!          g = ∇F_i(w̃; D')                               order = "first"
//!          g = (I − α ∇²F_i(w_i; D'')) ∇F_i(w̃; D')       order = "hessian_vector"
//!          w_i ← w_i − η g, K times from w               Δ_i = w_i − w
//! cloud    w ← w + Σ p_i Δ_i, as FedAvg
//! ```
//!
//! The version is not to be good itself, but one step of size α on a device's own rows away from a good model: that step is
//! the device's model. Nothing is kept. Each step takes two batches of rows or three, one after the other; the loss that is
//! told is that of w̃. α = 0 is FedAvg, bit for bit.
//!
//! The product of Hessian and vector is a central difference of two gradients of the same batch D'':
//!
//! ```text
//! H v ≈ (∇F(w + δ v) − ∇F(w − δ v)) / 2δ         δ = 2^−8 (1 + ‖w‖) / ‖v‖
//! ```
//!
//! It is exact where F is quadratic, but for rounding; elsewhere it is wrong by a term in δ². 2^−8 is near the cube root of what
//! f32 rounds by, where that term and rounding are about as large. Across a kink (ReLU) it is the slope between both sides.

use super::{Algorithm, ApplyError, Chunk, Keeps, LocalError, Personal, SpecError, Start, fedavg, within};
use crate::learner::{Batch, Learner};
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerFedAvg {
    /// α ≥ 0, the size of a device's own step; 0 is FedAvg.
    pub alpha: f32,
    pub order: Order,
}

/// What becomes of the second derivative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// It is left out.
    First,
    /// Its product with a gradient is worked out, for two more gradients per step.
    HessianVector,
}

impl Default for PerFedAvg {
    fn default() -> Self {
        Self { alpha: 0.01, order: Order::First }
    }
}

impl Algorithm for PerFedAvg {
    fn name(&self) -> &'static str {
        "perfedavg"
    }

    fn check(&self) -> Result<(), SpecError> {
        let alpha = self.alpha;
        within(alpha >= 0.0 && alpha.is_finite(), "alpha", alpha, "a finite number, 0 or more; 0 is FedAvg")
    }

    fn keeps(&self) -> Option<Keeps> {
        Some(Keeps::Nothing)
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        if self.alpha == 0.0 {
            return Ok(fedavg::local(start, learner));
        }
        let mut w = start.w.to_vec();
        let mut slope = vec![0.0; w.len()];
        let (mut loss, mut made) = (0f64, 0);
        while made < learner.steps() {
            let near = self.adapted(&w, learner);
            loss += f64::from(learner.gradient(&near, Batch::Next, &mut slope));
            if self.order == Order::HessianVector {
                let curved = hessian_vector(&w, &slope, learner);
                slope.iter_mut().zip(curved).for_each(|(g, h)| *g -= self.alpha * h);
            }
            learner.descend(&mut w, &mut slope);
            made += 1;
            if learner.spent() {
                break;
            }
        }
        w.iter_mut().zip(start.w).for_each(|(local, &w)| *local -= w);
        let loss = (loss / made.max(1) as f64) as f32;
        Ok(Raw { examples: learner.examples(), loss, wholes: Vec::new(), sections: vec![w] })
    }

    /// One step on the first batch.
    fn own_model(&self, w: &[f32], _: &Personal<'_>, learner: &mut dyn Learner) -> Result<Vec<f32>, LocalError> {
        match self.alpha == 0.0 || learner.examples() == 0 {
            true => Ok(w.to_vec()),
            false => Ok(self.adapted(w, learner)),
        }
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        fedavg::FedAvg {}.apply(plan, totals, section, chunk)
    }
}

impl PerFedAvg {
    /// w − α ∇F(w) on the next batch.
    fn adapted(&self, w: &[f32], learner: &mut dyn Learner) -> Vec<f32> {
        let mut slope = vec![0.0; w.len()];
        learner.gradient(w, Batch::Next, &mut slope);
        w.iter().zip(slope).map(|(w, g)| w - self.alpha * g).collect()
    }
}

/// 2^−8 (1 + ‖w‖) is how far apart from w gradients are taken.
const APART: f64 = 1.0 / 256.0;

/// ∇²F(w) v on the next batch.
pub fn hessian_vector(w: &[f32], v: &[f32], learner: &mut dyn Learner) -> Vec<f32> {
    let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let length = norm(v);
    // Of nothing; or of a gradient that diverged, which the model's check will find.
    if length == 0.0 || !length.is_finite() {
        return vec![0.0; w.len()];
    }
    let delta = (APART * (1.0 + norm(w)) / length) as f32;
    let mut gradient = |sign: f32, batch| {
        let at: Vec<f32> = w.iter().zip(v).map(|(w, v)| w + sign * delta * v).collect();
        let mut out = vec![0.0; w.len()];
        learner.gradient(&at, batch, &mut out);
        out
    };
    let (up, down) = (gradient(1.0, Batch::Next), gradient(-1.0, Batch::Same));
    up.iter().zip(down).map(|(up, down)| (up - down) / (2.0 * delta)).collect()
}
