//! Does a calibration still hold? A watch looks at two things, and withdraws the promise with a reason when either is off:
//!
//! - **Scores** of all requests, in blocks, against those of the calibration (two-sample Kolmogorov-Smirnov). Requests that
//!   look different are not exchangeable with the examples, whatever their answers are.
//! - **Audits**: a share of kept requests is asked of both models. Too many worse answers there (Clopper-Pearson's lower
//!   bound above α) say that the promise is broken, though scores look as ever.
//!
//! A watch looks again and again, so each look may err less than the one before: the k-th of a kind has level / (k (k + 1)),
//! which adds up to the level. So traffic that has not changed keeps its promise for ever with a probability of 1 - level.
//! What is withdrawn stays so: only a new calibration has a new watch. A host keeps a watch over restarts as JSON.

use super::bound::{Kept, binomial_at_least, clopper_pearson_lower};
use super::calibrate::{Calibration, SCORES_MAX};
use crate::sample::Noise;
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Audits between two looks.
const AUDITS_PER_LOOK: u64 = 10;
/// Looks and audits that a watch can have counted: up to it binomial tails are exact.
const COUNT_MAX: u64 = 1 << 40;

/// How a watch is kept. The defaults look every 200 requests and give one false alarm in a hundred calibrations, at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watching {
    /// The probability that traffic which has not changed loses its promise, ever; within 0..1. Half is for scores, half for
    /// audits.
    pub level: f64,
    /// Scores of a block, at least 1; at most [`SCORES_MAX`] are.
    pub block: usize,
}

impl Default for Watching {
    fn default() -> Self {
        Self { level: 0.01, block: 200 }
    }
}

/// Why a promise was taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Withdrawn {
    /// The scores of the last block and those of the calibration differ by `distance`; so far apart they come by chance with a
    /// probability below `level`.
    Scores { distance: f64, limit: f64, level: f64 },
    /// Of the audited answers so many were worse, which puts their share above `lower_bound`, and that above α.
    Audits { audits: u64, worse: u64, lower_bound: f64, alpha: f64 },
}

impl fmt::Display for Withdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scores { distance, limit, .. } => {
                write!(
                    f,
                    "requests have changed: their scores are {distance:.3} from the calibration's, {limit:.3} allowed"
                )
            }
            Self::Audits { audits, worse, lower_bound, alpha } => write!(
                f,
                "{worse} of {audits} audited answers were worse: their share is above {lower_bound:.3}, and {alpha} was promised"
            ),
        }
    }
}

/// A number of a watch that was read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the watch, {field}: {expected} expected, got {got}")]
pub struct WatchError {
    pub field: &'static str,
    pub expected: String,
    pub got: String,
}

/// One that is read from a file is [checked](Watch::check) before it is believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    watching: Watching,
    /// Of the calibration, rising; and how many there were before they were thinned out.
    scores: Vec<f64>,
    examples: u64,
    alpha: f64,
    block: Vec<f64>,
    score_looks: u64,
    audits: u64,
    worse: u64,
    withdrawn: Option<Withdrawn>,
}

impl Watch {
    pub fn new(calibration: &Calibration, watching: Watching) -> Self {
        let Watching { level, block } = watching;
        let level = if level > 0.0 && level < 1.0 { level } else { Watching::default().level };
        Self {
            watching: Watching { level, block: block.clamp(1, SCORES_MAX) },
            scores: calibration.scores.clone(),
            examples: calibration.examples,
            alpha: calibration.alpha,
            block: Vec::new(),
            score_looks: 0,
            audits: 0,
            worse: 0,
            withdrawn: None,
        }
    }

    /// Is this a watch over `calibration`? For one that was read from a file. A withdrawal in it is believed, whatever it
    /// says: it promises nothing.
    ///
    /// # Errors
    /// The first number that no watch over it can have.
    pub fn check(&self, calibration: &Calibration) -> Result<(), WatchError> {
        let Watching { level, block } = self.watching;
        let field = |holds: bool, field, expected: &str, got: String| match holds {
            true => Ok(()),
            false => Err(WatchError { field, expected: expected.to_owned(), got }),
        };
        let inside = level > 0.0 && level < 1.0;
        field(inside, "level", "a number within 0..1, ends excluded,", level.to_string())?;
        field((1..=SCORES_MAX).contains(&block), "block", &format!("1 to {SCORES_MAX} scores"), block.to_string())?;
        let same = self.scores == calibration.scores;
        field(same, "scores", "those of the calibration", format!("{} others", self.scores.len()))?;
        let Calibration { examples, alpha, .. } = *calibration;
        field(
            self.examples == examples,
            "examples",
            &format!("the calibration's {examples}"),
            self.examples.to_string(),
        )?;
        field(self.alpha == alpha, "alpha", &format!("the calibration's {alpha}"), self.alpha.to_string())?;
        let (seen, most) = (self.block.len(), format!("at most {block} scores"));
        field(seen <= block && !self.block.iter().any(|score| score.is_nan()), "seen", &most, seen.to_string())?;
        let count = |name, got: u64, most: u64| field(got <= most, name, &format!("at most {most}"), got.to_string());
        count("score_looks", self.score_looks, COUNT_MAX)?;
        count("audits", self.audits, COUNT_MAX)?;
        count("worse", self.worse, self.audits)
    }

