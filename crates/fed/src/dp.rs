//! What a job says about differential privacy, and what follows from it for devices and cloud.
//!
//! The mechanisms and their proofs are [`littoral_privacy`]'s. Here they meet a job: which noise, added by whom, on sums of
//! which integers ([`Noise`]); who is drawn, in secret, by which law ([`Sampling`]); and for each viewer what it may see
//! ([`Viewer`]) and what that costs over a whole job ([`DifferentialPrivacy::losses`]).
//!
//! The unit is a device: all its records together. What is told is that a released model hardly depends on any one device; the
//! fixed denominator (the job's target, not the number that came) and weight 1 are part of that.
//!
//! Under [`MechanismName::ExampleGaussian`] the unit is one example of a device, and the statement another, weaker one: each step of
//! a device's training is noised ([`ExampleNoise`]), so that whoever sees its update hardly learns of any one of its rows, but may
//! well learn what they have in common.

mod adaptive;
mod ftrl;
mod sketch;

pub use adaptive::{AdaptiveClip, ClipBit};
pub use ftrl::Correlated;
pub use sketch::SketchNoise;

use crate::plan::{Plan, PlanError, Resolution, Section, Weighting};
use littoral_privacy::account::distributed::{self, Noise as Law, Release};
use littoral_privacy::account::{Loss, Mechanism};
use littoral_privacy::examples::{Grid, GridError};
use littoral_privacy::noise::Ratio;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use thiserror::Error;

/// Levels of a clip.
const CENTRAL_LEVELS: u32 = 1 << 20;

/// What a job says: `[differential_privacy]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DifferentialPrivacy {
    pub mechanism: MechanismName,
    /// L2 norm to which each device's update is clipped, or each example's gradient; above 0.
    pub clip: f64,
    /// Standard deviation of the noise over the sensitivity.
    pub noise_multiplier: f64,
    /// Whether the clip follows the updates from then on. Default: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<AdaptiveClip>,
    /// A device is part of at most one of so many versions in a row, 1 to 1,024. `dp-ftrl` needs it, nothing else has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bands: Option<u32>,
    /// After so many versions correlated noise begins anew, 1 or more. Only `dp-ftrl` has it. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_rounds: Option<u64>,
    /// The job is refused if it would cost the viewers of the released model more; above 0.
    pub epsilon: f64,
    /// Default 10^-5.
    #[serde(default = "delta")]
    pub delta: f64,
    /// What is protected, for people and for budgets. Default: "all records of one device", or "one example of one device"; the
    /// latter, with or without a word on what an example is, is for `example-gaussian` and for nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The probability with which each of a device's rows is part of a step, above 0 and at most 1. A round has epochs / rate steps,
    /// on every device. `example-gaussian` needs it, nothing else has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<f64>,
    /// A device trains at most so often on one version, 1 to 1,000: an attempt that came to nothing has shown edges its updates.
    /// Enforced on the device. Only `example-gaussian` has it; there the default is 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// Who takes part. Default: whoever is here, which costs every participation in full.
    #[serde(default)]
    pub sampling: Sampling,
    /// A device takes part in at most so many rounds; 0: in all. Enforced on the device.
    #[serde(default)]
    pub participations_max: u64,
    /// Of the fewest updates that make a version at most this share tells the cloud its noise, 0 to below 1. Only where devices
    /// add the noise. Default a third.
    #[serde(default = "third")]
    pub colluding: f64,
    /// Sums are taken modulo 2^bits, 6 to 40. Only where devices add the noise. Default 20.
    #[serde(default = "twenty")]
    pub bits: u32,
    /// Share of roundings that are drawn again. Only where devices add the noise. Default exp(-1/2).
    #[serde(default = "beta")]
    pub rounding_beta: f64,
}

fn delta() -> f64 {
    1e-5
}

fn third() -> f64 {
    1.0 / 3.0
}

fn twenty() -> u32 {
    20
}

fn beta() -> f64 {
    0.606_530_659_712_633_4
}

