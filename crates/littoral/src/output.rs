//! What a person or a program sees: data on stdout, talk on stderr.
//!
//! With `--json` stdout carries only JSON, one object on one line, and a failure is
//! `{"error": {what, where, expected, got}}`. Without, a failure is one line on stderr and perhaps a `hint:`.
//! There is no null in what is printed: what is not known is absent.

use serde_json::{Value, json};
use std::fmt;
use std::io::{self, Write};

/// Why a command did not do what it was asked to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    /// What did not happen.
    pub what: String,
    /// The field, file, machine or address.
    pub place: String,
    pub expected: String,
    pub got: String,
    /// What to do next; for people.
    pub hint: Option<Box<str>>,
}

impl Failure {
    pub fn new(
        what: impl Into<String>,
        place: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self {
            what: what.into(),
            place: place.into(),
            expected: expected.into(),
            got: got.to_string(),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    pub fn to_json(&self) -> Value {
        json!({"error": {"what": self.what, "where": self.place, "expected": self.expected, "got": self.got}})
    }

    pub fn print(&self, json: bool) {
        if json {
            object(&self.to_json());
        } else {
            talk(&format!("error: {self}"));
            if let Some(hint) = &self.hint {
                talk(&format!("hint: {hint}"));
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        if !self.expected.is_empty() {
            write!(f, ": {} expected", self.expected)?;
        }
        match (self.got.is_empty(), self.expected.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => write!(f, ": {}", self.got),
            (false, false) => write!(f, ", got {}", self.got),
        }
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Self { what: format!("{error:#}"), ..Self::default() },
        }
    }
}

/// One JSON object on one line of stdout.
pub fn object(value: &Value) {
    let mut value = value.clone();
    drop_nulls(&mut value);
    line(&value.to_string());
}

/// A line of data. Nobody reads on (a closed pipe): there is nobody to tell.
pub fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A line of talk.
pub fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Columns as wide as their widest cell; the last is not padded.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |row: Vec<&str>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(head.to_vec());
    rows.iter().for_each(|row| print(row.iter().map(String::as_str).collect()));
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let line = |failure: Failure| failure.to_string();
        assert_eq!(line(Failure::new("w", "p", "e", "g")), "w: p: e expected, got g");
        assert_eq!(line(Failure::new("w", "", "", "g")), "w: g");
        assert_eq!(line(Failure::new("w", "p", "", "")), "w: p");
    }

    #[test]
    fn no_null_is_printed() {
        let mut value = json!({"a": null, "b": [1, null, {"c": f64::NAN}]});
        drop_nulls(&mut value);
        assert_eq!(value, json!({"b": [1, {}]}));
    }
}
