//! Unsigned fixed-point numbers of any precision, for the comparisons that machine words leave open.
//!
//! Rounding is always down, and whoever uses a result says by how many units of the last place (ulp) it may be wrong.
//! Plain schoolbook arithmetic: it runs about once in 2^50 samples, so it is written to be read.

use std::cmp::Ordering;

/// A number in [0, 2^64) with `places()` limbs of 64 bits behind the point; the least significant limb comes first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fixed(Vec<u64>);

impl Fixed {
    pub fn one(places: usize) -> Self {
        let mut limbs = vec![0; places + 1];
        limbs[places] = 1;
        Self(limbs)
    }

    /// A fraction from its limbs, the most significant first.
    pub fn fraction(limbs: &[u64]) -> Self {
        Self(limbs.iter().rev().copied().chain([0]).collect())
    }

    /// ⌊a / b⌋ to `places` limbs; `a / b` is below 2^64.
    pub fn ratio(a: u128, b: u64, places: usize) -> Self {
        let b = u128::from(b);
        let mut limbs = vec![0; places + 1];
        let mut rest = a % b;
        limbs[places] = (a / b) as u64;
        for limb in limbs[..places].iter_mut().rev() {
            let dividend = rest << 64;
            (*limb, rest) = ((dividend / b) as u64, dividend % b);
        }
        Self(limbs)
    }

    pub fn places(&self) -> usize {
        self.0.len() - 1
    }

    fn integer(&self) -> u64 {
        self.0[self.places()]
    }

    fn is_zero(&self) -> bool {
        self.0.iter().all(|&limb| limb == 0)
    }

    pub fn times(&mut self, factor: u64) {
        let mut carry = 0;
        for limb in &mut self.0 {
            let wide = u128::from(*limb) * u128::from(factor) + carry;
            (*limb, carry) = (wide as u64, wide >> 64);
        }
        debug_assert_eq!(carry, 0, "a fixed-point number overflowed");
    }

    /// Rounds down: 1 ulp.
    pub fn over(&mut self, divisor: u64) {
        let mut rest = 0u128;
        for limb in self.0.iter_mut().rev() {
            let dividend = rest << 64 | u128::from(*limb);
            (*limb, rest) = ((dividend / u128::from(divisor)) as u64, dividend % u128::from(divisor));
        }
    }

    pub fn add_ulp(&mut self) {
        for limb in &mut self.0 {
            let (sum, carry) = limb.overflowing_add(1);
            *limb = sum;
            if !carry {
                break;
            }
        }
    }

    fn plus(&mut self, other: &Self) {
        let mut carry = false;
        for (a, &b) in self.0.iter_mut().zip(&other.0) {
            let (sum, first) = a.overflowing_add(b);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*a, carry) = (sum, first || second);
        }
    }

    fn minus(&mut self, other: &Self) {
        let mut borrow = false;
        for (a, &b) in self.0.iter_mut().zip(&other.0) {
            let (difference, first) = a.overflowing_sub(b);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            (*a, borrow) = (difference, first || second);
        }
        debug_assert!(!borrow, "a fixed-point number went below zero");
    }

    /// Rounds down: 1 ulp.
    fn product(&self, other: &Self) -> Self {
        let mut wide = vec![0u64; self.0.len() + other.0.len()];
        for (i, &a) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (j, &b) in other.0.iter().enumerate() {
                let sum = u128::from(a) * u128::from(b) + u128::from(wide[i + j]) + carry;
                (wide[i + j], carry) = (sum as u64, sum >> 64);
            }
            wide[i + other.0.len()] = carry as u64;
        }
        Self(wide[self.places()..][..self.0.len()].to_vec())
    }

    /// What encloses the true value of a number that is wrong by less than 2^63 ulp: its last limb is dropped, then 1 ulp
    /// is taken off and 2 are added.
    pub fn enclosure(mut self) -> (Self, Self) {
        self.0.remove(0);
        let places = self.places();
        let ulps = |n| Self(std::iter::once(n).chain(std::iter::repeat_n(0, places)).collect());
        let mut low = self.clone();
        if low.compare(&ulps(1)) == Ordering::Less {
            low = ulps(0);
        } else {
            low.minus(&ulps(1));
        }
        self.plus(&ulps(2));
        (low, self)
    }

    pub fn compare(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }

    /// ⌊x · 2^bits⌋ for x in [0, 1], `bits` at most 63.
    pub fn top(&self, bits: u32) -> u64 {
        (self.integer() << bits) | (self.0[self.places() - 1] >> (64 - bits))
    }

    /// exp(-x), wrong by less than 2^30 ulp for x below 2^8 and at most 100 places.
    ///
    /// x is halved k times until it is below 1/2, the series gives exp(-x / 2^k), and k squarings bring it back. A term is
    /// wrong by at most 2 ulp and there are at most 64 per place; a squaring doubles the error and adds 1 ulp; k is at
    /// most 9: 2^9 (2 · 64 · 100 + 4) < 2^30.
    pub fn exp_neg(&self) -> Self {
        let halvings = 65 - self.integer().leading_zeros();
        let mut x = self.clone();
        x.over(1 << halvings);
        let (mut even, mut odd) = (Self::one(self.places()), Self::one(self.places()));
        odd.minus(&Self::one(self.places()));
        let mut term = even.clone();
        for j in 1.. {
            term = term.product(&x);
            term.over(j);
            if term.is_zero() {
                break;
            }
            if j % 2 == 0 { even.plus(&term) } else { odd.plus(&term) }
        }
        even.minus(&odd);
        for _ in 0..halvings {
            even = even.product(&even);
        }
        even
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_has_the_digits_of_e() {
        let e = Fixed::ratio(1, 1, 4).exp_neg();
        // e^-1 · e^-2 = e^-3 and (e^-1/2)^2 = e^-1, up to the stated error.
        let half = Fixed::ratio(1, 2, 4).exp_neg();
        let close = |a: &Fixed, b: &Fixed| {
            let (low, high) = a.clone().enclosure();
            let b = Fixed(b.0[1..].to_vec());
            assert!(low.compare(&b) != Ordering::Greater && high.compare(&b) == Ordering::Greater, "{a:?} {b:?}");
        };
        close(&half.product(&half), &e);
        close(&Fixed::ratio(3, 1, 4).exp_neg(), &e.product(&Fixed::ratio(2, 1, 4).exp_neg()));
        close(
            &Fixed::ratio(200, 1, 4).exp_neg(),
            &Fixed::ratio(100, 1, 4).exp_neg().product(&Fixed::ratio(100, 1, 4).exp_neg()),
        );
        // ⌊2^63 / e⌋, from the digits of 1/e, OEIS A068985.
        assert_eq!(e.top(63), 3_393_088_950_634_442_637);
    }

    #[test]
    fn ratios_round_down() {
        let third = Fixed::ratio(1, 3, 2);
        assert_eq!(third.0, [0x5555_5555_5555_5555, 0x5555_5555_5555_5555, 0]);
        let mut seven = Fixed::ratio(22, 7, 1);
        assert_eq!(seven.integer(), 3);
        seven.times(7);
        assert_eq!(seven.0, [u64::MAX - 1, 21]);
    }
}