/// Who adds which noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MechanismName {
    /// The cloud, on the opened sum: a discrete Gaussian. It sees the sum as it was.
    Central,
    /// The cloud, on the opened sums: discrete Gaussians that are correlated over versions. Nothing is amplified by sampling, and
    /// nothing need be.
    DpFtrl,
    /// Devices, each a share of a discrete Gaussian, under masks.
    DistributedDiscreteGaussian,
    /// Devices, each a share of Skellam noise, under masks.
    DistributedSkellam,
    /// Devices, each all of it: nobody need be trusted, and accuracy pays for it.
    LocalDiscreteGaussian,
    /// Devices, in every step of their training, on the sum of clipped gradients of a secret sample of their examples. The
    /// unit is one example, not a device.
    ExampleGaussian,
}

/// Who takes part in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sampling {
    /// Whoever is here, as many as are wanted.
    #[default]
    Present,
    /// Each device that is here by itself, with this probability, in secret; above 0 and at most 1.
    Poisson(f64),
    /// As many as are wanted, uniformly and in secret, among at least so many that are here.
    Fixed(u32),
}

/// Between which samples of a Poisson law are large on average, over `cohort.target`: the account of sizes that are drawn again
/// holds for these. With fewer devices here nobody is drawn; with more, each with less probability, which tells less.
pub const POISSON_MEAN: RangeInclusive<f64> = 0.8..=1.25;

/// From whose eyes something is private.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Viewer {
    /// Whoever gets released models, and does not know who took part.
    Model,
    /// An edge: knows which of its devices took part, and what passes through it.
    Edge,
    /// The cloud, with the devices that collude with it.
    Cloud,
}

/// What one release is to a viewer: `None`, the thing itself.
pub type Seen = Option<Loss>;

#[derive(Clone, Debug, PartialEq, Error)]
#[error("differential_privacy.{field}: {expected} expected, got {got}")]
pub struct DpError {
    pub field: &'static str,
    pub expected: String,
    pub got: String,
}

/// What devices send after it was clipped and mapped, where the cloud adds the noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summed {
    pub len: usize,
    /// Its L2 norm before it is rounded to steps.
    pub l2: f32,
    /// One integer step.
    pub step: f64,
}

/// A job's mechanism with its numbers worked out.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    pub spec: DifferentialPrivacy,
    /// The noise on a sum, and of each device's share where devices add it. Of correlated noise: a whole stretch, as one release.
    pub release: Release,
    /// Steps of a clip, where the cloud adds the noise.
    pub levels: u32,
    /// What devices append where the clip follows the updates.
    pub bit: Option<ClipBit>,
    /// How they append a sketch of their rows, where the job watches for drift.
    pub sketch: Option<SketchNoise>,
    /// What the cloud adds if its noise has a memory.
    pub correlated: Option<Correlated>,
}

/// Example-level noise with its numbers worked out.
#[derive(Clone, Debug)]
pub struct ExampleNoise {
    /// L2 norm to which each example's gradient is clipped.
    pub clip: f64,
    /// Of each row in each step.
    pub rate: f64,
    /// Steps of one participation.
    pub steps: u64,
    /// Participations in one version.
    pub attempts: u32,
    pub grid: Grid,
}

/// How each unit begins that is an example, and no other one does: a budget of one kind is never charged with the other.
const EXAMPLE: &str = "one example of one device";

/// Is this unit one example of a device?
pub fn names_example(unit: &str) -> bool {
    unit.starts_with(EXAMPLE)
}

/// Steps of a participation.
const STEPS_MAX: f64 = 1e6;

/// Unless a job says otherwise.
const ATTEMPTS: u32 = 3;

impl DifferentialPrivacy {
    /// Whether noise or clip belong to one version, or each training is accounted for with its version: then no update may be old.
    pub fn of_a_version(&self) -> bool {
        self.adaptive_clip.is_some() || self.mechanism == MechanismName::DpFtrl || self.by_example()
    }

