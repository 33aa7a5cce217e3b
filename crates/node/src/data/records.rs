//! A data set as its files hold it, row by row, before any job says what the rows must become: to cut it into the files of
//! many devices (`littoral partition`).
//!
//! A row is a record of a table, a line of JSON, a first index of an array, an image, or a speech of a text. Rows keep the
//! order of [`super::load`], so a partition of these is one of prepared rows too (but for a text, whose prepared rows are
//! windows). Nothing is converted: what [`write`] puts into a device's folder reads there as the whole did here.

mod write;

pub use write::{Change, Place};

use super::array::Array;
use super::error::{DataError, Invalid, Problem, listed, shown};
use super::files::{LoadError, Opening, entries, is_image};
use super::infer::sorted;
use super::limits::Limits;
use super::mapping::{Format, Plan, Source};
use super::partition::feature::{Feature, deviation};
use super::read::{csv, idx, jsonl, npy, npz, text};
use super::schema::Schema;
use super::table::Cells;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Rows as they lie in files.
pub struct Records {
    /// How the whole is mapped; the parts are mapped alike.
    source: Source,
    rows: Rows,
}

enum Rows {
    Csv { names: Vec<String>, records: Vec<::csv::ByteRecord> },
    Jsonl(Vec<Box<str>>),
    Array { features: Array, labels: Array },
    Images(Vec<ImageFile>),
    Text(Vec<Speech>),
}

struct ImageFile {
    class: String,
    /// Below the class's folder; unique there.
    name: String,
    path: PathBuf,
}

/// A block of a text between empty lines, with whoever says it; or a line, if there are no empty lines.
struct Speech {
    speaker: String,
    /// As it stands, the speaker's line too.
    whole: String,
    said: String,
}

/// What a column says of each row: a number for each distinct value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// By row, an index into `names`.
    pub ids: Vec<u32>,
    /// In numerical order if all are integers, else alphabetical.
    pub names: Vec<String>,
}

impl Keys {
    fn of<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let (mut known, mut found, mut ids) = (HashMap::<&str, u32>::new(), Vec::new(), Vec::new());
        for value in values {
            let next = known.len() as u32;
            let id = *known.entry(value).or_insert_with(|| {
                found.push(value.to_owned());
                next
            });
            ids.push(id);
        }
        let names = sorted(&found);
        let places: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
        let order: Vec<u32> = found.iter().map(|name| places[name.as_str()]).collect();
        ids.iter_mut().for_each(|id| *id = order[*id as usize]);
        Self { ids, names }
    }
}

/// The column of a text by which it is cut.
pub const SPEAKER: &str = "speaker";

impl Records {
    /// Reads all files of a data set. `base`: the folder at which relative paths start.
    pub fn load(name: &str, source: &Source, base: &Path, limits: &Limits) -> Result<Self, LoadError> {
        source.check(name)?;
        let format = source.format(name)?;
        let (schema, plan) = (Schema::default(), Plan { fields: Vec::new(), label: None });
        let opening = Opening { source, schema: &schema, plan: &plan, base, limits };
        let mut all: Option<Rows> = None;
        for (index, file) in source.files.iter().enumerate() {
            let place = file.display().to_string();
            let rows = rows_of(&opening, format, index).map_err(|error| error.in_file(&place))?;
            match &mut all {
                None => all = Some(rows),
                Some(all) => all.append(rows).map_err(|error| error.in_file(&place))?,
            }
        }
        let rows = all.ok_or_else(|| Invalid::new("files", "nothing", "one path or more"))?;
        let records = Self { source: source.clone(), rows };
        if records.count() == 0 {
            let error = DataError::new(Problem::Empty, "at least one row", "none", "check the path");
            return Err(error.in_file(&source.files[0].display().to_string()).into());
        }
        Ok(records)
    }

    pub fn count(&self) -> usize {
        match &self.rows {
            Rows::Csv { records, .. } => records.len(),
            Rows::Jsonl(lines) => lines.len(),
            Rows::Array { features, .. } => features.rows(),
            Rows::Images(files) => files.len(),
            Rows::Text(speeches) => speeches.len(),
        }
    }

