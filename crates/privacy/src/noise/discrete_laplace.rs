//! The discrete Laplace law: p(x) ∝ exp(-|x| / b) on the integers, for rational b.
//!
//! Ghosh, Roughgarden and Sundararajan 2009, "Universally utility-maximizing privacy mechanisms" (there: the two-sided
//! geometric); Canonne, Kamath and Steinke 2020 (arXiv:2004.00010), algorithm 2, whose loops stand in [`cks`](super::cks).
//! With sensitivity Δ it gives pure (Δ / b)-differential privacy: Laplace's mechanism without its floats. The variance is
//! 2 e^(1/b) / (e^(1/b) - 1)², about 2 b² - 1/6.

use super::bits::Bits;
use super::cells::{Cells, Law, Of};
use super::exp::{Exp, enclose_neg};
use super::fixed::Fixed;
use super::ratio::{NoiseError, Ratio};
use rand_core::CryptoRng;

/// A sampler of the discrete Laplace law.
#[derive(Clone, Debug)]
pub struct DiscreteLaplace {
    scale: Ratio,
    cells: Cells<Peak>,
}

impl DiscreteLaplace {
    /// The scale b; at most 2^26.
    pub fn new(scale: Ratio) -> Result<Self, NoiseError> {
        let most = (1u64 << 26) as f64;
        if scale.to_f64() > most {
            return Err(NoiseError::Range { what: "a Laplace scale", least: 0.0, most, got: scale.to_f64() });
        }
        let peak = Peak { exp: Exp::new(), numerator: scale.numerator(), denominator: scale.denominator() };
        Ok(Self { scale, cells: Cells::new(peak) })
    }

    pub fn scale(&self) -> Ratio {
        self.scale
    }
}

super::bulk!(DiscreteLaplace);

impl DiscreteLaplace {
    #[inline]
    fn draw<R: CryptoRng>(&self, bits: &mut Bits<'_, R>) -> i64 {
        self.cells.sample(bits)
    }
}

/// ρ(x) = exp(-|x| d / n) for b = n / d.
#[derive(Clone, Debug)]
struct Peak {
    exp: Exp,
    numerator: u64,
    denominator: u64,
}

impl Peak {
    fn exponent(&self, of: Of) -> (u128, u64) {
        let steps = match of {
            Of::Mass(x) => x.unsigned_abs(),
            Of::Step { .. } => 1,
        };
        (u128::from(steps) * u128::from(self.denominator), self.numerator)
    }
}

impl Law for Peak {
    fn bounds(&self, of: Of) -> (u64, u64) {
        let (a, b) = self.exponent(of);
        self.exp.neg_ratio(a, b)
    }

    fn enclose(&self, of: Of, places: usize) -> (Fixed, Fixed) {
        let (a, b) = self.exponent(of);
        enclose_neg(a, b, places)
    }

    fn width(&self) -> u64 {
        self.numerator / self.denominator
    }

    fn least(&self) -> i64 {
        i64::MIN
    }
}
