//! The Poisson law with a rational mean μ, exactly.
//!
//! Centred at its mode m = ⌊μ⌋: ρ(x) = p(m + x) / p(m) = μ^x m! / (m + x)!, sampled by [`cells`](super::cells).
//! A step is a rational number, (m + x) / μ or its like, so ρ(x) is a product of |x| rationals: to as many digits as are
//! wanted, and exactly in the end. For words and large m the product is too long; there its logarithm comes from Stirling's
//! series, whose remainder is known (Robbins 1955, "A remark on Stirling's formula"): with r = x / m, μ = m (1 + f),
//!
//! -ln ρ(x) = (x² / m) Σ_{i≥0} (-r)^i / ((i+1)(i+2)) + ½ ln(1 + r) + θ(m + x) - θ(m) - x ln(1 + f),
//! θ(k) = 1/12k - 1/360k³ + ε, 0 < ε < 1/1260k⁵.
//!
//! (k ln k - m ln m - x ln m - x = m ((1 + r) ln(1 + r) - r), and that is the series.) Everything is an integer in units of
//! 2^-64, and the sum is wrong by less than 2^-50; see [`Large::exponent`].

use super::bits::Bits;
use super::cells::{Cells, Law, Of, UNIT_BITS};
use super::exp::Exp;
use super::fixed::Fixed;
use rand_core::CryptoRng;

/// A sampler of Poisson(n / d); n ≤ 2^61, d ≤ 2^25, mean at most 2^52.
#[derive(Clone, Debug)]
pub(super) struct Poisson {
    mode: i64,
    cells: Cells<Counts>,
}

impl Poisson {
    pub fn new(numerator: u64, denominator: u64) -> Self {
        let counts = Counts::new(numerator, denominator);
        Self { mode: counts.mode as i64, cells: Cells::new(counts) }
    }

    #[inline]
    pub fn sample<R: CryptoRng>(&self, bits: &mut Bits<'_, R>) -> i64 {
        self.mode + self.cells.sample(bits)
    }
}

/// From this mode on words use Stirling's series. There 6 standard deviations are at most m / 5.
const LARGE: u64 = 1 << 10;

#[derive(Clone, Debug)]
pub(super) struct Counts {
    numerator: u64,
    denominator: u64,
    mode: u64,
    large: Option<Exp>,
}

impl Counts {
    pub(super) fn new(numerator: u64, denominator: u64) -> Self {
        let mode = numerator / denominator;
        Self { numerator, denominator, mode, large: (mode >= LARGE).then(Exp::new) }
    }

    /// A step as a fraction: (m + x) / μ down, μ / (m + x + 1) up.
    fn step(&self, x: i64, up: bool) -> (u64, u64) {
        let count = self.mode.saturating_add_signed(x);
        if up { (self.numerator, self.denominator * (count + 1)) } else { (self.denominator * count, self.numerator) }
    }

    /// -ln ρ(x) in units of 2^-64, wrong by less than 2^-51.
    ///
    /// |r| ≤ 1/4 (five and a half deviations of a mode above 2^10, and a cell), so p = (-r)^i falls below a unit within 32
    /// terms and is wrong by at most 2 units, a term by 3: the two series by less than 2^7 units. The first is multiplied by
    /// x² / m ≤ 64: 2^13 units, and 2^8 more because x² / m itself is in units of 2^-56. θ leaves out ε < 2^-58, twice. x f
    /// is wrong by 1 unit, its products by a few. Together below 2^13 + 2^10 units = 2^-50.8.
    fn exponent(&self, x: i64) -> i128 {
        const ONE: i128 = 1 << 64;
        let (wide, m) = (i128::from(x), i128::from(self.mode));
        let r = (wide << 64) / m;
        let (mut p, mut series, mut log) = (ONE, 0i128, 0i128);
        for i in 0..40 {
            series += p / ((i + 1) * (i + 2));
            p = -(((p >> 1) * r) >> 63);
            if p.unsigned_abs() < 2 {
                break;
            }
            // ln(1 + r) = -Σ (-r)^i / i.
            log -= p / (i + 1);
        }
        let square = ((wide * wide) << 56) / m;
        let first = (square * (series >> 8)) >> 48;
        let (n, d) = (i128::from(self.numerator), i128::from(self.denominator));
        let xf = {
            let product = wide * (n - m * d);
            // |x| < 2^30 and the rest is below d ≤ 2^25: the product fits in 55 bits.
            (product << 64) / (d * m)
        };
        let f = ((n - m * d) << 64) / (d * m);
        // x ln(1 + f) = x f (1 - f/2 + f²/3 - f³/4 + …), f ≤ 2^-10.
        let mut tail = 0i128;
        for j in (1..=7).rev() {
            tail = ONE / j - ((f * (tail >> 1)) >> 63);
        }
        let shift = ((xf >> 1) * (tail >> 1)) >> 62;
        let theta = |k: i128| ONE / (12 * k) - ONE / 360 / k / k / k;
        first + log / 2 + theta(m + wide) - theta(m) - shift
    }
}

