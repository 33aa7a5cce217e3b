//! What a trial fleet trains on: a table in memory, its schema, and a job that suits it.
//!
//! Two tables ship inside the program (`data/README.md` says where they come from); any other CSV file can take their
//! place. Looking at all rows to find a schema is right only here, where one machine plays the whole fleet.

use crate::output::Failure;
use crate::partition::source::misfit;
use crate::sites::sites;
use littoral_fed::algorithm::AlgorithmSpec;
use littoral_fed::algorithm::fedavg::FedAvg;
use littoral_fed::masks::SecureAggregation;
use littoral_fed::round::{Cohort, Pace};
use littoral_model::{Activation, Initial, Loss, ModelSpec};
use littoral_node::data::partition::Shares;
use littoral_node::data::{self, DataError, Limits, Prepared, Problem, Schema, Source, infer};
use littoral_node::job::{DataText, JobSpec, JobText, LocalText, OptimiserText, PrecisionText, RoundsText};
use std::borrow::Cow;
use std::path::Path;

/// Part of each device's rows that never trains.
const HELD_OUT: f64 = 0.2;
/// A file of a trial; larger ones belong on devices.
const FILE_BYTES_MAX: u64 = 512_000_000;

/// The tables that ship with Littoral.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Shipped {
    /// 569 tumours x 30 measures of cell nuclei: benign or malignant
    BreastCancer,
    /// 1,797 handwritten digits of 8 x 8 pixels
    Digits,
}

/// A table, and how to train on it.
pub struct DataSet {
    /// Under which name devices offer it.
    pub set: String,
    /// What a device is called before its number: `hospital`.
    pub site: &'static str,
    /// The whole table.
    pub csv: Cow<'static, [u8]>,
    pub source: Source,
    pub schema: Schema,
    /// All rows, in the table's order.
    pub rows: Prepared,
    /// Every second site writes the label in another column and other codes, as sites do.
    pub foreign_labels: bool,
    /// Columns that are not used, and why.
    pub left_out: Vec<(String, String)>,
    recipe: Recipe,
}

/// What makes a federated model of this table as good as one trained in one place.
struct Recipe {
    model: ModelSpec,
    rounds: u64,
    epochs: u32,
    batch: u32,
    learning_rate: f32,
}

impl DataSet {
    pub fn shipped(which: Shipped) -> Result<Self, Failure> {
        let (set, site, csv, label, recipe): (_, _, &'static [u8], _, _) = match which {
            Shipped::BreastCancer => (
                "hospitals",
                "hospital",
                include_bytes!("../../../../data/breast_cancer.csv"),
                "diagnosis",
                Recipe { model: ModelSpec::Softmax {}, rounds: 20, epochs: 1, batch: 16, learning_rate: 0.1 },
            ),
            Shipped::Digits => (
                "digits",
                "writer",
                include_bytes!("../../../../data/digits.csv"),
                "digit",
                Recipe { model: hidden(64), rounds: 40, epochs: 2, batch: 16, learning_rate: 0.2 },
            ),
        };
        let mut shipped = Self::of(set, site, Cow::Borrowed(csv), Source::of("shipped.csv"), label, recipe)?;
        shipped.foreign_labels = which == Shipped::BreastCancer;
        Ok(shipped)
    }

    /// A CSV file of one's own. `label` names the column of classes.
    pub fn of_file(path: &Path, label: &str) -> Result<Self, Failure> {
        let place = || path.display().to_string();
        let unreadable = |e: std::io::Error| Failure::new("the data cannot be read", place(), "a CSV file", e);
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > FILE_BYTES_MAX {
            let expected = format!("at most {} MB for a trial", FILE_BYTES_MAX / 1_000_000);
            return Err(Failure::new("the data is too large", place(), expected, format!("{} MB", bytes / 1_000_000)));
        }
        let csv = std::fs::read(path).map_err(unreadable)?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
        let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(40).collect();
        let set = if plain.is_empty() { "table".to_owned() } else { plain };
        let recipe = Recipe { model: hidden(32), rounds: 30, epochs: 2, batch: 16, learning_rate: 0.1 };
        Self::of(&set, "site", Cow::Owned(csv), Source::of(path), label, recipe)
    }

