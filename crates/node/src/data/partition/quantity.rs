//! Quantity skew: every device the same distribution, sizes as uneven as those of real fleets (Li et al. 2022,
//! arXiv:2102.02079, section 4.3, draws them from a Dirichlet distribution; log-normal sizes are those of Li et al. 2020,
//! "Federated optimization in heterogeneous networks", section 5.1).

use super::{Shares, ascending, check_devices};
use crate::data::error::Invalid;
use crate::data::random::{ln_gamma_draw, normal, seeded, shuffle, unit};
use libm::{exp, log};
use rand_chacha::ChaCha8Rng;

/// How devices' sizes are distributed, up to a factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SizeLaw {
    /// A size above x has probability x^-exponent (Pareto): the smaller the exponent, the heavier the tail.
    PowerLaw { exponent: f64 },
    /// The sizes' logarithms are normal with this standard deviation; 0: all the same.
    LogNormal { sigma: f64 },
    /// Shares of a symmetric Dirichlet draw; the smaller alpha, the more uneven.
    Dirichlet { alpha: f64 },
}

impl SizeLaw {
    /// The logarithm of one draw.
    fn ln_draw(self, random: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::PowerLaw { exponent } => -log(unit(random)) / exponent,
            Self::LogNormal { sigma } => sigma * normal(random),
            Self::Dirichlet { alpha } => ln_gamma_draw(random, alpha),
        }
    }
}

/// Every device has `rows_min` rows; what is left is dealt in proportion to the law's draws, rows in random order.
pub fn by_quantity(rows: usize, devices: usize, law: SizeLaw, rows_min: usize, seed: u64) -> Result<Shares, Invalid> {
    check_devices(rows, devices, rows_min)?;
    let mut random = seeded("littoral data partition quantity 1", seed);
    let draws: Vec<f64> = (0..devices).map(|_| law.ln_draw(&mut random)).collect();
    let largest = draws.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = draws.iter().map(|draw| exp(draw - largest)).collect();
    let (total, free) = (weights.iter().sum::<f64>(), rows - devices * rows_min);
    let mut order: Vec<usize> = (0..rows).collect();
    shuffle(&mut random, &mut order);
    let (mut shares, mut reached, mut start) = (Vec::with_capacity(devices), 0.0, 0);
    for (device, weight) in weights.iter().enumerate() {
        reached += weight;
        let dealt = ((free as f64 * reached / total).round() as usize).min(free) + (device + 1) * rows_min;
        let end = if device + 1 == devices { rows } else { dealt.max(start) };
        shares.push(order[start..end].to_vec());
        start = end;
    }
    Ok(ascending(shares))
}
