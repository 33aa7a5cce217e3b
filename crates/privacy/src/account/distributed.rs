//! Sums over devices, each of which adds its share of the noise: what the noise of each must be, and what the sum then costs.
//!
//! Kairouz, Liu and Steinke 2021, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation"
//! (arXiv:2102.06387), algorithms 1 (device) and 2 (server): scale by s, rotate, round conditionally, add noise, sum modulo
//! 2^bits. With Skellam noise: Agarwal, Kairouz and Liu 2021 (arXiv:2110.04995).
//!
//! - Sensitivity: one device's whole vector, rounded, has an L2 norm of at most Δ₂ of [`round::l2_bound`](crate::round::l2_bound)
//!   (equations 18 and 19) and an L1 norm of at most Δ₁ = Δ₂ · min(√d, Δ₂), its coordinates being whole numbers. A device that
//!   is absent adds the zero vector.
//! - Noise: the worst sum that a viewer sees holds the shares of `min_survivors - colluding` honest devices, for colluders
//!   subtract theirs. On *those* the variance is (z Δ₂)², so each device's share is that over their number.
//! - Sums of discrete Gaussians are not discrete Gaussians. With n shares of variance σ² ≥ 1/4,
//!   τ = 10 Σ_{k<n} exp(-2π² σ² k/(k+1)), and σ̄ = √n σ, the divergence of order α is at most the least of
//!   (α/2) Δ₂²/σ̄² + τ d, (α/2) (Δ₂²/σ̄² + 2 τ Δ₁/σ̄ + τ² d) and (α/2) (Δ₂/σ̄ + √d τ)² (theorem 1 and proposition 14).
//! - Skellam shares add up to Skellam noise: theorem 3.5 of the second paper.
//! - Scale: as large as the ring allows. The sum of all N devices in one coordinate, after a rotation that spreads the energy
//!   over all of them, is sub-Gaussian with variance s² S² N² / d + N/4 + N σ² (section 4.2 of the first paper; sum, rounding,
//!   noise); k of its deviations must fit into half the ring. The paper takes k = 4; here k = √(2 ln(2d / 10^-6)), so that no
//!   coordinate of a round wraps around except with probability 10^-6. Wrapping costs accuracy, never privacy. A rotation
//!   in blocks spreads within blocks: where one block holds more than its share of the energy, wrapping is likelier.
//!
//! - Loss distributions: all discrete Gaussian noise is, as good as exactly, a Gaussian that somebody rounded
//!   ([`Release::near_gaussian`]), so the sum costs what that Gaussian costs.
//!
//! The modulus is not in the account: reducing a sum is post-processing.
//!
//! Not protected: against a viewer who sees less than the sum (a single device's vector before it is masked, or a smaller
//! group), this account says nothing.

use super::rdp;
use crate::noise::Ratio;
use crate::{rotate, round};
use thiserror::Error;

/// The law of a device's share of noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    DiscreteGaussian,
    Skellam,
}

/// What a round is meant to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub noise: Noise,
    /// Devices in the cohort.
    pub clients: u32,
    /// With fewer shares in it no sum is opened.
    pub min_survivors: u32,
    /// Devices that tell the viewer their noise.
    pub colluding: u32,
    /// Coordinates.
    pub dim: u64,
    /// S: the L2 norm of a device's vector of floats is at most this.
    pub clip: f64,
    /// Sums are taken modulo 2^bits.
    pub bits: u32,
    /// β: the share of roundings that are drawn again; above 0 and below 1, or 0 for none.
    pub rounding_beta: f64,
    /// z: the standard deviation of the honest survivors' noise together over the sensitivity.
    pub noise_multiplier: f64,
    /// 1 if neighbours differ by a device that is there or not, 2 if by one that has other data: then two vectors differ.
    pub vectors_changed: u32,
}

/// What follows from a plan, in whole units of the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Release {
    noise: Noise,
    /// s: floats are multiplied by this before they are rounded.
    pub scale: f64,
    /// The bound that rounding keeps for one vector.
    pub l2_rounded: f64,
    /// Δ₂: by how much the sum may change.
    pub l2: f64,
    pub l1: f64,
    /// σ² of each device's share: for the sampler.
    pub share_variance: Ratio,
    /// Shares that are surely in the sum and unknown.
    pub honest: u32,
    pub dim: u64,
    tau: f64,
}

