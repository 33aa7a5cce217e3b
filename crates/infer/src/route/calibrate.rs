//! The score from which on the small model may answer alone, with a promise: among requests that are kept, its answer is
//! worse than the large model's with a probability of at most α; and the promise itself is wrong with a probability of at most δ.
//!
//! The only assumption is that requests to come are **exchangeable** with the labelled examples: drawn from the same law,
//! independently. Nothing is assumed of the score; a bad one keeps less, and breaks nothing. Two things make it exact:
//!
//! - The **ladder** of thresholds does not know the examples: it comes from scores of others ([`ladder`]), such as those to
//!   which the score was fitted. So the failures above each rung are binomial, and their bound is Clopper and Pearson's.
//! - Rungs are tested from the safest down, each at the whole of δ, until one fails
//!   ([`fixed_sequence`]): no correction for their number is needed.
//!
//! The idea is that of "Learn then Test" (Angelopoulos et al. 2021), for one risk that is counted.

use super::bound::{Kept, clopper_pearson_upper, fixed_sequence, trials_without_failure};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Rungs of a ladder.
const RUNGS: usize = 48;
/// Scores that a calibration keeps for its watch; of more, evenly spaced ranks.
pub const SCORES_MAX: usize = 1024;
/// Examples that a calibration takes.
pub const EXAMPLES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled {
    /// 0 to 1; the greater, the surer that the small model is good enough.
    pub score: f64,
    /// The small model's answer was worse than the large one's.
    pub worse: bool,
}

/// What was found, and may be promised of requests like the examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Requests of this score or a greater one are kept.
    pub threshold: f64,
    /// The greatest share of worse answers among kept ones, and the probability that the promise is wrong; both within 0..1.
    pub alpha: f64,
    pub delta: f64,
    /// Of the examples: how many there were, how many the threshold keeps, how many of those were worse, and of all.
    pub examples: u64,
    pub kept: u64,
    pub kept_worse: u64,
    pub worse: u64,
    /// `kept` of `examples`.
    pub kept_share: f64,
    /// Clopper and Pearson's for the kept ones: at most `alpha`.
    pub upper_bound: f64,
    /// Of the examples, in order: what later scores are compared with. At most [`SCORES_MAX`].
    pub scores: Vec<f64>,
}

/// Why nothing can be promised, and what would help.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CalibrateError {
    #[error("{field}: a number within 0..1, ends excluded, expected, got {got}")]
    Level { field: &'static str, got: f64 },
    #[error("example {at}: a score of 0 to 1 expected, got {got}")]
    Score { at: usize, got: f64 },
    #[error("examples: at most {expected} expected, got {got}")]
    TooMany { expected: usize, got: usize },
    #[error("the ladder: thresholds that fall, at least one, expected, got {got}")]
    Ladder { got: String },
    /// Of a calibration that was read: one number against what the others leave it.
    #[error("{field}: {expected} expected, by the other numbers, got {got}")]
    Unlike { field: &'static str, expected: String, got: String },
    /// Of a calibration that was read.
    #[error("scores: {expected} in rising order expected, got {got}")]
    Scores { expected: u64, got: String },
    #[error(
        "nothing can be promised: {worse} of the {kept} surest answers were worse, which bounds their share by {upper:.3} and \
         not by {alpha}{}", needed(.examples_needed)
    )]
    Nothing {
        kept: u64,
        worse: u64,
        upper: f64,
        alpha: f64,
        /// About so many would do if answers go on to be worse as often; `None`: none would, at this score.
        examples_needed: Option<u64>,
    },
}

fn needed(examples: &Option<u64>) -> String {
    match examples {
        Some(count) => format!("; about {count} examples would do if it stays so"),
        None => "; no number of examples helps: a greater alpha or a better score would".to_owned(),
    }
}