    /// What is protected, for people.
    pub fn unit(&self) -> &str {
        match (&self.unit, self.by_example()) {
            (Some(unit), _) => unit,
            (None, false) => "all records of one device",
            (None, true) => EXAMPLE,
        }
    }

    /// Is the unit one example of a device?
    pub fn by_example(&self) -> bool {
        self.mechanism == MechanismName::ExampleGaussian
    }

    /// For `by_example`: `dim` coordinates are trained, in `epochs` expected passes over a device's rows.
    pub fn example_noise(&self, epochs: u32, dim: usize) -> Result<ExampleNoise, DpError> {
        self.check(1)?;
        self.bit(1)?;
        if self.sampling != Sampling::Present {
            let expected = "none (devices are not the unit; each one's rows are sampled on it)";
            return wrong("sampling", expected, "sampled devices");
        }
        let Some(rate) = self.sampling_rate else {
            return wrong("sampling_rate", "a rate above 0 and at most 1, since the unit is one example", "none");
        };
        if !(rate > 0.0 && rate <= 1.0) {
            return wrong("sampling_rate", "above 0 and at most 1", rate);
        }
        if f64::from(epochs) / rate > STEPS_MAX {
            return wrong("sampling_rate", format!("at least {}", f64::from(epochs) / STEPS_MAX), rate);
        }
        let attempts = self.attempts_max.unwrap_or(ATTEMPTS);
        if !(1..=1000).contains(&attempts) {
            return wrong("attempts_max", "1 to 1000", attempts);
        }
        let grid = Grid::new(self.clip, dim, self.noise_multiplier).map_err(|error| match error {
            GridError::Range { what: "clip", expected, got } => {
                DpError { field: "clip", expected: expected.into(), got: got.to_string() }
            }
            error => {
                let expected = format!("noise for {dim} coordinates");
                DpError { field: "noise_multiplier", expected, got: error.to_string() }
            }
        })?;
        let (rate, steps) = self.steps(epochs);
        Ok(ExampleNoise { clip: self.clip, rate, steps, attempts, grid })
    }

    /// The rate of each step's sample, and the steps of one participation.
    pub fn steps(&self, epochs: u32) -> (f64, u64) {
        // A rate that is none is refused where the noise is worked out.
        let rate = self.sampling_rate.unwrap_or(1.0);
        (rate, (f64::from(epochs) / rate).ceil() as u64)
    }

    pub fn on_devices(&self) -> bool {
        !matches!(self.mechanism, MechanismName::Central | MechanismName::DpFtrl)
    }

    /// Neighbouring data sets differ by one device's vector, or by two where one device is replaced by another.
    pub fn vectors_changed(&self) -> u32 {
        match self.sampling {
            Sampling::Fixed(_) => 2,
            Sampling::Present | Sampling::Poisson(_) => 1,
        }
    }

    /// What is sent of `len` coordinates as they are, under [`Noise::plan`]: in sums that are divided by `target`, for `rounds`
    /// versions. `sketch`: what devices append, with no clip bit.
    pub fn summed(
        &self,
        len: usize,
        target: u32,
        rounds: u64,
        sketch: Option<&SketchNoise>,
    ) -> Result<Summed, DpError> {
        let (len, l2) = match (self.bit(target)?, sketch) {
            (Some(bit), _) => (len + 1, bit.l2),
            (None, Some(sketch)) => (len + sketch.bins, sketch.l2),
            (None, None) => (len, self.clip as f32),
        };
        Ok(Summed { len, l2, step: f64::from(l2) / f64::from(self.levels(rounds)?) })
    }

    /// Steps of a clip, where the cloud adds the noise.
    fn levels(&self, rounds: u64) -> Result<u32, DpError> {
        match self.mechanism {
            MechanismName::DpFtrl => self.ftrl_levels(rounds),
            _ => Ok(CENTRAL_LEVELS),
        }
    }