    /// Each row's label: of a table, the column `label` if one is named; of arrays, the labels; of images, the folders; of a
    /// text, who says it, if anybody is named.
    pub fn labels(&self, label: Option<&str>) -> Result<Option<Keys>, DataError> {
        let known = |what: &str| {
            let hint = "leave the label out";
            DataError::new(Problem::WrongForm, "a table, whose label is a column", what, hint)
        };
        match (&self.rows, label) {
            (Rows::Csv { .. } | Rows::Jsonl(_), None) => Ok(None),
            (Rows::Csv { .. } | Rows::Jsonl(_), Some(label)) => self.keys(label).map(Some),
            (Rows::Array { .. }, Some(_)) => Err(known("arrays, which have an array of labels")),
            (Rows::Images(_), Some(_)) => Err(known("images, whose labels are their folders")),
            (Rows::Text(_), Some(_)) => Err(known("text, whose labels are its speakers")),
            (Rows::Array { labels, .. }, None) => {
                let number = |row| labels.number(row).unwrap_or(f64::NAN).to_string();
                let values: Vec<String> = (0..labels.rows()).map(number).collect();
                Ok(Some(Keys::of(values.iter().map(String::as_str))))
            }
            (Rows::Images(files), None) => Ok(Some(Keys::of(files.iter().map(|file| file.class.as_str())))),
            (Rows::Text(_), None) => Ok(self.keys(SPEAKER).ok().filter(|keys| keys.names.len() > 1)),
        }
    }

    /// Each row's value of a column. Every row must have one.
    pub fn keys(&self, column: &str) -> Result<Keys, DataError> {
        let missing_column = |columns: String| {
            DataError::new(Problem::MissingColumn, "a column of the data", columns, "name one of these")
                .in_column(column)
        };
        let missing = |row| {
            let hint = "fill it in, or remove the row";
            DataError::new(Problem::MissingLabel, "a value in every row", "none", hint).in_column(column).in_row(row)
        };
        let cells = self.source.dialect().cells;
        match &self.rows {
            Rows::Csv { names, records } => {
                let place = names.iter().position(|name| name == column);
                let place = place.ok_or_else(|| missing_column(listed(names.iter().map(String::as_str))))?;
                let mut values = Vec::with_capacity(records.len());
                for (row, record) in records.iter().enumerate() {
                    let value = utf8(&record[place]).map_err(|e| e.in_column(column).in_row(row))?.trim();
                    if cells.is_missing(value) {
                        return Err(missing(row));
                    }
                    values.push(value);
                }
                Ok(Keys::of(values.into_iter()))
            }
            Rows::Jsonl(lines) => {
                let mut values = Vec::with_capacity(lines.len());
                for (row, line) in lines.iter().enumerate() {
                    let value = match object(line).remove(column) {
                        None | Some(serde_json::Value::Null) => return Err(missing(row)),
                        Some(serde_json::Value::String(text)) => text,
                        Some(other) => other.to_string(),
                    };
                    values.push(value);
                }
                Ok(Keys::of(values.iter().map(String::as_str)))
            }
            Rows::Array { features, .. } => {
                let width = features.row_width();
                let place = column.parse::<usize>().ok().filter(|place| features.shape.len() == 2 && *place < width);
                let columns = match features.shape.len() {
                    2 => format!("columns 0 to {}", width.saturating_sub(1)),
                    _ => "images, which have no columns".into(),
                };
                let place = place.ok_or_else(|| missing_column(columns))?;
                let number = |row: usize| features.number(row * width + place).unwrap_or(f64::NAN).to_string();
                let values: Vec<String> = (0..features.rows()).map(number).collect();
                Ok(Keys::of(values.iter().map(String::as_str)))
            }
            Rows::Images(_) => Err(missing_column("images, which have no columns".into())),
            Rows::Text(speeches) if column == SPEAKER => {
                if speeches.iter().all(|speech| speech.speaker.is_empty()) {
                    return Err(missing_column("a text without a line `NAME:` at the head of a block".into()));
                }
                Ok(Keys::of(speeches.iter().map(|speech| speech.speaker.as_str())))
            }
            Rows::Text(_) => Err(missing_column(format!("`{SPEAKER}`, the only one of a text"))),
        }
    }