/// Thresholds for [`calibrate`], from scores of examples that it does not see. `examples`: how many it will see.
///
/// The first rung keeps as many of them as it takes to bear a failure or two, not the fewest that could pass: a sequence ends
/// where it fails, so its first step should not fail by chance. The last keeps all.
pub fn ladder(scores: &[f64], examples: usize, alpha: f64, delta: f64) -> Vec<f64> {
    let mut sorted: Vec<f64> = scores.iter().copied().filter(|score| score.is_finite()).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let Some(last) = sorted.len().checked_sub(1) else { return vec![0.0] };
    let fewest = 2.5 * trials_without_failure(alpha, delta) as f64;
    let first = (fewest / examples.max(1) as f64).min(1.0);
    let rung = |at: usize| {
        let share = first + (1.0 - first) * at as f64 / (RUNGS - 1) as f64;
        sorted[((share * sorted.len() as f64) as usize).min(last)]
    };
    let mut rungs: Vec<f64> = (0..RUNGS - 1).map(rung).chain([0.0]).collect();
    rungs.dedup();
    rungs
}

/// The lowest threshold of the ladder that can be promised.
///
/// # Errors
/// [`CalibrateError::Nothing`] if not even its first can be; others if the input is none.
pub fn calibrate(examples: &[Labelled], ladder: &[f64], alpha: f64, delta: f64) -> Result<Calibration, CalibrateError> {
    check(examples, ladder, alpha, delta)?;
    let mut sorted = examples.to_vec();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let (mut at, mut step) = (0, Kept { kept: 0, failures: 0 });
    let mut steps = Vec::with_capacity(ladder.len());
    for threshold in ladder {
        while let Some(example) = sorted.get(at).filter(|example| example.score >= *threshold) {
            step.kept += 1;
            step.failures += u64::from(example.worse);
            at += 1;
        }
        steps.push(step);
    }
    let passed = fixed_sequence(steps.iter().copied(), alpha, delta);
    let examples = sorted.len() as u64;
    let Some(last) = passed.checked_sub(1) else {
        let first = steps[0];
        return Err(CalibrateError::Nothing {
            kept: first.kept,
            worse: first.failures,
            upper: first.upper(delta),
            alpha,
            examples_needed: examples_needed(first, examples, alpha, delta),
        });
    };
    let Kept { kept, failures } = steps[last];
    Ok(Calibration {
        threshold: ladder[last],
        alpha,
        delta,
        examples,
        kept,
        kept_worse: failures,
        worse: sorted.iter().filter(|example| example.worse).count() as u64,
        kept_share: kept as f64 / examples as f64,
        upper_bound: clopper_pearson_upper(failures, kept, delta),
        scores: thinned(&sorted),
    })
}

impl Calibration {
    /// Is this a calibration that could have been made? For one that was read from a file.
    pub fn check(&self) -> Result<(), CalibrateError> {
        level("alpha", self.alpha)?;
        level("delta", self.delta)?;
        if !(0.0..=1.0).contains(&self.threshold) {
            return Err(CalibrateError::Level { field: "threshold", got: self.threshold });
        }
        // First, since the rest adds and subtracts them.
        if self.examples > EXAMPLES_MAX as u64 {
            let got = usize::try_from(self.examples).unwrap_or(usize::MAX);
            return Err(CalibrateError::TooMany { expected: EXAMPLES_MAX, got });
        }
        among("kept", self.kept, 0, self.examples)?;
        among("kept_worse", self.kept_worse, 0, self.kept)?;
        among("worse", self.worse, self.kept_worse, self.kept_worse + self.examples - self.kept)?;
        let kept = Kept { kept: self.kept, failures: self.kept_worse };
        let (upper, alpha) = (kept.upper(self.delta), self.alpha);
        if !kept.holds(alpha, self.delta) {
            let Kept { kept, failures } = kept;
            return Err(CalibrateError::Nothing { kept, worse: failures, upper, alpha, examples_needed: None });
        }
        follows("kept_share", self.kept_share, self.kept as f64 / self.examples as f64)?;
        follows("upper_bound", self.upper_bound, upper)?;
        self.check_scores()
    }

