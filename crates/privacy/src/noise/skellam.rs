//! Skellam noise: the difference of two independent Poisson(μ), of mean 0 and variance 2μ, for rational variance.
//!
//! Agarwal, Kairouz and Liu 2021, "The Skellam Mechanism for Differentially Private Federated Learning" (arXiv:2110.04995).
//! Closed under sums: of n devices each adds Skellam noise of variance v, together they added Skellam noise of variance n v.
//! Exact, as [`poisson`](super::poisson) is.

use super::bits::Bits;
use super::poisson::Poisson;
use super::ratio::{NoiseError, Ratio};
use rand_core::CryptoRng;

/// A sampler of Skellam noise.
#[derive(Clone, Debug)]
pub struct Skellam {
    variance: Ratio,
    poisson: Poisson,
}

impl Skellam {
    /// The variance 2μ as a fraction; from 2^-24 to 2^52.
    pub fn new(variance: Ratio) -> Result<Self, NoiseError> {
        let (numerator, denominator) = variance.half();
        Ok(Self { variance, poisson: Poisson::new(numerator, denominator) })
    }

    pub fn variance(&self) -> Ratio {
        self.variance
    }
}

super::bulk!(Skellam);

impl Skellam {
    #[inline]
    fn draw<R: CryptoRng>(&self, bits: &mut Bits<'_, R>) -> i64 {
        self.poisson.sample(bits) - self.poisson.sample(bits)
    }
}
