//! What FedAdagrad, FedAdam and FedYogi share: Reddi et al. 2021, "Adaptive Federated Optimization"
//! (arXiv:2003.00295), Algorithm 2.
//!
//! ```text
//! device   as FedAvg
//! cloud    Δ = Σ p_i Δ_i
//!          m ← β1 m + (1 − β1) Δ                 m starts at 0
//!          v ← each one's own                    v starts at τ²
//!          w ← w + η m / (√v + τ)
//! ```
//!
//! As in the paper there is no bias correction. A member of the family says how v grows ([`FedOpt::second`]); the rest
//! of it is here.

use super::{
    Algorithm, ApplyError, Chunk, Initial, LocalError, SpecError, Start, StateSlice, StateVector, above_zero, fedavg,
    zero_to_one,
};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

/// A member of the family.
pub trait FedOpt: Send + Sync {
    const NAME: &'static str;

    fn rates(&self) -> Rates;

    /// The next v, from v and Δ².
    fn second(&self, v: f32, delta2: f32) -> f32;

    /// Are the parameters in range that only this member has?
    fn check_second(&self) -> Result<(), SpecError> {
        Ok(())
    }
}

/// What every member has: η, β1 and τ.
pub struct Rates {
    pub learning_rate: f32,
    pub beta1: f32,
    pub tau: f32,
}

/// The parameters of the members that forget old deltas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forgetting {
    /// η > 0. A coordinate moves by about η per version, whatever the size of the deltas.
    pub learning_rate: f32,
    /// 0 ≤ β1 < 1, momentum.
    pub beta1: f32,
    /// 0 ≤ β2 < 1, how slowly the second moment forgets.
    pub beta2: f32,
    /// τ > 0, the degree of adaptivity: deltas well below τ move the model by η Δ / τ, as FedAvg does with that rate.
    pub tau: f32,
}

impl Default for Forgetting {
    fn default() -> Self {
        Self { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 }
    }
}

impl Forgetting {
    pub fn rates(&self) -> Rates {
        Rates { learning_rate: self.learning_rate, beta1: self.beta1, tau: self.tau }
    }

    pub fn check(&self) -> Result<(), SpecError> {
        zero_to_one("beta2", self.beta2)
    }
}

impl<Member: FedOpt> Algorithm for Member {
    fn name(&self) -> &'static str {
        Member::NAME
    }

    fn check(&self) -> Result<(), SpecError> {
        let Rates { learning_rate, beta1, tau } = self.rates();
        above_zero("learning_rate", learning_rate)?;
        zero_to_one("beta1", beta1)?;
        above_zero("tau", tau)?;
        self.check_second()
    }

    fn cloud_state(&self) -> Vec<StateVector> {
        let tau = self.rates().tau;
        vec![
            StateVector { name: "first moment", initial: Initial::Real(0.0), broadcast: false },
            StateVector { name: "second moment", initial: Initial::Real(tau * tau), broadcast: false },
        ]
    }

    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        Ok(fedavg::local(start, learner))
    }

    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        let Rates { learning_rate, beta1, tau } = self.rates();
        let mean = totals.mean(plan, section)?;
        let [StateSlice::Real(m), StateSlice::Real(v)] = &mut *chunk.state else {
            return Err(ApplyError::WrongState { algorithm: Member::NAME, expected: "two real vectors, the moments" });
        };
        let coordinates = chunk.model.iter_mut().zip(&mut **m).zip(&mut **v).zip(chunk.sum);
        for (((w, m), v), &sum) in coordinates {
            let delta = mean.of(sum) as f32;
            *m = beta1 * *m + (1.0 - beta1) * delta;
            *v = self.second(*v, delta * delta);
            *w += learning_rate * *m / (v.sqrt() + tau);
        }
        Ok(())
    }
}
