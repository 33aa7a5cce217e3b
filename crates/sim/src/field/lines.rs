//! Plain CSV, as traces are written: a header, a fixed set of columns in any order, no quotes. Every mistake has its line.

use std::fmt::Display;
use std::io::{BufRead, Read};
use std::str::FromStr;
use thiserror::Error;

/// A line that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}{}: {expected} expected, got {got}", .column.map(|c| format!(", column {c}")).unwrap_or_default())]
pub struct FieldError {
    /// From 1, the header's.
    pub line: u64,
    pub column: Option<&'static str>,
    pub expected: String,
    pub got: String,
}

/// A line of a trace is some 50 bytes.
const LINE_BYTES_MAX: u64 = 1_024;

pub(super) struct Lines<R> {
    input: R,
    line: u64,
    text: String,
    /// For each known column, its place in the file.
    places: Vec<Option<usize>>,
    columns: &'static [&'static str],
}

/// One line's cells by the numbers of the known columns.
pub(super) struct Cells<'a> {
    pub line: u64,
    columns: &'static [&'static str],
    places: &'a [Option<usize>],
    cells: Vec<&'a str>,
}

impl<R: BufRead> Lines<R> {
    /// Reads the header: the first `needed` of `columns` must be there, the others may.
    pub fn open(input: R, columns: &'static [&'static str], needed: usize) -> Result<Self, FieldError> {
        let mut lines = Self { input, line: 0, text: String::new(), places: vec![None; columns.len()], columns };
        let header = || format!("a header with {}", columns[..needed].join(","));
        if !lines.advance()? {
            return Err(FieldError { line: 1, column: None, expected: header(), got: "an empty file".into() });
        }
        for (place, name) in lines.text.split(',').map(str::trim).enumerate() {
            let wrong =
                |expected: String| FieldError { line: lines.line, column: None, expected, got: format!("{name:?}") };
            let Some(known) = columns.iter().position(|column| *column == name) else {
                return Err(wrong(format!("columns out of {}", columns.join(","))));
            };
            if lines.places[known].replace(place).is_some() {
                return Err(wrong("each column once".into()));
            }
        }
        if let Some(missing) = (0..needed).find(|column| lines.places[*column].is_none()) {
            let got = format!("none called {}", columns[missing]);
            return Err(FieldError { line: lines.line, column: None, expected: header(), got });
        }
        Ok(lines)
    }

    /// The next line with something on it.
    pub fn next(&mut self) -> Result<Option<Cells<'_>>, FieldError> {
        if !self.advance()? {
            return Ok(None);
        }
        let cells: Vec<&str> = self.text.split(',').map(str::trim).collect();
        let count = self.places.iter().flatten().count();
        if cells.len() != count {
            let (expected, got) = (format!("{count} cells"), format!("{} cells", cells.len()));
            return Err(FieldError { line: self.line, column: None, expected, got });
        }
        Ok(Some(Cells { line: self.line, columns: self.columns, places: &self.places, cells }))
    }

    /// The next line that is neither empty nor a comment.
    fn advance(&mut self) -> Result<bool, FieldError> {
        loop {
            self.text.clear();
            self.line += 1;
            let wrong = |expected: &str, got: String| {
                Err(FieldError { line: self.line, column: None, expected: expected.into(), got })
            };
            let read = self.input.by_ref().take(LINE_BYTES_MAX + 1).read_line(&mut self.text);
            match read {
                Err(e) => return wrong("UTF-8 text that can be read", e.to_string()),
                Ok(0) => return Ok(false),
                Ok(bytes) if bytes as u64 > LINE_BYTES_MAX => {
                    return wrong(&format!("at most {LINE_BYTES_MAX} bytes in a line"), "more".into());
                }
                Ok(_) => {}
            }
            if self.line == 1 && self.text.starts_with('\u{feff}') {
                self.text.drain(..'\u{feff}'.len_utf8());
            }
            if self.text.contains('"') {
                return wrong("cells without quotes", "one with a quote".into());
            }
            let text = self.text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                return Ok(true);
            }
        }
    }
}

impl<'a> Cells<'a> {
    pub fn text(&self, column: usize) -> Option<&'a str> {
        self.places[column].map(|place| self.cells[place])
    }

    pub fn wrong(&self, column: usize, expected: impl Into<String>, got: impl Display) -> FieldError {
        let got = got.to_string();
        let got = if got.is_empty() { "nothing".into() } else { got };
        FieldError { line: self.line, column: Some(self.columns[column]), expected: expected.into(), got }
    }

    /// A name: of a device.
    pub fn name(&self, column: usize) -> Result<&'a str, FieldError> {
        let name = self.text(column).unwrap_or_default();
        if name.is_empty() { Err(self.wrong(column, "a name", "")) } else { Ok(name) }
    }

    /// A number within bounds; `otherwise` if the file does not have the column.
    pub fn number<T>(&self, column: usize, min: T, max: T, otherwise: Option<T>) -> Result<T, FieldError>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let text = match (self.text(column), otherwise) {
            (None, Some(otherwise)) => return Ok(otherwise),
            (text, _) => text.unwrap_or_default(),
        };
        let found = text.parse::<T>().ok().filter(|value| *value >= min && *value <= max);
        found.ok_or_else(|| self.wrong(column, format!("a number from {min} to {max}"), text))
    }

    /// 0 or 1; 1 if the file does not have the column.
    pub fn flag(&self, column: usize) -> Result<bool, FieldError> {
        match self.text(column) {
            None | Some("1") => Ok(true),
            Some("0") => Ok(false),
            Some(other) => Err(self.wrong(column, "0 or 1", other)),
        }
    }
}
