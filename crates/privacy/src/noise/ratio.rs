//! Rational parameters: a law that is sampled exactly has exact parameters.

use thiserror::Error;

/// `numerator / denominator`, above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ratio {
    numerator: u64,
    denominator: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum NoiseError {
    #[error("{what} is a number from {least} to {most}, got {got}")]
    Range { what: &'static str, least: f64, most: f64, got: f64 },
    #[error("{what} is a fraction of whole numbers from 1 to {numerator_max} over 1 to {denominator_max}, got {got:?}")]
    Fraction { what: &'static str, numerator_max: u64, denominator_max: u64, got: (u64, u64) },
}

pub(super) const DENOMINATOR_MAX: u64 = 1 << 24;
/// Variances and means are at most this.
pub(super) const VARIANCE_MAX: u64 = 1 << 52;
const LEAST: f64 = 1.0 / DENOMINATOR_MAX as f64;

impl Ratio {
    pub fn new(numerator: u64, denominator: u64) -> Result<Self, NoiseError> {
        let refused = NoiseError::Fraction {
            what: "a parameter of noise",
            numerator_max: 1 << 61,
            denominator_max: DENOMINATOR_MAX,
            got: (numerator, denominator),
        };
        let good = (1..=1 << 61).contains(&numerator)
            && (1..=DENOMINATOR_MAX).contains(&denominator)
            && numerator / denominator < VARIANCE_MAX;
        if good { Ok(Self { numerator, denominator }) } else { Err(refused) }
    }

    /// The smallest fraction with a denominator that is a power of two, at most 2^24 and such that the numerator is below
    /// 2^53, that is at least `value`: noise is never smaller than was asked for, and larger by at most 2^-24 or 2^-52 of
    /// itself. `value` is from 2^-24 to 2^52.
    pub fn at_least(value: f64) -> Result<Self, NoiseError> {
        let most = VARIANCE_MAX as f64 / 2.0;
        if !(LEAST..=most).contains(&value) {
            return Err(NoiseError::Range { what: "a parameter of noise", least: LEAST, most, got: value });
        }
        let mut denominator = DENOMINATOR_MAX;
        while value * denominator as f64 >= (1u64 << 53) as f64 {
            denominator /= 2;
        }
        // Exact: a power of two times a float, below 2^53.
        Self::new((value * denominator as f64).ceil() as u64, denominator)
    }

    pub fn numerator(self) -> u64 {
        self.numerator
    }

    pub fn denominator(self) -> u64 {
        self.denominator
    }

    /// The nearest float or a neighbour of it: for accounts and messages, never for sampling.
    pub fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// Half of it.
    pub(super) fn half(self) -> (u64, u64) {
        if self.numerator.is_multiple_of(2) {
            (self.numerator / 2, self.denominator)
        } else {
            (self.numerator, 2 * self.denominator)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_up_and_small() {
        for value in [0.25, 1.0 / 3.0, 2.0, 1e-6, 1e12, 1234.567, 2e15] {
            let ratio = Ratio::at_least(value).unwrap();
            assert!(
                ratio.to_f64() >= value && ratio.to_f64() <= value * (1.0 + 1e-15) + 1.0 / (1 << 24) as f64,
                "{value}"
            );
        }
        assert_eq!(Ratio::at_least(0.25).unwrap().to_f64(), 0.25);
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e17] {
            assert!(Ratio::at_least(bad).is_err(), "{bad}");
        }
        assert!(Ratio::new(0, 1).is_err() && Ratio::new(1, 0).is_err() && Ratio::new(1 << 62, 1 << 10).is_err());
    }
}
