//! Why there is no plan.

use super::words::size;
use thiserror::Error;

#[derive(Clone, PartialEq, Debug, Error)]
pub enum PlanError {
    #[error("{field}: {expected} expected, got {got}")]
    Field { field: String, expected: String, got: String },
    /// The head alone has the embedding and the output matrix.
    #[error("{head}: {} for both ends of the model and what it works in expected, got {} ({} missing)",
        size(*.needed_bytes), size(*.usable_bytes), size(.needed_bytes - .usable_bytes))]
    Head { head: String, needed_bytes: u64, usable_bytes: u64 },
    /// However the layers are laid, some are left over.
    #[error("{}: memory for {layers} layers expected, got it for {placed}: {} missing", at(.usable_bytes), size(*.missing_bytes))]
    NoRoom {
        layers: usize,
        /// The most layers that find a place.
        placed: usize,
        /// Of those that do not: weights, keys and values.
        missing_bytes: u64,
        /// What each device could use for layers, by name.
        usable_bytes: Vec<(String, u64)>,
    },
    /// Many devices whose memory would do, if layers were not of different sizes; not proven.
    #[error("{devices} devices: a place for {layers} layers expected, got none: their memory would do, but only just")]
    NotFound { devices: usize, layers: usize },
}

impl PlanError {
    pub(super) fn field(field: String, expected: &str, got: impl ToString) -> Self {
        Self::Field { field, expected: expected.to_owned(), got: got.to_string() }
    }

    /// Where, what was expected, what was there.
    pub fn parts(&self) -> (String, String, String) {
        match self {
            Self::Field { field, expected, got } => (field.clone(), expected.clone(), got.clone()),
            Self::Head { head, needed_bytes, usable_bytes } => (
                head.clone(),
                format!("{} for both ends of the model and what it works in", size(*needed_bytes)),
                format!("{} that may be used ({} missing)", size(*usable_bytes), size(needed_bytes - usable_bytes)),
            ),
            Self::NoRoom { layers, placed, missing_bytes, usable_bytes } => (
                at(usable_bytes),
                format!("memory for {layers} layers"),
                format!("room for {placed} ({} missing)", size(*missing_bytes)),
            ),
            Self::NotFound { devices, layers } => (
                format!("{devices} devices"),
                format!("a place for {layers} layers"),
                "none: their memory would do, but only just".to_owned(),
            ),
        }
    }
}

fn at(usable_bytes: &[(String, u64)]) -> String {
    let each = usable_bytes.iter().map(|(name, bytes)| format!("{name} {}", size(*bytes)));
    format!("memory for layers ({})", each.collect::<Vec<_>>().join(", "))
}
