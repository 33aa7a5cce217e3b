//! What a job tells of how well devices do, beside rows, right answers and losses: how accuracy is spread over devices.

use super::{JobError, JobSpec, JobText};
use littoral_fed::algorithm::{Algorithm, Keeps};
use littoral_model::{Loss, Model};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationText {
    /// Updates of training tell how accuracy is spread over devices. Default: where each device has a model of its own. An evaluation
    /// tells it always, unless the job is private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<bool>,
}

/// In which collections the spread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub train: bool,
    pub evaluate: bool,
}

pub(super) fn spread(text: &JobText, algorithm: &dyn Algorithm, model: &Model) -> Result<Spread, JobError> {
    let classifies = model.loss() == Loss::CrossEntropy;
    let possible = classifies && text.differential_privacy.is_none();
    let asked = text.evaluation.as_ref().and_then(|evaluation| evaluation.distribution);
    if asked == Some(true) && !possible {
        let expected = match classifies {
            true => "false, since the job has differential privacy: counts of right answers are not told",
            false => "false, since the label is a number: no answer is right or wrong",
        };
        return Err(JobError::new("evaluation.distribution", expected, true));
    }
    let train = possible && asked.unwrap_or(algorithm.keeps().is_some() || algorithm.mixes().is_some());
    Ok(Spread { train, evaluate: possible })
}

/// What the submitter should know of models of devices' own.
pub(super) fn remark(spec: &JobSpec) -> Option<String> {
    let home = spec.home();
    Some(match spec.algorithm().keeps()? {
        Keeps::Segments => format!(
            "{} of the model's {} parameters stay on devices and are in no message: {}",
            home.own_len(),
            home.params(),
            spec.own_segments().join(", ")
        ),
        Keeps::Model => format!("each device keeps a model of its own, of {} parameters", home.params()),
        Keeps::Nothing => "each device's model is the version, adapted in one step on its own rows".into(),
    })
}
