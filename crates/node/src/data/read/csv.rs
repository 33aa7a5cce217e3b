//! Comma-separated values, RFC 4180: a header line, quotes, CRLF or LF, an optional byte-order mark.
//!
//! Cells and names are trimmed. Every record must have as many cells as the header. Without a header the columns are
//! called `0`, `1`, `2` and so on.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder};

use crate::data::error::{DataError, Problem, shown};
use crate::data::limits::{Limits, bounded};
use crate::data::table::{Builder, Cells, Kind, Table, Wanted, choose};

/// How a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Between two cells; one ASCII character.
    pub delimiter: u8,
    /// Whether the first record names the columns.
    pub header: bool,
    /// How cells are written.
    pub cells: Cells,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { delimiter: b',', header: true, cells: Cells::default() }
    }
}

/// Reads the wanted columns.
pub fn read(input: impl Read, dialect: &Dialect, wanted: &Wanted, limits: &Limits) -> Result<Table, DataError> {
    let mut records = Records::open(input, dialect, limits)?;
    let names = records.names.clone();
    let chosen = choose(&names, wanted, limits)?;
    let ignored = names.iter().zip(&chosen).filter(|(_, kind)| kind.is_none());
    let ignored = ignored.map(|(name, _)| name.clone()).collect();
    let kept: Vec<usize> = (0..chosen.len()).filter(|index| chosen[*index].is_some()).collect();
    let columns = kept.iter().filter_map(|index| Some((names[*index].clone(), chosen[*index]?)));
    let mut table = Builder::new(columns, &dialect.cells, limits);
    while let Some(record) = records.next()? {
        for (column, index) in kept.iter().enumerate() {
            let cell = utf8(&record[*index]).map_err(|error| error.in_column(&names[*index]).in_row(table.rows()))?;
            table.push_text(column, cell)?;
        }
        table.end_row()?;
    }
    Ok(table.finish(ignored))
}

/// Each column's name and whether all its cells are numbers or missing, for a file that no schema describes yet.
/// A column without any value is text. Reads the file once and keeps no cell but those it has to name: a column in which
/// at least nine of ten values are numbers must have no other.
pub fn kinds(input: impl Read, dialect: &Dialect, limits: &Limits) -> Result<Vec<(String, Kind)>, DataError> {
    let mut records = Records::open(input, dialect, limits)?;
    let names = records.names.clone();
    let mut found = vec![Found::default(); names.len()];
    let mut row = 0;
    while let Some(record) = records.next()? {
        for (index, cell) in record.iter().enumerate() {
            let cell = utf8(cell).map_err(|error| error.in_column(&names[index]).in_row(row))?.trim();
            if !dialect.cells.is_missing(cell) {
                found[index].note(row, cell, &dialect.cells);
            }
        }
        row += 1;
    }
    names.into_iter().zip(found).map(|(name, found)| Ok((name.clone(), found.kind(&name)?))).collect()
}

/// The columns' names, and every record as it stands.
pub fn records(
    input: impl Read,
    dialect: &Dialect,
    limits: &Limits,
) -> Result<(Vec<String>, Vec<ByteRecord>), DataError> {
    let mut records = Records::open(input, dialect, limits)?;
    let mut found = Vec::new();
    while let Some(record) = records.next()? {
        found.push(record.clone());
    }
    Ok((records.names, found))
}

/// The values of one column.
#[derive(Clone, Default)]
struct Found {
    numbers: u64,
    texts: u64,
    /// Row and cell.
    first_text: Option<(usize, String)>,
}

impl Found {
    fn note(&mut self, row: usize, cell: &str, cells: &Cells) {
        if cells.number(cell).is_some() {
            self.numbers += 1;
        } else {
            self.texts += 1;
            self.first_text.get_or_insert_with(|| (row, cell.to_owned()));
        }
    }

    fn kind(self, column: &str) -> Result<Kind, DataError> {
        let Self { numbers, texts, first_text } = self;
        match first_text {
            None if numbers > 0 => Ok(Kind::Number),
            Some((row, cell)) if numbers >= 9 * texts => {
                let others = if texts > 1 { format!(" ({texts} such values)") } else { String::new() };
                let hint = "correct it, or leave it empty for a missing value; if the column holds codes and not numbers, \
                    write all of them with a letter, such as `c1`";
                let expected = format!("a finite number, as {numbers} values of this column are");
                let error = DataError::new(Problem::NotANumber, expected, shown(&cell) + &others, hint);
                Err(error.in_column(column).in_row(row))
            }
            _ => Ok(Kind::Text),
        }
    }
}