    fn bit(&self, target: u32) -> Result<Option<ClipBit>, DpError> {
        let Some(rule) = self.adaptive_clip else { return Ok(None) };
        let z = self.noise_multiplier * f64::from(self.vectors_changed());
        match self.mechanism {
            MechanismName::LocalDiscreteGaussian | MechanismName::DpFtrl | MechanismName::ExampleGaussian => {
                let expected = "none: only central and distributed noise have room for a clip bit";
                wrong("adaptive_clip", expected, "one")
            }
            _ => rule.bit(self.clip, z, target).map(Some),
        }
    }

    /// `clients`: the largest cohort; `target`: what sums are divided by; `min`: the fewest updates in a sum. Of `summed` devices
    /// that add the noise need no step: they send what they rotated.
    pub fn noise(&self, clients: u32, target: u32, min: u32, summed: Summed, rounds: u64) -> Result<Noise, DpError> {
        self.check(min)?;
        let bit = self.bit(target)?;
        if self.sampling_rate.is_some() {
            return wrong("sampling_rate", "none: only example-gaussian samples examples", "one");
        }
        if self.attempts_max.is_some() {
            return wrong("attempts_max", "none: only example-gaussian counts attempts", "one");
        }
        let law = match self.mechanism {
            MechanismName::ExampleGaussian => {
                return wrong("mechanism", "a mechanism that noises updates", "example-gaussian");
            }
            MechanismName::Central => return Ok(Noise { bit, ..self.central(summed)? }),
            MechanismName::DpFtrl => return self.ftrl(summed, rounds),
            MechanismName::DistributedSkellam => Law::Skellam,
            MechanismName::DistributedDiscreteGaussian | MechanismName::LocalDiscreteGaussian => Law::DiscreteGaussian,
        };
        let alone = self.mechanism == MechanismName::LocalDiscreteGaussian;
        let colluding = (self.colluding * f64::from(min)).floor() as u32;
        let (min_survivors, colluding) = if alone { (1, 0) } else { (min, colluding) };
        let plan = distributed::Plan {
            noise: law,
            clients,
            min_survivors,
            colluding,
            dim: summed.len as u64,
            clip: summed.l2.into(),
            bits: self.bits,
            rounding_beta: self.rounding_beta,
            noise_multiplier: self.noise_multiplier,
            vectors_changed: self.vectors_changed(),
        };
        let release = plan.release().map_err(|e| {
            let field = match e.what {
                "bits" => "bits",
                "rounding-beta" => "rounding_beta",
                "colluding" => "colluding",
                _ => "noise_multiplier",
            };
            DpError { field, expected: e.expected, got: e.got.to_string() }
        })?;
        Ok(Noise { spec: self.clone(), release, levels: CENTRAL_LEVELS, bit, sketch: None, correlated: None })
    }

    /// All of the noise at once.
    fn central(&self, Summed { len, l2, step }: Summed) -> Result<Noise, DpError> {
        let one = crate::seal::l2_after_rounding(l2, step, len) / step;
        let release = Release::alone(self.noise_multiplier, one * f64::from(self.vectors_changed()), len as u64);
        let release =
            release.map_err(|e| DpError { field: "noise_multiplier", expected: e.expected, got: e.got.to_string() })?;
        Ok(Noise { spec: self.clone(), release, levels: CENTRAL_LEVELS, bit: None, sketch: None, correlated: None })
    }

