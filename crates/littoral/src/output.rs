//! What a person or a program sees: data on stdout, talk on stderr.
//!
//! With `--json` stdout carries only JSON, one object on one line, and a failure is
//! `{"error": {what, where, expected, got}}`. Without, a failure is one line on stderr and perhaps a `hint:`.
//! There is no null in what is printed: what is not known is absent. Nor is there a control character: names and reasons
//! come from other machines, and must not clear a terminal or forge a line.

use littoral_wire::bounded::printable;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// Why a command did not do what it was asked to. Every part says something, on one line.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What did not happen.
    pub what: String,
    /// The field, file, machine or address.
    pub place: String,
    pub expected: String,
    pub got: String,
    /// What to do next; for people.
    pub hint: Option<Box<str>>,
    /// The words of the command line were wrong, before anything was done.
    usage: bool,
}

/// Exit codes.
pub const FAILED: u8 = 1;
pub const WRONG_USAGE: u8 = 2;

impl Failure {
    pub fn new(
        what: impl Into<String>,
        place: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self {
            what: one_line(what.into()),
            place: one_line(place.into()),
            expected: one_line(expected.into()),
            got: one_line(got.to_string()),
            hint: None,
            usage: false,
        }
    }

    /// A flag or value that cannot be meant: exit code 2.
    pub fn usage(place: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self { usage: true, ..Self::new("wrong usage", place, expected, got) }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    pub fn exit_code(&self) -> u8 {
        if self.usage { WRONG_USAGE } else { FAILED }
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

/// Messages of the parts below may have several lines, or none.
fn one_line(text: String) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "nothing".to_owned() } else { printable(&lines.join("; ")).into_owned() }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} expected, got {}", self.what, self.place, self.expected, self.got)
    }
}

impl std::error::Error for Failure {}

/// One JSON object on one line of stdout, its keys in order.
pub fn object(value: &Value) {
    let mut value = value.clone();
    drop_nulls(&mut value);
    value.sort_all_objects();
    print(&escaped(&value.to_string()));
}

/// JSON itself lets DEL and the control characters of Latin-1 stand in a text.
fn escaped(json: &str) -> String {
    let escape = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escape).collect()
}

/// A line of data.
pub fn line(text: &str) {
    print(&printable(text));
}

/// Nobody reads on (a closed pipe): there is nobody to tell.
fn print(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A commented text to begin with.
pub fn sample(toml: &str, json: bool) {
    if json { object(&json!({"toml": toml})) } else { print(toml.trim_end()) }
}

/// Talk: a line, or several.
pub fn talk(text: &str) {
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    let _ = writeln!(io::stderr().lock(), "{}", lines.join("\n"));
}

/// Talk that may be overlooked: dim on a terminal.
pub fn aside(text: &str) {
    let dim = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = printable(text);
    let _ = if dim {
        writeln!(io::stderr().lock(), "\x1b[2m{text}\x1b[0m")
    } else {
        writeln!(io::stderr().lock(), "{text}")
    };
}

/// Part of a text that is being written, at once. A terminal gets no control character but ends of lines and tabs; a file
/// or a program gets what the model wrote.
pub fn piece(text: &str) {
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { shown(text) } else { text.into() };
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn shown(text: &str) -> Cow<'_, str> {
    let escaped = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(escaped) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if escaped(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Columns as wide as their widest cell; the last is not padded.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell).into_owned()).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
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
    fn a_failure_is_one_line_that_leaves_nothing_out() {
        let line = |failure: Failure| failure.to_string();
        assert_eq!(line(Failure::new("w", "p", "e", "g")), "w: p: e expected, got g");
        assert_eq!(line(Failure::new("w", "p", "e", "row 1:\n  torn\n\n")), "w: p: e expected, got row 1:; torn");
        assert_eq!(line(Failure::new("w", "p", "e", " ")), "w: p: e expected, got nothing");
        assert_eq!(line(Failure::new("w", "p", "e", "\u{1b}[2J")), "w: p: e expected, got \\u{1b}[2J");
        let codes = [Failure::new("w", "p", "e", "g").exit_code(), Failure::usage("p", "e", "g").exit_code()];
        assert_eq!(codes, [1, 2]);
    }

    #[test]
    fn json_has_no_control_character() {
        let value = json!({"name": "a\u{1b}[31m\u{7f}\u{9b}b"});
        let text = escaped(&value.to_string());
        assert!(!text.contains(char::is_control), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(value));
    }

    #[test]
    fn a_model_moves_no_cursor() {
        assert_eq!(shown("a\tb\n\u{1b}[2J\r\u{9b}c"), "a\tb\n\\u{1b}[2J\\r\\u{9b}c");
    }

    #[test]
    fn no_null_is_printed() {
        let mut value = json!({"a": null, "b": [1, null, {"c": f64::NAN}]});
        drop_nulls(&mut value);
        assert_eq!(value, json!({"b": [1, {}]}));
    }
}
