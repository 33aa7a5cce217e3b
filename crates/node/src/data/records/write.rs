//! Some rows of a data set into a folder of their own.
//!
//! Tables, JSON lines and texts are written as they were read, images are copied, arrays of every format become a pair of
//! .npy files. Gzip is not written.

use super::{Cell, Records, Rows, number_of, object};
use crate::data::array::{Array, Elements};
use crate::data::mapping::{Format, Source};
use crate::data::partition::feature::{Column, Feature, Seat};
use crate::data::read::csv::Dialect;
use image::{DynamicImage, ImageFormat, ImageReader};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor, Write};
use std::path::Path;

/// Where rows go: into a folder that exists, into files of this name.
pub struct Place<'a> {
    pub dir: &'a Path,
    pub set: &'a str,
    /// A text without the lines that name its speakers.
    pub without_speakers: bool,
}

/// How what devices see differs.
pub struct Change<'a> {
    pub features: &'a [Feature],
    pub seat: Seat,
    /// Of [`Records::changed_columns`].
    pub columns: &'a BTreeMap<String, f64>,
}

impl Change<'_> {
    /// All changes of one column, one after another.
    fn of_column(&self, name: &str) -> Vec<Column> {
        let column = |deviation: &f64| self.features.iter().map(|f| f.column(&self.seat, name, *deviation)).collect();
        self.columns.get(name).map(column).unwrap_or_default()
    }
}

fn value(changes: &mut [Column], x: f64) -> f64 {
    changes.iter_mut().fold(x, |x, change| change.value(x))
}

impl Records {
    /// Writes these rows, in this order. Returns how they are to be read: an entry of a device's `[data]`.
    pub fn write(&self, rows: &[usize], change: &Change<'_>, place: &Place<'_>) -> io::Result<Source> {
        let path = |ending: &str| place.dir.join(format!("{}{ending}", place.set));
        let named = |ending: &str| vec![format!("{}{ending}", place.set).into()];
        let mut source = self.source.clone();
        match &self.rows {
            Rows::Csv { names, records } => {
                let dialect = source.dialect();
                source.delimiter = (dialect.delimiter != b',').then_some(char::from(dialect.delimiter));
                source.files = named(".csv");
                let chosen = rows.iter().map(|row| &records[*row]);
                csv(names, chosen, change, &dialect, &path(".csv"))?;
            }
            Rows::Jsonl(lines) => {
                source.files = named(".jsonl");
                let mut out = BufWriter::new(File::create(path(".jsonl"))?);
                let mut changes: BTreeMap<&str, Vec<Column>> =
                    change.columns.keys().map(|name| (name.as_str(), change.of_column(name))).collect();
                let cells = source.dialect().cells;
                for row in rows {
                    if changes.is_empty() {
                        writeln!(out, "{}", lines[*row])?;
                        continue;
                    }
                    let mut object = object(&lines[*row]);
                    for (name, changes) in &mut changes {
                        if let Some(cell) = object.get_mut(*name)
                            && let Cell::Number(x) = number_of(cell, &cells)
                        {
                            *cell = value(changes, x).into();
                        }
                    }
                    writeln!(out, "{}", serde_json::Value::Object(object))?;
                }
                out.flush()?;
            }
            Rows::Array { features, labels } => {
                (source.files, source.labels) = (named(".npy"), named("-labels.npy"));
                (source.features, source.target) = (None, None);
                let mut mine = features.select(rows);
                changed(&mut mine, change);
                npy(&mine, &path(".npy"))?;
                npy(&labels.select(rows), &path("-labels.npy"))?;
            }
            Rows::Images(files) => {
                source.files = named("");
                let mut images: Vec<_> = change.features.iter().map(|f| f.images(&change.seat)).collect();
                for row in rows {
                    let file = &files[*row];
                    let folder = path("").join(&file.class);
                    fs::create_dir_all(&folder)?;
                    if images.is_empty() {
                        fs::copy(&file.path, folder.join(&file.name))?;
                        continue;
                    }
                    let wrong = |e: image::ImageError| io::Error::other(format!("{}: {e}", file.path.display()));
                    let image = ImageReader::open(&file.path)?.with_guessed_format()?.decode().map_err(wrong)?;
                    let (height, width) = (image.height() as usize, image.width() as usize);
                    let mut turn = |mut pixels: Vec<u8>| {
                        images.iter_mut().for_each(|change| change.image(&mut pixels, height, width));
                        pixels
                    };
                    let grey = image.color().channel_count() < 3;
                    let (w, h) = (image.width(), image.height());
                    let image = match grey {
                        true => image::GrayImage::from_raw(w, h, turn(image.into_luma8().into_raw()))
                            .map(DynamicImage::from),
                        false => {
                            image::RgbImage::from_raw(w, h, turn(image.into_rgb8().into_raw())).map(DynamicImage::from)
                        }
                    };
                    let mut bytes = Vec::new();
                    let image = image.ok_or_else(|| io::Error::other("an image of another size than it said"))?;
                    image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(wrong)?;
                    // JPEG would change the pixels once more.
                    fs::write(folder.join(format!("{}.png", file.name.trim_end_matches(".png"))), bytes)?;
                }
                // A device without an image has an empty folder.
                fs::create_dir_all(path(""))?;
            }
            Rows::Text(_) => {
                source.files = named(".txt");
                fs::write(path(".txt"), self.text(rows, place.without_speakers).unwrap_or_default())?;
            }
        }
        source.format = match &self.rows {
            Rows::Images(_) => Some(Format::Images),
            _ => None,
        };
        Ok(source)
    }

