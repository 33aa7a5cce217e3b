//! The laws, by a million samples each: against the probabilities, and the fast samplers against the paper's loops.

use super::bits::Bits;
use super::cells::{Cells, Law, Of};
use super::discrete_gaussian::Bell;
use super::fixed::Fixed;
use super::poisson::Counts;
use super::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::BTreeMap;

const SAMPLES: usize = 1_000_000;

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn ratio(n: u64, d: u64) -> Ratio {
    Ratio::new(n, d).unwrap()
}

/// Pearson's statistic of counts against expectations, in standard deviations of its law: cells with fewer than ten expected
/// are put together. The seeds are fixed; 5 deviations would come once in some million choices of seed.
fn chi_square(counts: &BTreeMap<i64, u64>, expected: &[(i64, f64)]) -> f64 {
    let (mut statistic, mut cells) = (0.0, 0);
    let (mut e, mut o) = (0.0, 0.0);
    let mut add = |e: f64, o: f64| {
        statistic += (o - e) * (o - e) / e;
        cells += 1;
    };
    for &(x, mass) in expected {
        e += mass;
        o += counts.get(&x).copied().unwrap_or(0) as f64;
        if e >= 10.0 {
            add(e, o);
            (e, o) = (0.0, 0.0);
        }
    }
    let total: u64 = counts.values().sum();
    let seen: f64 = expected.iter().map(|(x, _)| counts.get(x).copied().unwrap_or(0) as f64).sum();
    // What is left, and what was drawn outside of `expected`.
    o += total as f64 - seen;
    if e >= 1.0 {
        add(e, o);
    } else {
        assert!(o < 12.0, "{o} samples where {e} are expected");
    }
    let freedom = f64::from(cells - 1);
    (statistic - freedom) / (2.0 * freedom).sqrt()
}

fn count(samples: &[i64]) -> BTreeMap<i64, u64> {
    let mut counts = BTreeMap::new();
    samples.iter().for_each(|&x| *counts.entry(x).or_default() += 1);
    counts
}

/// Expected counts of p(x) ∝ weight(x) for |x| ≤ far.
fn expected(weight: impl Fn(i64) -> f64, far: i64) -> Vec<(i64, f64)> {
    let weights: Vec<(i64, f64)> = (-far..=far).map(|x| (x, weight(x))).collect();
    let total: f64 = weights.iter().map(|(_, w)| w).sum();
    weights.into_iter().map(|(x, w)| (x, w / total * SAMPLES as f64)).collect()
}

#[test]
fn discrete_gaussians_have_their_law() {
    let mut out = vec![0; SAMPLES];
    for (seed, (n, d)) in [(1, 16), (1, 4), (1, 1), (7, 3), (100, 1), (123_457, 10)].into_iter().enumerate() {
        let sigma2 = n as f64 / d as f64;
        DiscreteGaussian::new(ratio(n, d)).unwrap().fill(&mut out, &mut rng(seed as u64));
        let far = (12.0 * sigma2.sqrt()).ceil() as i64 + 2;
        let chi = chi_square(&count(&out), &expected(|x| (-(x * x) as f64 / (2.0 * sigma2)).exp(), far));
        assert!(chi < 5.0, "{n}/{d}: {chi}");
    }
}

#[test]
fn discrete_laplaces_have_their_law() {
    let mut out = vec![0; SAMPLES];
    for (seed, (n, d)) in [(1, 3), (1, 1), (5, 2), (200, 1)].into_iter().enumerate() {
        let scale = n as f64 / d as f64;
        DiscreteLaplace::new(ratio(n, d)).unwrap().fill(&mut out, &mut rng(10 + seed as u64));
        let far = (40.0 * scale).ceil() as i64;
        let chi = chi_square(&count(&out), &expected(|x| (-x.abs() as f64 / scale).exp(), far));
        assert!(chi < 5.0, "{n}/{d}: {chi}");
    }
}

/// The probabilities of Poisson(μ) from the mode outwards, then those of the difference by summing products.
fn skellam(variance: f64) -> Vec<(i64, f64)> {
    let mu = variance / 2.0;
    let far = (mu + 12.0 * mu.sqrt() + 40.0) as usize;
    let mut poisson: Vec<f64> = Vec::with_capacity(far);
    let mut log = -mu;
    for k in 0..far {
        poisson.push(log.exp());
        log += mu.ln() - ((k + 1) as f64).ln();
    }
    let reach = (12.0 * variance.sqrt()).ceil() as i64 + 12;
    let mass = |x: i64| {
        let shift = x.unsigned_abs() as usize;
        if shift >= far { 0.0 } else { poisson[shift..].iter().zip(&poisson).map(|(a, b)| a * b).sum::<f64>() }
    };
    expected(mass, reach)
}

