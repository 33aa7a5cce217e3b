//! What came of a scenario.

use serde::Serialize;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    pub seed: u64,
    pub virtual_s: f64,
    pub requests: u64,
    pub tokens: u64,
    /// Requests that failed with a reason, for no machine could have some layers.
    pub failed: u64,
    /// Answers that a verifier began and the small model ended, for the verifier was lost.
    pub taken_over: u64,
    /// The head's answers that the machine above wrote, and that it began and the head ended.
    pub head_verified: u64,
    pub head_taken_over: u64,
    pub local_only: u64,
    /// Of what might have left, what the small model was good enough for.
    pub kept: u64,
    /// Faults by kind.
    pub kills: u64,
    pub silences: u64,
    pub stops: u64,
    pub slowings: u64,
    pub cuts: u64,
    /// Messages between edges and the verifier that were lost, doubled or late.
    pub mishaps: u64,
    /// Layers that machines without the file fetched.
    pub fetched: u64,
    /// Of machines with layers, in the middle of something.
    pub losses_survived: u64,
    /// Of these: while something of an edge was being verified in a pass on its way.
    pub losses_verifying: u64,
    pub median_detect_s: f64,
    pub longest_detect_s: f64,
    /// Between two tokens of an answer of the head, where it was longer than 0.2 s.
    pub pauses: u64,
    pub median_pause_s: f64,
    pub longest_pause_s: f64,
    /// Of verified answers: tokens less passes of the large model.
    pub passes_saved: u64,
    pub bytes: u64,
    /// The most states and logs that one machine had, in bytes.
    pub memory_bytes_max: u64,
    /// What did not hold; the first few.
    pub broken: Vec<String>,
    /// Of all that happened.
    pub trace: String,
}

/// The middle of some values, and the largest.
pub(super) fn middle_and_most(mut values_us: Vec<u64>) -> (f64, f64) {
    values_us.sort_unstable();
    let s = |us: Option<&u64>| us.map_or(0.0, |us| *us as f64 / 1e6);
    (s(values_us.get(values_us.len() / 2)), s(values_us.last()))
}