    /// The devices' folders of `littoral partition`: the whole table, and which rows each device has.
    pub fn of_folder(folder: &Path, label: &str) -> Result<(Self, Shares), Failure> {
        let place = || folder.display().to_string();
        let (mut header, mut shares) = (None::<(String, Vec<String>)>, Shares::new());
        let mut out = csv::Writer::from_writer(Vec::new());
        let mut next = 0;
        for site in sites(folder)? {
            let (set, source, path) = site.table()?;
            let limits = Limits { file_bytes: FILE_BYTES_MAX, ..Limits::default() };
            let file = || path.display().to_string();
            let bytes = std::fs::File::open(&path)
                .map_err(|e| Failure::new("the data cannot be read", file(), "a CSV file", e))?;
            let (names, records) = data::read::csv::records(bytes, &source.dialect(), &limits)
                .map_err(|e| misfit(e.in_file(&file()).into()))?;
            match &header {
                None => out.write_record(&names).map_err(|e| Failure::new("no table", place(), "memory", e))?,
                Some((known, columns)) if *known != set || *columns != names => {
                    let expected = format!("the data set `{known}` with the columns of the first device");
                    return Err(Failure::new("the devices' data is no table to share", file(), expected, "others"));
                }
                Some(_) => {}
            }
            header.get_or_insert((set, names));
            shares.push((next..next + records.len()).collect());
            next += records.len();
            for record in &records {
                out.write_byte_record(record).map_err(|e| Failure::new("no table", place(), "memory", e))?;
            }
        }
        let Some((set, _)) = header else {
            let expected = "folders with a device.toml each, as `littoral partition` writes them";
            return Err(Failure::new("the data cannot be read", place(), expected, "none"));
        };
        let csv = out.into_inner().unwrap_or_default();
        let recipe = Recipe { model: hidden(32), rounds: 30, epochs: 2, batch: 16, learning_rate: 0.1 };
        let whole = Self::of(&set, "site", Cow::Owned(csv), Source::of(format!("{set}.csv")), label, recipe)?;
        Ok((whole, shares))
    }

    fn of(
        set: &str,
        site: &'static str,
        csv: Cow<'static, [u8]>,
        source: Source,
        label: &str,
        recipe: Recipe,
    ) -> Result<Self, Failure> {
        let limits = Limits::default();
        let file = source.files.first().map(|file| file.display().to_string()).unwrap_or_default();
        let wrong = |e: data::DataError| misfit_of(&file, &csv, source.dialect().delimiter, e);
        separated(&file, &csv, source.dialect().delimiter)?;
        let found = infer::schema(|| Ok(&csv[..]), &source.dialect(), label, &limits).map_err(wrong)?;
        let schema = found.schema;
        if schema.classes().is_none() {
            let expected = "a column of classes: texts, or at most 20 distinct whole numbers";
            return Err(Failure::new("no accuracy to compare", format!("label {label:?}"), expected, "numbers")
                .hint("train a regression with `littoral job submit` and `loss = \"mse\"`"));
        }
        let (rows, _) = data::load_csv(set, &csv, &source, &schema, &limits).map_err(|e| match e {
            data::LoadError::Data(e) => wrong(e),
            data::LoadError::Invalid(e) => {
                Failure::new("the data does not fit", format!("{file}, {}", e.field), e.allowed, e.value)
            }
        })?;
        let left_out = found.left_out;
        Ok(Self { set: set.into(), site, csv, source, schema, rows, foreign_labels: false, left_out, recipe })
    }

    /// The class of each row.
    pub fn classes(&self) -> &[u32] {
        self.rows.classes().unwrap_or_default()
    }

    /// The data set of the n-th seed, from 1; the first has the plain name.
    pub fn set_of(&self, seed: u64) -> String {
        if seed == 1 { self.set.clone() } else { format!("{}-{seed}", self.set) }
    }

    /// A job over `devices` devices. `rounds`: of training, instead of as many as suit the table. `masked`: nobody sees what one
    /// device sends.
    pub fn job(&self, seed: u64, devices: u32, rounds: Option<u64>, masked: bool) -> Result<JobSpec, Failure> {
        let Recipe { model, epochs, batch, learning_rate, .. } = &self.recipe;
        let optimiser = OptimiserText::Sgd { learning_rate: *learning_rate, momentum: 0.0, weight_decay: 0.0 };
        let text = JobText {
            name: self.set_of(seed),
            seed,
            model: model.clone(),
            data: DataText {
                set: self.set_of(seed),
                held_out: HELD_OUT,
                standardise: true,
                schema: self.schema.clone(),
            },
            algorithm: AlgorithmSpec::FedAvg(FedAvg {}),
            local: LocalText { epochs: *epochs, batch: *batch, optimiser, time_ms: None },
            // Everybody in every round: the same seed then gives the same model, whoever is killed in between.
            cohort: Cohort { target: devices, min: devices, over_select: 1.0 },
            pace: Pace::default(),
            selection: Default::default(),
            rounds: RoundsText {
                count: rounds.unwrap_or(self.recipe.rounds),
                target_accuracy: None,
                deadline_ms: 60_000,
                wait_ms: 10_000,
                close_ms: 30_000,
            },
            precision: PrecisionText::default(),
            evaluation: None,
            drift: None,
            secure_aggregation: masked.then(SecureAggregation::default),
            differential_privacy: None,
            robust: None,
            compression: None,
            eligibility: None,
        };
        JobSpec::check(text).map_err(|e| Failure::new("the job was refused", e.place, e.expected, e.got))
    }
}

