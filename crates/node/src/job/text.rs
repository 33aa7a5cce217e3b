//! A job as it is written.

use super::{CompressionText, DriftText, Eligibility, EvaluationText, JobError};
use crate::data::Schema;
use littoral_fed::algorithm::AlgorithmSpec;
use littoral_fed::dp::DifferentialPrivacy;
use littoral_fed::masks::SecureAggregation;
use littoral_fed::plan::{Resolution, Weighting};
use littoral_fed::robust::RobustSpec;
use littoral_fed::round::selection::Selection;
use littoral_fed::round::{Cohort, Pace};
use littoral_model::{ModelSpec, Shape};
use serde::{Deserialize, Serialize};

/// A commented job that runs.
pub const SAMPLE_TOML: &str = include_str!("sample.toml");

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobText {
    /// For people.
    pub name: String,
    /// Seeds the first weights, the choice of cohorts and the order of examples.
    #[serde(default)]
    pub seed: u64,
    pub model: ModelSpec,
    pub data: DataText,
    pub algorithm: AlgorithmSpec,
    pub local: LocalText,
    pub cohort: Cohort,
    #[serde(default)]
    pub pace: Pace,
    /// Who is asked of the devices that are here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selection: Selection,
    pub rounds: RoundsText,
    #[serde(default)]
    pub precision: PrecisionText,
    /// What is told of how well devices do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationText>,
    /// Whether the fleet's data is where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftText>,
    /// Sums are masked: nobody but the device sees its update. Without it edges and cloud could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_aggregation: Option<SecureAggregation>,
    /// Fewer bytes: what devices send is mapped to less, or coded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionText>,
    /// In what state devices take part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eligibility: Option<Eligibility>,
    /// Released models hardly depend on any one device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differential_privacy: Option<DifferentialPrivacy>,
    /// A few devices that lie do not move the model far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robust: Option<RobustSpec>,
}

fn is_default(selection: &Selection) -> bool {
    *selection == Selection::default()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataText {
    /// The name under which devices offer it.
    pub set: String,
    /// Fraction of each device's rows that are held out for evaluation. Default 0.2.
    #[serde(default = "a_fifth")]
    pub held_out: f64,
    /// Subtract the fleet's mean and divide by its standard deviation, found in one round of statistics. Default true;
    /// only tables have statistics.
    #[serde(default = "yes")]
    pub standardise: bool,
    pub schema: Schema,
}

fn a_fifth() -> f64 {
    0.2
}

fn yes() -> bool {
    true
}

impl DataText {
    /// What a row looks like to the model.
    pub fn inputs(&self) -> Shape {
        match (&self.schema.image, &self.schema.text) {
            (Some(image), _) => Shape::Values { width: (image.height * image.width * image.channels) as usize },
            (_, Some(text)) => Shape::Tokens { window: text.window as usize },
            _ => Shape::Values { width: self.schema.fields.iter().map(crate::data::schema::Field::width).sum() },
        }
    }

    /// Whether the job begins with a round of statistics.
    pub fn has_statistics(&self) -> bool {
        self.standardise && !self.schema.fields.is_empty()
    }

    /// What the model shall say: a class, a number, a character or a word.
    pub fn outputs(&self) -> usize {
        match &self.schema.text {
            Some(text) => text.tokens(),
            None => self.schema.classes().map_or(1, <[String]>::len),
        }
    }
}

/// A device's own training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalText {
    /// Passes over the device's rows per round, 1 to 1,000. Default 1.
    #[serde(default = "one")]
    pub epochs: u32,
    /// Rows per step; 0 takes all rows as one batch. Default 32.
    #[serde(default = "thirty_two")]
    pub batch: u32,
    pub optimiser: OptimiserText,
    /// Training ends after so long, with the steps that were made, one at least; none: when all epochs are done. The algorithm
    /// `fednova` corrects for devices that make fewer steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
}

fn one() -> u32 {
    1
}

fn thirty_two() -> u32 {
    32
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimiserText {
    Sgd {
        learning_rate: f32,
        /// 0 to below 1. Default 0.
        #[serde(default)]
        momentum: f32,
        #[serde(default)]
        weight_decay: f32,
    },
    /// With decoupled weight decay (AdamW); its moments start anew each round.
    Adam {
        learning_rate: f32,
        #[serde(default)]
        weight_decay: f32,
    },
}

impl LocalText {
    pub(super) fn check(&self) -> Result<(), JobError> {
        if !(1..=1_000).contains(&self.epochs) {
            return Err(JobError::new("local.epochs", "1 to 1000", self.epochs));
        }
        if let Some(ms) = self.time_ms
            && !(1..=30 * 86_400_000).contains(&ms)
        {
            return Err(JobError::new("local.time_ms", "1 ms to 30 days", ms));
        }
        if self.batch > 65_536 {
            return Err(JobError::new("local.batch", "0 to 65536", self.batch));
        }
        let (rate, decay, momentum) = match self.optimiser {
            OptimiserText::Sgd { learning_rate, momentum, weight_decay } => (learning_rate, weight_decay, momentum),
            OptimiserText::Adam { learning_rate, weight_decay } => (learning_rate, weight_decay, 0.0),
        };
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(JobError::new("local.optimiser.learning_rate", "a number above 0", rate));
        }
        if !(decay >= 0.0 && decay.is_finite()) {
            return Err(JobError::new("local.optimiser.weight_decay", "a number of at least 0", decay));
        }
        if !(0.0..1.0).contains(&momentum) {
            return Err(JobError::new("local.optimiser.momentum", "at least 0 and below 1", momentum));
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundsText {
    /// Versions to make.
    pub count: u64,
    /// Stop as soon as the fleet's held-out rows are answered right this often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_accuracy: Option<f64>,
    /// From asking devices to closing the round. Default one minute.
    #[serde(default = "a_minute")]
    pub deadline_ms: u64,
    /// How long to wait for more devices than the least. Default ten seconds.
    #[serde(default = "ten_seconds")]
    pub wait_ms: u64,
    /// How long edges may take to hand in their sums. Default half a minute.
    #[serde(default = "half_a_minute")]
    pub close_ms: u64,
}

fn a_minute() -> u64 {
    60_000
}

fn ten_seconds() -> u64 {
    10_000
}

fn half_a_minute() -> u64 {
    30_000
}

/// Fixed point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrecisionText {
    /// Coordinates of an update outside ± this saturate, and are counted. Default 4.
    pub range: f32,
    /// `"fit32"` (default): as many levels as 32-bit words hold; or `{ levels = 65536 }`.
    pub resolution: Resolution,
    /// `"uniform"`, or by examples. Default: by examples, of which at most 4,096 count.
    pub weighting: Weighting,
}

impl Default for PrecisionText {
    fn default() -> Self {
        Self {
            range: 4.0,
            resolution: Resolution::Fit32,
            weighting: Weighting::ByExamples { examples_max: 4_096, weight_max: 4_096 },
        }
    }
}
