//! FedAdagrad: Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv:2003.00295), Algorithm 2.
//!
//! ```text
//! v ← v + Δ²
//! ```
//!
//! A coordinate that has moved much moves ever less.
//! The rest of the step, and where the moments start, is in `fedopt`.

use super::fedopt::{FedOpt, Rates};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedAdagrad {
    /// η > 0. A coordinate moves by about η per version, whatever the size of the deltas.
    pub learning_rate: f32,
    /// 0 ≤ β1 < 1, momentum; 0 is Adagrad as the paper runs it.
    pub beta1: f32,
    /// τ > 0, the degree of adaptivity: deltas well below τ move the model by η Δ / τ, as FedAvg does with that rate.
    pub tau: f32,
}

impl Default for FedAdagrad {
    fn default() -> Self {
        Self { learning_rate: 0.01, beta1: 0.0, tau: 1e-3 }
    }
}

impl FedOpt for FedAdagrad {
    const NAME: &'static str = "fedadagrad";

    fn rates(&self) -> Rates {
        Rates { learning_rate: self.learning_rate, beta1: self.beta1, tau: self.tau }
    }

    fn second(&self, v: f32, delta2: f32) -> f32 {
        v + delta2
    }
}