    fn check_scores(&self) -> Result<(), CalibrateError> {
        let bad = |(at, score): (usize, &f64)| (!(0.0..=1.0).contains(score)).then_some((at, *score));
        if let Some((at, got)) = self.scores.iter().enumerate().find_map(bad) {
            return Err(CalibrateError::Score { at, got });
        }
        let (expected, got) = (self.examples.min(SCORES_MAX as u64), self.scores.len());
        if got as u64 != expected {
            return Err(CalibrateError::Scores { expected, got: got.to_string() });
        }
        match self.scores.windows(2).position(|pair| pair[0] > pair[1]) {
            Some(at) => Err(CalibrateError::Scores { expected, got: format!("a lesser one behind the {}th", at + 1) }),
            None => Ok(()),
        }
    }
}

fn among(field: &'static str, got: u64, least: u64, most: u64) -> Result<(), CalibrateError> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    Err(CalibrateError::Unlike { field, expected: format!("{least} to {most}"), got: got.to_string() })
}

/// A bound is found to one part in 10^12; whoever writes a file may round.
fn follows(field: &'static str, got: f64, expected: f64) -> Result<(), CalibrateError> {
    if (got - expected).abs() <= 1e-9 {
        return Ok(());
    }
    Err(CalibrateError::Unlike { field, expected: expected.to_string(), got: got.to_string() })
}

fn level(field: &'static str, got: f64) -> Result<(), CalibrateError> {
    if got > 0.0 && got < 1.0 { Ok(()) } else { Err(CalibrateError::Level { field, got }) }
}

fn check(examples: &[Labelled], ladder: &[f64], alpha: f64, delta: f64) -> Result<(), CalibrateError> {
    level("alpha", alpha)?;
    level("delta", delta)?;
    if examples.len() > EXAMPLES_MAX {
        return Err(CalibrateError::TooMany { expected: EXAMPLES_MAX, got: examples.len() });
    }
    let no_score = |example: &Labelled| !(0.0..=1.0).contains(&example.score);
    if let Some(at) = examples.iter().position(no_score) {
        return Err(CalibrateError::Score { at, got: examples[at].score });
    }
    if ladder.is_empty() || !ladder.windows(2).all(|pair| pair[0] > pair[1]) || ladder.iter().any(|t| !t.is_finite()) {
        return Err(CalibrateError::Ladder { got: format!("{:?}", &ladder[..ladder.len().min(8)]) });
    }
    Ok(())
}

/// How many examples it takes until the first rung passes, if its answers go on to be worse as often as now.
fn examples_needed(first: Kept, examples: u64, alpha: f64, delta: f64) -> Option<u64> {
    let (kept, failures) = (first.kept.max(1), first.failures);
    let rate = failures as f64 / kept as f64;
    if rate >= alpha {
        return None;
    }
    let passes =
        |trials: u64| Kept { kept: trials, failures: (rate * trials as f64).ceil() as u64 }.holds(alpha, delta);
    let mut trials = trials_without_failure(alpha, delta).max(kept);
    loop {
        if trials > EXAMPLES_MAX as u64 {
            return None;
        }
        if passes(trials) {
            break;
        }
        trials += trials / 20 + 1;
    }
    // Without a single kept one nothing is known of how many will be.
    Some(if first.kept == 0 { trials.max(2 * examples) } else { trials.saturating_mul(examples).div_ceil(kept) })
}

