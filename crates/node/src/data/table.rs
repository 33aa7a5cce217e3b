//! A [`Table`]: named columns of numbers or texts, as a reader found them at one site, before any mapping.
//!
//! A reader is told which columns are wanted and how, so a file of a thousand columns of which ten are used costs the
//! memory of ten, and a text in a number column is reported with its row where it stands. Missing cells are NaN in
//! numbers and [`MISSING`] in texts.

use std::collections::{BTreeMap, HashMap};

use super::error::{DataError, Problem, listed, shown};
use super::limits::{Limits, ROWS_MAX};

/// The id of a missing cell in [`Values::Text`].
pub const MISSING: u32 = u32::MAX;

/// How a column is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Finite 64-bit floating point.
    Number,
    /// Text, kept as ids into a dictionary.
    Text,
}

/// The columns a reader shall keep, by their names in the file.
pub type Wanted = BTreeMap<String, Kind>;

/// Rows of named columns. All columns have `rows` values.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Number of rows.
    pub rows: usize,
    /// The wanted columns that the file has, in the file's order.
    pub columns: Vec<Column>,
    /// Names of the columns that nobody wanted.
    pub ignored: Vec<String>,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name in the file.
    pub name: String,
    /// Its cells.
    pub values: Values,
}

/// The cells of a column, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Finite numbers; NaN where the cell is missing.
    Number(Vec<f64>),
    /// `ids[row]` indexes `dictionary`, or is [`MISSING`].
    Text { ids: Vec<u32>, dictionary: Vec<String> },
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// How cells are written in a text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cells {
    /// Texts that mean "no value", after trimming.
    pub missing: Vec<String>,
    /// The decimal sign, `.` or `,`.
    pub decimal: char,
}

impl Default for Cells {
    fn default() -> Self {
        Self { missing: ["", "NA", "NaN", "nan", "null", "?"].map(String::from).to_vec(), decimal: '.' }
    }
}

impl Cells {
    /// True if the trimmed cell means "no value".
    pub fn is_missing(&self, cell: &str) -> bool {
        self.missing.iter().any(|marker| marker == cell)
    }

    /// The finite number that a trimmed cell spells, if it does.
    pub fn number(&self, cell: &str) -> Option<f64> {
        let parsed = if self.decimal == ',' {
            // "1.234,5" would silently become 1.2345 if the dot were let through.
            if cell.contains('.') {
                return None;
            }
            cell.replacen(',', ".", 1).parse::<f64>()
        } else {
            cell.parse::<f64>()
        };
        parsed.ok().filter(|number| number.is_finite())
    }
}

/// Builds a table cell by cell, row by row, within the limits.
pub(super) struct Builder<'a> {
    columns: Vec<Building>,
    cells: &'a Cells,
    limits: &'a Limits,
    rows: usize,
}

struct Building {
    name: String,
    values: Values,
    known: HashMap<String, u32>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(columns: impl IntoIterator<Item = (String, Kind)>, cells: &'a Cells, limits: &'a Limits) -> Self {
        let columns = columns
            .into_iter()
            .map(|(name, kind)| Building {
                name,
                values: match kind {
                    Kind::Number => Values::Number(Vec::new()),
                    Kind::Text => Values::Text { ids: Vec::new(), dictionary: Vec::new() },
                },
                known: HashMap::new(),
            })
            .collect();
        Self { columns, cells, limits, rows: 0 }
    }

    /// Rows that are complete.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The next row's cell of a column, as text.
    pub(super) fn push_text(&mut self, column: usize, cell: &str) -> Result<(), DataError> {
        let cell = cell.trim();
        if self.cells.is_missing(cell) {
            self.push_missing(column);
            return Ok(());
        }
        let (row, decimal) = (self.rows, self.cells.decimal);
        let building = &mut self.columns[column];
        match &mut building.values {
            Values::Number(numbers) => match self.cells.number(cell) {
                Some(number) => numbers.push(number),
                None => {
                    return Err(not_a_number(cell, decimal).in_column(&building.name).in_row(row));
                }
            },
            Values::Text { ids, dictionary } => {
                let id = match building.known.get(cell) {
                    Some(id) => *id,
                    None if dictionary.len() >= self.limits.distinct => {
                        let error = DataError::new(
                            Problem::TooLarge,
                            format!("at most {} distinct texts", self.limits.distinct),
                            "more",
                            "this column looks like an identifier or free text: do not map it to a category",
                        );
                        return Err(error.in_column(&building.name).in_row(row));
                    }
                    None => {
                        let id = dictionary.len() as u32;
                        dictionary.push(cell.to_owned());
                        building.known.insert(cell.to_owned(), id);
                        id
                    }
                };
                ids.push(id);
            }
        }
        Ok(())
    }

    /// The next row's cell of a column that has no value.
    pub(super) fn push_missing(&mut self, column: usize) {
        match &mut self.columns[column].values {
            Values::Number(numbers) => numbers.push(f64::NAN),
            Values::Text { ids, .. } => ids.push(MISSING),
        }
    }

    /// Ends a row: every column must have had its cell.
    pub(super) fn end_row(&mut self) -> Result<(), DataError> {
        self.rows += 1;
        if self.rows > ROWS_MAX || self.rows.saturating_mul(self.columns.len()) > self.limits.cells {
            return Err(DataError::new(
                Problem::TooLarge,
                format!("at most {} cells and {ROWS_MAX} rows", self.limits.cells),
                format!("more after row {}", self.rows),
                "use fewer rows or map fewer columns on this device",
            ));
        }
        Ok(())
    }

    pub(super) fn finish(self, ignored: Vec<String>) -> Table {
        let columns = self.columns.into_iter().map(|built| Column { name: built.name, values: built.values }).collect();
        Table { rows: self.rows, columns, ignored }
    }
}

fn not_a_number(cell: &str, decimal: char) -> DataError {
    let hint = if decimal == '.' && cell.contains(',') {
        "if the comma is the decimal sign, set decimal = \",\" in this data set's mapping"
    } else {
        "correct the cell, or add the text to `missing` if it means \"no value\""
    };
    DataError::new(Problem::NotANumber, "a finite number or a missing-value marker", shown(cell), hint)
}

/// Finds a file's columns among the wanted ones: for each of `names` its kind if wanted. A wanted name that stands
/// twice in the file is an error, since either could be meant.
pub(super) fn choose(names: &[String], wanted: &Wanted, limits: &Limits) -> Result<Vec<Option<Kind>>, DataError> {
    if names.len() > limits.columns {
        return Err(DataError::new(
            Problem::TooLarge,
            format!("at most {} columns", limits.columns),
            names.len().to_string(),
            "images and long vectors belong in .npy or IDX files",
        ));
    }
    let mut seen = HashMap::new();
    for name in names {
        *seen.entry(name.as_str()).or_insert(0usize) += 1;
    }
    names
        .iter()
        .map(|name| match wanted.get(name) {
            Some(_) if seen[name.as_str()] > 1 => Err(DataError::new(
                Problem::DuplicateColumn,
                "each mapped column once",
                format!(
                    "{} columns of this name among {}",
                    seen[name.as_str()],
                    listed(names.iter().map(String::as_str))
                ),
                "rename one of them in the file",
            )
            .in_column(name)),
            kind => Ok(kind.copied()),
        })
        .collect()
}