    /// These rows of a text as one text; none if this is not a text.
    pub fn text(&self, rows: &[usize], without_speakers: bool) -> Option<String> {
        let Rows::Text(speeches) = &self.rows else { return None };
        let blocks = speeches.iter().any(|speech| !speech.speaker.is_empty());
        let between = if blocks && !without_speakers { "\n\n" } else { "\n" };
        let said = |speech: &'_ super::Speech| match without_speakers {
            true => speech.said.clone(),
            false => speech.whole.clone(),
        };
        let texts: Vec<String> = rows.iter().map(|row| said(&speeches[*row])).filter(|text| !text.is_empty()).collect();
        Some(texts.join(between) + "\n")
    }
}

fn csv<'a>(
    names: &[String],
    records: impl Iterator<Item = &'a ::csv::ByteRecord>,
    change: &Change<'_>,
    dialect: &Dialect,
    path: &Path,
) -> io::Result<()> {
    let mut out = ::csv::WriterBuilder::new().delimiter(dialect.delimiter).from_path(path)?;
    if dialect.header {
        out.write_record(names)?;
    }
    let mut changes: Vec<Vec<Column>> = names.iter().map(|name| change.of_column(name)).collect();
    let mut changed = ::csv::ByteRecord::new();
    for record in records {
        if change.columns.is_empty() {
            out.write_byte_record(record)?;
            continue;
        }
        changed.clear();
        for (cell, changes) in record.iter().zip(&mut changes) {
            let number = std::str::from_utf8(cell).ok().and_then(|cell| dialect.cells.number(cell.trim()));
            match number.filter(|_| !changes.is_empty()) {
                None => changed.push_field(cell),
                Some(x) => {
                    let text = value(changes, x).to_string();
                    let text = if dialect.cells.decimal == ',' { text.replace('.', ",") } else { text };
                    changed.push_field(text.as_bytes());
                }
            }
        }
        out.write_byte_record(&changed)?;
    }
    out.flush()
}

fn changed(array: &mut Array, change: &Change<'_>) {
    if change.features.is_empty() {
        return;
    }
    let (width, shape) = (array.row_width(), array.shape.clone());
    if let ([_, height, columns, ..], Elements::U8(pixels)) = (&shape[..], &mut array.elements) {
        for feature in change.features {
            let mut images = feature.images(&change.seat);
            pixels.chunks_exact_mut(width.max(1)).for_each(|image| images.image(image, *height, *columns));
        }
        return;
    }
    let mut values: Vec<f64> = (0..array.rows() * width).map(|at| array.number(at).unwrap_or(f64::NAN)).collect();
    for column in 0..width {
        let mut changes = change.of_column(&column.to_string());
        for x in values.iter_mut().skip(column).step_by(width) {
            *x = value(&mut changes, *x);
        }
    }
    array.elements = match &array.elements {
        Elements::F32(_) => Elements::F32(values.into_iter().map(|x| x as f32).collect()),
        _ => Elements::F64(values),
    };
}

/// NumPy's format 1.0: the header padded so that the data starts at a multiple of 64 bytes.
fn npy(array: &Array, path: &Path) -> io::Result<()> {
    let descr = match &array.elements {
        Elements::U8(_) => "|u1",
        Elements::I64(_) => "<i8",
        Elements::F32(_) => "<f4",
        Elements::F64(_) => "<f8",
    };
    let lengths: Vec<String> = array.shape.iter().map(|length| format!("{length},")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", lengths.join(" "));
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    match &array.elements {
        Elements::U8(values) => out.write_all(values)?,
        Elements::I64(values) => values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?,
        Elements::F32(values) => values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?,
        Elements::F64(values) => values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?,
    }
    out.flush()
}