    fn check(&self, min: u32) -> Result<(), DpError> {
        let above_zero = |field, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => wrong(field, "a finite number above 0", value),
        };
        if !(1e-30..=1e30).contains(&self.clip) {
            return wrong("clip", "1e-30 to 1e30", format_args!("{:e}", self.clip));
        }
        above_zero("noise_multiplier", self.noise_multiplier)?;
        above_zero("epsilon", self.epsilon)?;
        if !(self.delta >= 1e-13 && self.delta < 1.0) {
            return wrong("delta", "at least 1e-13 and below 1", self.delta);
        }
        if self.by_example() != names_example(self.unit()) {
            let expected = match self.by_example() {
                true => format!("`{EXAMPLE}`, with more words after it or without"),
                false => format!("another one than `{EXAMPLE}`, which is that of example-gaussian"),
            };
            return wrong("unit", expected, self.unit());
        }
        if self.unit().trim().is_empty() || self.unit().len() > 256 {
            return wrong("unit", "1 to 256 bytes that are not all blank", format_args!("{:?}", self.unit()));
        }
        if !(0.0..1.0).contains(&self.colluding) {
            return wrong("colluding", "a share of at least 0 and below 1", self.colluding);
        }
        if !(6..=40).contains(&self.bits) {
            return wrong("bits", "6 to 40", self.bits);
        }
        if self.mechanism == MechanismName::DpFtrl && self.sampling != Sampling::Present {
            let expected =
                "none for dp-ftrl, whose account is of devices that come back late enough, and not of samples";
            return wrong("sampling", expected, "sampled devices");
        }
        for (field, given) in [("bands", self.bands.is_some()), ("restart_rounds", self.restart_rounds.is_some())] {
            if given && self.mechanism != MechanismName::DpFtrl {
                return wrong(field, "none: only dp-ftrl has noise that is correlated over versions", "one");
            }
        }
        match self.sampling {
            Sampling::Poisson(rate) if !(rate > 0.0 && rate <= 1.0) => {
                wrong("sampling.poisson", "a rate above 0 and at most 1", rate)
            }
            Sampling::Fixed(population) if population < min => {
                wrong("sampling.fixed", format!("at least cohort.min, {min} devices"), population)
            }
            _ => Ok(()),
        }
    }
}

fn wrong<T>(field: &'static str, expected: impl Into<String>, got: impl ToString) -> Result<T, DpError> {
    Err(DpError { field, expected: expected.into(), got: got.to_string() })
}

impl Noise {
    /// Devices rotate, round by chance and add noise; otherwise the cloud adds it to the sum.
    pub fn on_devices(&self) -> bool {
        self.spec.on_devices()
    }

    /// Coordinates behind those of the model.
    pub fn appended(&self) -> usize {
        usize::from(self.bit.is_some()) + self.sketch.map_or(0, |sketch| sketch.bins)
    }

    /// The L2 norm that what a device sends has at most.
    pub fn l2(&self) -> f32 {
        match (&self.bit, &self.sketch) {
            (Some(bit), _) => bit.l2,
            (None, Some(sketch)) => sketch.l2,
            (None, None) => self.spec.clip as f32,
        }
    }

    /// The plan of fixed point for sums of up to `cohort_max` updates: of one section where devices add the noise.
    ///
    /// Where the cloud does, steps are fine enough that rounding hardly lengthens an update, and coarse enough for exact noise.
    /// `sections` have the length and, as range, the norm of what the noise was worked out for.
    pub fn plan(&self, cohort_max: u32, mut sections: Vec<Section>, wholes: usize) -> Result<Plan, PlanError> {
        match sections.pop() {
            Some(section) if self.on_devices() && sections.is_empty() => {
                Plan::ring(cohort_max, self.spec.bits, 1.0 / self.release.scale, section, wholes)
            }
            last => {
                sections.extend(last);
                let levels = Resolution::Levels(self.levels);
                Plan::new(cohort_max, Weighting::Uniform, levels, sections, wholes)?.quiet()
            }
        }
    }

    /// The law of a device's share.
    pub fn law(&self) -> Law {
        match self.spec.mechanism {
            MechanismName::DistributedSkellam => Law::Skellam,
            _ => Law::DiscreteGaussian,
        }
    }

    /// σ² of the discrete Gaussian that the cloud adds to each coordinate of a sum, in steps of the plan; `None` where devices
    /// have added theirs, or noise has a memory.
    pub fn central_variance(&self) -> Option<Ratio> {
        (self.spec.mechanism == MechanismName::Central).then_some(self.release.share_variance)
    }

    /// What one release costs, seen by those who see all of it with its noise.
    pub fn mechanism(&self) -> Mechanism {
        Mechanism::Distributed(self.release)
    }
}