/// Records one after another, each with as many cells as there are names.
struct Records<R> {
    reader: csv::Reader<Metered<R>>,
    left: Rc<Cell<u64>>,
    record_bytes: u64,
    names: Vec<String>,
    record: ByteRecord,
    row: usize,
    /// Without a header the first record has been read already: it is the first row.
    first_is_row: bool,
}

impl<R: Read> Records<R> {
    fn open(input: R, dialect: &Dialect, limits: &Limits) -> Result<Records<impl Read>, DataError> {
        let left = Rc::new(Cell::new(limits.record_bytes));
        let metered = Metered { inner: bounded(input, limits.file_bytes), left: Rc::clone(&left) };
        let reader =
            ReaderBuilder::new().delimiter(dialect.delimiter).has_headers(false).flexible(true).from_reader(metered);
        let mut records = Records {
            reader,
            left,
            record_bytes: limits.record_bytes,
            names: Vec::new(),
            record: ByteRecord::new(),
            row: 0,
            first_is_row: false,
        };
        if !records.advance()? {
            return Err(DataError::new(Problem::Empty, "a header line", "an empty file", "check the path"));
        }
        if dialect.header {
            for name in &records.record {
                records.names.push(utf8(name)?.trim().to_owned());
            }
        } else {
            records.names = (0..records.record.len()).map(|index| index.to_string()).collect();
            records.first_is_row = true;
        }
        Ok(records)
    }

    /// The next record, or None at the end of the file.
    fn next(&mut self) -> Result<Option<&ByteRecord>, DataError> {
        if self.first_is_row {
            self.first_is_row = false;
        } else if !self.advance()? {
            return Ok(None);
        }
        let (cells, columns) = (self.record.len(), self.names.len());
        if cells != columns {
            let hint = if columns == 1 && cells > 1 {
                "the header has another delimiter than the rows"
            } else {
                "quote cells that contain the delimiter; check `delimiter` in this data set's mapping"
            };
            let error = DataError::new(Problem::Malformed, format!("{columns} cells"), format!("{cells} cells"), hint);
            return Err(error.in_row(self.row));
        }
        self.row += 1;
        Ok(Some(&self.record))
    }

    fn advance(&mut self) -> Result<bool, DataError> {
        self.left.set(self.record_bytes);
        self.reader.read_byte_record(&mut self.record).map_err(|error| match error.kind() {
            csv::ErrorKind::Io(error) if error.to_string() == RECORD_TOO_LONG => DataError::new(
                Problem::TooLarge,
                format!("a record of at most {} bytes", self.record_bytes),
                "a longer one",
                "a quote may not be closed in this row",
            )
            .in_row(self.row),
            csv::ErrorKind::Io(error) => DataError::reading(error),
            _ => {
                DataError::new(Problem::Malformed, "a CSV record", error.to_string(), "check the row").in_row(self.row)
            }
        })
    }
}

const RECORD_TOO_LONG: &str = "record longer than the limit";

/// Stops a single record from growing without end: `left` is set anew before each record.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other(RECORD_TOO_LONG));
        }
        let count = self.inner.read(buffer)?;
        self.left.set(self.left.get().saturating_sub(count as u64));
        Ok(count)
    }
}