#[test]
fn skellams_have_their_law() {
    let mut out = vec![0; SAMPLES];
    // Means 0.125, 0.5, 2.33, 50, 617.3 (products) and 1250 (Stirling).
    for (seed, (n, d)) in [(1, 4), (1, 1), (14, 3), (100, 1), (12_346, 10), (2500, 1)].into_iter().enumerate() {
        let noise = Skellam::new(ratio(n, d)).unwrap();
        noise.fill(&mut out, &mut rng(20 + seed as u64));
        let chi = chi_square(&count(&out), &skellam(n as f64 / d as f64));
        assert!(chi < 5.0, "{n}/{d}: {chi}");
    }
}

/// Too wide for counting single values: variance, fourth moment, and equal counts between the quantiles of a normal law.
#[test]
fn wide_noise_has_its_moments_and_quantiles() {
    let mut out = vec![0; SAMPLES];
    // Φ^-1 of 1/8, 2/8, 3/8.
    let quantiles = [-1.150_349_380_376_008, -0.674_489_750_196_081_7, -0.318_639_363_964_375_2];
    for (seed, sigma) in [1e3, 3e4, 1e6].into_iter().enumerate() {
        let variance = ratio((sigma * sigma) as u64, 1);
        for kind in 0..2 {
            let mut rng = rng(30 + seed as u64);
            match kind {
                0 => DiscreteGaussian::new(variance).unwrap().fill(&mut out, &mut rng),
                _ => Skellam::new(variance).unwrap().fill(&mut out, &mut rng),
            }
            let moment = |power| out.iter().map(|&x| (x as f64 / sigma).powi(power)).sum::<f64>() / SAMPLES as f64;
            // Standard errors 1, √2, √15 and √96 thousandths; five of them. (Their laws are normal to 10^-6 here.)
            for (power, wanted, error) in [(1, 0.0, 1.0), (2, 1.0, 1.42), (3, 0.0, 3.88), (4, 3.0, 9.8)] {
                assert!((moment(power) - wanted).abs() < 5e-3 * error, "{kind} {sigma} {power}: {}", moment(power));
            }
            let cuts: Vec<f64> =
                quantiles.iter().copied().chain([0.0]).chain(quantiles.iter().rev().map(|q| -q)).collect();
            let mut counts = [0u32; 8];
            out.iter().for_each(|&x| counts[cuts.partition_point(|cut| cut * sigma < x as f64)] += 1);
            let wanted = SAMPLES as f64 / 8.0;
            let chi: f64 = counts.iter().map(|&c| (f64::from(c) - wanted).powi(2) / wanted).sum();
            // 7 degrees of freedom: 40 is passed once in a million. The lattice moves a share by 1/σ/3 at most.
            assert!(chi < 40.0, "{kind} {sigma}: {counts:?}");
            // Beyond 5 deviations: 0.57 expected. Beyond 4: 63, of deviation 8.
            let beyond = |k: f64| out.iter().filter(|&&x| (x as f64).abs() > k * sigma).count();
            assert!(
                (24..103).contains(&beyond(4.0)) && beyond(5.0) < 8,
                "{kind} {sigma}: {} {}",
                beyond(4.0),
                beyond(5.0)
            );
        }
    }
}

/// Tails are drawn by coins of their own: compare how often the fast sampler goes beyond what the table covers.
#[test]
fn tails_are_as_heavy_as_they_should_be() {
    // σ² = 1: beyond 5 p = 2 Σ_{x≥5} exp(-x²/2) / 2.50663 = 2.98e-6; of 20 million 59.6 are expected, deviation 7.7.
    let noise = DiscreteGaussian::new(ratio(1, 1)).unwrap();
    let mut out = vec![0; SAMPLES];
    let mut rng = rng(40);
    let mut beyond = 0;
    for _ in 0..20 {
        noise.fill(&mut out, &mut rng);
        beyond += out.iter().filter(|x| x.abs() >= 5).count();
    }
    assert!((22..98).contains(&beyond), "{beyond}");
    // The scale-2 Laplace law has p(|x| ≥ 27) = 2 e^-13.5 / (1 + e^-½) = 1.71e-6, beyond its table, which ends at 2^-20.
    let noise = DiscreteLaplace::new(ratio(2, 1)).unwrap();
    let mut beyond = 0;
    for _ in 0..20 {
        noise.fill(&mut out, &mut rng);
        beyond += out.iter().filter(|x| x.abs() >= 27).count();
    }
    assert!((8..64).contains(&beyond), "{beyond}");
}

