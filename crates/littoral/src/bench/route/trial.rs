//! Resamples: the set is split by chance, one half calibrates, the other judges.

use crate::route::label::Judged;
use littoral_infer::route::bound::clopper_pearson_lower;
use littoral_infer::route::features::{When, names};
use littoral_infer::route::learn::{learn, shuffled};
use littoral_infer::route::measure::{Curve, Outcome, pgr, random_apgrs};
use littoral_infer::route::score::Example;

#[derive(Clone, Copy, Debug)]
pub struct Levels {
    pub alpha: f64,
    pub delta: f64,
    /// Of the test half's own verdict.
    pub verdict: f64,
}

/// What one split told.
#[derive(Clone, Debug)]
pub struct Trial {
    /// `None`: nothing could be promised.
    pub promised: Option<Promised>,
    /// `None`: in this test half the large model is not better.
    pub measured: Option<Measured>,
}

#[derive(Clone, Debug)]
pub struct Promised {
    /// Of the test half.
    pub kept: u64,
    pub kept_worse: u64,
    pub kept_share: f64,
    /// PGR in the test half of the router that keeps what the promise covers, and the share that it sends to the large model;
    /// `None`: the large model is not better there.
    pub pgr: Option<(f64, f64)>,
    /// The share in the test half is above α, by however little.
    pub violated: bool,
    /// The test half refutes the bound.
    pub refuted: bool,
    /// The share among all that were not fitted to, both halves, is above α.
    pub above_in_all: bool,
}

#[derive(Clone, Debug)]
pub struct Measured {
    pub apgr: f64,
    pub apgr_random: f64,
    pub cpt_50: Option<f64>,
    pub cpt_80: Option<f64>,
}

/// What is drawn in a trial: each has a seed of its own, so that chance in one tells nothing of another, nor of the tasks, which
/// have the plain seed.
#[derive(Clone, Copy)]
enum Draw {
    Halves = 1,
    Learnt = 2,
    Routed = 3,
}

impl Draw {
    fn seed(self, seed: u64, number: u64) -> u64 {
        seed.wrapping_add(number) ^ (self as u64) << 56
    }
}

/// An order of which the first half calibrates.
fn halves(count: usize, seed: u64, number: u64) -> Vec<usize> {
    shuffled(count, Draw::Halves.seed(seed, number), 0)
}

