//! What can be wrong with a device's data, said so that the person at that site can repair it.
//!
//! Every [`DataError`] is found before training. It names the file, the column and the row, what was expected, what was
//! there, and how to go on. A mistake in a schema or a mapping itself is an [`Invalid`]: field, value, what is allowed.

use std::fmt;
use std::io;

use littoral_wire::bounded::printable;

use super::limits::TOO_LONG;

/// The kinds of problem, for programs that decide on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The file or folder cannot be opened or read.
    Unreadable,
    /// A bound of [`super::limits`] is passed.
    TooLarge,
    /// The bytes do not follow the format, or end too early.
    Malformed,
    /// Text that is not UTF-8.
    NotUtf8,
    /// Legal in the format, but not read here.
    Unsupported,
    /// No row, or no row that can be used.
    Empty,
    /// A column that the schema needs is not in the file.
    MissingColumn,
    /// A column name appears twice.
    DuplicateColumn,
    /// A cell of a number column is not a finite number.
    NotANumber,
    /// A number does not fit into 32-bit floating point or the statistics' range.
    OutOfRange,
    /// A category that neither the schema nor the mapping knows.
    UnknownCode,
    /// A label that is none of the job's classes.
    UnknownClass,
    /// A row without a label.
    MissingLabel,
    /// An image, array or row of another size than the schema's.
    WrongShape,
    /// A character outside the job's alphabet.
    UnknownCharacter,
    /// The data has another form than the schema: a table where images are needed, say.
    WrongForm,
}

impl Problem {
    /// A few words for people.
    pub fn what(self) -> &'static str {
        match self {
            Self::Unreadable => "cannot be read",
            Self::TooLarge => "too large",
            Self::Malformed => "malformed",
            Self::NotUtf8 => "not UTF-8",
            Self::Unsupported => "not supported",
            Self::Empty => "no data",
            Self::MissingColumn => "missing column",
            Self::DuplicateColumn => "column appears twice",
            Self::NotANumber => "not a number",
            Self::OutOfRange => "number out of range",
            Self::UnknownCode => "unknown category",
            Self::UnknownClass => "unknown class",
            Self::MissingLabel => "row without a label",
            Self::WrongShape => "wrong shape",
            Self::UnknownCharacter => "unknown character",
            Self::WrongForm => "wrong form of data",
        }
    }
}

/// A problem in a device's data and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataError {
    /// What kind of problem.
    pub problem: Problem,
    /// The file, as the mapping names it; empty until [`DataError::in_file`].
    pub file: Box<str>,
    /// The column's name in that file.
    pub column: Option<Box<str>>,
    /// The row, counted from 1 without the header: a record of a table, a line of a text, a first index of an array.
    pub row: Option<u64>,
    /// What was expected there.
    pub expected: Box<str>,
    /// What was there.
    pub got: Box<str>,
    /// How to go on.
    pub hint: Box<str>,
}

impl DataError {
    /// A problem without a place; `expected`, `got` and `hint` are sentences' parts without a final dot. Control
    /// characters of a file are escaped.
    pub fn new(problem: Problem, expected: impl Into<String>, got: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            problem,
            file: "".into(),
            column: None,
            row: None,
            expected: printable(&expected.into()).into(),
            got: printable(&got.into()).into(),
            hint: printable(&hint.into()).into(),
        }
    }

    /// An I/O error while reading: the bound of [`super::limits`], a truncated file, or the disk's own.
    pub(super) fn reading(error: &io::Error) -> Self {
        let text = error.to_string();
        if text.contains(TOO_LONG) {
            let hint = "split the file, or check that it is the right one";
            return Self::new(Problem::TooLarge, "a file within the byte limit", "more bytes", hint);
        }
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.kind() {
            UnexpectedEof | InvalidData | InvalidInput => {
                let hint = "the file is damaged or incomplete: copy it again";
                Self::new(Problem::Malformed, "a complete file", text, hint)
            }
            _ => Self::new(Problem::Unreadable, "a readable file", text, "check the path and its permissions"),
        }
    }

    /// Names the file, unless one is named already.
    #[must_use]
    pub fn in_file(mut self, file: &str) -> Self {
        if self.file.is_empty() {
            self.file = printable(file).into();
        }
        self
    }

    /// Names the column.
    #[must_use]
    pub fn in_column(mut self, column: &str) -> Self {
        self.column = Some(shown(column).into());
        self
    }

    /// Names the row by its index from 0.
    #[must_use]
    pub fn in_row(mut self, index: usize) -> Self {
        self.row = Some(index as u64 + 1);
        self
    }

    /// File, column and row in one phrase, as `where` of an error in JSON.
    pub fn place(&self) -> String {
        let mut place = self.file.to_string();
        let mut add = |part: String| {
            if !place.is_empty() {
                place.push_str(", ");
            }
            place.push_str(&part);
        };
        if let Some(column) = &self.column {
            add(format!("column {column}"));
        }
        if let Some(row) = self.row {
            add(format!("row {row}"));
        }
        place
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: expected {}, got {}", self.problem.what(), self.expected, self.got)?;
        if !self.hint.is_empty() {
            write!(f, "; hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for DataError {}

/// A wrong value in a schema or a mapping: found when it is loaded, before any data file is opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: got {value}, allowed: {allowed}")]
pub struct Invalid {
    /// The path of the setting, such as `fields[3].name`.
    pub field: String,
    /// What it says.
    pub value: String,
    /// What it may say.
    pub allowed: String,
}

impl Invalid {
    pub(super) fn new(field: impl Into<String>, value: impl fmt::Display, allowed: impl Into<String>) -> Self {
        let [field, value, allowed] =
            [field.into(), value.to_string(), allowed.into()].map(|s| printable(&s).into_owned());
        Self { field, value, allowed }
    }
}

/// A cell or name as it may stand in a message: quoted, control characters escaped, at most 48 characters.
pub(super) fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 48;
    let mut short: String = text.chars().take(CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// The first few of many names, for a message.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const NAMES_MAX: usize = 12;
    let mut names = names.into_iter();
    let first: Vec<String> = names.by_ref().take(NAMES_MAX).map(shown).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let error = DataError::new(Problem::Malformed, "a", "b\nc", "d\u{1b}[2J").in_file("e\r.csv");
        assert_eq!(error.to_string(), "e\\r.csv: malformed: expected a, got b\\nc; hint: d\\u{1b}[2J");
        assert_eq!(Invalid::new("a\n", "b\n", "c\n").to_string(), "a\\n: got b\\n, allowed: c\\n");
    }
}