    /// The reason, if the promise does not hold any more.
    pub fn withdrawn(&self) -> Option<&Withdrawn> {
        self.withdrawn.as_ref()
    }

    /// How often it has looked.
    pub fn looks(&self) -> u64 {
        self.score_looks + self.audits / AUDITS_PER_LOOK
    }

    /// Scores since the last look at them.
    pub fn seen(&self) -> usize {
        self.block.len()
    }

    /// Audits that it has heard of.
    pub fn audits(&self) -> u64 {
        self.audits
    }

    /// Is it a watch over this calibration?
    pub fn is_of(&self, calibration: &Calibration) -> bool {
        let Calibration { scores, examples, alpha, .. } = calibration;
        self.scores == *scores && self.examples == *examples && self.alpha == *alpha
    }

    /// Hears of the score of a request, whoever answered it.
    pub fn saw(&mut self, score: f64) {
        self.block.push(if score.is_nan() { 0.0 } else { score });
        if self.block.len() < self.watching.block || self.withdrawn.is_some() {
            self.block.truncate(self.watching.block);
            return;
        }
        let mut block = std::mem::take(&mut self.block);
        block.sort_by(f64::total_cmp);
        self.score_looks += 1;
        let level = spent(self.watching.level / 2.0, self.score_looks);
        let distance = distance(&self.scores, &block);
        let limit = self.limit(block.len(), level);
        if distance > limit {
            self.withdrawn = Some(Withdrawn::Scores { distance, limit, level });
        }
    }

    /// Hears how the small model's answer to an audited request was. Only requests that were kept for their score count.
    pub fn audited(&mut self, worse: bool) {
        self.audits += 1;
        self.worse += u64::from(worse);
        if !self.audits.is_multiple_of(AUDITS_PER_LOOK) || self.withdrawn.is_some() {
            return;
        }
        let level = spent(self.watching.level / 2.0, self.audits / AUDITS_PER_LOOK);
        let Kept { kept: audits, failures: worse } = Kept { kept: self.audits, failures: self.worse };
        // So many worse ones would be too rare if the promise held.
        if binomial_at_least(worse, audits, self.alpha) < level {
            let lower_bound = clopper_pearson_lower(worse, audits, level);
            self.withdrawn = Some(Withdrawn::Audits { audits, worse, lower_bound, alpha: self.alpha });
        }
    }

    /// The distance that two samples of one law have with a probability of `level` at most: e exp(-2 D² nm / (n + m)) (Wei and
    /// Dudley, "Two-sample Dvoretzky-Kiefer-Wolfowitz inequalities", 2012; the factor is 2 for large samples). Thinned-out
    /// scores may be off by their step.
    fn limit(&self, block: usize, level: f64) -> f64 {
        let (n, m) = (self.examples.max(1) as f64, block as f64);
        let thinned = self.examples > self.scores.len() as u64;
        let step = if thinned { 1.0 / self.scores.len().max(1) as f64 } else { 0.0 };
        (libm::log(std::f64::consts::E / level) / 2.0 * (1.0 / n + 1.0 / m)).sqrt() + step
    }
}

/// Is the request of that number audited, if it is kept? `share`: of kept requests, 0 to 1.
pub fn drawn_for_audit(seed: u64, request: u64, share: f64) -> bool {
    Noise::new(seed, request).uniform(0) < share
}

fn spent(level: f64, look: u64) -> f64 {
    level / (look as f64 * (look as f64 + 1.0))
}

