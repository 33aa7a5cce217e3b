//! What accountants need of special functions, on `libm`'s, which have the same bits everywhere.

use std::f64::consts::{LN_2, PI, SQRT_2};

/// Φ(x), the normal law's mass below x; its relative error stays small however far down.
pub(super) fn normal_below(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// ln Φ(x).
pub(super) fn ln_normal_below(x: f64) -> f64 {
    ln_erfc(-x / SQRT_2) - LN_2
}

/// ln erfc(x). Far out erfc(x) = exp(-x²) / (x √π) · Σ (-1)^n (2n-1)!! / (2x²)^n: at x ≥ 10 eight terms leave 10^-16.
pub(super) fn ln_erfc(x: f64) -> f64 {
    if x < 10.0 {
        return libm::erfc(x).ln();
    }
    let step = 1.0 / (2.0 * x * x);
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..12 {
        term *= -f64::from(2 * n - 1) * step;
        sum += term;
    }
    -x * x - x.ln() - 0.5 * PI.ln() + sum.ln()
}

/// ln |n! / (k! (n - k)!)| for real n.
pub(super) fn ln_binomial(n: f64, k: f64) -> f64 {
    libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0)
}

/// ln(e^a + e^b).
pub(super) fn ln_add(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    if small == f64::NEG_INFINITY { large } else { large + (small - large).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_go_on_where_floats_end() {
        // Values of mpmath to 17 digits.
        for (x, value) in [
            (0.0, 0.0),
            (9.99, -102.678_998_297_768_33),
            (10.01, -103.080_978_780_732_03),
            (40.0, -1_604.261_556_653_273_6),
        ] {
            let close: f64 = ln_erfc(x);
            assert!((close - value).abs() <= 1e-13 * value.abs(), "{x}: {close}");
        }
        assert!((ln_binomial(10.0, 3.0) - 120f64.ln()).abs() < 1e-14);
        assert_eq!(ln_add(f64::NEG_INFINITY, 1.5), 1.5);
    }
}
