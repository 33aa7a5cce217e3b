//! JSON Lines: one flat object per line, UTF-8. Empty lines are passed over.
//!
//! Numbers, strings, booleans (as the texts `true` and `false`) and null (missing) are read; a key that a line does not
//! have is missing there. Nested values are refused in wanted columns and ignored elsewhere.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use serde_json::{Map, Value};

use crate::data::error::{DataError, Problem, shown};
use crate::data::limits::{Limits, bounded};
use crate::data::table::{Builder, Cells, Kind, Table, Wanted};

/// Reads the wanted columns. A wanted key that no line has gives no column. The row in an error counts objects, not
/// empty lines.
pub fn read(input: impl Read, cells: &Cells, wanted: &Wanted, limits: &Limits) -> Result<Table, DataError> {
    let names: Vec<&String> = wanted.keys().collect();
    let mut table = Builder::new(wanted.iter().map(|(name, kind)| (name.clone(), *kind)), cells, limits);
    let mut seen = vec![false; names.len()];
    let mut ignored = BTreeSet::new();
    let mut lines = Lines::new(input, limits);
    while let Some((row, object)) = lines.next()? {
        for (column, name) in names.iter().enumerate() {
            let value = object.get(*name);
            seen[column] |= value.is_some();
            match value {
                None | Some(Value::Null) => table.push_missing(column),
                Some(Value::String(text)) => table.push_text(column, text).map_err(|error| error.in_row(row))?,
                Some(Value::Number(number)) => {
                    // A number's own text always has a decimal point, whatever sign the site's texts use.
                    let text = number.to_string();
                    let text = if cells.decimal == ',' { text.replace('.', ",") } else { text };
                    table.push_text(column, &text).map_err(|error| error.in_row(row))?;
                }
                Some(Value::Bool(truth)) => {
                    table.push_text(column, &truth.to_string()).map_err(|error| error.in_row(row))?;
                }
                Some(nested @ (Value::Array(_) | Value::Object(_))) => {
                    let hint = "flatten the file: one key per column";
                    let got = shown(&nested.to_string());
                    let error = DataError::new(Problem::Unsupported, "a number, string, boolean or null", got, hint);
                    return Err(error.in_column(name).in_row(row));
                }
            }
        }
        for key in object.keys().filter(|key| !wanted.contains_key(*key)) {
            if !ignored.contains(key) && ignored.len() < limits.columns {
                ignored.insert(key.clone());
            }
        }
        table.end_row()?;
    }
    let mut table = table.finish(ignored.into_iter().collect());
    if table.rows > 0 {
        let mut seen = seen.into_iter();
        table.columns.retain(|_| seen.next().unwrap_or(false));
    }
    Ok(table)
}

/// Each key's name and whether all its values are numbers, numbers as strings, or missing; sorted by name.
pub fn kinds(input: impl Read, cells: &Cells, limits: &Limits) -> Result<Vec<(String, Kind)>, DataError> {
    let mut found = std::collections::BTreeMap::<String, (bool, bool)>::new();
    let mut lines = Lines::new(input, limits);
    while let Some((_, object)) = lines.next()? {
        for (key, value) in object {
            if found.len() >= limits.columns && !found.contains_key(&key) {
                let hint = "flatten or thin out the file";
                let expected = format!("at most {} keys", limits.columns);
                return Err(DataError::new(Problem::TooLarge, expected, "more", hint));
            }
            let (number, text) = found.entry(key).or_default();
            match value {
                Value::Null => {}
                Value::Number(_) => *number = true,
                Value::String(cell) if cells.is_missing(cell.trim()) => {}
                Value::String(cell) if cells.number(cell.trim()).is_some() => *number = true,
                _ => *text = true,
            }
        }
    }
    let kind = |(number, text): (bool, bool)| {
        if number && !text { Kind::Number } else { Kind::Text }
    };
    Ok(found.into_iter().map(|(name, flags)| (name, kind(flags))).collect())
}

/// Every line that holds an object, as it stands.
pub fn lines(input: impl Read, limits: &Limits) -> Result<Vec<Box<str>>, DataError> {
    let mut lines = Lines::new(input, limits);
    let mut found = Vec::new();
    while lines.next()?.is_some() {
        // It was UTF-8 when it was parsed.
        let text = String::from_utf8_lossy(&lines.buffer);
        found.push(text.trim_start_matches('\u{feff}').trim().into());
    }
    Ok(found)
}

