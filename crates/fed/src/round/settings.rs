//! What a job says about its rounds.

use super::compass::Compass;
use super::selection::{Policy, Selection};
use crate::dp::{POISSON_MEAN, Sampling};
use crate::masks::SecureAggregation;
use crate::plan::Format;
use crate::staleness::Staleness;
use littoral_wire::message::{COHORT_MAX, Work};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How many devices make a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// Updates wanted per version, 1 to 49,152.
    pub target: u32,
    /// Fewest updates that make a version; at the deadline fewer mean a new attempt. Default: `target`.
    #[serde(default)]
    pub min: u32,
    /// Devices asked per update wanted, 1.0 to 4.0: asking more hides slow ones. Default 1.
    #[serde(default = "one")]
    pub over_select: f64,
}

fn one() -> f64 {
    1.0
}

/// Synchronous and asynchronous rounds are settings of one machine: an update may be older than the version that it goes
/// into, or none may.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Devices in flight. 0: where updates may be old, twice the cohort's target; else the cohort with over-selection.
    #[serde(default)]
    pub pool: u32,
    /// Updates that make a version, the cohort's target; 0 says the same.
    #[serde(default)]
    pub buffer: u32,
    /// Free places in the pool before devices are asked again. 0: where updates may be old, a tenth of the pool; else all of it.
    #[serde(default)]
    pub dispatch: u32,
    /// Versions that an update may be behind; 0: rounds are synchronous.
    #[serde(default)]
    pub staleness_max: u32,
    /// How much an update counts by its age.
    #[serde(default)]
    pub staleness: Staleness,
    /// Devices are given steps by their speed, so that many arrive together. Default: as many as the job says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compass: Option<Compass>,
}

/// Models of so many versions may be kept at a time.
pub const STALENESS_MAX: u32 = 1_000;

/// A step of a collection. A plain one has only [`Phase::Upload`]; a masked one goes through all of them, but for those in
/// which devices check on a cloud that may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Devices train, and send public keys when they are ready.
    Keys,
    /// Devices reveal what they had committed to. Only if the cloud may lie.
    Nonces,
    /// Devices share their secrets among their neighbours.
    Shares,
    /// Devices send their sealed updates.
    Upload,
    /// The sum is closed: devices sign whose updates are in it. Only if the cloud may lie.
    Agree,
    /// Devices reveal what opens the sum.
    Reveal,
}

impl Phase {
    /// What devices have done that have answered, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Keys => "have trained and sent keys",
            Self::Nonces => "have shown what they were bound to",
            Self::Shares => "have shared their secrets",
            Self::Upload => "have sent their updates",
            Self::Agree => "have signed whose updates are in the sum",
            Self::Reveal => "have revealed what opens the sum",
        }
    }
}

/// What the rounds of a masked job know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    pub agreement: SecureAggregation,
    /// The hash of the job as it is written: part of what keys are bound to.
    pub job: [u8; 32],
    /// The words of statistics, training and evaluation.
    pub formats: [Format; 3],
}

/// All that the round machine needs to know of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub cohort: Cohort,
    pub pace: Pace,
    /// From asking to closing.
    pub deadline_ms: u64,
    /// How long a first round, or a round after devices left, waits for more than `min` devices.
    pub wait_ms: u64,
    /// How long edges may take to hand in their partials.
    pub close_ms: u64,
    /// Pause before a sum that could not be applied is tried again.
    pub retry_ms: u64,
    /// Versions to make by training.
    pub rounds: u64,
    /// Stop earlier at this fraction of right answers.
    pub target_accuracy: Option<f64>,
    /// Begin with a round of statistics for standardisation.
    pub statistics: bool,
    /// Seeds the choice of cohorts.
    pub seed: u64,
    /// By which law devices are drawn.
    pub sampling: Sampling,
    /// Who is asked of those who are here.
    pub selection: Selection,
    /// A device is part of at most one of so many versions in a row; 1: of any.
    pub spacing: u64,
    /// So many versions in a row are steps of one: their weights are the same, and so are the devices that are drawn. 1: each
    /// stands for itself.
    pub steps: u32,
    /// Sums are masked.
    pub masked: Option<Masked>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} = {got}: {allowed}")]
