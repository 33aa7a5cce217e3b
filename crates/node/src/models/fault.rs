//! Why a model is not here, in the parts that are printed.

use std::io;
use std::path::Path;

/// What was expected where, and what was got instead. No part shows a password, a token or the query of a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {expected} expected, got {got}")]
pub struct Fault {
    pub kind: FaultKind,
    pub place: String,
    pub expected: String,
    pub got: String,
}

/// What a person can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Words that name nothing.
    Unknown,
    /// A catalogue or a record that cannot be read.
    Text,
    /// Nobody answered: no network, no such host, a proxy that does not work.
    Unreachable,
    /// Somebody answered, and then no more.
    Cut,
    /// The answer: not without another login.
    Denied,
    /// An answer, but not what was asked for.
    Refused,
    /// The bytes are others than the hash says.
    WrongBytes,
    /// This machine's disk.
    Disk,
    DiskFull,
}

impl Fault {
    pub(super) fn new(
        kind: FaultKind,
        place: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self { kind, place: place.into(), expected: expected.into(), got: got.to_string() }
    }

    pub(super) fn refused(place: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::new(FaultKind::Refused, place, expected, got)
    }

    /// Of a file of ours.
    pub(crate) fn disk(path: &Path, error: &io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let (kind, expected) =
            if full { (FaultKind::DiskFull, "room to write") } else { (FaultKind::Disk, "a file to read and write") };
        Self::new(kind, path.display().to_string(), expected, error)
    }
}

/// For `map_err` of what is done with a file.
pub(super) fn on_disk(path: &Path) -> impl Fn(io::Error) -> Fault + '_ {
    move |error| Fault::disk(path, &error)
}
