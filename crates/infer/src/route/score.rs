//! How likely it is that the small model's answer is good enough: a logistic regression over [`features`](super::features).
//!
//! It is fitted by Newton's method (iteratively reweighted least squares) with a ridge, over standardised features, towards
//! Platt's targets ("Probabilistic outputs for support vector machines", 1999), so that examples that are all alike have a
//! finite fit. The same examples in the same order give the same bits.

use super::features::{When, names};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Weighs the squares of the weights against the sum of the examples' losses: small beside a hundred examples.
const RIDGE: f64 = 1.0;
const ITERATIONS_MAX: usize = 100;

/// An example that a score is fitted to.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub features: Vec<f64>,
    /// The small model's answer was worse than the large one's.
    pub worse: bool,
}

/// One feature's part: weight · (value - mean) / scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    pub feature: String,
    pub mean: f64,
    /// Above 0.
    pub scale: f64,
    pub weight: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scorer {
    pub when: When,
    pub intercept: f64,
    /// In the order of [`names`].
    pub terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum ScoreError {
    #[error("no score: at least one example expected, got none")]
    NoExamples,
    #[error("example {at}: {expected} finite features expected, got {got}")]
    Features { at: usize, expected: usize, got: String },
    #[error("{place}: {expected} expected, got {got}")]
    Scorer { place: String, expected: String, got: String },
}

impl Scorer {
    /// # Errors
    /// No examples, or features that are not those of `when`.
    pub fn fit(when: When, examples: &[Example]) -> Result<Self, ScoreError> {
        let names = names(when);
        for (at, example) in examples.iter().enumerate() {
            let got = match example.features.len() {
                len if len != names.len() => len.to_string(),
                _ if example.features.iter().all(|feature| feature.is_finite()) => continue,
                _ => format!("{:?}", example.features),
            };
            return Err(ScoreError::Features { at, expected: names.len(), got });
        }
        if examples.is_empty() {
            return Err(ScoreError::NoExamples);
        }
        let mut terms: Vec<Term> = names.iter().enumerate().map(|(at, name)| standard(name, at, examples)).collect();
        let rows: Vec<Vec<f64>> = examples.iter().map(|example| standardised(&terms, &example.features)).collect();
        let weights = newton(&rows, &targets(examples));
        for (term, weight) in terms.iter_mut().zip(&weights[1..]) {
            term.weight = *weight;
        }
        Ok(Self { when, intercept: weights[0], terms })
    }

    /// The probability that the answer is good enough, 0 to 1. NaN features, or another number of them, are no reason to trust
    /// an answer: 0.
    pub fn score(&self, features: &[f64]) -> f64 {
        if features.len() != self.terms.len() {
            return 0.0;
        }
        let sum: f64 =
            self.terms.iter().zip(features).map(|(term, x)| term.weight * (x - term.mean) / term.scale).sum();
        let score = logistic(self.intercept + sum);
        if score.is_nan() { 0.0 } else { score }
    }

    /// Is this one of this release? For a scorer that was read from a file.
    pub fn check(&self) -> Result<(), ScoreError> {
        let refuse = |place: &str, expected: String, got: String| {
            Err(ScoreError::Scorer { place: place.to_owned(), expected, got })
        };
        let names = names(self.when);
        if !self.terms.iter().map(|term| term.feature.as_str()).eq(names.iter().copied()) {
            let got: Vec<&str> = self.terms.iter().take(32).map(|term| term.feature.as_str()).collect();
            return refuse("terms", names.join(", "), got.join(", "));
        }
        for term in &self.terms {
            let finite = [term.mean, term.weight, term.scale].iter().all(|value| value.is_finite());
            if !(finite && term.scale > 0.0) {
                return refuse(&term.feature, "finite numbers and a scale above 0".into(), format!("{term:?}"));
            }
        }
        if !self.intercept.is_finite() {
            return refuse("intercept", "a finite number".into(), self.intercept.to_string());
        }
        Ok(())
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// Mean and standard deviation of a feature; a feature that is always the same counts for nothing.
fn standard(name: &str, at: usize, examples: &[Example]) -> Term {
    let n = examples.len() as f64;
    let values = || examples.iter().map(|example| example.features[at]);
    let mean = values().sum::<f64>() / n;
    let deviation = (values().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt();
    let scale = if deviation > 1e-12 { deviation } else { 1.0 };
    Term { feature: name.to_owned(), mean, scale, weight: 0.0 }
}

fn standardised(terms: &[Term], features: &[f64]) -> Vec<f64> {
    let one = std::iter::once(1.0);
    one.chain(terms.iter().zip(features).map(|(term, x)| (x - term.mean) / term.scale)).collect()
}

/// Platt's: not 1 and 0, but what as many examples more would leave uncertain.
fn targets(examples: &[Example]) -> Vec<f64> {
    let worse = examples.iter().filter(|example| example.worse).count() as f64;
    let fine = examples.len() as f64 - worse;
    let target = |example: &Example| if example.worse { 1.0 / (worse + 2.0) } else { (fine + 1.0) / (fine + 2.0) };
    examples.iter().map(target).collect()
}

/// The weights of least loss; the first, of the constant 1, has no ridge. The loss is strictly convex, so there is one least.
fn newton(rows: &[Vec<f64>], targets: &[f64]) -> Vec<f64> {
    let size = rows[0].len();
    let mut weights = vec![0.0; size];
    let mut before = loss(rows, targets, &weights);
    for _ in 0..ITERATIONS_MAX {
        let ridge = |at: usize| if at == 0 { 0.0 } else { RIDGE };
        let mut gradient: Vec<f64> = weights.iter().enumerate().map(|(at, weight)| ridge(at) * weight).collect();
        let mut curvature: Vec<Vec<f64>> = (0..size).map(|_| vec![0.0; size]).collect();
        for (row, target) in rows.iter().zip(targets) {
            let p = logistic(dot(row, &weights));
            for i in 0..size {
                gradient[i] += (p - target) * row[i];
                for j in 0..=i {
                    curvature[i][j] += p * (1.0 - p) * row[i] * row[j];
                }
            }
        }
        for (at, row) in curvature.iter_mut().enumerate() {
            // The constant's curvature may vanish far out; a little of it keeps the step finite.
            row[at] += ridge(at) + 1e-9;
        }
        let step = solve(curvature, gradient);
        // A whole step may overshoot where the loss is flat; halves of it do not for ever.
        let mut length = 1.0;
        let moved = loop {
            let moved: Vec<f64> = weights.iter().zip(&step).map(|(weight, step)| weight - length * step).collect();
            let after = loss(rows, targets, &moved);
            if after <= before || length < 1e-6 {
                before = after;
                break moved;
            }
            length /= 2.0;
        };
        let most = moved.iter().zip(&weights).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        weights = moved;
        if most < 1e-10 {
            break;
        }
    }
    weights
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Cross-entropy and ridge: ln(1 + e^x) - target x, written so that no e^x is too large.
fn loss(rows: &[Vec<f64>], targets: &[f64], weights: &[f64]) -> f64 {
    let one = |row: &Vec<f64>, target: &f64| {
        let x = dot(row, weights);
        x.max(0.0) + libm::log1p(libm::exp(-x.abs())) - target * x
    };
    let ridge = RIDGE / 2.0 * weights[1..].iter().map(|weight| weight * weight).sum::<f64>();
    rows.iter().zip(targets).map(|(row, target)| one(row, target)).sum::<f64>() + ridge
}

/// A x = b for a symmetric positive A of which the lower half is given (Cholesky).
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let size = b.len();
    for j in 0..size {
        for i in j..size {
            let products: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            let rest = a[i][j] - products;
            a[i][j] = if i == j { rest.max(1e-12).sqrt() } else { rest / a[j][j] };
        }
    }
    for i in 0..size {
        let known: f64 = (0..i).map(|k| a[i][k] * b[k]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    for i in (0..size).rev() {
        let known: f64 = (i + 1..size).map(|k| a[k][i] * b[k]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Noise;

    fn examples(count: u64, worse: impl Fn(&[f64], f64) -> bool) -> Vec<Example> {
        let width = names(When::Before).len() as u32;
        let one = |at| {
            let noise = Noise::new(5, at);
            let features: Vec<f64> = (0..width).map(|i| noise.uniform(i) * 4.0 - 2.0).collect();
            Example { worse: worse(&features, noise.uniform(99)), features }
        };
        (0..count).map(one).collect()
    }

    /// Where the gradient of the loss is zero is the least: checked by differences of the loss itself.
    #[test]
    fn a_fit_is_at_the_least_loss() {
        let examples = examples(200, |x, u| u < logistic(x[0] - 2.0 * x[3]));
        let scorer = Scorer::fit(When::Before, &examples).expect("a fit");
        let rows: Vec<Vec<f64>> = examples.iter().map(|e| standardised(&scorer.terms, &e.features)).collect();
        let targets = targets(&examples);
        let weights: Vec<f64> =
            std::iter::once(scorer.intercept).chain(scorer.terms.iter().map(|t| t.weight)).collect();
        for at in 0..weights.len() {
            let at_step = |step: f64| {
                let mut moved = weights.clone();
                moved[at] += step;
                loss(&rows, &targets, &moved)
            };
            // Losses near 100 are rounded to 1e-14; central differences over 2e-4 to 1e-10, their own error is of the order 1e-8.
            let slope = (at_step(1e-4) - at_step(-1e-4)) / 2e-4;
            assert!(slope.abs() < 1e-6, "weight {at}: slope {slope}");
            assert!(at_step(0.1) > at_step(0.0) && at_step(-0.1) > at_step(0.0));
        }
    }

    /// 20 000 examples of a known law: each weight within five standard errors, which are about 1 / sqrt(0.15 n) = 0.018, and
    /// the ridge moves them by less.
    #[test]
    fn a_known_law_is_found() {
        let examples = examples(20_000, |x, u| u < logistic(0.5 + 1.0 * x[1] - 0.5 * x[6]));
        let scorer = Scorer::fit(When::Before, &examples).expect("a fit");
        for (at, term) in scorer.terms.iter().enumerate() {
            let expected = match at {
                1 => -1.0,
                6 => 0.5,
                _ => 0.0,
            };
            assert!((term.weight / term.scale - expected).abs() < 0.09, "{term:?}");
        }
        let centre = vec![0.0; scorer.terms.len()];
        assert!((scorer.score(&centre) - logistic(-0.5)).abs() < 0.02);
    }

    #[test]
    fn examples_that_are_all_alike_have_a_finite_fit() {
        for worse in [true, false] {
            let scorer = Scorer::fit(When::Before, &examples(30, |_, _| worse)).expect("a fit");
            let score = scorer.score(&examples(1, |_, _| worse)[0].features);
            let expected = if worse { 1.0 / 32.0 } else { 31.0 / 32.0 };
            assert!((score - expected).abs() < 1e-6, "{score}");
        }
        let same =
            vec![Example { features: vec![1.0; 8], worse: false }, Example { features: vec![1.0; 8], worse: true }];
        assert!((Scorer::fit(When::Before, &same).expect("a fit").score(&[1.0; 8]) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_known_is_not_trusted() {
        let scorer = Scorer::fit(When::Before, &examples(50, |x, _| x[0] > 0.0)).expect("a fit");
        assert_eq!([scorer.score(&[f64::NAN; 8]), scorer.score(&[0.0; 3])], [0.0, 0.0]);
        let text = serde_json::to_string(&scorer).expect("JSON");
        let read: Scorer = serde_json::from_str(&text).expect("a scorer");
        assert_eq!((read.check(), &read), (Ok(()), &scorer));
        let mut wrong = scorer.clone();
        wrong.terms[2].scale = 0.0;
        assert!(wrong.check().is_err());
        wrong.terms.truncate(3);
        assert!(wrong.check().is_err());
        let short = [Example { features: vec![0.0; 2], worse: true }];
        let error = Scorer::fit(When::Before, &short).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(error, Err("example 0: 8 finite features expected, got 2".into()));
    }
}
