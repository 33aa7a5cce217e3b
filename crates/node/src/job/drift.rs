//! What a job may say about distribution shift, and how its sketches are laid out ([`littoral_fed::drift`]).

use super::{JobError, JobSpec, JobText};
use littoral_fed::drift::{BASELINE, Layout, Shift};
use littoral_fed::round::Settings;
use littoral_model::{Loss, Shape};
use serde::{Deserialize, Serialize};

/// Projections of inputs that are numbers.
pub const PROJECTIONS: usize = 4;
/// Bins of a projection, of an image's brightness and, at most, of labels that are classes.
pub const BINS: usize = 8;
pub const CLASSES_MAX: usize = 64;
/// Bins of labels that are numbers: by sign and by powers of four.
pub const NUMBER_BINS: usize = 16;

/// A job's `[drift]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DriftText {
    /// The first versions, with which later ones are compared, as many at a time; 8 to 64. Default 16.
    pub baseline: u32,
    /// Of a job with differential privacy: standard deviation of the noise on each bin of the mean device, above 0. Default 0.05.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
}

impl Default for DriftText {
    fn default() -> Self {
        Self { baseline: 16, noise: None }
    }
}

impl DriftText {
    pub const NOISE: f64 = 0.05;

    /// Standard deviation of the noise on each bin of the mean device, of a job with differential privacy.
    pub fn noise(&self) -> f64 {
        self.noise.unwrap_or(Self::NOISE)
    }
}

/// What a histogram counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Classes, modulo the number of bins; of a text its tokens.
    Classes,
    /// Numbers, by sign and size.
    Numbers,
    /// Mean of a row's inputs.
    Brightness,
    /// One of the random projections of a row's inputs.
    Projection(u8),
}

impl Counts {
    /// For people.
    pub fn name(self) -> String {
        match self {
            Self::Classes | Self::Numbers => "labels".into(),
            Self::Brightness => "brightness".into(),
            Self::Projection(at) => format!("inputs ({})", at + 1),
        }
    }
}

/// A job's sketch: what its histograms count, and how they are laid out.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketched {
    pub baseline: u32,
    pub counts: Vec<Counts>,
    pub layout: Layout,
}

/// How far the fleet's data is from where it was, as a version's line has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriftLine {
    /// What has moved the furthest: `labels`, `brightness` or `inputs (n)`.
    pub of: String,
    /// Total variation between the last versions and the first, 0 to 1.
    pub distance: f64,
    /// Between single versions that have not drifted.
    pub usual: f64,
    pub drifted: bool,
}

impl DriftLine {
    pub(crate) fn new(sketched: &Sketched, shift: &Shift) -> Self {
        let of = sketched.counts.get(shift.histogram).map_or_else(String::new, |counts| counts.name());
        // Four digits, so that the line is short.
        let round = |x: f64| (x * 1e4).round() / 1e4;
        Self { of, distance: round(shift.distance), usual: round(shift.usual), drifted: shift.drifted() }
    }
}

/// `None`: the job does not ask for it.
pub(super) fn sketched(text: &JobText, settings: &Settings) -> Result<Option<Sketched>, JobError> {
    let Some(drift) = &text.drift else { return Ok(None) };
    if !BASELINE.contains(&drift.baseline) {
        let expected = format!("{} to {} versions", BASELINE.start(), BASELINE.end());
        return Err(JobError::new("drift.baseline", expected, drift.baseline));
    }
    // Versions, with their sketches, are for all who may look at jobs.
    if settings.cohort.min < 2 {
        let expected = "none, since a version of one device (cohort.min) would tell everybody how its rows are spread";
        return Err(JobError::new("drift", expected, "one"));
    }
    if let Some(noise) = drift.noise {
        if text.differential_privacy.is_none() {
            let expected = "none, since the job has no differential privacy";
            return Err(JobError::new("drift.noise", expected, noise));
        }
        if !(noise > 0.0 && noise.is_finite()) {
            return Err(JobError::new("drift.noise", "a finite number above 0", noise));
        }
    }
    let mut counts = vec![match text.model.loss() {
        Loss::CrossEntropy => Counts::Classes,
        Loss::Mse => Counts::Numbers,
    }];
    let mut bins = vec![match counts[0] {
        Counts::Numbers => NUMBER_BINS,
        _ => text.data.outputs().clamp(1, CLASSES_MAX),
    }];
    if let Shape::Values { .. } = text.data.inputs() {
        if text.data.schema.image.is_some() {
            counts.push(Counts::Brightness);
        }
        counts.extend((0..PROJECTIONS as u8).map(Counts::Projection));
        bins.resize(counts.len(), BINS);
    }
    let layout = Layout::new(bins).map_err(|e| JobError::new("drift", "a sketch of fewer bins", e))?;
    Ok(Some(Sketched { baseline: drift.baseline, counts, layout }))
}

/// What the submitter should know of a watched job.
pub(super) fn remark(spec: &JobSpec) -> Option<String> {
    let Sketched { baseline, counts, layout } = spec.sketched()?;
    let names: Vec<String> = counts.iter().map(|counts| counts.name()).collect();
    let seen = match (spec.private(), spec.settings().masked.is_some()) {
        (true, _) => "with the update's noise, as a part of what the account counts",
        (false, true) => "under masks",
        (false, false) => "in the open: edges and the cloud can see each device's",
    };
    let price = spec.noise().and_then(|noise| Some(f64::from(noise.sketch?.l2) / f64::from(noise.spec.clip as f32)));
    let price =
        price.map_or(String::new(), |price| format!("; the noise on updates is {price:.2} times what it is without"));
    Some(format!(
        "drift: each device tells how its rows are spread over {} bins of {}, {seen}; versions are compared with the first {baseline}{price}",
        layout.bins(),
        names.join(", "),
    ))
}