/// An object and how many came before it.
type Line = (usize, Map<String, Value>);

struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    next: usize,
    first: bool,
    line_bytes: u64,
}

impl<R: Read> Lines<R> {
    fn new(input: R, limits: &Limits) -> Lines<impl BufRead> {
        Lines {
            reader: BufReader::new(bounded(input, limits.file_bytes)),
            buffer: Vec::new(),
            next: 0,
            first: true,
            line_bytes: limits.record_bytes,
        }
    }
}

impl<R: BufRead> Lines<R> {
    /// The next object and how many came before it, or None at the end.
    fn next(&mut self) -> Result<Option<Line>, DataError> {
        loop {
            self.buffer.clear();
            let mut line = self.reader.by_ref().take(self.line_bytes + 1);
            let count = line.read_until(b'\n', &mut self.buffer).map_err(|error| DataError::reading(&error))?;
            if count == 0 {
                return Ok(None);
            }
            let index = self.next;
            if count as u64 > self.line_bytes {
                let expected = format!("a line of at most {} bytes", self.line_bytes);
                let hint = "write one object per line";
                return Err(DataError::new(Problem::TooLarge, expected, "a longer one", hint).in_row(index));
            }
            let mut bytes = self.buffer.as_slice();
            if self.first {
                self.first = false;
                bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
            }
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            self.next += 1;
            let text = std::str::from_utf8(bytes).map_err(|_| {
                let got = shown(&String::from_utf8_lossy(bytes));
                DataError::new(Problem::NotUtf8, "UTF-8 text", got, "save the file as UTF-8").in_row(index)
            })?;
            return match serde_json::from_str(text) {
                Ok(object) => Ok(Some((index, object))),
                Err(error) => {
                    let hint = "write one flat JSON object per line";
                    let got = format!("{} ({error})", shown(text.trim()));
                    Err(DataError::new(Problem::Malformed, "a JSON object", got, hint).in_row(index))
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::table::{MISSING, Values};

    fn wanted() -> Wanted {
        Wanted::from([("a".to_owned(), Kind::Number), ("b".to_owned(), Kind::Text)])
    }

    #[test]
    fn reads_scalars_and_gaps() {
        let lines = "\u{feff}{\"a\": 1.5, \"b\": true, \"c\": [1]}\r\n\n{\"b\": \"x\"}\n{\"a\": \"2\", \"b\": 3}";
        let table = read(lines.as_bytes(), &Cells::default(), &wanted(), &Limits::default()).expect("reads");
        assert_eq!((table.rows, table.ignored), (3, vec!["c".to_owned()]));
        match &table.columns[0].values {
            Values::Number(numbers) => {
                assert!(numbers[0] == 1.5 && numbers[1].is_nan() && numbers[2] == 2.0)
            }
            other => panic!("{other:?}"),
        }
        let Values::Text { ids, dictionary } = &table.columns[1].values else { panic!("text") };
        assert_eq!((ids.as_slice(), dictionary.len()), ([0, 1, 2].as_slice(), 3));
        assert_ne!(ids[1], MISSING);
    }

    #[test]
    fn refuses_with_the_row() {
        let check = |bytes: &[u8], problem: Problem, row: u64| {
            let error = read(bytes, &Cells::default(), &wanted(), &Limits::default()).expect_err("refused");
            assert_eq!((error.problem, error.row), (problem, Some(row)), "{error}");
        };
        check(b"{\"a\": 1}\n\n[1]\n", Problem::Malformed, 2);
        check(b"{\"a\": 1", Problem::Malformed, 1);
        check(b"{\"a\": [1]}", Problem::Unsupported, 1);
        check(b"{\"a\": true}", Problem::NotANumber, 1);
        check(b"{\"b\": \"\xff\"}", Problem::NotUtf8, 1);
        // Deeper than the parser's own bound of 128: an error, not a stack overflow.
        check(&b"{\"c\": ".iter().copied().chain([b'['; 100_000]).collect::<Vec<_>>(), Problem::Malformed, 1);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let tight = Limits { record_bytes: 1 << 12, ..Limits::default() };
        let error = read(std::io::repeat(b'x'), &Cells::default(), &wanted(), &tight).expect_err("refused");
        assert_eq!((error.problem, error.row), (Problem::TooLarge, Some(1)));
    }
}