/// A Gaussian that tells as much as a release, but for a hair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearGaussian {
    /// Its standard deviation over the release's L2 sensitivity.
    pub noise_multiplier: f64,
    /// No outcome's probability differs by more than a factor e^apart, up or down, from what rounding that Gaussian gives.
    pub apart: f64,
}

#[derive(Clone, Debug, PartialEq, Error)]
#[error("{what}: {expected} expected, got {got}")]
pub struct PlanError {
    pub what: &'static str,
    pub expected: String,
    pub got: f64,
}

/// The probability with which some coordinate of a round wraps around.
const WRAPS: f64 = 1e-6;

impl Plan {
    fn check(&self) -> Result<(), PlanError> {
        let refuse = |what, expected: String, got| Err(PlanError { what, expected, got });
        if self.clients == 0 {
            return refuse("clients", "at least 1".into(), 0.0);
        }
        if !(1..=self.clients).contains(&self.min_survivors) {
            return refuse("min-survivors", format!("1 to {}, the clients", self.clients), self.min_survivors.into());
        }
        if self.colluding >= self.min_survivors {
            let expected = format!("fewer than the {} survivors", self.min_survivors);
            return refuse("colluding", expected, self.colluding.into());
        }
        if !(1..=1 << 40).contains(&self.dim) {
            return refuse("dim", "1 to 2^40".into(), self.dim as f64);
        }
        if !(self.clip > 0.0 && self.clip.is_finite()) {
            return refuse("clip", "a finite number above 0".into(), self.clip);
        }
        if !(2..=62).contains(&self.bits) {
            return refuse("bits", "2 to 62".into(), self.bits.into());
        }
        if !(0.0..1.0).contains(&self.rounding_beta) {
            return refuse("rounding-beta", "at least 0 and below 1".into(), self.rounding_beta);
        }
        if !(self.noise_multiplier > 0.0 && self.noise_multiplier.is_finite()) {
            return refuse("noise-multiplier", "a finite number above 0".into(), self.noise_multiplier);
        }
        Ok(())
    }

    /// The largest scale that fits into the ring, and all that follows.
    pub fn release(&self) -> Result<Release, PlanError> {
        self.check()?;
        let (low, high) = (1e-12f64.ln(), 1e18f64.ln());
        // In units of a clip of 1, so that tiny and huge clips are alike.
        if self.range(low.exp() / self.clip) > 1.0 {
            let least = self.bits as f64 + self.range(low.exp() / self.clip).log2();
            let expected = format!("at least {}: rounding and noise alone fill the ring", least.ceil().max(3.0));
            return Err(PlanError { what: "bits", expected, got: self.bits.into() });
        }
        let (mut low, mut high) = (low, high);
        for _ in 0..200 {
            let middle = (low + high) / 2.0;
            if self.range(middle.exp() / self.clip) <= 1.0 { low = middle } else { high = middle }
        }
        self.release_at(low.exp() / self.clip)
    }

    /// The same with a scale that is given (a power of two, say); the ring must hold it.
    pub fn release_at(&self, scale: f64) -> Result<Release, PlanError> {
        self.check()?;
        if !(scale > 0.0 && self.range(scale) <= 1.0) {
            let expected = "one that leaves the sum inside the ring".into();
            return Err(PlanError { what: "scale", expected, got: scale });
        }
        let l2_rounded = self.l2_rounded(scale);
        let l2 = l2_rounded * f64::from(self.vectors_changed);
        let variance = self.share_variance(scale);
        let share_variance = Ratio::at_least(variance).map_err(|_| PlanError {
            what: "the variance of a share of noise",
            expected: "2^-24 to 2^51 in units of the ring: fewer bits, or a larger noise multiplier".into(),
            got: variance,
        })?;
        let honest = self.min_survivors - self.colluding;
        let tau = match self.noise {
            Noise::DiscreteGaussian => {
                if honest > 1 && share_variance.to_f64() < 0.25 {
                    let expected = "at least 1/4, for sums of discrete Gaussians: more bits or noise".into();
                    let got = share_variance.to_f64();
                    return Err(PlanError { what: "the variance of a share of noise", expected, got });
                }
                tau(share_variance.to_f64(), honest)
            }
            Noise::Skellam => 0.0,
        };
        let l1_one = l2_rounded * (self.dim as f64).sqrt().min(l2_rounded);
        let l1 = l1_one * f64::from(self.vectors_changed);
        Ok(Release { noise: self.noise, scale, l2_rounded, l2, l1, share_variance, honest, dim: self.dim, tau })
    }

