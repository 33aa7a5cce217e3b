//! What a job says about its rounds.

use littoral_wire::message::COHORT_MAX;
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

/// Synchronous and asynchronous rounds are settings of one machine. This release runs the synchronous ones: the
/// buffer is the cohort and nothing is stale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Devices in flight; 0: the cohort with over-selection.
    #[serde(default)]
    pub pool: u32,
    /// Updates that make a version; 0: the cohort's target.
    #[serde(default)]
    pub buffer: u32,
    /// Free places in the pool before devices are asked again; 0: the whole pool.
    #[serde(default)]
    pub dispatch: u32,
    /// Versions that an update may be behind.
    #[serde(default)]
    pub staleness_max: u32,
}

/// A step of collecting. Masked sums will have four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Devices send their sealed updates.
    Upload,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} = {got}: {allowed}")]
pub struct SettingsError {
    pub field: &'static str,
    pub got: String,
    pub allowed: String,
}

impl Settings {
    /// The steps of a collection, in order.
    pub fn phases(&self) -> &'static [Phase] {
        &[Phase::Upload]
    }

    /// Devices to ask.
    pub fn cohort_size(&self) -> usize {
        (f64::from(self.cohort.target) * self.cohort.over_select).ceil() as usize
    }

    /// Fills defaults in and refuses what cannot run.
    pub fn checked(mut self) -> Result<Self, SettingsError> {
        fn wrong<T>(field: &'static str, got: impl ToString, allowed: impl Into<String>) -> Result<T, SettingsError> {
            Err(SettingsError { field, got: got.to_string(), allowed: allowed.into() })
        }
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
        for (field, value, sync) in [
            ("pace.pool", self.pace.pool, asked),
            ("pace.buffer", self.pace.buffer, target),
            ("pace.dispatch", self.pace.dispatch, asked),
        ] {
            if value != 0 && value != sync {
                return wrong(field, value, format!("0 or {sync}: this release runs synchronous rounds"));
            }
        }
        if self.pace.staleness_max != 0 {
            return wrong("pace.staleness_max", self.pace.staleness_max, "0: this release runs synchronous rounds");
        }
        self.pace = Pace { pool: asked, buffer: target, dispatch: asked, staleness_max: 0 };
        for (field, ms) in [("deadline_ms", self.deadline_ms), ("wait_ms", self.wait_ms), ("close_ms", self.close_ms)] {
            if !(1..=30 * 86_400_000).contains(&ms) {
                return wrong(field, ms, "1 ms to 30 days");
            }
        }
        if !(1..=1_000_000).contains(&self.rounds) {
            return wrong("rounds", self.rounds, "1 to 1000000");
        }
        if let Some(accuracy) = self.target_accuracy
            && !(accuracy > 0.0 && accuracy <= 1.0)
        {
            return wrong("target_accuracy", accuracy, "a fraction above 0 and at most 1");
        }
        Ok(self)
    }
}
