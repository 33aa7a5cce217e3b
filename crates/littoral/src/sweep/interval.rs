//! Means over seeds, and how sure they are: Student's t (1908, "The Probable Error of a Mean").
//!
//! ```text
//! mean ± t · s / √n       s² = Σ (x − mean)² / (n − 1),  t: P(|T| ≤ t) = 0.95 with n − 1 degrees of freedom
//! ```
//!
//! It takes the values of seeds as independent and about normal, and says nothing of whether a difference between two
//! means is by chance: for that, seeds that both ran are compared pair by pair ([`Interval::of_differences`]).

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    pub mean: f64,
    /// Half of the 95 % interval's width; one value has none.
    pub half: Option<f64>,
    pub n: usize,
}

impl Interval {
    /// None of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let half = (n > 1).then(|| t_95(n - 1) * (squares / (n - 1) as f64 / n as f64).sqrt());
        Some(Self { mean, half, n })
    }

    /// Of x − y, pair by pair.
    pub fn of_differences(pairs: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        Self::of(&pairs.map(|(x, y)| x - y).collect::<Vec<_>>())
    }

    /// Is all of it above (1) or below 0 (−1), or neither (0)?
    pub fn sign(&self) -> i8 {
        match self.half {
            Some(half) if self.mean - half > 0.0 => 1,
            Some(half) if self.mean + half < 0.0 => -1,
            _ => 0,
        }
    }
}

/// The two-sided 95 % point of Student's t.
fn t_95(freedom: usize) -> f64 {
    // The smallest number of degrees has the largest, 12.7; bisection halves 64 times.
    let (mut low, mut high) = (0.0, 16.0);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if within(middle, freedom) < 0.95 { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// P(|T| ≤ t): Abramowitz and Stegun 1964, 26.7.3 (odd) and 26.7.4 (even).
fn within(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // The sum's terms: each is the one before times cos² (k − 1) / k.
    let (mut term, mut sum) = if odd { (cosine, cosine) } else { (1.0, 1.0) };
    let mut k = if odd { 3 } else { 2 };
    while k < freedom {
        term *= cosine * cosine * (k - 1) as f64 / k as f64;
        sum += term;
        k += 2;
    }
    match (odd, freedom) {
        (true, 1) => angle / std::f64::consts::FRAC_PI_2,
        (true, _) => (angle + sine * sum) / std::f64::consts::FRAC_PI_2,
        (false, _) => sine * sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The usual table, to its three digits.
    #[test]
    fn points_are_those_of_the_table() {
        let table = [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (5, 2.571),
            (9, 2.262),
            (10, 2.228),
            (29, 2.045),
            (30, 2.042),
        ];
        for (freedom, point) in table {
            assert!((t_95(freedom) - point).abs() < 5e-4, "{freedom}: {}", t_95(freedom));
        }
        // The normal distribution's 1.95996 from 1,000 degrees on, to 0.003.
        assert!((t_95(1_000) - 1.962).abs() < 5e-4);
    }

    #[test]
    fn an_interval_by_hand() {
        // Mean 2, s = 1, √3 = 1.732: 4.3027 / 1.7321.
        let three = Interval::of(&[1.0, 2.0, 3.0]).unwrap();
        assert!((three.mean - 2.0).abs() < 1e-12 && (three.half.unwrap() - 2.484_14).abs() < 1e-4);
        assert_eq!(three.sign(), 0);
        assert_eq!(Interval::of(&[0.5]), Some(Interval { mean: 0.5, half: None, n: 1 }));
        assert_eq!(Interval::of(&[]), None);
        let better = Interval::of_differences([(0.9, 0.8), (0.91, 0.8), (0.92, 0.81)].into_iter()).unwrap();
        assert_eq!((better.n, better.sign()), (3, 1));
    }
}
