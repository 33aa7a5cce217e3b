//! A router as a file: what `littoral route calibrate` writes, for a server to read.

use super::calibrate::Calibration;
use super::features::{Seen, When, features, names};
use super::score::{Example, Scorer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Of this form of the file.
pub const FORMAT: u32 = 1;
/// Of a file; whoever reads one asks before.
pub const SAVED_BYTES_MAX: u64 = 256 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    pub format: u32,
    pub small: ModelSaid,
    pub large: ModelSaid,
    /// Right was what equals an exact answer, for some prompts. Then an answer that is not the large model's may be as good, and
    /// audits, which see no more than that, prove nothing.
    #[serde(default)]
    pub exact_answers: bool,
    pub before: Router,
    pub after: Router,
    /// Of [`When::After`], whose first ones are those of [`When::Before`]; in the order in which prompts were given.
    pub examples: Vec<ExampleSaid>,
}

/// Which model it was. A calibration is of one pair of models and of no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSaid {
    pub name: String,
    /// BLAKE3 of its file, hexadecimal.
    pub blake3: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    pub scorer: Scorer,
    /// Absent: nothing can be promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleSaid {
    pub features: Vec<f64>,
    pub worse: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {expected} expected, got {got}")]
pub struct SavedError {
    pub place: String,
    pub expected: String,
    pub got: String,
}

impl Router {
    /// How likely the small model is good enough for a request ([`features`]).
    pub fn score(&self, seen: &Seen) -> f64 {
        self.scorer.score(&features(self.scorer.when, seen))
    }
}

impl Saved {
    /// From a file's text, checked: no number in it is one that a calibration cannot have.
    pub fn parse(text: &str) -> Result<Self, SavedError> {
        let error = |place: &str, expected: &str, got: String| SavedError {
            place: place.to_owned(),
            expected: expected.to_owned(),
            got,
        };
        let saved: Self =
            serde_json::from_str(text).map_err(|e| error("the file", "a router as JSON", e.to_string()))?;
        if saved.format != FORMAT {
            return Err(error("format", &FORMAT.to_string(), saved.format.to_string()));
        }
        for (place, when, router) in [("before", When::Before, &saved.before), ("after", When::After, &saved.after)] {
            if router.scorer.when != when {
                return Err(error(place, place, format!("{:?}", router.scorer.when)));
            }
            router.scorer.check().map_err(|e| error(place, "a scorer of this release", e.to_string()))?;
            if let Some(calibration) = &router.calibration {
                calibration.check().map_err(|e| error(place, "a calibration that holds", e.to_string()))?;
            }
        }
        Ok(saved)
    }

    pub fn router(&self, when: When) -> &Router {
        match when {
            When::Before => &self.before,
            When::After => &self.after,
        }
    }
}

/// Examples of one kind from those of [`When::After`].
pub fn examples_of(when: When, all: &[ExampleSaid]) -> Vec<Example> {
    let width = names(when).len();
    let one = |said: &ExampleSaid| Example {
        features: said.features.iter().take(width).copied().collect(),
        worse: said.worse,
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::learn::learn;
    use crate::sample::Noise;

    fn saved() -> Saved {
        let one = |at| {
            let noise = Noise::new(2, at);
            let features: Vec<f64> = (0..names(When::After).len()).map(|i| noise.uniform(i as u32)).collect();
            ExampleSaid { worse: noise.uniform(99) < 0.1 * features[0], features }
        };
        let examples: Vec<ExampleSaid> = (0..600).map(one).collect();
        let router = |when| {
            let learnt = learn(when, &examples_of(when, &examples), 0.2, 0.1, 0).expect("a score");
            Router { scorer: learnt.scorer, calibration: learnt.calibration.ok(), nothing: None }
        };
        let model = |name: &str| ModelSaid { name: name.into(), blake3: "00".into() };
        let (before, after) = (router(When::Before), router(When::After));
        Saved { format: FORMAT, small: model("a"), large: model("b"), exact_answers: false, before, after, examples }
    }

    #[test]
    fn what_was_written_is_read_and_what_was_changed_is_refused() {
        let saved = saved();
        assert!(saved.before.calibration.is_some());
        let text = serde_json::to_string(&saved).expect("JSON");
        assert_eq!(Saved::parse(&text), Ok(saved.clone()));
        let refused = |change: &dyn Fn(&mut Saved)| {
            let mut changed = saved.clone();
            change(&mut changed);
            let text = serde_json::to_string(&changed).expect("JSON");
            Saved::parse(&text).map(|_| ()).map_err(|e| e.to_string())
        };
        let error = refused(&|saved| saved.format = 2);
        assert_eq!(error, Err("format: 1 expected, got 2".into()));
        // A promise that its own counts do not bear.
        let error = refused(&|saved| {
            saved.before.calibration.as_mut().expect("one").kept_worse = 400;
        });
        assert!(error.is_err_and(|e| e.starts_with("before: a calibration that holds expected")));
        assert!(refused(&|saved| saved.after.scorer.when = When::Before).is_err());
        assert!(refused(&|saved| saved.after.scorer.terms[0].feature = "x".into()).is_err());
        assert!(Saved::parse("{}").is_err_and(|e| e.to_string().starts_with("the file: a router as JSON expected")));
        let score = saved.router(When::After).score(&Seen { prompt: "What is 1 + 1?", answer: "", tokens: &[] });
        assert!((0.0..=1.0).contains(&score));
    }
}
