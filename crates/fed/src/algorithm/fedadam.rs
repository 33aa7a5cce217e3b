//! FedAdam: Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv:2003.00295), Algorithm 2.
//!
//! ```text
//! v ← β2 v + (1 − β2) Δ²
//! ```
//!
//! Old deltas are forgotten, so a coordinate can speed up again.
//! The rest of the step, and where the moments start, is in `fedopt`.

use super::SpecError;
use super::fedopt::{FedOpt, Forgetting, Rates};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FedAdam(pub Forgetting);

impl FedOpt for FedAdam {
    const NAME: &'static str = "fedadam";

    fn rates(&self) -> Rates {
        self.0.rates()
    }

    fn check_second(&self) -> Result<(), SpecError> {
        self.0.check()
    }

    fn second(&self, v: f32, delta2: f32) -> f32 {
        self.0.beta2 * v + (1.0 - self.0.beta2) * delta2
    }
}
