//! Accounts: what a row of releases costs in (ε, δ).
//!
//! A [`Mechanism`] says what one release does to one record, a [`Loss`] how it was sampled and how often it ran, a
//! [`Composition`] adds them up, also unlike ones, and answers with ε for a δ. Two accountants: [`rdp`](Accountant::Rdp),
//! milliseconds, and [`pld`](Accountant::Pld), tight, up to a second. Each module names its papers.
//!
//! ε is an upper bound, up to floating-point rounding. The `noise multiplier` is the noise's standard deviation over the
//! sensitivity, for every mechanism; for the discrete Gaussian it is the parameter σ, which the deviation never passes and
//! hardly falls below from 1 on. The sensitivity is that of the adjacency that is meant: with norms clipped to S, S under
//! adding or removing a record, 2 S under replacing one.
//!
//! What an account does not know: whether the sampling was the law that it is told, whether the noise was drawn, and what else was
//! released.

mod adaptive;
mod calibrate;
pub mod distributed;
mod fft;
pub mod gaussian;
mod pair;
mod pld;
mod pmf;
mod rdp;
mod special;
#[cfg(test)]
mod tests;

pub use adaptive::split_noise;
pub use calibrate::smallest_noise_multiplier;
pub use pld::Discretisation;

use thiserror::Error;

/// What one release does: noise added to a number (or vector) that one record moves by at most the sensitivity.
#[derive(Clone, Debug, PartialEq)]
pub enum Mechanism {
    /// Gaussian noise of standard deviation `noise_multiplier` times the L2 sensitivity.
    Gaussian { noise_multiplier: f64 },
    /// Laplace noise of scale `scale` times the L1 sensitivity; its standard deviation is √2 times as much.
    Laplace { scale: f64 },
    /// Discrete Laplace noise p(x) ∝ exp(-|x| / scale) on a whole number with this sensitivity.
    DiscreteLaplace { scale: f64, sensitivity: u32 },
    /// N_ℤ(0, σ²) on a whole number with this sensitivity.
    DiscreteGaussian { sigma: f64, sensitivity: u32 },
    /// Skellam noise of this variance on a whole number with this sensitivity.
    Skellam { variance: f64, sensitivity: u32 },
    /// Any finite mechanism: for each outcome its probability with the record and without.
    Outcomes(Vec<(f64, f64)>),
    /// A vector of a sum to which devices add their shares of the noise, or one party all of it.
    Distributed(distributed::Release),
}

/// Who takes part in a release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// Each record by itself, with this probability, in secret. 1 is everybody.
    Poisson { rate: f64 },
    /// A uniformly random set of fixed size, this share of all, in secret.
    Fixed { rate: f64 },
}

impl Sampling {
    pub const ALL: Self = Self::Poisson { rate: 1.0 };

    pub fn rate(self) -> f64 {
        match self {
            Self::Poisson { rate } | Self::Fixed { rate } => rate,
        }
    }
}

/// One kind of release and how often it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    pub mechanism: Mechanism,
    pub sampling: Sampling,
    pub count: u64,
}

/// Data sets that shall not be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adjacency {
    /// One has a record more.
    #[default]
    AddRemove,
    /// One record is another one.
    ReplaceOne,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accountant {
    Rdp,
    #[default]
    Pld,
}

/// How to account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    pub accountant: Accountant,
    pub adjacency: Adjacency,
    /// How the losses of discrete mechanisms come onto the grid of privacy losses. [`Discretisation::Up`] is what Google's
    /// dp-accounting does and meets its figures; [`Discretisation::Dots`] is as valid and much tighter over many rounds.
    /// Continuous mechanisms always use the latter, as there.
    pub discrete: Discretisation,
}

impl Default for Method {
    fn default() -> Self {
        Self { accountant: Accountant::Pld, adjacency: Adjacency::AddRemove, discrete: Discretisation::Up }
    }
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum AccountError {
    #[error("{what}: {expected} expected, got {got}")]
    Range { what: &'static str, expected: &'static str, got: f64 },
    #[error("{what}: {expected} expected, got {got}")]
    Impossible { what: &'static str, expected: &'static str, got: &'static str },
    #[error("no finite epsilon has a delta of {delta}")]
    NoEpsilon { delta: f64 },
    #[error(
        "the target {target}: an epsilon that a noise multiplier from {least} to {most} reaches expected, got {reached} at best"
    )]
    Unreachable { target: f64, least: f64, most: f64, reached: f64 },
}

