//! What is wrong in a configuration file, and where.

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
    pub(super) fn new(file: &str, line: usize, field: &str, expected: &str, got: &str) -> Self {
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

    /// serde says in one sentence what we want in parts.
    pub(super) fn of_toml(error: &toml::de::Error, text: &str, file: &str) -> Self {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..start].matches('\n').count() + 1;
        let message = error.message().replace('\n', "; ");
        let (got, expected) = match message.rsplit_once(", expected ") {
            Some((got, expected)) => (got.to_owned(), in_words(expected)),
            None => (message.clone(), "a value as in the sample".to_owned()),
        };
        let quoted = got.split('`').nth(1).map(str::to_owned);
        let field = match quoted.filter(|_| got.starts_with("unknown field") || got.starts_with("missing field")) {
            Some(field) => field,
            None => field_at(text, start),
        };
        Self::new(file, line, &field, &expected, &got.replace('`', ""))
    }
}

/// Types are Rust's words, not a person's.
fn in_words(expected: &str) -> String {
    match expected {
        "usize" | "u64" | "u32" => "a whole number of at least 0".into(),
        "a string" => "a text in quotes".into(),
        other => other.replace('`', ""),
    }
}

/// The key of the line on which `at` lies.
fn field_at(text: &str, at: usize) -> String {
    let begin = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let line = text[begin..].lines().next().unwrap_or_default();
    line.split_once('=').map_or("", |(key, _)| key.trim()).trim_matches('"').to_owned()
}

/// The line that sets a field such as `network.proxy`; 0 if it has its default.
pub(super) fn line_of_field(text: &str, field: &str) -> usize {
    let (wanted_table, key) = field.rsplit_once('.').unwrap_or(("", field));
    let mut table = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = name.trim().to_owned();
        } else if table == wanted_table && line.split_once('=').is_some_and(|(name, _)| name.trim() == key) {
            return index + 1;
        }
    }
    0
}