/// Kolmogorov and Smirnov's: how far apart two empirical distributions are, at most. Both in rising order.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let (mut i, mut j, mut most) = (0, 0, 0f64);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let least = if x < y { *x } else { *y };
        // Equal ones are passed together: between them neither distribution has a value.
        i += a[i..].iter().take_while(|x| **x <= least).count();
        j += b[j..].iter().take_while(|y| **y <= least).count();
        most = most.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::calibrate::{Labelled, calibrate};

    fn calibration(seed: u64, examples: u64) -> Calibration {
        let examples: Vec<Labelled> =
            (0..examples).map(|at| Labelled { score: Noise::new(seed, at).uniform(0), worse: false }).collect();
        calibrate(&examples, &[0.5], 0.1, 0.1).expect("no failure")
    }

    #[test]
    fn distances_by_hand() {
        assert_eq!(distance(&[1.0, 2.0, 3.0, 4.0], &[2.0, 3.0]), 0.25);
        assert_eq!(distance(&[0.0, 0.0], &[1.0]), 1.0);
        assert_eq!(distance(&[0.5, 0.5, 0.5], &[0.5]), 0.0);
        let sum: f64 = (1..100_000).map(|look| spent(0.01, look)).sum();
        assert!((sum - 0.01).abs() < 1e-6);
    }

    /// 200 watches over 20 blocks and 1000 audits of traffic like the examples', answers worse exactly as often as is allowed: at a
    /// level of 0.2 at most 40 and three standard errors (17) may be withdrawn. The inequality has slack.
    #[test]
    fn traffic_that_stays_as_it_was_keeps_its_promise() {
        let withdrawn = (0..200u64).filter(|run| {
            let mut watch = Watch::new(&calibration(*run, 400), Watching { level: 0.2, block: 100 });
            for at in 0..2000 {
                let noise = Noise::new(1000 + run, at);
                watch.saw(noise.uniform(0));
                if at % 2 == 0 {
                    watch.audited(noise.uniform(1) < 0.1);
                }
            }
            watch.withdrawn().is_some()
        });
        assert!(withdrawn.count() <= 57);
    }

    #[test]
    fn a_change_is_seen_and_stays() {
        let mut watch = Watch::new(&calibration(1, 3000), Watching::default());
        assert_eq!(watch.scores.len(), SCORES_MAX);
        // Harder requests: their scores lie a quarter lower.
        (0..400u64).for_each(|at| watch.saw(Noise::new(2, at).uniform(0) * 0.75));
        let Some(Withdrawn::Scores { distance, limit, .. }) = watch.withdrawn().cloned() else { panic!("{watch:?}") };
        assert!(distance > limit && (0.15..0.35).contains(&distance), "{distance}");
        let reason = watch.withdrawn().map(ToString::to_string).unwrap_or_default();
        assert!(reason.starts_with("requests have changed: their scores are 0."), "{reason}");
        // Good news later does not bring it back; nor does a restart.
        (0..2000u64).for_each(|at| watch.saw(Noise::new(3, at).uniform(0)));
        (0..2000).for_each(|_| watch.audited(false));
        let text = serde_json::to_string(&watch).expect("JSON");
        let watch: Watch = serde_json::from_str(&text).expect("a watch");
        assert!(matches!(watch.withdrawn(), Some(Withdrawn::Scores { .. })));
    }

    #[test]
    fn a_watch_that_was_read_is_one_over_its_calibration() {
        let calibration = self::calibration(6, 400);
        let mut watch = Watch::new(&calibration, Watching::default());
        for at in 0..250u64 {
            watch.saw(Noise::new(7, at).uniform(0));
            watch.audited(at % 20 == 0);
        }
        let text = serde_json::to_string(&watch).expect("JSON");
        let read: Watch = serde_json::from_str(&text).expect("a watch");
        assert_eq!((&read, read.check(&calibration)), (&watch, Ok(())));
        let other = read.check(&self::calibration(8, 400)).map_err(|e| e.to_string());
        assert_eq!(other, Err("the watch, scores: those of the calibration expected, got 400 others".into()));
        let refused = |change: &dyn Fn(&mut Watch)| {
            let mut changed = watch.clone();
            change(&mut changed);
            changed.check(&calibration).map_err(|e| e.field)
        };
        assert_eq!(refused(&|w| w.watching.level = 0.0), Err("level"));
        // Never looked again, or at every request.
        assert_eq!(refused(&|w| w.watching.block = 1 << 40), Err("block"));
        assert_eq!(refused(&|w| w.watching.block = 0), Err("block"));
        assert_eq!(refused(&|w| w.examples = 1), Err("examples"));
        assert_eq!(refused(&|w| w.alpha = 0.9), Err("alpha"));
        assert_eq!(refused(&|w| w.block = vec![0.5; 201]), Err("seen"));
        assert_eq!(refused(&|w| w.score_looks = u64::MAX), Err("score_looks"));
        assert_eq!(refused(&|w| w.audits = u64::MAX), Err("audits"));
        assert_eq!(refused(&|w| w.worse = 251), Err("worse"));
    }

    /// Scores as ever, but a fifth of the answers worse where a tenth is allowed: seen within some 400 audits.
    #[test]
    fn audits_see_what_scores_do_not() {
        let mut watch = Watch::new(&calibration(4, 400), Watching::default());
        for at in 0..600u64 {
            let noise = Noise::new(5, at);
            watch.saw(noise.uniform(0));
            watch.audited(noise.uniform(1) < 0.2);
        }
        let Some(Withdrawn::Audits { audits, worse, lower_bound, alpha }) = watch.withdrawn().cloned() else {
            panic!("{:?}", watch.withdrawn())
        };
        assert!(lower_bound > alpha && (worse as f64) > 0.1 * audits as f64 && audits < 500, "{audits} {worse}");
        let drawn = (0..10_000).filter(|request| drawn_for_audit(7, *request, 0.05)).count();
        assert!((380..=620).contains(&drawn), "{drawn}: 500 and 5.5 standard deviations");
        assert!(!drawn_for_audit(7, 1, 0.0) && drawn_for_audit(7, 1, 1.0));
    }
}