/// The grid of privacy losses.
const GRID: f64 = 1e-4;
/// What a mechanism's tails are cut at must stay far below.
const DELTA_LEAST: f64 = 1e-15;

impl Loss {
    fn check(&self) -> Result<(), AccountError> {
        let above_zero = |what, got: f64| {
            let good = got.is_finite() && got > 0.0;
            if good { Ok(()) } else { Err(AccountError::Range { what, expected: "a finite number above 0", got }) }
        };
        let whole = |got: u32| {
            let what = "a sensitivity";
            let expected = "a whole number of at least 1";
            if got > 0 { Ok(()) } else { Err(AccountError::Range { what, expected, got: got.into() }) }
        };
        let rate = self.sampling.rate();
        if !(rate > 0.0 && rate <= 1.0) {
            return Err(AccountError::Range {
                what: "the sampling rate",
                expected: "above 0 and at most 1",
                got: rate,
            });
        }
        match &self.mechanism {
            Mechanism::Gaussian { noise_multiplier } => above_zero("the noise multiplier", *noise_multiplier),
            Mechanism::Laplace { scale } => above_zero("the scale", *scale),
            Mechanism::DiscreteLaplace { scale, sensitivity } => {
                above_zero("the scale", *scale).and(whole(*sensitivity))
            }
            Mechanism::DiscreteGaussian { sigma, sensitivity } => above_zero("sigma", *sigma).and(whole(*sensitivity)),
            Mechanism::Skellam { variance, sensitivity } => {
                above_zero("the variance", *variance).and(whole(*sensitivity))
            }
            Mechanism::Distributed(_) => Ok(()),
            Mechanism::Outcomes(pairs) => {
                let good = pairs.iter().all(|(p, q)| *p >= 0.0 && *q >= 0.0);
                let sums = pairs.iter().fold((0.0, 0.0), |sum, (p, q)| (sum.0 + p, sum.1 + q));
                // Rounding of some million terms.
                let off = (sums.0 - 1.0f64).abs().max((sums.1 - 1.0f64).abs());
                let what = "the probabilities of outcomes";
                let expected = "none below 0, and sums of 1";
                if good && off < 1e-9 { Ok(()) } else { Err(AccountError::Range { what, expected, got: sums.0 }) }
            }
        }
    }

    /// Is this a Gaussian of which everybody is part? They compose to one.
    fn plain_gaussian(&self) -> Option<f64> {
        match self.mechanism {
            Mechanism::Gaussian { noise_multiplier } if self.sampling.rate() == 1.0 => {
                Some(self.count as f64 / (noise_multiplier * noise_multiplier))
            }
            _ => None,
        }
    }

