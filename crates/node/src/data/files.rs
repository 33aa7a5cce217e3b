//! The one place that opens a device's data files, but for [`super::records`]. Everything else works on bytes.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::apply::image::PIXEL_SCALE;
use super::apply::{self, Report};
use super::array::Array;
use super::error::{DataError, Invalid, Problem};
use super::limits::{FOLDER_FILES_MAX, Limits, bounded};
use super::mapping::{Format, Plan, Source};
use super::prepared::{Features, Labels, Prepared};
use super::read::{csv, gunzip, idx, image, jsonl, npy, npz, text};
use super::schema::{ImageSchema, Schema};
use super::table::Wanted;

/// Why a data set cannot be used for a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The files do not fit.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The schema or the mapping does not fit.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Reads a data set and brings it to the job's schema. `name` is the data set's, `base` the folder at which relative
/// paths start. All files are read and checked before this returns: a mismatch is found before training.
pub fn load(
    name: &str,
    source: &Source,
    schema: &Schema,
    base: &Path,
    limits: &Limits,
) -> Result<(Prepared, Report), LoadError> {
    schema.check()?;
    source.check(name)?;
    let format = source.format(name)?;
    let plan = source.plan(name, schema)?;
    let mut all: Option<(Prepared, Report)> = None;
    for (index, file) in source.files.iter().enumerate() {
        let one = Opening { source, schema, plan: &plan, base, limits };
        let label_file = source.labels.get(index);
        let (prepared, report) = one.load(format, file, label_file).map_err(|error| error.in_file(&shown(file)))?;
        match &mut all {
            None => all = Some((prepared, report)),
            Some((rows, notes)) => {
                rows.append(prepared).map_err(|error| error.in_file(&shown(file)))?;
                notes.append(report);
            }
        }
    }
    let nothing = || Invalid::new(format!("data.{name}.files"), "nothing", "one path or more");
    let (prepared, mut report) = all.ok_or_else(nothing)?;
    // Tables and images without a row were refused one by one; texts count together.
    report.rows = prepared.rows() as u64;
    if report.rows == 0 {
        let hint = "use a longer text, or a smaller window in the job";
        let error = DataError::new(Problem::Empty, "more characters than one window", "fewer", hint);
        return Err(error.in_file(&shown(&source.files[0])).into());
    }
    Ok((prepared, report))
}

/// How many rows a data set has, before any job says what they must become: records of a table, a first dimension, images,
/// or characters of a text. Files are read as far as that takes.
pub fn count(name: &str, source: &Source, base: &Path, limits: &Limits) -> Result<u64, LoadError> {
    source.check(name)?;
    let format = source.format(name)?;
    let schema = Schema::default();
    let plan = Plan { fields: Vec::new(), label: None };
    let opening = Opening { source, schema: &schema, plan: &plan, base, limits };
    let mut rows = 0;
    for file in &source.files {
        rows += opening.count(format, file).map_err(|error| error.in_file(&shown(file)))?;
    }
    Ok(rows)
}

/// The rows of a CSV that is in memory already, such as a data set that ships with the program.
pub fn load_csv(
    name: &str,
    bytes: &[u8],
    source: &Source,
    schema: &Schema,
    limits: &Limits,
) -> Result<(Prepared, Report), LoadError> {
    schema.check()?;
    source.check(name)?;
    let plan = source.plan(name, schema)?;
    let table =
        csv::read(bytes, &source.dialect(), &plan.wanted(schema), limits).map_err(|error| error.in_file(name))?;
    Ok(apply::table::rows(&table, schema, &plan, limits).map_err(|error| error.in_file(name))?)
}

pub(super) struct Opening<'a> {
    pub(super) source: &'a Source,
    pub(super) schema: &'a Schema,
    pub(super) plan: &'a Plan,
    pub(super) base: &'a Path,
    pub(super) limits: &'a Limits,
}

