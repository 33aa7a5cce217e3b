//! How much an update counts that began at an older version than the one it is summed into.
//!
//! With τ the number of versions made since, an update counts s(τ) times. Three rules, of Xie et al. 2019, "Asynchronous
//! Federated Optimization" (arXiv:1903.03934), section 5.2; the polynomial with a = 1/2 is the choice of FedBuff, Nguyen et
//! al. 2022, "Federated Learning with Buffered Asynchronous Aggregation" (arXiv:2106.06639), section 5.1:
//!
//! ```text
//! constant      s(τ) = 1
//! polynomial    s(τ) = (1 + τ)^−a
//! hinge         s(τ) = 1 for τ ≤ b, else 1 / (a (τ − b) + 1)
//! ```
//!
//! τ is public, and so is what comes of it: a whole number of 256ths, fixed by the cloud and told to the device, which
//! scales what it has learnt before it is rounded. So a fresh update is scaled by exactly 1, and masks have nothing to do
//! with it. (The paper's hinge has 1 / (a (τ − b)) without the + 1, which is above 1 just behind b; this one never is.)

use serde::{Deserialize, Serialize};

/// s(0) in the steps that are told.
pub const UNIT: u16 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Staleness {
    /// However old, it counts as a new one.
    Constant,
    /// `a` > 0.
    Polynomial { a: f32 },
    /// `a` > 0; up to `b` versions old it counts as a new one.
    Hinge { a: f32, b: u32 },
}

impl Default for Staleness {
    fn default() -> Self {
        Self::Polynomial { a: 0.5 }
    }
}

impl Staleness {
    /// The parameter that is out of range, and its value.
    pub fn wrong(&self) -> Option<(&'static str, f32)> {
        match *self {
            Self::Polynomial { a } | Self::Hinge { a, .. } if !(a > 0.0 && a.is_finite()) => Some(("a", a)),
            _ => None,
        }
    }

    /// s(`tau`) in [`UNIT`]s, 1 to 256: even the oldest that is let in counts.
    pub fn times(&self, tau: u64) -> u16 {
        let tau = tau as f64;
        let s = match *self {
            Self::Constant => 1.0,
            // By way of libm: the same on every machine.
            Self::Polynomial { a } => libm::pow(1.0 + tau, -f64::from(a)),
            Self::Hinge { b, .. } if tau <= f64::from(b) => 1.0,
            Self::Hinge { a, b } => 1.0 / (f64::from(a) * (tau - f64::from(b)) + 1.0),
        };
        ((s * f64::from(UNIT)).round() as u16).clamp(1, UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_updates_count_once_and_old_ones_never_more() {
        let rules = [
            Staleness::Constant,
            Staleness::default(),
            Staleness::Polynomial { a: 2.0 },
            Staleness::Hinge { a: 10.0, b: 4 },
            Staleness::Hinge { a: 0.1, b: 0 },
        ];
        for rule in rules {
            assert_eq!(rule.times(0), UNIT, "{rule:?}");
            let times: Vec<u16> = (0..1000).map(|tau| rule.times(tau)).collect();
            assert!(times.is_sorted_by(|a, b| a >= b) && times[999] >= 1, "{rule:?}");
        }
    }

    #[test]
    fn the_papers_values() {
        // 256 / √(1 + τ): halves at τ = 3, a quarter at τ = 15.
        let half = |tau| Staleness::default().times(tau);
        assert_eq!([half(1), half(3), half(15)], [181, 128, 64]);
        let hinge = |tau| Staleness::Hinge { a: 1.0, b: 4 }.times(tau);
        assert_eq!([hinge(4), hinge(5), hinge(7)], [256, 128, 64]);
    }
}