    /// The Rényi divergence of one release.
    fn rdp(&self, orders: &[f64]) -> Vec<f64> {
        let (q, sampled) = (self.sampling.rate(), self.sampling.rate() < 1.0);
        if let (Mechanism::Gaussian { noise_multiplier }, Sampling::Fixed { .. }, true) =
            (&self.mechanism, self.sampling, sampled)
        {
            let fixed = rdp::FixedGaussian::new(*noise_multiplier);
            return orders.iter().map(|&order| fixed.rdp(q, order)).collect();
        }
        if let (Mechanism::Gaussian { noise_multiplier }, true) = (&self.mechanism, sampled) {
            return orders.iter().map(|&order| rdp::poisson_gaussian(q, *noise_multiplier, order)).collect();
        }
        // Outcomes that can be told apart for sure, or not symmetric: the divergence itself, of both directions.
        if let Mechanism::Outcomes(_) | Mechanism::DiscreteLaplace { .. } = self.mechanism {
            let outcomes = pair::outcomes(&self.mechanism).unwrap_or_default();
            let divergence = |order: f64, q: f64| rdp::both_divergences(&outcomes, q, order);
            return orders
                .iter()
                .map(|&order| match self.sampling {
                    Sampling::Fixed { .. } if sampled => rdp::fixed_sampled(q, order, |order| divergence(order, 1.0)),
                    _ => divergence(order, q),
                })
                .collect();
        }
        let one = |order: f64| match &self.mechanism {
            Mechanism::Gaussian { noise_multiplier } => rdp::gaussian(*noise_multiplier, order),
            Mechanism::Laplace { scale } => rdp::laplace(1.0 / scale, order),
            Mechanism::DiscreteGaussian { sigma, sensitivity } => {
                rdp::discrete_gaussian(*sigma, f64::from(*sensitivity), order)
            }
            Mechanism::Skellam { variance, sensitivity } => {
                let sensitivity = f64::from(*sensitivity);
                rdp::skellam(*variance, sensitivity, sensitivity, order)
            }
            Mechanism::Distributed(release) => release.rdp(order),
            Mechanism::DiscreteLaplace { .. } | Mechanism::Outcomes(_) => f64::INFINITY,
        };
        orders
            .iter()
            .map(|&order| match self.sampling {
                _ if !sampled => one(order),
                // Sampling never costs: a mixture is no farther than its parts.
                Sampling::Poisson { .. } => rdp::poisson_sampled(q, order, one).min(one(order)),
                Sampling::Fixed { .. } => rdp::fixed_sampled(q, order, one).min(one(order)),
            })
            .collect()
    }
}

/// Releases that all saw the same data, in any order, each chosen in the light of those before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Composition {
    losses: Vec<Loss>,
}

impl Composition {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `loss.count` releases; the same as a loss that is here already are counted together. A count of 0 is nothing.
    pub fn add(&mut self, loss: Loss) -> Result<(), AccountError> {
        loss.check()?;
        if loss.count == 0 {
            return Ok(());
        }
        let same = |other: &&mut Loss| other.mechanism == loss.mechanism && other.sampling == loss.sampling;
        match self.losses.iter_mut().find(same) {
            Some(other) => other.count = other.count.saturating_add(loss.count),
            None => self.losses.push(loss),
        }
        Ok(())
    }

    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// The smallest ε ≥ 0 that the method can show for `delta`, from 10^-15 to below 1.
    pub fn epsilon(&self, delta: f64, method: Method) -> Result<f64, AccountError> {
        if !(DELTA_LEAST..1.0).contains(&delta) {
            return Err(AccountError::Range { what: "delta", expected: "at least 1e-15 and below 1", got: delta });
        }
        let poisson = |loss: &&Loss| matches!(loss.sampling, Sampling::Poisson { rate } if rate < 1.0);
        if method.adjacency == Adjacency::ReplaceOne && self.losses.iter().any(|loss| poisson(&loss)) {
            // A replaced record is in both samples or in neither; no proven pair or Rényi bound of that is implemented.
            return Err(AccountError::Impossible {
                what: "Poisson sampling under replacing one record",
                expected: "adjacency add-remove, or a sample of fixed size",
                got: "replace-one",
            });
        }
        if self.losses.is_empty() {
            return Ok(0.0);
        }
        match method.accountant {
            Accountant::Rdp => self.epsilon_rdp(delta),
            Accountant::Pld => self.epsilon_pld(delta, method.discrete),
        }
    }

    fn epsilon_rdp(&self, delta: f64) -> Result<f64, AccountError> {
        let orders = rdp::orders();
        let mut sums = vec![0.0; orders.len()];
        for loss in &self.losses {
            let one = loss.rdp(&orders);
            sums.iter_mut().zip(one).for_each(|(sum, one)| *sum += loss.count as f64 * one);
        }
        let rdp: Vec<(f64, f64)> = orders.into_iter().zip(sums).collect();
        let epsilon = rdp::epsilon(&rdp, delta);
        if epsilon.is_finite() { Ok(epsilon) } else { Err(AccountError::NoEpsilon { delta }) }
    }

