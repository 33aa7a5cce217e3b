//! Why bytes are no model file, and why a value that was asked for is not there.

use crate::quant::Kind;
use std::fmt;
use thiserror::Error;

/// Characters of a file's own text that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GgufError {
    /// The bytes are not a GGUF file.
    #[error("{what} at byte {offset}: expected {expected}, got {got}")]
    Malformed { what: String, offset: usize, expected: String, got: String },
    /// A key has a value of another type, or one that is out of range.
    #[error("metadata {key} at byte {offset}: expected {expected}, got {got}")]
    WrongType { key: String, offset: usize, expected: &'static str, got: String },
    #[error("metadata {key}: expected {expected}, got no such key")]
    NoKey { key: String, expected: &'static str },
    #[error("tensor {name}: expected among the file's tensors, got none of that name")]
    NoTensor { name: String },
    /// The tensor is stored in a way that this program does not know.
    #[error("tensor {name} at byte {offset}: expected one of {}, got {got}", kinds())]
    UnknownKind { name: String, offset: usize, got: String },
}

impl GgufError {
    pub(super) fn malformed(
        what: &dyn fmt::Display,
        offset: usize,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::Malformed { what: what.to_string(), offset, expected: expected.to_string(), got: got.to_string() }
    }

    /// Where it is, what was expected there and what was got: the same that the message says, in parts.
    pub fn parts(&self) -> (String, String, String) {
        match self {
            Self::Malformed { what, offset, expected, got } => {
                (format!("{what} at byte {offset}"), expected.clone(), got.clone())
            }
            Self::WrongType { key, offset, expected, got } => {
                (format!("metadata {key} at byte {offset}"), (*expected).to_owned(), got.clone())
            }
            Self::NoKey { key, expected } => {
                (format!("metadata {key}"), (*expected).to_owned(), "no such key".to_owned())
            }
            Self::NoTensor { name } => {
                (format!("tensor {name}"), "it among the file's tensors".to_owned(), "none of that name".to_owned())
            }
            Self::UnknownKind { name, offset, got } => {
                (format!("tensor {name} at byte {offset}"), format!("one of {}", kinds()), got.clone())
            }
        }
    }
}

fn kinds() -> String {
    Kind::ALL.map(Kind::name).join(", ")
}

/// A file's own text as a message may repeat it: short, and without characters that a terminal obeys.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::from("`");
    shown.extend(text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug));
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown.push('`');
    shown
}

/// [`shown`], made only when an error is.
pub(super) struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0))
    }
}