    /// Is there a column of this name in any row?
    pub fn has_column(&self, name: &str) -> bool {
        match &self.rows {
            Rows::Csv { names, .. } => names.iter().any(|column| column == name),
            Rows::Jsonl(lines) => lines.iter().flat_map(|line| object(line)).any(|(column, _)| column == name),
            Rows::Array { features, .. } => name.parse::<usize>().is_ok_and(|column| column < features.row_width()),
            Rows::Images(_) | Rows::Text(_) => false,
        }
    }

    /// The columns of numbers that changes of features apply to, all but those of `keep`, and each one's deviation over all
    /// rows. Images have none. An error names the change that does not go with these rows.
    pub fn changed_columns(&self, features: &[Feature], keep: &[&str]) -> Result<BTreeMap<String, f64>, Invalid> {
        let images = match &self.rows {
            Rows::Images(_) => true,
            Rows::Array { features, .. } => features.shape.len() > 2,
            _ => false,
        };
        let text = matches!(self.rows, Rows::Text(_));
        if let Some(wrong) =
            features.iter().find(|f| text || (images && !f.of_images()) || (!images && !f.of_numbers()))
        {
            let allowed = match (text, images) {
                (true, _) => "none: a text has no numbers",
                (_, true) => "feature:rotation, feature:contrast or feature:noise, since these are images",
                _ => "feature:affine or feature:noise, since these are numbers",
            };
            return Err(Invalid::new("by", wrong, allowed));
        }
        if features.is_empty() || images {
            return Ok(BTreeMap::new());
        }
        let cells = self.source.dialect().cells;
        let mut found = BTreeMap::<String, Vec<f64>>::new();
        let mut texts = std::collections::BTreeSet::new();
        let mut note = |name: &str, number: Option<f64>| match number {
            Some(number) => found.entry(name.to_owned()).or_default().push(number),
            None => {
                texts.insert(name.to_owned());
            }
        };
        match &self.rows {
            Rows::Csv { names, records } => {
                for record in records {
                    for (name, cell) in names.iter().zip(record) {
                        match std::str::from_utf8(cell).map(str::trim) {
                            Ok(cell) if cells.is_missing(cell) => {}
                            Ok(cell) => note(name, cells.number(cell)),
                            Err(_) => note(name, None),
                        }
                    }
                }
            }
            Rows::Jsonl(lines) => {
                for (name, value) in lines.iter().flat_map(|line| object(line)) {
                    match number_of(&value, &cells) {
                        Cell::Missing => {}
                        Cell::Number(number) => note(&name, Some(number)),
                        Cell::Text => note(&name, None),
                    }
                }
            }
            Rows::Array { features, .. } => {
                let width = features.row_width();
                for index in 0..features.rows() * width {
                    note(&(index % width).to_string(), features.number(index));
                }
            }
            Rows::Images(_) | Rows::Text(_) => {}
        }
        let wanted = |(name, values): (String, Vec<f64>)| {
            let unchanged = texts.contains(&name) || keep.contains(&name.as_str());
            (!unchanged).then(|| (name, deviation(values.into_iter())))
        };
        Ok(found.into_iter().filter_map(wanted).collect())
    }
}

enum Cell {
    Missing,
    Number(f64),
    Text,
}

fn number_of(value: &serde_json::Value, cells: &Cells) -> Cell {
    match value {
        serde_json::Value::Null => Cell::Missing,
        serde_json::Value::Number(number) => number.as_f64().map_or(Cell::Text, Cell::Number),
        serde_json::Value::String(text) if cells.is_missing(text.trim()) => Cell::Missing,
        _ => Cell::Text,
    }
}

/// A line that was read as an object.
fn object(line: &str) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(line).unwrap_or_default()
}

fn utf8(cell: &[u8]) -> Result<&str, DataError> {
    std::str::from_utf8(cell).map_err(|_| {
        let got = shown(&String::from_utf8_lossy(cell));
        DataError::new(Problem::NotUtf8, "UTF-8 text", got, "save the file as UTF-8")
    })
}