    fn epsilon_pld(&self, delta: f64, discrete: Discretisation) -> Result<f64, AccountError> {
        let (mut losses, mut apart) = (Vec::new(), 0.0);
        for loss in &self.losses {
            let (loss, one) = loss.with_gaussians()?;
            apart += loss.count as f64 * one;
            losses.push(loss);
        }
        let epsilon = epsilon_of_losses(&losses, delta * (-apart).exp(), discrete)?;
        Ok(epsilon + 2.0 * apart)
    }
}

/// The ε of losses none of which is a distributed mechanism's.
fn epsilon_of_losses(losses: &[Loss], delta: f64, discrete: Discretisation) -> Result<f64, AccountError> {
    // All Gaussians without sampling are one Gaussian; if there is nothing else, exactly.
    let gaussian: f64 = losses.iter().filter_map(Loss::plain_gaussian).sum();
    let others: Vec<&Loss> = losses.iter().filter(|loss| loss.plain_gaussian().is_none()).collect();
    if others.is_empty() {
        return Ok(gaussian::epsilon(gaussian.sqrt(), delta));
    }
    others.iter().try_for_each(|loss| loss.fits_pld())?;
    let joined = Mechanism::Gaussian { noise_multiplier: gaussian.sqrt().recip() };
    let (mut grid, mut discrete) = (GRID, discrete);
    loop {
        let term = |mechanism: &Mechanism, sampling, count| pair::term(mechanism, sampling, count, grid, discrete);
        let joined = (gaussian > 0.0).then(|| term(&joined, Sampling::ALL, 1)).flatten();
        let others = others.iter().filter_map(|loss| term(&loss.mechanism, loss.sampling, loss.count));
        let terms: Vec<pld::Term> = joined.into_iter().chain(others).collect();
        if pld::fits(pld::length(&terms, delta)) {
            return pld::epsilon(&terms, delta).ok_or(AccountError::NoEpsilon { delta });
        }
        // Losses that reach over more than 400 do not need such a fine grid, but a coarser one must not round up.
        (grid, discrete) = (2.0 * grid, Discretisation::Dots);
        if grid > 1e4 {
            return Err(AccountError::NoEpsilon { delta });
        }
    }
}

#[cfg(test)]
impl Composition {
    fn of(losses: impl IntoIterator<Item = Loss>) -> Self {
        let mut all = Self::new();
        losses.into_iter().for_each(|loss| all.add(loss).unwrap());
        all
    }
}

impl Loss {
    /// For a distributed mechanism the Gaussian behind it, and how far one release is from that.
    fn with_gaussians(&self) -> Result<(Self, f64), AccountError> {
        let Mechanism::Distributed(release) = &self.mechanism else { return Ok((self.clone(), 0.0)) };
        match release.near_gaussian().filter(|near| near.apart * (self.count as f64) < 0.1) {
            Some(near) => {
                let mechanism = Mechanism::Gaussian { noise_multiplier: near.noise_multiplier };
                Ok((Self { mechanism, ..*self }, near.apart))
            }
            None => Err(AccountError::Impossible {
                what: "privacy loss distributions of vectors",
                expected: "accountant rdp for Skellam noise and for shares of noise below a few steps of the ring",
                got: "pld",
            }),
        }
    }

    fn fits_pld(&self) -> Result<(), AccountError> {
        let width = match &self.mechanism {
            Mechanism::Distributed(_) => 0.0,
            Mechanism::Gaussian { noise_multiplier } => 20.0 / (noise_multiplier * GRID),
            Mechanism::Laplace { scale } => 2.0 / (scale * GRID),
            Mechanism::DiscreteGaussian { sigma, sensitivity } => 24.0 * sigma + f64::from(*sensitivity),
            Mechanism::Skellam { variance, sensitivity } => 24.0 * variance.sqrt() + f64::from(*sensitivity),
            Mechanism::DiscreteLaplace { sensitivity, .. } => f64::from(*sensitivity),
            Mechanism::Outcomes(pairs) => pairs.len() as f64,
        };
        let what = "the width of a privacy loss distribution";
        let expected = "at most 2^22 outcomes or grid points (accountant rdp has no such limit)";
        if width <= pair::OUTCOMES_MAX { Ok(()) } else { Err(AccountError::Range { what, expected, got: width }) }
    }
}