fn utf8(cell: &[u8]) -> Result<&str, DataError> {
    std::str::from_utf8(cell).map_err(|_| {
        let hint = "save the file as UTF-8 (iconv -f latin1 -t utf-8)";
        DataError::new(Problem::NotUtf8, "UTF-8 text", shown(&String::from_utf8_lossy(cell)), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::table::{MISSING, Values};

    fn wanted(columns: &[(&str, Kind)]) -> Wanted {
        columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
    }

    fn numbers(table: &Table, name: &str) -> Vec<f64> {
        match &table.column(name).expect("column").values {
            Values::Number(values) => values.clone(),
            Values::Text { .. } => panic!("{name} is text"),
        }
    }

    fn refused(bytes: &[u8], limits: &Limits) -> DataError {
        let wanted = wanted(&[("a", Kind::Number), ("b", Kind::Text)]);
        read(bytes, &Dialect::default(), &wanted, limits).expect_err("must be refused")
    }

    #[test]
    fn reads_byte_order_mark_crlf_quotes_and_missing_markers() {
        let bytes = "\u{feff}a,\"b\",c\r\n 1.5 ,\"x, \"\"y\"\"\",9\r\n?,NA,8\r\n".as_bytes();
        let table =
            read(bytes, &Dialect::default(), &wanted(&[("a", Kind::Number), ("b", Kind::Text)]), &Limits::default())
                .expect("reads");
        assert_eq!((table.rows, table.ignored.as_slice()), (2, ["c".to_owned()].as_slice()));
        let a = numbers(&table, "a");
        assert_eq!(a[0], 1.5);
        assert!(a[1].is_nan());
        let expected = Values::Text { ids: vec![0, MISSING], dictionary: vec!["x, \"y\"".into()] };
        assert_eq!(table.column("b").expect("b").values, expected);
    }

    #[test]
    fn reads_semicolons_and_decimal_commas() {
        let dialect = Dialect { delimiter: b';', header: true, cells: Cells { decimal: ',', ..Cells::default() } };
        let want = wanted(&[("a", Kind::Number)]);
        let table = read("a;b\n1,25;x\n-3;y\n".as_bytes(), &dialect, &want, &Limits::default()).expect("reads");
        assert_eq!(numbers(&table, "a"), [1.25, -3.0]);
        let error = read("a\n1.234,5\n".as_bytes(), &dialect, &want, &Limits::default()).expect_err("thousands dot");
        assert_eq!(error.problem, Problem::NotANumber);
    }

    #[test]
    fn without_a_header_columns_have_numbers() {
        let dialect = Dialect { header: false, ..Dialect::default() };
        let table = read("1,2\n3,4\n".as_bytes(), &dialect, &wanted(&[("1", Kind::Number)]), &Limits::default());
        assert_eq!(numbers(&table.expect("reads"), "1"), [2.0, 4.0]);
    }

    #[test]
    fn refuses_with_the_place() {
        let limits = Limits::default();
        let check = |bytes: &[u8], problem: Problem, column: Option<&str>, row: Option<u64>| {
            let error = refused(bytes, &limits);
            assert_eq!((error.problem, error.column.as_deref(), error.row), (problem, column, row), "{error}");
        };
        check(b"", Problem::Empty, None, None);
        check(b"a,b\n1,x\n2\n", Problem::Malformed, None, Some(2));
        check(b"a,b\n1,x,9\n", Problem::Malformed, None, Some(1));
        check(b"a,a,b\n1,2,x\n", Problem::DuplicateColumn, Some("\"a\""), None);
        check(b"a,b\n1,x\ninf,x\n", Problem::NotANumber, Some("\"a\""), Some(2));
        check(b"a,b\n1e400,x\n", Problem::NotANumber, Some("\"a\""), Some(1));
        check(b"a,b\n1,\xff\n", Problem::NotUtf8, Some("\"b\""), Some(1));
        assert!(refused(b"a,b\n\"1,5\",x\n", &limits).hint.contains("decimal"));
    }

    #[test]
    fn limits_hold() {
        let tight = Limits { file_bytes: 1 << 20, record_bytes: 16 << 10, columns: 3, cells: 10, distinct: 2 };
        assert_eq!(refused(b"a,b,c,d\n", &tight).problem, Problem::TooLarge);
        let rows: String = "a,b\n".to_owned() + &"1,x\n".repeat(6);
        assert_eq!(refused(rows.as_bytes(), &tight).problem, Problem::TooLarge);
        assert_eq!(refused(b"a,b\n1,x\n1,y\n1,z\n", &tight).problem, Problem::TooLarge);
        let unclosed: String = "a,b\n1,\"".to_owned() + &"x".repeat(200_000);
        let error = refused(unclosed.as_bytes(), &tight);
        assert_eq!((error.problem, error.row), (Problem::TooLarge, Some(1)));
        let endless = b"a,b\n".as_slice().chain(io::repeat(b'\n'));
        let error = read(endless, &Dialect::default(), &Wanted::new(), &tight).expect_err("endless");
        assert_eq!(error.problem, Problem::TooLarge);
    }

    #[test]
    fn kinds_look_at_every_cell() {
        let found = kinds("a,b,c,d\n1,x,,1\n,2,NA,y\n".as_bytes(), &Dialect::default(), &Limits::default());
        let kinds: Vec<Kind> = found.expect("reads").into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, [Kind::Number, Kind::Text, Kind::Text, Kind::Text]);
    }
}