pub struct SettingsError {
    pub field: &'static str,
    pub got: String,
    pub allowed: String,
}

impl Settings {
    /// The first step of a collection.
    pub fn first_phase(&self) -> Phase {
        if self.masked.is_some() { Phase::Keys } else { Phase::Upload }
    }

    /// Devices to ask, at most. Where each is drawn by itself, `target` is what is expected, and this so far above it that larger
    /// samples hardly ever come.
    pub fn cohort_size(&self) -> usize {
        if let Sampling::Poisson(_) = self.sampling {
            return (2 * self.cohort.target as usize + 32).min(COHORT_MAX);
        }
        (f64::from(self.cohort.target) * self.cohort.over_select).ceil() as usize
    }

    /// Devices that must be here before a cohort is drawn: so many that a law gives samples as large as they are accounted for.
    pub fn here_min(&self) -> usize {
        let min = self.cohort.min as usize;
        match self.sampling {
            Sampling::Present => min,
            Sampling::Fixed(population) => min.max(population as usize),
            Sampling::Poisson(rate) => {
                min.max((POISSON_MEAN.start() * f64::from(self.cohort.target) / rate).ceil() as usize)
            }
        }
    }

    /// The first of the versions that are steps of one with this one.
    pub fn base(&self, version: u64) -> u64 {
        version - self.step_of(version)
    }

    /// Which step this is of those that a version is made in, from 0 on.
    pub fn step_of(&self, version: u64) -> u64 {
        version.saturating_sub(self.statistics.into()) % u64::from(self.steps.max(1))
    }

    /// Checked settings, with masks.
    pub fn with_masks(self, masked: Masked) -> Result<Self, SettingsError> {
        masked.check(&self.cohort, self.cohort_size() as u32)?;
        Ok(Self { masked: Some(masked), ..self })
    }

    /// Fills defaults in and refuses what cannot run.
    pub fn checked(mut self) -> Result<Self, SettingsError> {
        let target = self.cohort.target;
        if !(1..=COHORT_MAX as u32).contains(&target) {
            return wrong("cohort.target", target, format!("1 to {COHORT_MAX} devices"));
        }
        if self.cohort.min == 0 {
            self.cohort.min = target;
        }
        if self.cohort.min > target {
            return wrong("cohort.min", self.cohort.min, format!("at most cohort.target, {target}"));
        }
        if !(1.0..=4.0).contains(&self.cohort.over_select) {
            return wrong("cohort.over_select", self.cohort.over_select, "1.0 to 4.0");
        }
        let asked = self.cohort_size() as u32;
        if asked > COHORT_MAX as u32 {
            let allowed = format!("target x over_select at most {COHORT_MAX}");
            return wrong("cohort.over_select", self.cohort.over_select, allowed);
        }
        self.pace = self.paced(asked)?;
        if let Some((field, got, allowed)) = self.selection.wrong(target) {
            return wrong(field, got, allowed);
        }
        if self.selection.policy != Policy::Uniform && self.sampling != Sampling::Present {
            let allowed = "uniform, where devices are drawn by the law that privacy is accounted by";
            return wrong("selection.policy", "another", allowed);
        }
        for (field, ms) in [("deadline_ms", self.deadline_ms), ("wait_ms", self.wait_ms), ("close_ms", self.close_ms)] {
            if !(1..=30 * 86_400_000).contains(&ms) {
                return wrong(field, ms, "1 ms to 30 days");
            }
        }
        if !(1..=1_000_000).contains(&self.rounds) {
            return wrong("rounds", self.rounds, "1 to 1000000");
        }
        if self.sampling != Sampling::Present && self.cohort.over_select != 1.0 {
            let allowed = "1, where devices are drawn by a law that privacy is accounted by: no other may take a drawn one's place";
            return wrong("cohort.over_select", self.cohort.over_select, allowed);
        }
        if let Sampling::Fixed(population) = self.sampling
            && population < target
        {
            return wrong(
                "differential_privacy.sampling.fixed",
                population,
                format!("at least cohort.target, {target}"),
            );
        }
        if !(1..=1_000_000).contains(&self.spacing) {
            return wrong("spacing", self.spacing, "1 to 1000000 versions");
        }
        if let Some(accuracy) = self.target_accuracy
            && !(accuracy > 0.0 && accuracy <= 1.0)
        {
            return wrong("target_accuracy", accuracy, "a fraction above 0 and at most 1");
        }
        Ok(self)
    }
}

