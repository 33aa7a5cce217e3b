//! What is wrong in a configuration file, and where.

use crate::toml_text::{Mistake, mistake};
use littoral_wire::bounded::printable;
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {expected} expected, got {got}", self.place())]
pub struct ConfigError {
    pub file: String,
    /// From 1; 0: the file as a whole.
    pub line: usize,
    /// Empty if no field is to blame.
    pub field: String,
    pub expected: String,
    pub got: String,
}

impl ConfigError {
    /// Control characters that stand in the file are escaped: an error is one line.
    pub(crate) fn new(file: &str, line: usize, field: &str, expected: &str, got: &str) -> Self {
        let [file, field, expected, got] = [file, field, expected, got].map(|part| printable(part).into_owned());
        Self { file, line, field, expected, got }
    }

    /// File, line and field in one phrase.
    pub fn place(&self) -> String {
        let mut place = self.file.clone();
        if self.line > 0 {
            place.push_str(&format!(", line {}", self.line));
        }
        if !self.field.is_empty() {
            place.push_str(&format!(", {}", self.field));
        }
        place
    }

    pub(crate) fn of_toml(error: &toml::de::Error, text: &str, file: &str) -> Self {
        let Mistake { line, field, expected, got } = mistake(error, text);
        Self::new(file, line, &field, &expected, &got)
    }
}