/// The calibrating half is treated as `littoral route calibrate` treats its prompts, its own split included.
pub fn trial(set: &[Judged], when: When, levels: Levels, seed: u64, number: u64) -> Trial {
    let order = halves(set.len(), seed, number);
    let (half, test) = order.split_at(set.len() / 2);
    let width = names(when).len();
    let known = |at: &usize| &set[*at].features[..width];
    let examples: Vec<Example> =
        half.iter().map(|at| Example { features: known(at).to_vec(), worse: set[*at].worse() }).collect();
    let Ok(learnt) = learn(when, &examples, levels.alpha, levels.delta, Draw::Learnt.seed(seed, number)) else {
        return Trial { promised: None, measured: None };
    };
    let score = |at: &usize| learnt.scorer.score(known(at));
    let quality = |right: bool| f64::from(u8::from(right));
    let outcome =
        |at: &usize| Outcome { score: score(at), small: quality(set[*at].small), large: quality(set[*at].large) };
    let outcomes: Vec<Outcome> = test.iter().map(outcome).collect();
    let promised = learnt.calibration.ok().map(|found| {
        let kept: Vec<&usize> = test.iter().filter(|at| score(at) >= found.threshold).collect();
        let kept_worse = kept.iter().filter(|at| set[***at].worse()).count() as u64;
        let kept = kept.len() as u64;
        let above = |kept: u64, worse: u64| worse as f64 > levels.alpha * kept as f64;
        Promised {
            kept,
            kept_worse,
            kept_share: kept as f64 / test.len().max(1) as f64,
            pgr: pgr(&outcomes, found.threshold).ok(),
            violated: above(kept, kept_worse),
            refuted: clopper_pearson_lower(kept_worse, kept, levels.verdict) > levels.alpha,
            above_in_all: above(kept + found.kept, kept_worse + found.kept_worse),
        }
    });
    let measured = Curve::new(&outcomes).ok().and_then(|curve| {
        let random = random_apgrs(&outcomes, 1, Draw::Routed.seed(seed, number)).ok()?;
        let (cpt_50, cpt_80) = (curve.cpt(0.5), curve.cpt(0.8));
        Some(Measured { apgr: curve.apgr(), apgr_random: random.first().copied()?, cpt_50, cpt_80 })
    });
    Trial { promised, measured }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_infer::sample::Noise;

    const LEVELS: Levels = Levels { alpha: 0.1, delta: 0.1, verdict: 0.05 };

    /// The first feature says how likely the small model is worse; 1 of 5 is, on average.
    fn set(count: u64) -> Vec<Judged> {
        let one = |at| {
            let noise = Noise::new(11, at);
            let mut features = vec![0.0; names(When::Before).len()];
            features[0] = noise.uniform(0);
            let worse = noise.uniform(1) < 0.6 * features[0] * features[0];
            let both = noise.uniform(2) < 0.8;
            Judged { features, small: both && !worse, large: both || worse, agree: !worse }
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_score_that_knows_beats_chance_and_keeps_its_promise() {
        let set = set(800);
        let trials: Vec<Trial> = (0..60).map(|number| trial(&set, When::Before, LEVELS, 1, number)).collect();
        let promised: Vec<&Promised> = trials.iter().filter_map(|trial| trial.promised.as_ref()).collect();
        assert!(promised.len() >= 50, "{}", promised.len());
        let count = |is: fn(&Promised) -> bool| promised.iter().filter(|promised| is(promised)).count();
        // With the set as the population its share is the truth: δ of 60 are 6, and three standard deviations of 2.3.
        let above_in_all = count(|promised| promised.above_in_all);
        assert!(above_in_all <= 13, "{above_in_all}");
        let [refuted, violated] = [count(|promised| promised.refuted), count(|promised| promised.violated)];
        assert!(refuted <= violated && violated <= 20, "{refuted} {violated}");
        // It keeps some, and loses little by that.
        let pgrs: Vec<(f64, f64)> = promised.iter().filter_map(|promised| promised.pgr).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| pgrs.iter().map(of).sum::<f64>() / pgrs.len() as f64;
        let (pgr, sent) = (mean(|(pgr, _)| *pgr), mean(|(_, sent)| *sent));
        assert!(sent < 0.8 && pgr > sent + 0.1, "{pgr} {sent}");
        let measured: Vec<&Measured> = trials.iter().filter_map(|trial| trial.measured.as_ref()).collect();
        let mean = |of: fn(&Measured) -> f64| measured.iter().map(|m| of(m)).sum::<f64>() / measured.len() as f64;
        assert!(mean(|m| m.apgr) > 0.65, "{}", mean(|m| m.apgr));
        assert!((mean(|m| m.apgr_random) - 0.5).abs() < 0.05, "{}", mean(|m| m.apgr_random));
    }

    /// A test half that contradicts the bound says so: labels of the test half are all worse.
    #[test]
    fn a_broken_promise_is_seen() {
        let mut set = set(400);
        set.iter_mut().for_each(|judged| (judged.small, judged.large) = (true, true));
        let order = halves(400, 1, 0);
        order[200..].iter().for_each(|at| set[*at].small = false);
        let promised = trial(&set, When::Before, LEVELS, 1, 0).promised.expect("all calibrating answers are good");
        assert!(promised.refuted && promised.violated && promised.above_in_all, "{promised:?}");
        assert_eq!((promised.kept, promised.kept_worse), (200, 200));
    }
}
