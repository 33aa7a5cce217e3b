//! SCAFFOLD: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning"
//! (arXiv:1910.06378), Algorithm 1 with option II.
//!
//! ```text
//! device   y ← y − η (g(y) − c_i + c), K times    from y = w
//!          Δ_i = y − w
//!          c_i⁺ = c_i − c + (w − y) / (K η)       and so Δc_i = c_i⁺ − c_i = −c − Δ_i / (K η)
//! cloud    w ← w + η_g · mean Δ_i
//!          c ← c + 1/N Σ Δc_i                     N: the population, not the cohort
//! ```
//!
//! c_i is a device's idea of its own gradient, c everybody's; their difference takes out of each local step what is
//! peculiar to the device, so that many local steps do not drift apart. Means are over devices, as in the paper: a
//! device's number of rows does not matter here. For plain SGD; with momentum, K is the number of plain steps that the
//! steps amount to (FedNova's ‖a‖₁).
//!
//! **In integers.** Devices send Δc_i in steps of fixed point, and what a device commits is the integer that it sent.
//! The cloud keeps C = Σ c_i over the whole population in the same steps, and c = C · step / N. So C = Σ c_i holds
//! exactly, as long as each device commits just when its update is included. A Δc_i that saturates is made up for next
//! time, since it is reckoned from the c_i that was committed.

use super::{Algorithm, ApplyError, Chunk, Initial, LocalError, SpecError, Start, StateError, StateSlice, StateVector};
use super::{StateView, Trained, above_zero, delta, effective_steps, train};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::{Plan, Section};
use crate::seal::{Raw, Sent};
use serde::{Deserialize, Serialize};

const DELTA: usize = 0;
const CONTROL: usize = 1;
const REMEDY: &str = "raise algorithm.control_range, or lower the levels";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scaffold {
    /// η_g > 0, the cloud's step; 1 in most of the paper's experiments.
    pub learning_rate: f32,
    /// Above 0. A gradient's coordinates lie well within ± this. The population's sum must fit 32 bits, which it does while
    /// |c| < `control_range` · 2^31 / (levels · N).
    pub control_range: f32,
}

impl Default for Scaffold {
    fn default() -> Self {
        Self { learning_rate: 1.0, control_range: 1.0 }
    }
}

impl Algorithm for Scaffold {
    fn name(&self) -> &'static str {
        "scaffold"
    }

    fn check(&self) -> Result<(), SpecError> {
        above_zero("learning_rate", self.learning_rate)?;
        above_zero("control_range", self.control_range)
    }

    fn sections(&self, params: usize, range: f32) -> Vec<Section> {
        vec![
            Section { weighted: false, ..delta(params, range) },
            Section { name: "control", len: params, range: self.control_range, weighted: false },
        ]
    }

    fn cloud_state(&self) -> Vec<StateVector> {
        vec![StateVector { name: "sum of control variates", initial: Initial::Whole(0), broadcast: true }]
    }

    fn device_state(&self) -> Option<&'static str> {
        Some("control variate")
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        let params = start.w.len();
        let expect = |what, got| match got == params {
            true => Ok(()),
            false => Err(LocalError::Shape { what, expected: params, got }),
        };
        let [StateView::Whole(sum)] = *start.broadcast else {
            let got = start.broadcast.len();
            return Err(LocalError::Shape { what: "broadcast integer vectors", expected: 1, got });
        };
        expect("elements of the sum of control variates", sum.len())?;
        expect("elements of the control variate", start.device_state.map_or(params, <[i32]>::len))?;
        let step = start.plan.step(CONTROL);
        let c = |i: usize| f64::from(sum[i]) * step / start.population.max(1) as f64;
        let c_i = |i: usize| start.device_state.map_or(0.0, |state| f64::from(state[i]) * step);
        let correction: Vec<f32> = (0..params).map(|i| (c(i) - c_i(i)) as f32).collect();
        let mut correct = |_: &[f32], gradient: &mut [f32]| {
            gradient.iter_mut().zip(&correction).for_each(|(g, c)| *g += c);
        };
        let Trained { delta, loss, steps } = train(start, learner, Some(&mut correct));
        let k_eta = effective_steps(learner, steps) * f64::from(learner.learning_rate());
        if !(k_eta.is_finite() && k_eta > 0.0) {
            let what = "steps times learning rate";
            return Err(LocalError::Divisor { algorithm: self.name(), what, got: k_eta });
        }
        let control = (0..params).map(|i| (-c(i) - f64::from(delta[i]) / k_eta) as f32).collect();
        Ok(Raw { examples: learner.examples(), loss, wholes: Vec::new(), sections: vec![delta, control] })
    }

    fn pending(&self, state: &mut [i32], sent: &dyn Sent) -> Result<(), StateError> {
        let sent = sent.sent(CONTROL)?;
        let name = "control variate";
        if state.len() != sent.len() {
            return Err(StateError::Length { state: name, expected: state.len(), got: sent.len() });
        }
        for (index, (c_i, added)) in state.iter_mut().zip(sent).enumerate() {
            *c_i = add(name, index, *c_i, added.into())?;
        }
        Ok(())
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        if section == DELTA {
            let mean = totals.mean(plan, section)?;
            for (w, &sum) in chunk.model.iter_mut().zip(chunk.sum) {
                *w += self.learning_rate * mean.of(sum) as f32;
            }
            return Ok(());
        }
        let [StateSlice::Whole(controls)] = &mut *chunk.state else {
            let expected = "one integer vector, the sum of control variates";
            return Err(ApplyError::WrongState { algorithm: self.name(), expected });
        };
        for (i, (c, &sum)) in controls.iter_mut().zip(chunk.sum).enumerate() {
            *c = add("sum of control variates", chunk.first + i, *c, sum as i64)?;
        }
        Ok(())
    }
}

fn add(state: &'static str, index: usize, value: i32, added: i64) -> Result<i32, StateError> {
    let sum = i64::from(value).checked_add(added).and_then(|sum| i32::try_from(sum).ok());
    sum.ok_or(StateError::Overflow { state, index, value, added, remedy: REMEDY })
}