#[test]
fn fast_samplers_and_the_papers_loops_have_one_law() {
    let draws = 200_000;
    let two_samples = |a: &[i64], b: &[i64]| {
        let (a, b) = (count(a), count(b));
        let mut values: Vec<i64> = a.keys().chain(b.keys()).copied().collect();
        values.sort_unstable();
        values.dedup();
        let (mut statistic, mut cells, mut left, mut right) = (0.0, 0, 0.0, 0.0);
        for x in values {
            left += a.get(&x).copied().unwrap_or(0) as f64;
            right += b.get(&x).copied().unwrap_or(0) as f64;
            if left + right >= 20.0 {
                statistic += (left - right) * (left - right) / (left + right);
                cells += 1;
                (left, right) = (0.0, 0.0);
            }
        }
        (statistic - f64::from(cells)) / (2.0 * f64::from(cells)).sqrt()
    };
    let mut rng = rng(50);
    let mut fast = vec![0; draws];
    for (n, d) in [(1, 4), (9, 2), (400, 1)] {
        DiscreteGaussian::new(ratio(n, d)).unwrap().fill(&mut fast, &mut rng);
        let slow: Vec<i64> = (0..draws).map(|_| cks::discrete_gaussian(n, d, &mut rng)).collect();
        let chi = two_samples(&fast, &slow);
        assert!(chi < 5.0, "Gaussian {n}/{d}: {chi}");
        DiscreteLaplace::new(ratio(n, d)).unwrap().fill(&mut fast, &mut rng);
        let slow: Vec<i64> = (0..draws).map(|_| cks::discrete_laplace(n, d, &mut rng)).collect();
        let chi = two_samples(&fast, &slow);
        assert!(chi < 5.0, "Laplace {n}/{d}: {chi}");
    }
}

#[test]
fn coins_of_the_exponential_have_their_bias() {
    let mut rng = rng(60);
    for (a, b) in [(0u128, 1u128), (1, 3), (1, 1), (7, 2)] {
        let heads = (0..200_000).filter(|_| cks::bernoulli_exp(a, b, &mut rng)).count() as f64;
        let p = (-(a as f64) / b as f64).exp();
        // Five standard deviations, and none where p is 1.
        assert!((heads - 2e5 * p).abs() <= 5.0 * (2e5 * p * (1.0 - p)).sqrt(), "{a}/{b}: {heads}");
    }
}

#[test]
fn skellams_add_up() {
    // Four of variance 5/2 against one of variance 10.
    let (part, whole) = (Skellam::new(ratio(5, 2)).unwrap(), Skellam::new(ratio(10, 1)).unwrap());
    let mut rng = rng(70);
    let mut out = vec![0; SAMPLES];
    for _ in 0..4 {
        part.add_to(&mut out, &mut rng);
    }
    let chi = chi_square(&count(&out), &skellam(10.0));
    assert!(chi < 5.0, "{chi}");
    whole.fill(&mut out, &mut rng);
    let chi = chi_square(&count(&out), &skellam(10.0));
    assert!(chi < 5.0, "{chi}");
}

#[test]
fn the_same_seed_draws_the_same_noise() {
    let noise = DiscreteGaussian::new(ratio(1000, 1)).unwrap();
    let (mut a, mut b) = (vec![0; 1000], vec![5; 1000]);
    noise.fill(&mut a, &mut rng(80));
    noise.add_to(&mut b, &mut rng(80));
    assert!(a.iter().zip(&b).all(|(a, b)| a + 5 == *b));
    assert_eq!(noise.sample(&mut rng(81)), noise.sample(&mut rng(81)));
}

/// A law whose bounds for words are so wide that big numbers decide whenever the squeeze does not.
struct Vague<L>(L);

impl<L: Law> Law for Vague<L> {
    fn bounds(&self, of: Of) -> (u64, u64) {
        let (low, high) = self.0.bounds(of);
        match of {
            Of::Mass(_) => (low / 2, high + high / 4),
            Of::Step { .. } => (0, high),
        }
    }

    fn enclose(&self, of: Of, places: usize) -> (Fixed, Fixed) {
        self.0.enclose(of, places)
    }

    fn width(&self) -> u64 {
        self.0.width()
    }

    fn least(&self) -> i64 {
        self.0.least()
    }
}

#[test]
fn big_numbers_decide_as_words_do() {
    let draws = 100_000;
    let mut rng = rng(90);
    let mut bits = Bits::new(&mut rng, draws);
    let cells = Cells::new(Vague(Bell::new(ratio(1600, 3))));
    let out: Vec<i64> = (0..draws).map(|_| cells.sample(&mut bits)).collect();
    let scaled = |list: Vec<(i64, f64)>| list.into_iter().map(|(x, e)| (x, e / 10.0)).collect::<Vec<_>>();
    let chi = chi_square(&count(&out), &scaled(expected(|x| (-(x * x) as f64 * 3.0 / 3200.0).exp(), 300)));
    assert!(chi < 5.0, "Gaussian: {chi}");
    // A small and a large mean: products against Stirling's series, both decided by products.
    for mean in [40u64, 1500] {
        let cells = Cells::new(Vague(Counts::new(mean, 1)));
        let out: Vec<i64> = (0..draws).map(|_| cells.sample(&mut bits)).collect();
        let mean = mean as f64;
        let weight = |x: i64| {
            let k = mean + x as f64;
            if k < 0.0 { 0.0 } else { (x as f64 * mean.ln() - libm::lgamma(k + 1.0) + libm::lgamma(mean + 1.0)).exp() }
        };
        let chi = chi_square(&count(&out), &scaled(expected(weight, (12.0 * mean.sqrt()) as i64)));
        assert!(chi < 5.0, "Poisson {mean}: {chi}");
    }
}
