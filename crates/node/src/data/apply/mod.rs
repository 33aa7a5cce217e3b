//! A site's tables, arrays, images and texts into [`Prepared`] rows, by the schema and the site's mapping.
//!
//! Every function here is pure and says what does not fit with its column and row. File names are added by the caller.

pub mod array;
pub mod image;
pub mod table;

use super::error::{DataError, Problem};
use super::limits::Limits;
use super::mapping::Source;
use super::prepared::{Features, Labels, Prepared};
use super::read::text::encode;
use super::schema::{Schema, TextSchema};

/// What was read beside the rows: for the device's log, so that nothing is left out silently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Rows read.
    pub rows: u64,
    /// Columns that no field needs; in an image folder, files that are not images.
    pub ignored: Vec<String>,
    /// Fields with missing values and how many.
    pub missing: Vec<(String, u64)>,
    /// Characters that became the schema's `unknown`.
    pub replaced_characters: u64,
}

impl Report {
    /// Adds another file's.
    pub fn append(&mut self, more: Self) {
        self.rows += more.rows;
        for name in more.ignored {
            if !self.ignored.contains(&name) {
                self.ignored.push(name);
            }
        }
        for (field, count) in more.missing {
            match self.missing.iter_mut().find(|(known, _)| *known == field) {
                Some((_, sum)) => *sum += count,
                None => self.missing.push((field, count)),
            }
        }
        self.replaced_characters += more.replaced_characters;
    }
}

/// A text as tokens. It may be too short for a window, since another file's text may follow.
pub fn text(text: &str, schema: &TextSchema) -> Result<(Prepared, Report), DataError> {
    let (ids, replaced_characters) = encode(text, schema)?;
    let features = Features::Tokens { ids, window: schema.window as usize };
    let prepared = Prepared { features, labels: Labels::NextToken };
    let report = Report { rows: prepared.rows() as u64, replaced_characters, ..Report::default() };
    Ok((prepared, report))
}

/// Number of features, refused before they are allocated if they would not fit.
fn feature_count(rows: usize, width: usize, bytes_each: usize, limits: &Limits) -> Result<usize, DataError> {
    let count = rows.checked_mul(width);
    let bytes = count.and_then(|count| count.checked_mul(bytes_each));
    count.filter(|_| bytes.is_some_and(|bytes| bytes as u64 <= limits.file_bytes)).ok_or_else(|| {
        let expected = format!("at most {} bytes of features", limits.file_bytes);
        let hint = "use fewer rows on this device, or categories with fewer values";
        DataError::new(Problem::TooLarge, expected, format!("{rows} rows x {width} inputs"), hint)
    })
}

fn no_rows() -> DataError {
    DataError::new(Problem::Empty, "at least one row", "none", "check that the path leads to this site's data")
}

/// The file's form is not the schema's.
pub(in crate::data) fn wrong_form(got: &str, schema: &Schema) -> DataError {
    let expected = if schema.image.is_some() {
        "images"
    } else if schema.text.is_some() {
        "text"
    } else {
        "a table or an array of numbers"
    };
    let hint =
        "the data set of this name is of another kind here than in the job: correct `files`, or use another name";
    DataError::new(Problem::WrongForm, expected, got, hint)
}

/// The class of a folder's name or a label's number: what the mapping's `classes` say it means, else by name.
pub(super) fn class_id(code: &str, classes: &[String], source: &Source) -> Option<u32> {
    let class = source.classes.get(code).map_or(code, String::as_str);
    classes.iter().position(|known| known == class).map(|index| index as u32)
}
