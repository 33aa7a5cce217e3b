//! FedYogi: Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv:2003.00295), Algorithm 2.
//!
//! ```text
//! v ← v − (1 − β2) Δ² sign(v − Δ²)
//! ```
//!
//! As FedAdam, but v moves by no more than (1 − β2) Δ², so that a few small deltas do not make the next step large.
//! The rest of the step, and where the moments start, is in `fedopt`.

use super::SpecError;
use super::fedopt::{FedOpt, Forgetting, Rates};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FedYogi(pub Forgetting);

impl FedOpt for FedYogi {
    const NAME: &'static str = "fedyogi";

    fn rates(&self) -> Rates {
        self.0.rates()
    }

    fn check_second(&self) -> Result<(), SpecError> {
        self.0.check()
    }

    fn second(&self, v: f32, delta2: f32) -> f32 {
        v - (1.0 - self.0.beta2) * delta2 * sign(v - delta2)
    }
}

/// −1, 0 or 1; `f32::signum` knows no 0.
fn sign(x: f32) -> f32 {
    f32::from(i8::from(x > 0.0) - i8::from(x < 0.0))
}
