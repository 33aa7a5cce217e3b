//! From labelled examples to a router: a third of them, by chance, has the score fitted to it and gives the ladder; the rest,
//! which neither has seen, calibrates.

use super::calibrate::{CalibrateError, Calibration, Labelled, calibrate, ladder};
use super::features::When;
use super::score::{Example, ScoreError, Scorer};
use crate::sample::Noise;

/// One of so many examples is for the score.
const FITTED: usize = 3;

#[derive(Clone, Debug, PartialEq)]
pub struct Learnt {
    pub scorer: Scorer,
    /// An error if nothing can be promised.
    pub calibration: Result<Calibration, CalibrateError>,
}

/// The same examples, levels and seed give the same router.
///
/// # Errors
/// Too few examples for a score at all, or features that are not those of `when`.
pub fn learn(when: When, examples: &[Example], alpha: f64, delta: f64, seed: u64) -> Result<Learnt, ScoreError> {
    let order = shuffled(examples.len(), seed, 0);
    let (fitted, rest) = order.split_at(examples.len() / FITTED);
    let fitted: Vec<Example> = fitted.iter().map(|at| examples[*at].clone()).collect();
    let scorer = Scorer::fit(when, &fitted)?;
    let others: Vec<f64> = fitted.iter().map(|example| scorer.score(&example.features)).collect();
    let labelled = |at: &usize| {
        let Example { features, worse } = &examples[*at];
        Labelled { score: scorer.score(features), worse: *worse }
    };
    let labelled: Vec<Labelled> = rest.iter().map(labelled).collect();
    let calibration = match (alpha, delta) {
        (a, d) if !(a > 0.0 && a < 1.0 && d > 0.0 && d < 1.0) => calibrate(&labelled, &[0.0], alpha, delta),
        _ => calibrate(&labelled, &ladder(&others, labelled.len(), alpha, delta), alpha, delta),
    };
    Ok(Learnt { scorer, calibration })
}

/// 0 up to `count` in an order by chance: that of keys which are drawn for each.
pub fn shuffled(count: usize, seed: u64, number: u64) -> Vec<usize> {
    let noise = Noise::new(seed, number);
    let mut keyed: Vec<(f64, usize)> = (0..count).map(|at| (noise.uniform(at as u32), at)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    keyed.into_iter().map(|(_, at)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::features::names;

    #[test]
    fn a_router_is_a_function_of_its_examples() {
        let one = |at| {
            let noise = Noise::new(11, at);
            let features: Vec<f64> = (0..names(When::Before).len()).map(|i| noise.uniform(i as u32)).collect();
            Example { worse: noise.uniform(99) < 0.5 * features[0] * features[0], features }
        };
        let examples: Vec<Example> = (0..900).map(one).collect();
        let learnt = learn(When::Before, &examples, 0.1, 0.1, 3).expect("a score");
        assert_eq!(learn(When::Before, &examples, 0.1, 0.1, 3), Ok(learnt.clone()));
        let found = learnt.calibration.expect("a promise");
        assert_eq!((found.examples, found.check()), (600, Ok(())));
        assert!(found.kept_share > 0.3 && found.kept_share < 1.0, "{}", found.kept_share);
        assert_eq!(learn(When::Before, &examples[..2], 0.1, 0.1, 3), Err(ScoreError::NoExamples));
        let wrong = learn(When::Before, &examples, 1.0, 0.1, 3).expect("a score").calibration;
        assert!(matches!(wrong, Err(CalibrateError::Level { field: "alpha", .. })));
        let mut order = shuffled(500, 1, 2);
        assert_ne!(order, shuffled(500, 1, 3));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..500));
    }
}
