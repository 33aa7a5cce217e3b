//! Rényi differential privacy on a grid of orders: Mironov 2017, "Rényi differential privacy" (arXiv:1702.07476).
//!
//! - The Poisson-sampled Gaussian: Mironov, Talwar and Zhang 2019, "Rényi differential privacy of the sampled Gaussian
//!   mechanism" (arXiv:1908.10530), sections 3.3: a sum at whole orders, two series at others.
//! - A Gaussian over a sample of fixed size: Wang, Balle and Kasiviswanathan 2019, "Subsampled Rényi differential privacy and analytical
//!   moments accountant" (arXiv:1808.00087), theorem 27; between whole orders corollary 10. Neighbours differ by replacing one.
//! - Other symmetric additive noise: see [`poisson_sampled`] and [`fixed_sampled`].
//! - To (ε, δ): Canonne, Kamath and Steinke 2020 (arXiv:2004.00010), proposition 12.
//!
//! Orders and conversion are those of Google's dp-accounting, so its figures are met; where its series does not converge in a
//! thousand terms, that order is left out, as there. A bound holds whatever the grid; a finer grid could only lower it.

use super::special::{ln_add, ln_binomial, ln_erfc};
use std::f64::consts::{LN_2, SQRT_2};

/// 1.1, 1.2, …, 10.9, 11, 12, …, 63, 128, 256, 512, 1024.
pub(super) fn orders() -> Vec<f64> {
    let fine = (1..100).map(|i| 1.0 + f64::from(i) / 10.0);
    fine.chain((11..64).map(f64::from)).chain([128.0, 256.0, 512.0, 1024.0]).collect()
}

/// The smallest ε ≥ 0 that the orders give for `delta`: proposition 12, and ε = 0 where the Kullback-Leibler divergence alone
/// bounds the total variation by δ (Bretagnolle and Huber 1979).
pub(super) fn epsilon(rdp: &[(f64, f64)], delta: f64) -> f64 {
    let at = |&(order, rho): &(f64, f64)| {
        if delta * delta + (-rho).exp_m1() > 0.0 {
            0.0
        } else {
            rho + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
        }
    };
    rdp.iter().map(at).fold(f64::INFINITY, f64::min).max(0.0)
}

/// The Gaussian at noise multiplier z: α / 2z² (proposition 7).
pub(super) fn gaussian(z: f64, order: f64) -> f64 {
    order / (2.0 * z * z)
}

/// Laplace noise of scale b = 1 / `pure` over a sensitivity of 1 (proposition 6). Discrete Laplace noise has no more.
pub(super) fn laplace(pure: f64, order: f64) -> f64 {
    let inner = (order - 1.0) * (pure * (1.0 - 2.0 * order)).exp_m1() / (2.0 * order - 1.0);
    pure + inner.ln_1p() / (order - 1.0)
}

/// The discrete Gaussian: Δ² / 2σ² concentrated, so α Δ² / 2σ² (Canonne et al. 2020, theorem 4).
pub(super) fn discrete_gaussian(sigma: f64, sensitivity: f64, order: f64) -> f64 {
    order * sensitivity * sensitivity / (2.0 * sigma * sigma)
}

/// Skellam noise of variance v in each coordinate: Agarwal, Kairouz and Liu 2021 (arXiv:2110.04995), theorem 3.5.
pub(super) fn skellam(variance: f64, l1: f64, l2: f64, order: f64) -> f64 {
    let v = variance;
    let small = ((2.0 * order - 1.0) * l2 * l2 + 6.0 * l1) / (4.0 * v * v);
    order * l2 * l2 / (2.0 * v) + small.min(3.0 * l1 / (2.0 * v))
}

/// The Poisson-sampled Gaussian, for 0 < q < 1; ∞ where the series does not converge.
pub(super) fn poisson_gaussian(q: f64, z: f64, order: f64) -> f64 {
    if order.fract() == 0.0 { poisson_gaussian_whole(q, z, order) } else { poisson_gaussian_between(q, z, order) }
}

fn poisson_gaussian_whole(q: f64, z: f64, order: f64) -> f64 {
    poisson_sampled(q, order, |j| gaussian(z, j))
}

fn poisson_gaussian_between(q: f64, z: f64, order: f64) -> f64 {
    const TERMS: u32 = 1000;
    let (ln_q, ln_rest) = (q.ln(), (-q).ln_1p());
    let cut = z * z * (1.0 / q - 1.0).ln() + 0.5;
    let quadratic = |i: f64| (i * i - i) / (2.0 * z * z);
    let (mut left, mut right) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let mut last = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for i in 0..TERMS {
        let i = f64::from(i);
        let j = order - i;
        let binomial = ln_binomial(order, i);
        let a = binomial + i * ln_q + j * ln_rest + quadratic(i) + ln_erfc((i - cut) / (SQRT_2 * z)) - LN_2;
        let b = binomial + j * ln_q + i * ln_rest + quadratic(j) + ln_erfc((cut - j) / (SQRT_2 * z)) - LN_2;
        (left, right) = (ln_add(left, a), ln_add(right, b));
        let sum = ln_add(left, right);
        if a < last.0 && b < last.1 && a.max(b) < sum - 30.0 {
            return sum / (order - 1.0);
        }
        last = (a, b);
    }
    f64::INFINITY
}

