//! The discrete Gaussian N_ℤ(0, σ²): p(x) ∝ exp(-x² / 2σ²) on the integers, for rational σ².
//!
//! Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy" (arXiv:2004.00010), definition 1.
//! Its variance is at most σ² (corollary 9), and hardly less from σ = 1 on; adding it gives Δ² / 2σ² concentrated differential
//! privacy (theorem 4). It is sampled exactly, by [`cells`](super::cells) instead of the paper's loops, which stand in
//! [`cks`](super::cks) and have the same law.
//!
//! The sum of two is not of the family: see [`account::distributed`](crate::account::distributed) for what that costs.
//! Not protected: how long a draw takes depends a little on what is drawn.

use super::bits::Bits;
use super::cells::{Cells, Law, Of};
use super::exp::{Exp, enclose_neg};
use super::fixed::Fixed;
use super::ratio::{NoiseError, Ratio};
use rand_core::CryptoRng;

/// A sampler of N_ℤ(0, σ²). Making one takes a fraction of a millisecond; keep it.
#[derive(Clone, Debug)]
pub struct DiscreteGaussian {
    variance: Ratio,
    cells: Cells<Bell>,
}

impl DiscreteGaussian {
    /// σ² as a fraction; from 2^-24 to 2^52.
    pub fn new(variance: Ratio) -> Result<Self, NoiseError> {
        Ok(Self { variance, cells: Cells::new(Bell::new(variance)) })
    }

    /// The parameter σ², not less than the variance.
    pub fn variance(&self) -> Ratio {
        self.variance
    }
}

super::bulk!(DiscreteGaussian);

impl DiscreteGaussian {
    #[inline]
    fn draw<R: CryptoRng>(&self, bits: &mut Bits<'_, R>) -> i64 {
        self.cells.sample(bits)
    }
}

/// ρ(x) = exp(-x² d / 2n) for σ² = n / d.
#[derive(Clone, Debug)]
pub(super) struct Bell {
    exp: Exp,
    numerator: u64,
    denominator: u64,
}

impl Bell {
    pub(super) fn new(variance: Ratio) -> Self {
        Self { exp: Exp::new(), numerator: variance.numerator(), denominator: variance.denominator() }
    }

    /// The exponent as a fraction: a step goes from x² to (|x| + 1)². |x| is below 2^33, so nothing overflows.
    fn exponent(&self, of: Of) -> (u128, u64) {
        let squares = match of {
            Of::Mass(x) => u128::from(x.unsigned_abs()).pow(2),
            Of::Step { x, .. } => 2 * u128::from(x.unsigned_abs()) + 1,
        };
        (squares * u128::from(self.denominator), 2 * self.numerator)
    }
}

impl Law for Bell {
    fn bounds(&self, of: Of) -> (u64, u64) {
        let (a, b) = self.exponent(of);
        self.exp.neg_ratio(a, b)
    }

    fn enclose(&self, of: Of, places: usize) -> (Fixed, Fixed) {
        let (a, b) = self.exponent(of);
        enclose_neg(a, b, places)
    }

    fn width(&self) -> u64 {
        (self.numerator / self.denominator).isqrt()
    }

    fn least(&self) -> i64 {
        i64::MIN
    }
}