impl Settings {
    /// `asked`: devices that a synchronous round asks.
    fn paced(&self, asked: u32) -> Result<Pace, SettingsError> {
        let (pace, target) = (&self.pace, self.cohort.target);
        if pace.buffer != 0 && pace.buffer != target {
            return wrong("pace.buffer", pace.buffer, format!("0 or {target}, which cohort.target says"));
        }
        if let Some((parameter, got)) = pace.staleness.wrong() {
            return wrong("pace.staleness", format!("{parameter} = {got}"), "a finite number above 0");
        }
        if let Some((parameter, got, allowed)) = pace.compass.as_ref().and_then(Compass::wrong) {
            return wrong("pace.compass", format!("{parameter} = {got}"), allowed);
        }
        if pace.staleness_max == 0 {
            if pace.compass.is_some() {
                let allowed = "a job with pace.staleness_max of 1 or more: who is late for its group is old";
                return wrong("pace.compass", "steps by speed", allowed);
            }
            for (field, value) in [("pace.pool", pace.pool), ("pace.dispatch", pace.dispatch)] {
                if value != 0 && value != asked {
                    let allowed = format!("0 or {asked}, unless pace.staleness_max lets updates be old");
                    return wrong(field, value, allowed);
                }
            }
            return Ok(Pace { pool: asked, buffer: target, dispatch: asked, ..pace.clone() });
        }
        if pace.staleness_max > STALENESS_MAX {
            return wrong("pace.staleness_max", pace.staleness_max, format!("0 to {STALENESS_MAX} versions"));
        }
        if self.cohort.over_select != 1.0 {
            let allowed =
                "1, where pace.staleness_max lets updates be old: pace.pool says how many devices train at a time";
            return wrong("cohort.over_select", self.cohort.over_select, allowed);
        }
        if self.sampling != Sampling::Present || self.spacing > 1 {
            let allowed = "0, where privacy is accounted by the law that devices are drawn by: of those who are in flight, the quick \
                           come first";
            return wrong("pace.staleness_max", pace.staleness_max, allowed);
        }
        let pool = if pace.pool == 0 { (2 * target).min(COHORT_MAX as u32) } else { pace.pool };
        if !(target..=COHORT_MAX as u32).contains(&pool) {
            return wrong("pace.pool", pool, format!("cohort.target, {target}, to {COHORT_MAX} devices"));
        }
        let dispatch = if pace.dispatch == 0 { (pool / 10).max(1) } else { pace.dispatch };
        if dispatch > pool {
            return wrong("pace.dispatch", dispatch, format!("at most pace.pool, {pool}"));
        }
        Ok(Pace { pool, buffer: target, dispatch, ..pace.clone() })
    }
}

impl Masked {
    pub fn format(&self, work: Work) -> Format {
        self.formats[work as usize]
    }

    /// `asked`: devices that are asked at most.
    fn check(&self, cohort: &Cohort, asked: u32) -> Result<(), SettingsError> {
        let SecureAggregation { adversary, dropout, group_min, .. } = self.agreement;
        for (field, share) in [("secure_aggregation.adversary", adversary), ("secure_aggregation.dropout", dropout)] {
            if !(0.0..1.0).contains(&share) {
                return wrong(field, share, "a share of at least 0 and below 1");
            }
        }
        if group_min < 2 {
            return wrong("secure_aggregation.group_min", group_min, "2 or more: a sum of one is that one");
        }
        if cohort.min < group_min {
            let allowed = format!("at least secure_aggregation.group_min, {group_min}");
            return wrong("cohort.min", cohort.min, allowed);
        }
        // The numbers of devices that a session may begin with, at both ends.
        for clients in [cohort.min, asked] {
            if let Err(error) = self.agreement.parameters(clients) {
                let got = format!("adversary {adversary}, dropout {dropout}");
                return wrong("secure_aggregation", got, error.to_string());
            }
        }
        Ok(())
    }
}

fn wrong<T>(field: &'static str, got: impl ToString, allowed: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError { field, got: got.to_string(), allowed: allowed.into() })
}