/// A mistake in the file, with its line and column if it has them.
fn misfit_of(file: &str, csv: &[u8], delimiter: u8, e: DataError) -> Failure {
    let mut place = file.to_owned();
    if let Some(line) = e.row.and_then(|row| line_of(csv, delimiter, row)) {
        place += &format!(", line {line}");
    }
    if let Some(column) = &e.column {
        place += &format!(", column {column}");
    }
    // A device has a mapping for what is written otherwise; here the file is all there is.
    let hint = match e.problem {
        Problem::Malformed => {
            "every line needs as many cells as the header; a cell with a comma in it needs quotes".into()
        }
        _ => e.hint,
    };
    Failure::new(format!("the data does not fit: {}", e.problem.what()), place, e.expected, e.got).hint(hint)
}

/// The line, from 1, on which the `row`th record below the header begins.
fn line_of(csv: &[u8], delimiter: u8, row: u64) -> Option<usize> {
    let csv = csv.strip_prefix(BYTE_ORDER_MARK).unwrap_or(csv);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(csv);
    let record = reader.byte_records().nth(usize::try_from(row).ok()?.checked_sub(1)?)?.ok()?;
    // The reader counts blank lines, and the end of the line before, to the record.
    let begin = usize::try_from(record.position()?.byte()).ok()?;
    let blank = csv[begin..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    Some(1 + csv[..begin + blank].iter().filter(|byte| **byte == b'\n').count())
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A header without the separator, but with another one, says how the file is written.
fn separated(file: &str, csv: &[u8], delimiter: u8) -> Result<(), Failure> {
    let header = csv.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let other = [b';', b'\t', b'|', b','].into_iter().find(|other| header.contains(other));
    match other.filter(|_| !header.contains(&delimiter)) {
        None => Ok(()),
        Some(other) => {
            let [expected, got] =
                [delimiter, other].map(|byte| format!("columns with {:?} between them", char::from(byte)));
            Err(Failure::new("the data does not fit", format!("{file}, line 1"), expected, got).hint(
                "`up` takes commas in a .csv file and tabs in a .tsv file: write it so (devices take any `delimiter`)",
            ))
        }
    }
}

fn hidden(width: usize) -> ModelSpec {
    ModelSpec::Mlp {
        hidden: vec![width],
        activation: Activation::Relu,
        loss: Loss::CrossEntropy,
        init: Initial::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_tables_have_their_rows_and_jobs() {
        for (which, rows, inputs, classes) in [(Shipped::BreastCancer, 569, 30, 2), (Shipped::Digits, 1_797, 64, 10)] {
            let data = DataSet::shipped(which).unwrap();
            assert_eq!((data.rows.rows(), data.schema.inputs().len()), (rows, inputs));
            assert_eq!(data.schema.classes().unwrap().len(), classes);
            assert!(data.left_out.is_empty());
            let job = data.job(2, 8, Some(3), false).unwrap();
            assert_eq!((job.data_set(), job.seed()), (data.set_of(2).as_str(), 2));
            assert_eq!(job.settings().rounds, 3);
        }
    }

    /// The file's mistakes, each at its place. Blank lines, a byte-order mark and the ends of lines do not shift it.
    #[test]
    fn a_mistake_in_a_file_is_named_with_its_line() {
        let refused = |csv: &str| {
            let recipe = Recipe { model: hidden(4), rounds: 1, epochs: 1, batch: 1, learning_rate: 0.1 };
            let csv = Cow::Owned(csv.as_bytes().to_vec());
            DataSet::of("my", "site", csv, Source::of("my.csv"), "y", recipe).err().unwrap().to_string()
        };
        for newline in ["\n", "\r\n"] {
            for begin in ["", "\u{feff}"] {
                let file = |lines: &[&str]| format!("{begin}{}", lines.join(newline));
                let rows = ["x,y", "1,a", "", "\"2\",b", "3,a"];
                for (last, parts) in [
                    ("4", ["my.csv, line 6:", "2 cells expected, got 1 cells"]),
                    ("4,", ["my.csv, line 6, column \"y\":", "a label expected, got a missing value"]),
                ] {
                    let said = refused(&file(&[&rows[..], &[last]].concat()));
                    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
                }
                assert!(
                    refused(&file(&["x;y", "1;a"])).contains("my.csv, line 1: columns with ',' between them expected")
                );
                assert!(refused(&file(&["x,y"])).contains("my.csv: rows below the header expected, got none"));
                let numbers: Vec<String> = (0..20).map(|i| format!("{i},{}", i % 2)).collect();
                let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
                let said = refused(&file(&[&["x,y"], &numbers[..], &["abc,1"]].concat()));
                assert!(said.contains("my.csv, line 22, column \"x\":") && said.contains("got \"abc\""), "{said}");
            }
        }
    }

    /// The job that is shipped as a file trains what `up` trains.
    #[test]
    fn quick_toml_is_the_first_seed_s_job() {
        let ours = DataSet::shipped(Shipped::BreastCancer).unwrap().job(1, 8, None, false).unwrap();
        let quick = JobSpec::parse(include_str!("../../../../jobs/quick.toml")).unwrap();
        let text = JobText { name: ours.name().into(), cohort: ours.text().cohort.clone(), ..quick.text().clone() };
        assert_eq!(&text, ours.text());
    }
}
