//! Probabilities of the discrete noises, for accounts (their samplers never ask).

/// Symmetric noise on the integers: p(0), p(1), … up to where less than about 10^-30 is left.
pub(super) struct Symmetric {
    pub mass: Vec<f64>,
    /// ln p(0), ln p(1), ….
    ln_mass: Vec<f64>,
    /// σ of a discrete Gaussian, whose ratios have a closed form.
    sigma: Option<f64>,
}

impl Symmetric {
    fn of_steps(ln_step: Vec<f64>) -> Self {
        let mut logs = vec![0.0];
        ln_step.iter().for_each(|step| logs.push(logs[logs.len() - 1] + step));
        let mut mass: Vec<f64> = logs.iter().map(|log: &f64| log.exp()).collect();
        // The smallest first.
        let half: f64 = mass[1..].iter().rev().sum();
        let total = mass[0] + 2.0 * half;
        mass.iter_mut().for_each(|p| *p /= total);
        Self { mass, ln_mass: logs, sigma: None }
    }

    /// N_ℤ(0, σ²). 11.6 σ out less than 10^-29 is left (Canonne et al. 2020, proposition 25).
    pub fn discrete_gaussian(sigma: f64) -> Self {
        let far = (11.6 * sigma).ceil().max(2.0) as usize;
        let noise = Self::of_steps((0..far).map(|k| -(k as f64 + 0.5) / (sigma * sigma)).collect());
        Self { sigma: Some(sigma), ..noise }
    }

    /// Skellam of variance v: p(k) = e^-v I_k(v). With r_k = I_{k+1}(v) / I_k(v), r_{k-1} = 1 / (2k / v + r_k); downwards from
    /// far out any beginning is forgotten (Miller's method; Abramowitz and Stegun 9.12).
    pub fn skellam(variance: f64) -> Self {
        let far = (12.0 * variance.sqrt()).ceil() as usize + 40;
        let mut ratio = 0.0;
        let mut ln_step = vec![0.0; far];
        for k in (1..=2 * far + 100).rev() {
            ratio = 1.0 / (2.0 * k as f64 / variance + ratio);
            if k <= far {
                ln_step[k - 1] = f64::ln(ratio);
            }
        }
        Self::of_steps(ln_step)
    }

    /// How far from 0 it is listed.
    pub fn far(&self) -> i64 {
        self.mass.len() as i64 - 1
    }

    /// ln(p(x) / p(y)); ±∞ where one of them is not listed.
    pub fn ln_ratio(&self, x: i64, y: i64) -> f64 {
        let listed = |x: i64| x.unsigned_abs() <= self.far() as u64;
        match (listed(x), listed(y), self.sigma) {
            (false, _, _) => f64::NEG_INFINITY,
            (_, false, _) => f64::INFINITY,
            // (y² - x²) / 2σ², of small numbers.
            (true, true, Some(sigma)) => {
                let (difference, middle) = ((y - x) as f64, 0.5 * (x + y) as f64);
                difference * middle / (sigma * sigma)
            }
            (true, true, None) => self.ln_mass[x.unsigned_abs() as usize] - self.ln_mass[y.unsigned_abs() as usize],
        }
    }

    pub fn at(&self, x: i64) -> f64 {
        self.mass.get(x.unsigned_abs() as usize).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skellam_is_the_difference_of_poissons() {
        for variance in [0.5f64, 4.0, 60.0] {
            let noise = Symmetric::skellam(variance);
            let mu = variance / 2.0;
            let poisson: Vec<f64> =
                (0..300).map(|k| (f64::from(k) * mu.ln() - mu - libm::lgamma(f64::from(k) + 1.0)).exp()).collect();
            for x in [0usize, 1, 2, 7, 20] {
                let direct: f64 = poisson.iter().skip(x).zip(&poisson).map(|(a, b)| a * b).sum();
                assert!((noise.at(x as i64) - direct).abs() <= 1e-12 * direct, "{variance} {x}");
            }
            let spread: f64 = (-noise.far()..=noise.far()).map(|x| (x * x) as f64 * noise.at(x)).sum();
            assert!((spread - variance).abs() < 1e-12 * variance);
        }
    }
}
