//! Two attacks that tell from a model who was in its training set, and how well each does.
//!
//! *Threshold* (Yeom et al. 2018, "Privacy risk in machine learning", arXiv:1709.01604): members have smaller losses. *Likelihood
//! ratio* (Carlini et al. 2022, "Membership inference attacks from first principles", arXiv:2112.03570, algorithm 1): other
//! models of the same kind, shadows, show how confident a model is of this very row with it and without it; two normal laws of
//! the logit of the confidence, each row with its own means and all with common deviations (section VI.C, few shadows).
//!
//! What (ε, δ) allows is Kairouz, Oh and Viswanath 2015 (arXiv:1311.0776), theorem 2.1: TPR ≤ e^ε FPR + δ, and the same for misses.

/// What a model says of a row.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub member: bool,
    pub loss: f64,
}

/// How well an attack does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Power {
    /// The largest difference of true and false positive rates.
    pub advantage: f64,
    /// The true positive rate where at most 1 % of the others are called members.
    pub tpr_at_fpr: f64,
}

/// The false positive rate at which the true one is told.
const FPR: f64 = 0.01;
/// Losses below come of rounding.
const LOSS_LEAST: f64 = 1e-7;

/// By the loss alone. One list of rows per model, the same rows in all.
pub fn threshold(models: &[Vec<Told>]) -> Power {
    power(models.iter().flatten().map(|told| (-told.loss, told.member)).collect())
}

/// Each model is attacked with all others as its shadows.
pub fn likelihood_ratio(models: &[Vec<Told>]) -> Power {
    let rows = models.first().map_or(0, Vec::len);
    let logits: Vec<Vec<f64>> = models.iter().map(|told| told.iter().map(|told| logit(told.loss)).collect()).collect();
    // Per row: number, sum of those without and of those with it.
    let mut sums = vec![[(0f64, 0f64); 2]; rows];
    for (told, logits) in models.iter().zip(&logits) {
        for ((sums, told), logit) in sums.iter_mut().zip(told).zip(logits) {
            let (count, sum) = &mut sums[usize::from(told.member)];
            (*count, *sum) = (*count + 1.0, *sum + logit);
        }
    }
    let mut spread = [(0f64, 0f64); 2];
    for (told, logits) in models.iter().zip(&logits) {
        for ((sums, told), logit) in sums.iter().zip(told).zip(logits) {
            let side = usize::from(told.member);
            let (count, sum) = sums[side];
            if count > 1.0 {
                // Deviations from a mean that they are part of are too small by a factor.
                spread[side].0 += (count - 1.0) / count;
                spread[side].1 += (logit - sum / count).powi(2);
            }
        }
    }
    let variance = spread.map(|(count, sum)| (sum / f64::max(count, 1.0)).max(1e-12));
    let mut scores = Vec::new();
    for (told, logits) in models.iter().zip(&logits) {
        for ((sums, told), logit) in sums.iter().zip(told).zip(logits) {
            let score = |side: usize| {
                let (mut count, mut sum) = sums[side];
                // The model under attack is none of its shadows.
                if usize::from(told.member) == side {
                    (count, sum) = (count - 1.0, sum - logit);
                }
                let density = |mean: f64| -0.5 * ((logit - mean).powi(2) / variance[side] + variance[side].ln());
                (count > 0.0).then(|| density(sum / count))
            };
            // A row that all shadows have, or none, says nothing.
            let ratio = score(1).zip(score(0)).map_or(0.0, |(with, without)| with - without);
            scores.push((ratio, told.member));
        }
    }
    power(scores)
}

/// The logit of the confidence e^-loss.
fn logit(loss: f64) -> f64 {
    let loss = loss.clamp(LOSS_LEAST, 1e3);
    -loss - (-(-loss).exp_m1()).ln()
}

/// Over all thresholds; equal scores fall on one side together.
fn power(mut scores: Vec<(f64, bool)>) -> Power {
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let members = scores.iter().filter(|(_, member)| *member).count().max(1) as f64;
    let others = scores.iter().filter(|(_, member)| !member).count().max(1) as f64;
    let (mut hits, mut alarms) = (0.0, 0.0);
    let mut power = Power { advantage: 0.0, tpr_at_fpr: 0.0 };
    for same in scores.chunk_by(|a, b| a.0 == b.0) {
        for (_, member) in same {
            *if *member { &mut hits } else { &mut alarms } += 1.0;
        }
        let (tpr, fpr) = (hits / members, alarms / others);
        power.advantage = power.advantage.max(tpr - fpr);
        if fpr <= FPR {
            power.tpr_at_fpr = tpr;
        }
    }
    power
}

/// The most that any attack on an (ε, δ)-private model can reach.
pub fn bound(epsilon: f64, delta: f64) -> Power {
    // Of huge ε: all there is.
    let e = epsilon.min(700.0).exp();
    let advantage = ((e - 1.0 + 2.0 * delta) / (e + 1.0)).min(1.0);
    let tpr_at_fpr = (e * FPR + delta).min(1.0 - (1.0 - FPR - delta) / e).min(1.0);
    Power { advantage, tpr_at_fpr }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_is_that_of_the_best_threshold() {
        let all = |scores: &[(f64, bool)]| power(scores.to_vec());
        let perfect = all(&[(2.0, true), (1.5, true), (1.0, false), (0.0, false)]);
        assert_eq!(perfect, Power { advantage: 1.0, tpr_at_fpr: 1.0 });
        assert_eq!(all(&[(1.0, true), (1.0, false)]), Power { advantage: 0.0, tpr_at_fpr: 0.0 });
        let half = all(&[(3.0, true), (2.0, false), (1.0, true), (0.0, false)]);
        assert_eq!(half, Power { advantage: 0.5, tpr_at_fpr: 0.5 });
    }

    #[test]
    fn bounds_are_those_of_randomised_response() {
        // Telling the truth with probability e^ε / (1 + e^ε) has this advantage exactly.
        let found = bound(1.0, 0.0);
        assert!((found.advantage - (1f64.exp() - 1.0) / (1f64.exp() + 1.0)).abs() < 1e-15);
        assert!((found.tpr_at_fpr - 0.01 * 1f64.exp()).abs() < 1e-15);
        assert_eq!(bound(0.0, 0.0), Power { advantage: 0.0, tpr_at_fpr: 0.01 });
        assert_eq!(bound(1e4, 1e-5), Power { advantage: 1.0, tpr_at_fpr: 1.0 });
    }

    #[test]
    fn shadows_see_what_a_threshold_does_not() {
        // Rows of very different difficulty; membership lowers each loss by a fifth of itself.
        let models: Vec<Vec<Told>> = (0..12u32)
            .map(|model| {
                let told = |row: u32| {
                    let member = (model * 7 + row * 5 + model * row).is_multiple_of(3);
                    let jitter = 1.0 + 0.02 * f64::from((model * 31 + row * 17) % 11) / 11.0;
                    let loss = 0.001 * 1.15f64.powi(row as i32) * jitter * if member { 0.8 } else { 1.0 };
                    Told { member, loss }
                };
                (0..50).map(told).collect()
            })
            .collect();
        let (simple, ratio) = (threshold(&models), likelihood_ratio(&models));
        assert!(ratio.advantage > 0.95 && simple.advantage < 0.3, "{ratio:?} {simple:?}");
    }
}