    fn l2_rounded(&self, scale: f64) -> f64 {
        round::l2_bound(scale * self.clip * (1.0 + rotate::MARGIN), self.rounding_beta, self.dim)
    }

    fn share_variance(&self, scale: f64) -> f64 {
        let sensitivity = self.l2_rounded(scale) * f64::from(self.vectors_changed);
        (self.noise_multiplier * sensitivity).powi(2) / f64::from(self.min_survivors - self.colluding)
    }

    /// What share of the ring k deviations of the sum of all devices take, both sides together.
    fn range(&self, scale: f64) -> f64 {
        let (n, d) = (f64::from(self.clients), self.dim as f64);
        let k = (2.0 * (2.0 * d / WRAPS).ln()).sqrt();
        let variance = (scale * self.clip * n).powi(2) / d + n / 4.0 + n * self.share_variance(scale);
        2.0 * k * variance.sqrt() / 2f64.powi(self.bits as i32)
    }
}

/// τ of n discrete Gaussians of variance `variance`. The summands tend to exp(-2π² σ²): what is left once they stand still is
/// counted at that limit, which the summands do not pass by then.
fn tau(variance: f64, n: u32) -> f64 {
    let exponent = 2.0 * std::f64::consts::PI.powi(2) * variance;
    let term = |k: f64| (-exponent * k / (k + 1.0)).exp();
    let listed = n.min(100_000);
    let first: f64 = (1..listed).map(|k| term(f64::from(k))).sum();
    10.0 * (first + f64::from(n - listed) * term(f64::from(listed)))
}

/// s²: the part of a discrete Gaussian's variance that its rounding has. θ is then below 4 · 10^-26.
const ROUNDING_VARIANCE: f64 = 3.0;

impl Release {
    /// A sum of `dim` whole numbers, each with discrete Gaussian noise from one hand: (z Δ₂)² of variance, where one record
    /// moves the sum by at most Δ₂ = `l2`.
    pub fn alone(noise_multiplier: f64, l2: f64, dim: u64) -> Result<Self, PlanError> {
        let variance = (noise_multiplier * l2).powi(2);
        let share_variance = Ratio::at_least(variance).map_err(|_| PlanError {
            what: "the variance of the noise",
            expected: "2^-24 to 2^51 in units of a sum's steps: a smaller noise multiplier".into(),
            got: variance,
        })?;
        let l1 = l2 * (dim as f64).sqrt().min(l2);
        let noise = Noise::DiscreteGaussian;
        Ok(Self { noise, scale: 1.0, l2_rounded: l2, l2, l1, share_variance, honest: 1, dim, tau: 0.0 })
    }

