//! The geometric median by sums alone, so that it goes under masks: Pillutla, Kakade and Harchaoui 2022, "Robust Aggregation
//! for Federated Learning" (IEEE Transactions on Signal Processing; arXiv:1912.13445), RFA, Algorithm 2.
//!
//! ```text
//! v ← 0, and R times, each a collection of its own:
//!   device   β_i = ν / max(ν, ‖v − Δ_i‖)          tells β_i Δ_i and β_i, in one sum
//!   cloud    v ← Σ β_i Δ_i / Σ β_i
//! then the algorithm gets v as if it were the devices' mean
//! ```
//!
//! β is the paper's weight times ν, so that it is at most 1 and has a place in fixed point; the quotient is the same. (The
//! sibling `geometric_median`, which has the updates at hand, begins with their mean, which here would cost one more sum.) R
//! versions in a row have the same weights w beside another v; devices train for the first of them alone, and the rounds draw
//! the same cohort for all. One that leaves meanwhile is missing in the next step, as in any sum.
//!
//! What it bears: fewer than half of the devices whose *data or training* is bad, whose steps here are as above. What it does not:
//! devices that break the protocol, since nobody sees any β or Δ; they move the sum as far as fixed point reaches.

use crate::algorithm::{Algorithm, ApplyError, Chunk, Initial, LocalError, Start, StateSlice, StateVector, StateView};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::{Plan, Section};
use crate::seal::Raw;
use std::sync::Arc;

/// β as it is told: in so many parts of 1.
const PARTS: f64 = (1u64 << 30) as f64;
const NAME: &str = "the geometric median by sums";

/// One of the R steps around an algorithm whose devices send one vector.
pub struct Weiszfeld {
    pub inner: Arc<dyn Algorithm>,
    /// ν > 0, in the model's units.
    pub smoothing: f32,
    /// To which devices clip before all else.
    pub norm_bound: Option<f32>,
    /// The algorithm gets v.
    pub last: bool,
}

/// ‖v − x‖.
fn distance(v: &[f32], x: &[f32]) -> f64 {
    v.iter().zip(x).map(|(v, x)| (f64::from(*v) - f64::from(*x)).powi(2)).sum::<f64>().sqrt()
}

fn scale(x: &mut [f32], by: f64) {
    x.iter_mut().for_each(|x| *x = (f64::from(*x) * by) as f32);
}

impl Weiszfeld {
    /// Of what a device has learnt what it tells when the median is thought at `v`.
    fn weigh(&self, raw: &mut Raw, v: &[f32]) -> Result<(), LocalError> {
        let [delta] = &mut raw.sections[..] else {
            return Err(LocalError::Shape { what: "sections", expected: 1, got: raw.sections.len() });
        };
        if delta.len() != v.len() {
            return Err(LocalError::Shape { what: "parameters", expected: v.len(), got: delta.len() });
        }
        if let Some(bound) = self.norm_bound.map(f64::from) {
            let norm = distance(&vec![0.0; v.len()], delta);
            if norm > bound {
                scale(delta, bound / norm);
            }
        }
        let smoothing = f64::from(self.smoothing);
        let beta = smoothing / distance(v, delta).max(smoothing);
        scale(delta, beta);
        raw.wholes.push((beta * PARTS).round() as i128);
        Ok(())
    }
}

impl Algorithm for Weiszfeld {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn sections(&self, params: usize, range: f32) -> Vec<Section> {
        self.inner.sections(params, range)
    }

    fn wholes(&self) -> usize {
        1
    }

    /// v comes first.
    fn cloud_state(&self) -> Vec<StateVector> {
        let point = StateVector { name: "geometric median so far", initial: Initial::Real(0.0), broadcast: true };
        [vec![point], self.inner.cloud_state()].concat()
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        let Some((StateView::Real(_), broadcast)) = start.broadcast.split_first() else {
            return Err(LocalError::Shape { what: "vectors beside the model", expected: 1, got: 0 });
        };
        self.inner.local(&Start { broadcast, ..*start }, learner)
    }

    fn tell(&self, start: &Start<'_>, raw: &mut Raw) -> Result<(), LocalError> {
        match start.broadcast.first() {
            Some(StateView::Real(v)) => self.weigh(raw, v),
            _ => Err(LocalError::Shape { what: "vectors beside the model", expected: 1, got: 0 }),
        }
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let Some((StateSlice::Real(v), inner)) = chunk.state.split_first_mut() else {
            return Err(ApplyError::WrongState { algorithm: NAME, expected: "one real vector, the median so far" });
        };
        let [parts] = totals.wholes[..] else {
            return Err(ApplyError::Shape { what: "whole numbers", expected: 1, got: totals.wholes.len() });
        };
        // 0 only if all updates are 2^30 times as far away as ν: then the model stays as it is.
        let devices = totals.weight_sum as f64;
        let times = if parts > 0 { devices / (parts as f64 / PARTS) } else { 0.0 };
        let mean = totals.mean(plan, section)?;
        if !self.last {
            v.iter_mut().zip(chunk.sum).for_each(|(v, sum)| *v = mean.of(sum * times) as f32);
            return Ok(());
        }
        v.fill(0.0);
        let sum: Vec<f64> = chunk.sum.iter().map(|sum| sum * times).collect();
        let mut state: Vec<StateSlice<'_>> = inner.iter_mut().map(StateSlice::again).collect();
        let mut chunk = Chunk { first: chunk.first, model: chunk.model, state: &mut state, sum: &sum, began: None };
        self.inner.apply(plan, totals, section, &mut chunk)
    }
}
