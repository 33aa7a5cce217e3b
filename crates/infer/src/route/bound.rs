//! Exact bounds on a probability from counted failures (Clopper and Pearson, "The use of confidence or fiducial limits",
//! Biometrika 1934), and the test that goes through thresholds in a fixed order.
//!
//! Nothing is assumed of the distribution but that trials are independent and alike.

/// P(X ≤ k) of a binomial X with n trials of probability p; for n up to 2^40 or so.
///
/// The terms of the shorter tail are added from its greatest down, so that the sum has the precision of its first term.
pub fn binomial_at_most(k: u64, n: u64, p: f64) -> f64 {
    if k >= n || p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    let odds = p / (1.0 - p);
    if (k as f64) < (n as f64 + 1.0) * p {
        let down = (0..k).rev().map(|j| (j + 1) as f64 / ((n - j) as f64 * odds));
        (term(k, n, p) * sum_of_products(down)).min(1.0)
    } else {
        let up = (k + 1..n).map(|j| (n - j) as f64 * odds / (j + 1) as f64);
        (1.0 - term(k + 1, n, p) * sum_of_products(up)).max(0.0)
    }
}

/// P(X ≥ k).
pub fn binomial_at_least(k: u64, n: u64, p: f64) -> f64 {
    // As many failures at most as there are trials without the successes.
    if k == 0 {
        1.0
    } else if k > n {
        0.0
    } else {
        binomial_at_most(n - k, n, 1.0 - p)
    }
}

/// The upper end of the one-sided interval of confidence 1 - `delta`: the probability of which so few failures have the
/// probability `delta`. 1 if all failed, or if there are no trials. Rounded up.
pub fn clopper_pearson_upper(failures: u64, trials: u64, delta: f64) -> f64 {
    if failures >= trials {
        return 1.0;
    }
    // The tail falls as p grows: [low, high] always holds the bound.
    let (mut low, mut high) = (failures as f64 / trials as f64, 1.0);
    while let Some(middle) = between(low, high) {
        if binomial_at_most(failures, trials, middle) <= delta { high = middle } else { low = middle }
    }
    high
}

/// The lower end of the one-sided interval of confidence 1 - `delta`. 0 if none failed. Rounded down.
pub fn clopper_pearson_lower(failures: u64, trials: u64, delta: f64) -> f64 {
    if failures == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, (failures.min(trials) as f64 / trials.max(1) as f64).min(1.0));
    while let Some(middle) = between(low, high) {
        if binomial_at_least(failures, trials, middle) <= delta { low = middle } else { high = middle }
    }
    low
}

/// Failures among what a threshold keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub kept: u64,
    pub failures: u64,
}

impl Kept {
    /// Is the upper bound at most `alpha`? Said of the tail, since one tail is cheaper than a bound.
    pub fn holds(&self, alpha: f64, delta: f64) -> bool {
        self.failures < self.kept && binomial_at_most(self.failures, self.kept, alpha) <= delta
    }

    pub fn upper(&self, delta: f64) -> f64 {
        clopper_pearson_upper(self.failures, self.kept, delta)
    }
}

/// How many thresholds, from the first on, may be claimed: all before the first whose upper bound is above `alpha`.
///
/// Each is a hypothesis "failures are more frequent than `alpha`", tested at the whole of `delta`. One that is true and
/// rejected is the first true one, since the test stops where it does not reject; so with a probability of at least
/// 1 - `delta` no claim is false. It needs an order that was fixed before these failures were seen, and says nothing else of it.
pub fn fixed_sequence(steps: impl IntoIterator<Item = Kept>, alpha: f64, delta: f64) -> usize {
    steps.into_iter().take_while(|step| step.holds(alpha, delta)).count()
}

/// Trials without a failure that bound it by `alpha` at level `delta`: ln δ / ln(1 - α), rounded up. `u64::MAX` from 10^15 on:
/// nobody has as many, and beyond 2^53 not each whole number is one of a float.
pub fn trials_without_failure(alpha: f64, delta: f64) -> u64 {
    let enough = libm::log(delta) / libm::log1p(-alpha);
    if enough.is_nan() || enough >= 1e15 {
        return u64::MAX;
    }
    // Rounding may have moved a whole number.
    let near = (enough.floor() as u64).max(1);
    (near..near + 2).find(|n| binomial_at_most(0, *n, alpha) <= delta).unwrap_or(near + 2)
}

/// The middle of two numbers, until there is none.
fn between(low: f64, high: f64) -> Option<f64> {
    let middle = low + (high - low) / 2.0;
    (low < middle && middle < high && high - low > 1e-12 * high).then_some(middle)
}

/// P(X = k), for p within 0..1, ends excluded.
fn term(k: u64, n: u64, p: f64) -> f64 {
    let ways = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    libm::exp(ways + k as f64 * libm::log(p) + (n - k) as f64 * libm::log1p(-p))
}

/// 1 + r1 + r1 r2 + … for ratios below 1 that fall.
fn sum_of_products(ratios: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut product) = (1.0, 1.0);
    for ratio in ratios {
        product *= ratio;
        sum += product;
        if product < 1e-18 * sum {
            break;
        }
    }
    sum
}

