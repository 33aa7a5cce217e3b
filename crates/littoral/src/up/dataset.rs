//! What a trial fleet trains on: a table in memory, its schema, and a job that suits it.
//!
//! Two tables ship inside the program (`data/README.md` says where they come from); any other CSV file can take their
//! place. Looking at all rows to find a schema is right only here, where one machine plays the whole fleet.

use crate::output::Failure;
use littoral_fed::algorithm::AlgorithmSpec;
use littoral_fed::algorithm::fedavg::FedAvg;
use littoral_fed::round::{Cohort, Pace};
use littoral_model::{Activation, Initial, Loss, ModelSpec};
use littoral_node::data::{self, Limits, Prepared, Schema, Source, infer};
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

    fn of(
        set: &str,
        site: &'static str,
        csv: Cow<'static, [u8]>,
        source: Source,
        label: &str,
        recipe: Recipe,
    ) -> Result<Self, Failure> {
        let limits = Limits::default();
        let wrong = |e: data::DataError| Failure::new("the data does not fit", set, e.expected, e.got).hint(e.hint);
        let found = infer::schema(|| Ok(&csv[..]), &source.dialect(), label, &limits).map_err(wrong)?;
        let schema = found.schema;
        if schema.classes().is_none() {
            let expected = "a column of classes: texts, or at most 20 distinct whole numbers";
            return Err(Failure::new("no accuracy to compare", format!("label {label:?}"), expected, "numbers")
                .hint("train a regression with `littoral job submit` and `loss = \"mse\"`"));
        }
        let (rows, _) = data::load_csv(set, &csv, &source, &schema, &limits).map_err(|e| match e {
            data::LoadError::Data(e) => wrong(e),
            data::LoadError::Invalid(e) => Failure::new("the data does not fit", e.field, e.allowed, e.value),
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

    /// A job over `devices` devices. `rounds`: of training, instead of as many as suit the table.
    pub fn job(&self, seed: u64, devices: u32, rounds: Option<u64>) -> Result<JobSpec, Failure> {
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
            local: LocalText { epochs: *epochs, batch: *batch, optimiser },
            // Everybody in every round: the same seed then gives the same model, whoever is killed in between.
            cohort: Cohort { target: devices, min: devices, over_select: 1.0 },
            pace: Pace::default(),
            rounds: RoundsText {
                count: rounds.unwrap_or(self.recipe.rounds),
                target_accuracy: None,
                deadline_ms: 60_000,
                wait_ms: 10_000,
                close_ms: 30_000,
            },
            precision: PrecisionText::default(),
        };
        JobSpec::check(text).map_err(|e| Failure::new("the job was refused", e.place, e.expected, e.got))
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
            let job = data.job(2, 8, Some(3)).unwrap();
            assert_eq!((job.data_set(), job.seed()), (data.set_of(2).as_str(), 2));
            assert_eq!(job.settings().rounds, 3);
        }
    }

    /// The job that is shipped as a file trains what `up` trains.
    #[test]
    fn quick_toml_is_the_first_seed_s_job() {
        let ours = DataSet::shipped(Shipped::BreastCancer).unwrap().job(1, 8, None).unwrap();
        let quick = JobSpec::parse(include_str!("../../../../jobs/quick.toml")).unwrap();
        let text = JobText { name: ours.name().into(), cohort: ours.text().cohort.clone(), ..quick.text().clone() };
        assert_eq!(&text, ours.text());
    }
}