/// Evenly spaced ranks, in rising order.
fn thinned(falling: &[Labelled]) -> Vec<f64> {
    let (all, wanted) = (falling.len(), falling.len().min(SCORES_MAX));
    let rank = |at: usize| if wanted < 2 { 0 } else { at * (all - 1) / (wanted - 1) };
    (0..wanted).rev().map(|at| falling[rank(at)].score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Noise;
    use proptest::prelude::*;

    fn labelled(of: &[(f64, bool)]) -> Vec<Labelled> {
        of.iter().map(|(score, worse)| Labelled { score: *score, worse: *worse }).collect()
    }

    #[test]
    fn the_lowest_threshold_that_holds() {
        // 30 good above 0.8; 30 above 0.5 of which 1 is worse; 40 below, half of them worse.
        let mut examples = vec![(0.9, false); 30];
        examples.extend(vec![(0.6, false); 29]);
        examples.push((0.55, true));
        examples.extend((0..40).map(|i| (0.3, i % 2 == 0)));
        let got = calibrate(&labelled(&examples), &[0.8, 0.5, 0.2, 0.0], 0.1, 0.1).expect("a promise");
        assert_eq!((got.threshold, got.kept, got.kept_worse, got.worse, got.examples), (0.5, 60, 1, 21, 100));
        assert_eq!(got.upper_bound, clopper_pearson_upper(1, 60, 0.1));
        assert_eq!((got.scores.len(), got.scores[0], got.check()), (100, 0.3, Ok(())));
    }

    #[test]
    fn why_nothing_is_promised() {
        let said = |examples: &[(f64, bool)]| {
            calibrate(&labelled(examples), &[0.5, 0.0], 0.1, 0.1).map(|_| ()).map_err(|e| e.to_string())
        };
        // 10 of 20 are kept; 22 without a failure would hold, and so 44.
        let few: Vec<(f64, bool)> = (0..20).map(|i| (if i < 10 { 0.9 } else { 0.1 }, i >= 10)).collect();
        assert_eq!(
            said(&few),
            Err("nothing can be promised: 0 of the 10 surest answers were worse, which bounds their share by 0.206 and not \
                 by 0.1; about 44 examples would do if it stays so"
                .into())
        );
        let bad: Vec<(f64, bool)> = (0..200).map(|i| (0.9, i % 5 == 0)).collect();
        let error = said(&bad).expect_err("a fifth is worse");
        assert!(error.ends_with("no number of examples helps: a greater alpha or a better score would"), "{error}");
        assert!(said(&[]).is_err());
        let wrong = |score, alpha| calibrate(&labelled(&[(score, true)]), &[0.5], alpha, 0.1).map(|_| ());
        assert!(matches!(wrong(f64::NAN, 0.1), Err(CalibrateError::Score { at: 0, .. })));
        assert!(matches!(wrong(0.5, 1.0), Err(CalibrateError::Level { field: "alpha", .. })));
        assert!(matches!(calibrate(&[], &[0.1, 0.1], 0.1, 0.1), Err(CalibrateError::Ladder { .. })));
        // More trials than anybody has.
        let least = calibrate(&labelled(&[(0.9, false)]), &ladder(&[0.5], 1, 1e-20, 0.1), 1e-20, 0.1);
        assert!(
            matches!(least, Err(CalibrateError::Nothing { kept: 1, worse: 0, examples_needed: None, .. })),
            "{least:?}"
        );
    }

    /// Every number of a file that the others contradict is named.
    #[test]
    fn what_no_calibration_can_have_is_refused() {
        let examples: Vec<Labelled> =
            (0..100u32).map(|at| Labelled { score: f64::from(at) / 100.0, worse: at < 20 }).collect();
        let good = calibrate(&examples, &[0.5], 0.1, 0.1).expect("50 without a failure");
        assert_eq!((good.kept, good.kept_worse, good.worse, good.check()), (50, 0, 20, Ok(())));
        let refused = |change: &dyn Fn(&mut Calibration)| {
            let mut changed = good.clone();
            change(&mut changed);
            changed.check().map_err(|e| e.to_string())
        };
        let error = |text: &str| Err(text.to_owned());
        let unlike = |text: &str| Err(text.replacen(" expected,", " expected, by the other numbers,", 1));
        assert_eq!(refused(&|c| c.kept = 101), unlike("kept: 0 to 100 expected, got 101"));
        assert_eq!(refused(&|c| c.kept_worse = 51), unlike("kept_worse: 0 to 50 expected, got 51"));
        // Of 50 that were not kept no 51 are worse; and none of all, but one of the kept ones, cannot be.
        assert_eq!(refused(&|c| c.worse = 51), unlike("worse: 0 to 50 expected, got 51"));
        assert_eq!(refused(&|c| (c.kept_worse, c.worse) = (1, 0)), unlike("worse: 1 to 51 expected, got 0"));
        assert_eq!(refused(&|c| c.kept_share = 0.9), unlike("kept_share: 0.5 expected, got 0.9"));
        assert!(refused(&|c| c.upper_bound = 0.01).is_err_and(|e| e.starts_with("upper_bound: 0.045")));
        assert!(refused(&|c| c.alpha = 0.01).is_err_and(|e| e.starts_with("nothing can be promised: 0 of the 50")));
        assert_eq!(
            refused(&|c| (c.examples, c.kept) = (u64::MAX, u64::MAX)),
            error("examples: at most 1048576 expected, got 18446744073709551615")
        );
        assert_eq!(refused(&|c| c.scores.clear()), error("scores: 100 in rising order expected, got 0"));
        assert_eq!(
            refused(&|c| c.scores.swap(3, 7)),
            error("scores: 100 in rising order expected, got a lesser one behind the 4th")
        );
        assert_eq!(refused(&|c| c.scores[3] = 1.5), error("example 3: a score of 0 to 1 expected, got 1.5"));
    }

    /// 300 calibrations with 600 examples each, α = δ = 0.1, of a law in which an answer of score s is worse with the
    /// probability (1 - s)^1.3 / 2 (as often as not on the one end, never on the other). The truth is an integral: of scores
    /// above t, (1 - t)^1.3 / 4.6. So no slack is needed for it; the count of violations has a standard error of 1.7 % at 10 %.
    /// It would be 10 % at one threshold; the steps of a sequence, which all have to hold, make it less.
    #[test]
    fn three_hundred_calibrations_break_the_promise_no_more_often_than_delta() {
        let (mut violated, mut kept, mut promised) = (0, 0.0, 0);
        for run in 0..300u64 {
            let draw = |at: u64| {
                let noise = Noise::new(run, at);
                let score = noise.uniform(0);
                Labelled { score, worse: noise.uniform(1) < libm::pow(1.0 - score, 1.3) / 2.0 }
            };
            let others: Vec<f64> = (600..900).map(|at| draw(at).score).collect();
            let examples: Vec<Labelled> = (0..600).map(draw).collect();
            let Ok(found) = calibrate(&examples, &ladder(&others, 600, 0.1, 0.1), 0.1, 0.1) else { continue };
            promised += 1;
            kept += found.kept_share;
            violated += u32::from(libm::pow(1.0 - found.threshold, 1.3) / 4.6 > 0.1);
        }
        assert!(violated <= 30, "{violated} of 300");
        // A calibration that promises little is not hard to keep.
        assert!(promised >= 285, "{promised}");
        assert!(kept / f64::from(promised) > 0.35, "{}", kept / f64::from(promised));
    }

    proptest! {
        #[test]
        fn a_ladder_falls_to_zero_and_a_calibration_checks(
            scores in proptest::collection::vec(0f64..=1.0, 0..300),
            labels in proptest::collection::vec((0f64..=1.0, 0u8..12), 0..3000),
        ) {
            let ladder = ladder(&scores, labels.len(), 0.1, 0.1);
            prop_assert!(ladder.windows(2).all(|pair| pair[0] > pair[1]) && ladder.last() == Some(&0.0));
            let examples: Vec<Labelled> = labels.iter().map(|(s, w)| Labelled { score: *s, worse: *w == 0 }).collect();
            if let Ok(found) = calibrate(&examples, &ladder, 0.1, 0.1) {
                prop_assert_eq!(found.check(), Ok(()));
                prop_assert!(found.upper_bound <= 0.1 && found.scores.len() <= SCORES_MAX);
                let kept = examples.iter().filter(|e| e.score >= found.threshold).count() as u64;
                prop_assert_eq!(found.kept, kept);
                let text = serde_json::to_string(&found).expect("JSON");
                prop_assert_eq!(serde_json::from_str::<Calibration>(&text).expect("a calibration"), found);
            }
        }
    }
}
