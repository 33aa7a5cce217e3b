//! What a plan is wanted for.

use super::error::PlanError;
use super::fleet::within;
use super::model_cost::ModelCost;
use crate::split::encoding;
use littoral_wire::pipeline::Activations;

/// Bounds: beyond them numbers mean nothing.
pub const STREAMS_MAX: u64 = 1_024;
pub const POSITIONS_MAX: u64 = 1 << 24;
/// Layers of a model, as it is loaded.
pub const LAYERS_MAX: usize = 1_024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Objective {
    /// Seconds per token of one stream.
    Latency,
    /// Tokens per second of all streams together.
    Throughput,
}

/// How the loss of a stage is got over.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Recovery {
    /// Until it is noticed.
    pub detect_s: f64,
    /// A standby's layers are mapped and in the page cache; else they are read from its disk.
    pub warm: bool,
}

impl Default for Recovery {
    /// Half a second of silence, and the beat before it (node/split/beats.rs); nothing is in the page cache.
    fn default() -> Self {
        Self { detect_s: 0.6, warm: false }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Demand {
    pub objective: Objective,
    /// Texts that are written at the same time, 1 to [`STREAMS_MAX`].
    pub streams: u64,
    /// Positions of each that memory is kept for.
    pub context: u64,
    /// Positions of a prompt, at most `context`; speeds are those right behind it.
    pub prompt: u64,
    pub activations: Activations,
    pub recovery: Recovery,
}

impl Demand {
    /// Of one token, on its way.
    pub(super) fn vector_bytes(&self, width: u64) -> u64 {
        encoding::bytes(self.activations, usize::try_from(width).unwrap_or(usize::MAX)) as u64
    }

    pub(super) fn check(&self, model: &ModelCost) -> Result<(), PlanError> {
        within("layers", model.layers.len() as f64, 1.0, LAYERS_MAX as f64)?;
        within("streams", self.streams as f64, 1.0, STREAMS_MAX as f64)?;
        within("context", self.context as f64, 1.0, POSITIONS_MAX as f64)?;
        within("prompt", self.prompt as f64, 1.0, self.context as f64)?;
        within("detect_s", self.recovery.detect_s, 0.0, 3_600.0)
    }
}
