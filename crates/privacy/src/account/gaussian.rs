//! The Gaussian mechanism, exactly: Balle and Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy"
//! (arXiv:1805.06530), theorem 8. With μ = sensitivity / standard deviation,
//!
//! δ(ε) = Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ).
//!
//! Releases with μ₁, μ₂, … compose to one with μ² = Σ μᵢ² (Dong, Roth and Su 2022, "Gaussian differential privacy", corollary 2),
//! which is exact too.

use super::special::ln_normal_below;

/// The δ of μ at ε.
pub fn delta(mu: f64, epsilon: f64) -> f64 {
    let upper = ln_normal_below(mu / 2.0 - epsilon / mu);
    let lower = epsilon + ln_normal_below(-mu / 2.0 - epsilon / mu);
    upper.exp() * -(lower - upper).min(0.0).exp_m1()
}

/// The smallest ε ≥ 0 (rounded up by less than 10^-14 of itself) at which δ(ε) ≤ `delta`, for 0 < `delta` < 1.
pub fn epsilon(mu: f64, target: f64) -> f64 {
    if delta(mu, 0.0) <= target {
        return 0.0;
    }
    // ε = μ²/2 + μ t has δ below Φ(-t); Φ(-40) < 10^-349.
    let (mut low, mut high) = (0.0, mu * mu / 2.0 + 40.0 * mu);
    while high - low > 1e-15 * high {
        let middle = (low + high) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if delta(mu, middle) > target { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values_come_out() {
        // μ, δ, ε by scipy from Balle and Wang's formula.
        for (mu, target, wanted) in [
            (1.0, 1e-5, 4.377_178_096),
            (0.5, 1e-5, 1.993_091_404),
            (10f64.sqrt() / 4.0, 1e-5, 3.341_409_469),
            (1.0, 1e-6, 4.886_554_117),
            (10.0 / 0.6, 1e-5, 209.080_653_263_708_34),
        ] {
            let found = epsilon(mu, target);
            assert!((found - wanted).abs() < 1e-9 * wanted.max(1.0), "{mu} {target}: {found}");
            assert!(delta(mu, found) <= target);
        }
        assert_eq!(epsilon(1e-6, 1e-5), 0.0);
    }
}