fn ln_factorial(n: u64) -> f64 {
    if n < 2 { 0.0 } else { libm::lgamma(n as f64 + 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All of Pascal's triangle, in another way than above.
    fn enumerated(k: u64, n: u64, p: f64) -> f64 {
        let mut row = vec![1.0];
        for _ in 0..n {
            let mut next = vec![0.0; row.len() + 1];
            for (at, mass) in row.iter().enumerate() {
                next[at] += mass * (1.0 - p);
                next[at + 1] += mass * p;
            }
            row = next;
        }
        row[..=k as usize].iter().sum()
    }

    #[test]
    fn tails_are_those_of_enumeration() {
        for n in [1, 2, 7, 30, 150] {
            for (k, p) in (0..=n).flat_map(|k| [0.001, 0.1, 0.5, 0.93].map(|p| (k, p))) {
                let (got, expected) = (binomial_at_most(k, n, p), enumerated(k, n, p));
                assert!((got - expected).abs() <= 1e-12 * expected.max(1e-3), "{k} of {n} at {p}: {got}, {expected}");
                let (got, expected) =
                    (binomial_at_least(k, n, p), if k == 0 { 1.0 } else { 1.0 - enumerated(k - 1, n, p) });
                assert!((got - expected).abs() < 1e-12, "at least {k} of {n} at {p}: {got}, {expected}");
            }
        }
    }

    /// Closed forms: no failure, 1 - δ^(1/n); all but one failed of n, (1 - δ)^(1/n); and the lower ends, mirrored. The
    /// "rule of three": 3/n for 5 %. Of 10 trials with 1 failure, 95 % one-sided: 0.394163 (R's binom.test, alternative "less");
    /// 2 of 20 two-sided 95 %: 0.012349 and 0.316983 (the same).
    #[test]
    fn bounds_are_the_published_ones() {
        let near = |got: f64, expected: f64, within: f64| assert!((got - expected).abs() < within, "{got}, {expected}");
        for (n, delta) in [(1u64, 0.1), (22, 0.1), (59, 0.05), (1000, 1e-6)] {
            let root = 1.0 / n as f64;
            near(clopper_pearson_upper(0, n, delta), 1.0 - delta.powf(root), 1e-11);
            near(clopper_pearson_upper(n - 1, n, delta), (1.0 - delta).powf(root), 1e-11);
            near(clopper_pearson_lower(n, n, delta), delta.powf(root), 1e-11);
        }
        near(clopper_pearson_upper(0, 1000, 0.05), 0.003, 1e-5);
        near(clopper_pearson_upper(1, 10, 0.05), 0.394_163, 1e-6);
        near(clopper_pearson_lower(2, 20, 0.025), 0.012_349, 1e-6);
        near(clopper_pearson_upper(2, 20, 0.025), 0.316_983, 1e-6);
        assert_eq!([clopper_pearson_upper(5, 5, 0.1), clopper_pearson_upper(0, 0, 0.1)], [1.0, 1.0]);
        assert_eq!(clopper_pearson_lower(0, 5, 0.1), 0.0);
        // 0.9^22 = 0.0985, 0.9^21 = 0.109; 0.95^59 = 0.0485.
        assert_eq!([trials_without_failure(0.1, 0.1), trials_without_failure(0.05, 0.05)], [22, 59]);
        // ln 10 · 10^12, and a billion times as many.
        assert_eq!(
            [trials_without_failure(1e-12, 0.1), trials_without_failure(1e-20, 0.1)],
            [2_302_585_092_993, u64::MAX]
        );
    }

    /// The promise itself, exactly: whatever the true probability, the bound lies below it with a probability of at most δ. A
    /// bound that is a little too low fails at the probabilities just below one of its values.
    #[test]
    fn a_bound_is_wrong_no_more_often_than_delta() {
        for n in [5, 23, 60] {
            let bounds: Vec<f64> = (0..=n).map(|k| clopper_pearson_upper(k, n, 0.1)).collect();
            let around = bounds.iter().flat_map(|b| [b - 1e-9, b + 1e-9]).filter(|p| (0.0..1.0).contains(p));
            let mut worst = 0f64;
            for p in around {
                let wrong: f64 = match bounds.iter().rposition(|bound| *bound < p) {
                    Some(k) => enumerated(k as u64, n, p),
                    None => 0.0,
                };
                assert!(wrong <= 0.1 + 1e-9, "n {n}, p {p}: wrong with probability {wrong}");
                worst = worst.max(wrong);
            }
            assert!(worst > 0.0999, "no slack beyond what counts are: {worst}");
        }
    }

    #[test]
    fn the_sequence_stops_at_the_first_that_fails() {
        let step = |kept, failures| Kept { kept, failures };
        // 22 without a failure hold at 0.1, 21 do not, whatever comes after.
        assert_eq!(fixed_sequence([step(22, 0), step(50, 1), step(60, 9), step(900, 0)], 0.1, 0.1), 2);
        assert_eq!(fixed_sequence([step(21, 0), step(900, 0)], 0.1, 0.1), 0);
        assert_eq!(fixed_sequence([step(0, 0)], 0.9, 0.9), 0);
    }

    proptest! {
        #[test]
        fn bounds_hold_the_share_and_agree_with_the_test(n in 1u64..5000, part in 0f64..1.0, alpha in 0.01f64..0.5) {
            let (failures, delta) = ((part * n as f64) as u64, 0.1);
            let (low, high) = (clopper_pearson_lower(failures, n, delta), clopper_pearson_upper(failures, n, delta));
            let share = failures as f64 / n as f64;
            prop_assert!(low <= share && share <= high, "{low} {share} {high}");
            prop_assert!(clopper_pearson_upper(failures, n, delta / 2.0) >= high);
            if (high - alpha).abs() > 1e-9 {
                prop_assert_eq!(Kept { kept: n, failures }.holds(alpha, delta), high <= alpha);
            }
        }
    }
}