/// What [`Counts::exponent`] may be wrong by, in units of 2^-64.
const WRONG: i128 = 1 << 14;

impl Law for Counts {
    fn bounds(&self, of: Of) -> (u64, u64) {
        match (of, &self.large) {
            (Of::Step { x, up }, _) => {
                let (a, b) = self.step(x, up);
                let units = ((u128::from(a) << UNIT_BITS) / u128::from(b)) as u64;
                (units, units + 1)
            }
            (Of::Mass(x), Some(exp)) => {
                let exponent = self.exponent(x);
                let at = |exponent: i128| {
                    let exponent = exponent.max(0);
                    exp.neg((exponent >> 64) as u64, exponent as u64)
                };
                (at(exponent + WRONG).0, at(exponent - WRONG).1)
            }
            (Of::Mass(_), None) => {
                let (low, high) = self.enclose(of, 1);
                (low.top(UNIT_BITS), high.top(UNIT_BITS) + 1)
            }
        }
    }

    /// A product of |x| rationals: three roundings each, so less than 2^32 ulp for |x| < 2^30.
    fn enclose(&self, of: Of, places: usize) -> (Fixed, Fixed) {
        let mut value = Fixed::one(places + 1);
        let mut multiply = |(a, b): (u64, u64)| {
            value.times(a);
            value.over(b);
        };
        match of {
            Of::Step { x, up } => multiply(self.step(x, up)),
            Of::Mass(x) if x >= 0 => (0..x).for_each(|i| multiply(self.step(i, true))),
            Of::Mass(x) => (x + 1..=0).rev().for_each(|i| multiply(self.step(i, false))),
        }
        value.enclosure()
    }

    fn width(&self) -> u64 {
        if self.large.is_some() { self.mode.isqrt() } else { 1 }
    }

    fn least(&self) -> i64 {
        -(self.mode as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The series against the product, across the cells.
    #[test]
    fn stirling_agrees_with_the_product() {
        for (n, d) in [(1024, 1), (5000, 3), (123_456_789, 7), ((1 << 40) + 12345, 1 << 20), (1 << 34, 1)] {
            let counts = Counts { numerator: n, denominator: d, mode: n / d, large: Some(Exp::new()) };
            let deviation = (n as f64 / d as f64).sqrt();
            for part in [-5.6, -3.0, -1.0, -0.2, 0.0, 0.1, 1.0, 2.5, 4.0, 5.6] {
                let x = Of::Mass((part * deviation) as i64);
                let (low, high) = counts.bounds(x);
                let (low_big, high_big) = counts.enclose(x, 2);
                let (low_big, high_big) = (low_big.top(UNIT_BITS), high_big.top(UNIT_BITS));
                assert!(low <= low_big && high_big <= high, "{n}/{d} {x:?}: {low} {low_big} {high_big} {high}");
                // The stated error, of both exponentials: 2 · 2^-50 · 2^54 and their own 6 units.
                assert!(high - low <= 2 * 16 + 6, "{n}/{d} {x:?}: {low} {high}");
            }
        }
    }
}
