//! What is simulated.

use super::checks;
use littoral_infer::engine::Limits;
use littoral_node::transport::shaper::Shape;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// States of ended answers that a machine keeps: a few.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The `[serving]` table of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    pub seed: u64,
    /// 2: edges draft for the verifier, which has the model that the head shares with stages. 3: edges draft for the head, which
    /// verifies over its chain, and the head drafts for the verifier, which has a model of twice as many layers.
    pub tiers: u32,
    /// Virtual minutes in which requests come and things go wrong; then all is mended, and what was asked comes to its end.
    pub minutes: u32,
    /// Layers of the head's model; the edges' has one.
    pub layers: u32,
    /// Machines that lend their layers to the head, 0 to 16.
    pub stages: u32,
    /// So many of the stages, the last ones, have no copy of the model's file: they fetch layers of so many bytes from the head,
    /// each at the whole rate of its link to it.
    pub fileless: u32,
    pub layer_bytes: u64,
    /// Layers that each stage, and the head, has room for; 0: any number.
    pub stage_room: u32,
    pub head_room: u32,
    /// Machines with the small model, 0 to 64; they draft for one verifier, or for the head.
    pub edges: u32,
    /// Of the head, and of all edges together.
    pub requests_per_minute: u32,
    /// Fraction of edges' requests that must not leave.
    pub local_only: f64,
    /// What one token costs in one layer, and a pass whatever it is.
    pub layer_us: u64,
    pub pass_us: u64,
    /// To load one layer.
    pub load_us: u64,
    /// Between two tokens of an answer; a longer pause is a finding.
    pub pause_max_ms: u64,
    /// Between the head and stages, and between stages.
    pub stage_link: Link,
    /// Between edges and the verifier.
    pub edge_link: Link,
    pub faults: Faults,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// There and back.
    pub round_trip_us: u64,
    /// Up to this much is added, uniformly, each way.
    pub jitter_us: u64,
    /// Each way; 0: unlimited.
    pub bytes_per_s: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self { round_trip_us: 1_000, jitter_us: 200, bytes_per_s: 0 }
    }
}

impl Link {
    pub(super) fn shape(&self) -> Shape {
        let Self { round_trip_us, jitter_us, bytes_per_s } = *self;
        Shape { delay_us: round_trip_us / 2, jitter_us, bytes_per_s, ..Shape::default() }
    }
}

/// Mean seconds between two faults of a kind, of the whole world; 0: never. Stages and the verifier are hit, with three tiers the
/// head and edges, too (a client of one that is killed hears no more of its request), and of connections any.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// A process ends, as by `kill -9`, and is started again.
    pub kill_s: u64,
    /// A cable is pulled: nothing passes, and nobody is told.
    pub silent_s: u64,
    /// A process stands still, as by `kill -STOP`.
    pub stop_s: u64,
    /// A machine computes ten times as slowly.
    pub slow_s: u64,
    /// A connection breaks; both ends are told.
    pub cut_s: u64,
    /// Fractions of the messages between edges and the verifier that are lost, come twice, or come late, behind others.
    pub lost: f64,
    pub doubled: f64,
    pub late: f64,
    /// Mean time until a killed process is back, and that the others last.
    pub lasts_s: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self { kill_s: 0, silent_s: 0, stop_s: 0, slow_s: 0, cut_s: 0, lost: 0.0, doubled: 0.0, late: 0.0, lasts_s: 5 }
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 0,
            tiers: 2,
            minutes: 10,
            layers: 6,
            stages: 3,
            fileless: 0,
            layer_bytes: 1_000_000,
            stage_room: 0,
            head_room: 0,
            edges: 2,
            requests_per_minute: 20,
            local_only: 0.25,
            layer_us: 2_000,
            pass_us: 1_000,
            load_us: 20_000,
            pause_max_ms: 40_000,
            stage_link: Link::default(),
            edge_link: Link { round_trip_us: 40_000, jitter_us: 2_000, bytes_per_s: 0 },
            faults: Faults::default(),
        }
    }
}