impl Opening<'_> {
    fn load(&self, format: Format, file: &Path, labels: Option<&PathBuf>) -> Result<(Prepared, Report), DataError> {
        let (schema, limits) = (self.schema, self.limits);
        match format {
            Format::Csv | Format::Jsonl => {
                if schema.fields.is_empty() {
                    return Err(apply::wrong_form("a table", schema));
                }
                let (dialect, wanted) = (self.source.dialect(), self.plan.wanted(schema));
                let input = self.open(file)?;
                let table = match format {
                    Format::Csv => csv::read(input, &dialect, &wanted, limits)?,
                    _ => jsonl::read(input, &dialect.cells, &wanted, limits)?,
                };
                apply::table::rows(&table, schema, self.plan, limits)
            }
            Format::Npy | Format::Idx => {
                let read = |file: &Path| match format {
                    Format::Npy => npy::read(self.open(file)?, limits),
                    _ => idx::read(self.open(file)?, limits),
                };
                let labels = labels.ok_or_else(|| apply::wrong_form("an array without labels", schema))?;
                let features = read(file)?;
                let of_labels = |error: DataError| error.in_file(&shown(labels));
                let labels = read(labels).and_then(|array| self.labels(&array, features.rows())).map_err(of_labels)?;
                self.array(features, labels)
            }
            Format::Npz => {
                let read = |name: &str| npz::read(self.file(file)?, name, limits);
                let target = self.source.target.as_deref().unwrap_or("y");
                let features = read(self.source.features.as_deref().unwrap_or("x"))?;
                let labels = self.labels(&read(target)?, features.rows()).map_err(|error| error.in_column(target))?;
                self.array(features, labels)
            }
            Format::Images => match &schema.image {
                Some(images) => self.folder(file, images),
                None => Err(apply::wrong_form("a folder of images", schema)),
            },
            Format::Text => match &schema.text {
                Some(windows) => apply::text(&text::read(self.open(file)?, limits)?, windows),
                None => Err(apply::wrong_form("text", schema)),
            },
        }
    }

    fn count(&self, format: Format, file: &Path) -> Result<u64, DataError> {
        let (dialect, limits) = (self.source.dialect(), self.limits);
        let nothing = Wanted::new();
        let rows = match format {
            Format::Csv => csv::read(self.open(file)?, &dialect, &nothing, limits)?.rows,
            Format::Jsonl => jsonl::read(self.open(file)?, &dialect.cells, &nothing, limits)?.rows,
            Format::Npy => npy::read(self.open(file)?, limits)?.rows(),
            Format::Idx => idx::read(self.open(file)?, limits)?.rows(),
            Format::Npz => npz::read(self.file(file)?, self.source.features.as_deref().unwrap_or("x"), limits)?.rows(),
            Format::Text => text::read(self.open(file)?, limits)?.chars().count(),
            Format::Images => {
                let mut images = 0;
                for (_, class) in entries(&self.base.join(file))?.into_iter().filter(|(_, path)| path.is_dir()) {
                    images += entries(&class)?.iter().filter(|(name, _)| is_image(name)).count();
                }
                images
            }
        };
        Ok(rows as u64)
    }

    fn labels(&self, array: &Array, rows: usize) -> Result<Labels, DataError> {
        apply::array::labels(array, rows, self.schema, self.source)
    }

    fn array(&self, features: Array, labels: Labels) -> Result<(Prepared, Report), DataError> {
        match &self.schema.image {
            Some(images) => apply::image::rows_of_array(features, labels, images),
            None => apply::array::rows(&features, labels, self.schema, self.source, self.plan, self.limits),
        }
    }

    /// All images of a folder: sub-folders are classes, both in the order of their names.
    fn folder(&self, folder: &Path, images: &ImageSchema) -> Result<(Prepared, Report), DataError> {
        let classes = entries(&self.base.join(folder))?;
        let width = images.height as usize * images.width as usize * images.channels as usize;
        let (mut values, mut ids, mut report) = (Vec::new(), Vec::new(), Report::default());
        for (class, class_path) in classes {
            if !class_path.is_dir() {
                report.ignored.push(class);
                continue;
            }
            let class_id = apply::image::folder_class(&class, images, self.source)?;
            for (name, path) in entries(&class_path)? {
                let file = folder.join(&class).join(&name);
                if !is_image(&name) || !path.is_file() {
                    report.ignored.push(shown(&file));
                    continue;
                }
                let pixels = self
                    .bytes(&file)
                    .and_then(|bytes| image::read(&bytes, (images.height, images.width), self.limits))
                    .and_then(|image| apply::image::pixels(image, images))
                    .map_err(|error| error.in_file(&shown(&file)))?;
                if (values.len() + width) as u64 > self.limits.file_bytes {
                    let expected = format!("at most {} bytes of pixels", self.limits.file_bytes);
                    let error = DataError::new(Problem::TooLarge, expected, "more", "use fewer images on this device");
                    return Err(error.in_file(&shown(&file)));
                }
                values.extend(pixels);
                ids.push(class_id);
            }
        }
        if ids.is_empty() {
            let hint = "a folder of images has one sub-folder per class";
            return Err(DataError::new(Problem::Empty, "PNG or JPEG images in sub-folders", "none", hint));
        }
        report.rows = ids.len() as u64;
        let features = Features::U8 { width, values, scale: PIXEL_SCALE, offset: 0.0 };
        Ok((Prepared { features, labels: Labels::Classes { ids, classes: images.classes.len() as u32 } }, report))
    }

    pub(super) fn file(&self, file: &Path) -> Result<BufReader<File>, DataError> {
        let unreadable = |error: io::Error| unreadable(&error).in_file(&shown(file));
        let opened = File::open(self.base.join(file)).map_err(unreadable)?;
        let bytes = opened.metadata().map_err(unreadable)?.len();
        if bytes > self.limits.file_bytes {
            let expected = format!("at most {} bytes", self.limits.file_bytes);
            let error = DataError::new(Problem::TooLarge, expected, bytes.to_string(), "split the file");
            return Err(error.in_file(&shown(file)));
        }
        Ok(BufReader::with_capacity(1 << 16, opened))
    }

    pub(super) fn open(&self, file: &Path) -> Result<Box<dyn Read>, DataError> {
        gunzip(self.file(file)?).map_err(|error| unreadable(&error).in_file(&shown(file)))
    }

    fn bytes(&self, file: &Path) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        bounded(self.file(file)?, self.limits.file_bytes)
            .read_to_end(&mut bytes)
            .map_err(|error| DataError::reading(&error))?;
        Ok(bytes)
    }
}

/// A folder's entries by name, without hidden ones, so that the order does not depend on the file system.
pub(super) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let failed = |error: io::Error| unreadable(&error).in_file(&shown(folder));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if found.len() >= FOLDER_FILES_MAX {
            let expected = format!("at most {FOLDER_FILES_MAX} files");
            return Err(DataError::new(Problem::TooLarge, expected, "more", "split the folder").in_file(&shown(folder)));
        }
        found.push((name, path));
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn is_image(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_lowercase();
    matches!(ending.as_str(), "png" | "jpg" | "jpeg")
}

fn unreadable(error: &io::Error) -> DataError {
    DataError::new(
        Problem::Unreadable,
        "a readable file or folder",
        error.to_string(),
        "check the path and its permissions",
    )
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