fn rows_of(opening: &Opening<'_>, format: Format, index: usize) -> Result<Rows, DataError> {
    let (source, limits) = (opening.source, opening.limits);
    let file = &source.files[index];
    match format {
        Format::Csv => {
            let (names, records) = csv::records(opening.open(file)?, &source.dialect(), limits)?;
            Ok(Rows::Csv { names, records })
        }
        Format::Jsonl => Ok(Rows::Jsonl(jsonl::lines(opening.open(file)?, limits)?)),
        Format::Npy | Format::Idx => {
            let read = |file: &Path| match format {
                Format::Npy => npy::read(opening.open(file)?, limits),
                _ => idx::read(opening.open(file)?, limits),
            };
            // `Source::check` has seen to it that there are as many.
            let labels = &source.labels[index];
            let of_labels = read(labels).map_err(|error| error.in_file(&labels.display().to_string()))?;
            labelled(read(file)?, of_labels)
        }
        Format::Npz => {
            let read = |name: &str| npz::read(opening.file(file)?, name, limits);
            let features = read(source.features.as_deref().unwrap_or("x"))?;
            labelled(features, read(source.target.as_deref().unwrap_or("y"))?)
        }
        Format::Images => {
            let mut found = Vec::new();
            for (class, folder) in entries(&opening.base.join(file))?.into_iter().filter(|(_, path)| path.is_dir()) {
                for (name, path) in
                    entries(&folder)?.into_iter().filter(|(name, path)| is_image(name) && path.is_file())
                {
                    // Two folders of one data set may hold files of one name.
                    let name = if source.files.len() > 1 { format!("{}-{name}", index + 1) } else { name };
                    found.push(ImageFile { class: class.clone(), name, path });
                }
            }
            Ok(Rows::Images(found))
        }
        Format::Text => Ok(Rows::Text(speeches(&text::read(opening.open(file)?, limits)?))),
    }
}

fn labelled(features: Array, labels: Array) -> Result<Rows, DataError> {
    if labels.rows() != features.rows() || labels.row_width() != 1 {
        let (expected, got) =
            (format!("{} labels, one for each row", features.rows()), format!("shape {:?}", labels.shape));
        return Err(DataError::new(Problem::WrongShape, expected, got, "save them with the features, in their order"));
    }
    Ok(Rows::Array { features, labels })
}

/// As [`text::by_speaker`] cuts; without an empty line each line is by itself.
fn speeches(text: &str) -> Vec<Speech> {
    let text = text.trim_matches('\n');
    if !text.contains("\n\n") {
        let line = |line: &str| Speech { speaker: String::new(), whole: line.into(), said: line.into() };
        return text.lines().filter(|line| !line.is_empty()).map(line).collect();
    }
    let mut speaker = "";
    let mut found = Vec::new();
    for block in text.split("\n\n").map(|block| block.trim_matches('\n')).filter(|block| !block.is_empty()) {
        let said = match block.split_once('\n').unwrap_or((block, "")) {
            (first, rest) if first.ends_with(':') => {
                speaker = first.trim_end_matches(':');
                rest
            }
            _ => block,
        };
        found.push(Speech { speaker: speaker.into(), whole: block.into(), said: said.into() });
    }
    found
}

impl Rows {
    fn append(&mut self, more: Self) -> Result<(), DataError> {
        let other = |expected: String, got: String| {
            let hint = "a data set's files must all have one form";
            Err(DataError::new(Problem::WrongForm, expected, got, hint))
        };
        match (self, more) {
            (Self::Csv { names, records }, Self::Csv { names: n, records: r }) => {
                if *names != n {
                    let columns = |names: &[String]| listed(names.iter().map(String::as_str));
                    return other(format!("the columns of the first file, {}", columns(names)), columns(&n));
                }
                records.extend(r);
            }
            (Self::Jsonl(lines), Self::Jsonl(more)) => lines.extend(more),
            (Self::Images(files), Self::Images(more)) => files.extend(more),
            (Self::Text(speeches), Self::Text(more)) => speeches.extend(more),
            (Self::Array { features, labels }, Self::Array { features: f, labels: l }) => {
                let (expected, got) =
                    (format!("rows of shape {:?}", &features.shape[1..]), format!("{:?}", &f.shape[1..]));
                if !(features.append(f) && labels.append(l)) {
                    return other(expected + " and one type", got);
                }
            }
            _ => return other("rows of the form of the first file".into(), "another form".into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