impl Scenario {
    /// The verifier, if there is one.
    pub(super) fn verifier(&self) -> Option<usize> {
        (self.edges > 0 || self.tiers == 3).then_some(1 + self.stages as usize)
    }

    /// The machine that the head drafts for.
    pub(super) fn above(&self) -> Option<usize> {
        self.verifier().filter(|_| self.tiers == 3)
    }

    /// Bounds of every machine's engine. With three tiers states of ended answers are kept, and there are so few places that some wait.
    pub(super) fn limits(&self) -> Limits {
        match self.tiers {
            3 => Limits { running_max: 6, kept_bytes_max: KEPT_BYTES_MAX, ..checks::limits() },
            _ => checks::limits(),
        }
    }

    /// States of ended answers that the head keeps, at most: each has 16 positions or more, of 64 bytes in each layer.
    pub(super) fn kept_max(&self) -> usize {
        self.limits().kept_bytes_max / (16 * 64 * self.layers as usize)
    }

    /// To ask for a layer, and to have it.
    pub(super) fn fetch_us(&self) -> u64 {
        let Link { round_trip_us, bytes_per_s, .. } = self.stage_link;
        2 * round_trip_us + (self.layer_bytes * 1_000_000).checked_div(bytes_per_s).unwrap_or(0)
    }

    /// Has this stage the model's file? They count from 1.
    pub(super) fn has_file(&self, stage: usize) -> bool {
        stage <= (self.stages - self.fileless) as usize
    }
}

#[derive(Debug, Error)]
#[error("[serving] {field}: {expected} expected, got {got}")]
pub struct ScenarioError {
    pub field: &'static str,
    pub expected: &'static str,
    pub got: String,
}

impl Scenario {
    /// # Errors
    /// A value that is out of its range.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let within = |field, expected, got: u64, least: u64, most: u64| match (least..=most).contains(&got) {
            true => Ok(()),
            false => Err(ScenarioError { field, expected, got: got.to_string() }),
        };
        within("tiers", "2 or 3", self.tiers.into(), 2, 3)?;
        within("minutes", "1 to 10,000", self.minutes.into(), 1, 10_000)?;
        within("layers", "1 to 64", self.layers.into(), 1, 64)?;
        if self.tiers == 3 {
            within("layers", "1 to 32 with three tiers", self.layers.into(), 1, 32)?;
        }
        within("stages", "at most 16", self.stages.into(), 0, 16)?;
        within("fileless", "at most stages", self.fileless.into(), 0, self.stages.into())?;
        within("layer_bytes", "at most 10,000,000,000", self.layer_bytes, 0, 10_000_000_000)?;
        within("edges", "at most 64", self.edges.into(), 0, 64)?;
        within("requests_per_minute", "1 to 600", self.requests_per_minute.into(), 1, 600)?;
        within("layer_us", "at most 1,000,000", self.layer_us, 0, 1_000_000)?;
        within("pass_us", "1 to 1,000,000", self.pass_us, 1, 1_000_000)?;
        within("load_us", "at most 10,000,000", self.load_us, 0, 10_000_000)?;
        within("faults.lasts_s", "1 to 600", self.faults.lasts_s, 1, 600)?;
        let fraction = |field, got: f64, most: f64, expected| match (0.0..=most).contains(&got) {
            true => Ok(()),
            false => Err(ScenarioError { field, expected, got: got.to_string() }),
        };
        fraction("local_only", self.local_only, 1.0, "a fraction")?;
        for (field, got) in [
            ("faults.lost", self.faults.lost),
            ("faults.doubled", self.faults.doubled),
            ("faults.late", self.faults.late),
        ] {
            fraction(field, got, 0.5, "a fraction of at most 0.5")?;
        }
        Ok(())
    }
}