    /// The Gaussian behind discrete Gaussian noise; `None` for Skellam noise and for a variance that is next to nothing.
    ///
    /// Let x ~ N(0, V - s²), and round it at random: to k with probability ρ(k - x) / Σ_j ρ(j - x), ρ(y) = exp(-y² / 2s²).
    /// By Poisson summation Σ_j ρ(j - x) is s √2π times a number in [1 - θ, 1 + θ], θ = 2 Σ_{m≥1} exp(-2π² s² m²), whatever
    /// x is. So k has probability ∫ φ(x) ρ(k - x) / (s √2π) dx, the density of N(0, V) at k, up to a factor in
    /// [1 / (1 + θ), 1 / (1 - θ)]; and N_ℤ(0, V) has that density up to 1 + θ. A whole number that is added to x is added to k:
    /// rounding is post-processing of sum plus Gaussian, for each coordinate by itself. (Peikert 2010, "An efficient and
    /// parallel Gaussian sampler for lattices", theorem 3.1, in one dimension.) The sum of many shares is within τ of N_ℤ(0, V)
    /// in each coordinate (Kairouz et al., the convolution theorem behind τ).
    ///
    /// So P[outcome] is within e^(±apart), apart = d (τ - 2 ln(1 - θ)), of a post-processed Gaussian's. That carries over to
    /// mixtures (sampling) and adds up over releases (each in the light of those before): with H the sum,
    /// (ε, δ e^-H) of the Gaussians is (ε + 2 H, δ) of the releases.
    pub fn near_gaussian(&self) -> Option<NearGaussian> {
        let variance = f64::from(self.honest) * self.share_variance.to_f64();
        if self.noise == Noise::Skellam || variance <= 2.0 * ROUNDING_VARIANCE {
            return None;
        }
        let first = (-2.0 * std::f64::consts::PI.powi(2) * ROUNDING_VARIANCE).exp();
        let theta = 2.0 * first / (1.0 - first);
        let apart = self.dim as f64 * (self.tau - 2.0 * (-theta).ln_1p());
        Some(NearGaussian { noise_multiplier: (variance - ROUNDING_VARIANCE).sqrt() / self.l2, apart })
    }

    /// The standard deviation of all honest shares together.
    pub fn sigma(&self) -> f64 {
        (f64::from(self.honest) * self.share_variance.to_f64()).sqrt()
    }