/// Poisson sampling of any mechanism that adds noise with p(-x) = p(x), one record changing the noised vector by adding
/// a fixed one; `rdp` bounds its divergence at whole orders from 2.
///
/// Removing: the divergence of (1-q) Q + q P from Q at a whole order α is ln Σⱼ C(α,j) (1-q)^(α-j) q^j E_Q[(P/Q)^j] / (α-1),
/// and E_Q[(P/Q)^j] ≤ exp((j-1) rdp(j)): the binomial theorem, nothing else. Adding has no more: x ↦ Δ - x swaps P and Q, and
/// then theorem 5 of Mironov, Talwar and Zhang applies. Between whole orders (α-1) rdp(α) is convex (Wang et al., corollary 10).
pub(super) fn poisson_sampled(q: f64, order: f64, rdp: impl Fn(f64) -> f64) -> f64 {
    let whole = |order: f64| {
        let term = |j: f64| {
            let moment = if j < 2.0 { 0.0 } else { (j - 1.0) * rdp(j) };
            ln_binomial(order, j) + j * q.ln() + (order - j) * (-q).ln_1p() + moment
        };
        (0..=order as u32).map(|j| term(f64::from(j))).fold(f64::NEG_INFINITY, ln_add)
    };
    between(order, whole)
}

/// Interpolates a cumulant (α-1) rdp(α) that is known at whole orders, 0 at 1; gives rdp.
fn between(order: f64, whole: impl Fn(f64) -> f64) -> f64 {
    let part = order.fract();
    let at = |order: f64| if order < 2.0 { 0.0 } else { whole(order) };
    let cumulant = if part == 0.0 { at(order) } else { (1.0 - part) * at(order.floor()) + part * at(order.ceil()) };
    cumulant / (order - 1.0)
}

/// A sample of fixed size, q of all, under replacing one: Wang et al., theorem 9 with ε(∞) = ∞.
pub(super) fn fixed_sampled(q: f64, order: f64, rdp: impl Fn(f64) -> f64) -> f64 {
    fixed(q, order, &rdp, |j| LN_2 + (j - 1.0) * rdp(j))
}

/// The sum that theorems 9 and 27 share: 1 + C(α,2) q² min(4 (e^ε(2) - 1), 2 e^ε(2)) + Σ_{j≥3} C(α,j) q^j e^term(j).
fn fixed(q: f64, order: f64, rdp: &impl Fn(f64) -> f64, term: impl Fn(f64) -> f64) -> f64 {
    let two = rdp(2.0);
    let second = (4f64.ln() + two + (-(-two).exp()).ln_1p()).min(LN_2 + two);
    between(order, |order| {
        let of = |j: u32| {
            let j = f64::from(j);
            ln_binomial(order, j) + j * q.ln() + if j == 2.0 { second } else { term(j) }
        };
        (2..=order as u32).map(of).fold(0.0, ln_add)
    })
}

/// A Gaussian over samples of fixed size: theorem 27's sharper terms, 4 √(B(2⌊j/2⌋) B(2⌈j/2⌉)) with B(l) the l-th forward
/// difference at 0 of x ↦ E(P/Q)^x = exp(x (x-1) / 2z²), up to order 256. Beyond, theorem 9's.
pub(super) struct FixedGaussian {
    z: f64,
    /// ln |B(l)| for l = 0, 1, ….
    differences: Vec<f64>,
}

impl FixedGaussian {
    pub fn new(z: f64) -> Self {
        // Each entry is a sign and ln of a magnitude: the values themselves pass what a float can hold.
        let cumulant = |x: f64| x * (x - 1.0) / (2.0 * z * z);
        let mut row: Vec<(bool, f64)> = (0..=Self::EXACT + 1).map(|x| (true, cumulant(f64::from(x)))).collect();
        let mut differences = Vec::new();
        while row.len() > 1 {
            differences.push(row[0].1);
            row = row.windows(2).map(|pair| signed_minus(pair[1], pair[0])).collect();
        }
        Self { z, differences }
    }

    const EXACT: u32 = 256;

    pub fn rdp(&self, q: f64, order: f64) -> f64 {
        let exact = order.ceil() <= f64::from(Self::EXACT);
        fixed(q, order, &|order| gaussian(self.z, order), |j| {
            let plain = LN_2 + (j - 1.0) * gaussian(self.z, j);
            if !exact {
                return plain;
            }
            let half = j / 2.0;
            let (down, up) = (2 * half.floor() as usize, 2 * half.ceil() as usize);
            plain.min(4f64.ln() + 0.5 * (self.differences[down] + self.differences[up]))
        })
    }
}

/// a - b of two numbers given as (positive, ln magnitude).
fn signed_minus(a: (bool, f64), b: (bool, f64)) -> (bool, f64) {
    if a.0 != b.0 {
        return (a.0, ln_add(a.1, b.1));
    }
    let (large, small) = (a.1.max(b.1), a.1.min(b.1));
    let magnitude = if large == small { f64::NEG_INFINITY } else { large + (-(small - large).exp()).ln_1p() };
    ((a.1 >= b.1) == a.0, magnitude)
}

/// The larger of both directions' Rényi divergences between M = (1-q) Q + q P and Q, for finitely many outcomes (P, Q, ·).
pub(super) fn both_divergences(outcomes: &[(f64, f64, f64)], q: f64, order: f64) -> f64 {
    let divergence = |swap: bool| {
        let term = |&(p, without, _): &(f64, f64, f64)| {
            let with = (1.0 - q) * without + q * p;
            let (upper, lower) = if swap { (without, with) } else { (with, without) };
            if upper == 0.0 { f64::NEG_INFINITY } else { order * upper.ln() + (1.0 - order) * lower.ln() }
        };
        outcomes.iter().map(term).fold(f64::NEG_INFINITY, ln_add) / (order - 1.0)
    };
    // Rounding may leave a hair below 0.
    divergence(false).max(divergence(true)).max(0.0)
}