    /// The Rényi divergence of order `order`.
    pub fn rdp(&self, order: f64) -> f64 {
        let sigma = self.sigma();
        let (l2, l1, d) = (self.l2 / sigma, self.l1 / sigma, self.dim as f64);
        match self.noise {
            Noise::Skellam => rdp::skellam(sigma * sigma, self.l1, self.l2, order),
            Noise::DiscreteGaussian => {
                let tau = self.tau;
                let apart = order / 2.0 * l2 * l2 + tau * d;
                let both = order / 2.0 * (l2 * l2 + 2.0 * l1 * tau + tau * tau * d);
                let third = order / 2.0 * (l2 + d.sqrt() * tau).powi(2);
                apart.min(both).min(third)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(noise: Noise) -> Plan {
        Plan {
            noise,
            clients: 100,
            min_survivors: 90,
            colluding: 10,
            dim: 100_000,
            clip: 1.0,
            bits: 20,
            rounding_beta: (-0.5f64).exp(),
            noise_multiplier: 1.0,
            vectors_changed: 1,
        }
    }

    #[test]
    fn a_plan_fills_the_ring_and_its_noise_is_what_it_says() {
        for noise in [Noise::DiscreteGaussian, Noise::Skellam] {
            let plan = plan(noise);
            let release = plan.release().unwrap();
            // The definition: honest survivors' noise over the sensitivity, rounded up.
            let z = release.sigma() / release.l2;
            assert!((1.0..1.0 + 1e-9).contains(&z), "{z}");
            assert!(plan.range(release.scale) <= 1.0 && plan.range(release.scale * 1.001) > 1.0);
            assert!(plan.release_at(release.scale / 2.0).is_ok() && plan.release_at(release.scale * 2.0).is_err());
            // With bits enough the account is that of a Gaussian with the same noise multiplier, from above.
            let wide = Plan { bits: 30, ..plan }.release().unwrap();
            for order in [1.5, 4.0, 40.0] {
                let gaussian = rdp::gaussian(1.0, order);
                assert!(wide.rdp(order) >= gaussian * (1.0 - 1e-9), "{noise:?} {order}");
                assert!(wide.rdp(order) <= gaussian * 1.01, "{noise:?} {order}: {} {gaussian}", wide.rdp(order));
                assert!(release.rdp(order) >= gaussian * (1.0 - 1e-9), "{noise:?} {order}");
            }
        }
    }

    #[test]
    fn survivors_and_colluders_count() {
        let of = |min_survivors, colluding| {
            let plan = Plan { min_survivors, colluding, ..plan(Noise::Skellam) };
            plan.release_at(100.0).unwrap().share_variance.to_f64()
        };
        // Half the honest shares: twice the variance in each.
        let ratio = of(50, 10) / of(90, 10);
        assert!((ratio - 2.0).abs() < 1e-6, "{ratio}");
        assert_eq!(of(50, 10), of(40, 0));
        let replaced = Plan { vectors_changed: 2, ..plan(Noise::Skellam) }.release_at(100.0).unwrap();
        let added = plan(Noise::Skellam).release_at(100.0).unwrap();
        assert!((replaced.l2 / added.l2 - 2.0).abs() < 1e-12);
    }

    /// The rounding of the proof, integrated: its law is the discrete Gaussian's to far below what a test can see, at every
    /// k that has any mass; and with too little rounding θ shows.
    #[test]
    fn a_gaussian_rounded_at_random_is_a_discrete_gaussian() {
        let (variance, h) = (25.0f64, 1.0 / 64.0);
        let normal = |x: f64, v: f64| (-x * x / (2.0 * v)).exp() / (2.0 * std::f64::consts::PI * v).sqrt();
        let discrete_sum: f64 = (-200..=200).map(|k| normal(f64::from(k), variance)).sum();
        let worst = |s2: f64| {
            let rounded = |k: f64| {
                let one = |step: i32| {
                    let x = f64::from(step) * h;
                    let all: f64 = (-40..=40).map(|j| normal(x.round() + f64::from(j) - x, s2)).sum();
                    normal(x, variance - s2) * normal(k - x, s2) / all * h
                };
                (-64 * 60..=64 * 60).map(one).sum::<f64>()
            };
            let apart = |k: i32| (rounded(k.into()) / (normal(k.into(), variance) / discrete_sum)).ln().abs();
            (-30..=30).map(apart).fold(0.0, f64::max)
        };
        // Of what the trapezoid rule and 64 bits leave; θ itself is 4e-26.
        assert!(worst(ROUNDING_VARIANCE) < 1e-12, "{}", worst(ROUNDING_VARIANCE));
        // s² = 0.2: θ = 0.039, of which most evens out over x.
        assert!((1e-4..0.039).contains(&worst(0.2)), "{}", worst(0.2));
    }

    #[test]
    fn the_gaussian_behind_a_sum_is_hardly_smaller() {
        let release = plan(Noise::DiscreteGaussian).release().unwrap();
        let near = release.near_gaussian().unwrap();
        let z = release.sigma() / release.l2;
        assert!(near.noise_multiplier < z && near.noise_multiplier > 0.9999 * z, "{near:?} {z}");
        assert!(near.apart > 0.0 && near.apart < 1e-12, "{near:?}");
        assert_eq!(plan(Noise::Skellam).release().unwrap().near_gaussian(), None);
        // Shares so small that τ is large: the account must feel it.
        let small = Plan { bits: 12, clip: 1.0, dim: 100, ..plan(Noise::DiscreteGaussian) }.release().unwrap();
        assert!(small.near_gaussian().is_none_or(|near| near.apart >= 100.0 * small.tau));
    }

    #[test]
    fn tau_is_the_papers_sum() {
        // n = 3, σ² = 1/2: 10 (e^(-π²/2) + e^(-2π²/3)).
        let pi2 = std::f64::consts::PI.powi(2);
        let wanted = 10.0 * ((-pi2 / 2.0).exp() + (-2.0 * pi2 / 3.0).exp());
        assert!((tau(0.5, 3) - wanted).abs() < 1e-15);
        assert_eq!(tau(0.5, 1), 0.0);
    }

    #[test]
    fn plans_that_cannot_be_are_refused_by_field() {
        let good = plan(Noise::DiscreteGaussian);
        let bad: &[(Plan, &str)] = &[
            (Plan { clients: 0, ..good }, "clients"),
            (Plan { min_survivors: 101, ..good }, "min-survivors"),
            (Plan { colluding: 90, ..good }, "colluding"),
            (Plan { dim: 0, ..good }, "dim"),
            (Plan { clip: f64::NAN, ..good }, "clip"),
            (Plan { bits: 1, ..good }, "bits"),
            (Plan { bits: 8, ..good }, "bits"),
            (Plan { rounding_beta: 1.0, ..good }, "rounding-beta"),
            (Plan { noise_multiplier: 0.0, ..good }, "noise-multiplier"),
        ];
        for (plan, what) in bad {
            assert_eq!(plan.release().unwrap_err().what, *what, "{plan:?}");
        }
    }
}
