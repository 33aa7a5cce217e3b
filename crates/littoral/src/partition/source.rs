//! A data set as it is named on the command line: a file, a folder of images, or a `device.toml` that says more.

use crate::output::Failure;
use littoral_node::config::{Config, DeviceConfig};
use littoral_node::data::mapping::Format;
use littoral_node::data::partition::split::Split;
use littoral_node::data::records::Keys;
use littoral_node::data::{Invalid, LoadError, Source};
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub struct DataSource {
    /// A file (.csv, .tsv, .jsonl, .npy, .npz, .idx, .txt, each also with .gz), a folder of images, or a `device.toml` whose
    /// `[data.NAME]` says more: several files, delimiters, classes
    source: PathBuf,
    /// Of .npy and IDX files: the file of labels
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// The data set's name: in the `device.toml` that is read, if one is, and in those that are written
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
}

/// Most distinct labels that are taken for classes; with more the label is a number.
pub const CLASSES_MAX: usize = 1_000;

impl DataSource {
    pub fn new(source: PathBuf, labels: Option<PathBuf>, set: Option<String>) -> Self {
        Self { source, labels, set }
    }

    /// The data set's name, how it is read, and where relative paths start. `otherwise`: a name for one that has none.
    pub fn find(&self, otherwise: Option<&str>) -> Result<(String, Source, PathBuf), Failure> {
        let place = || self.source.display().to_string();
        let metadata = std::fs::metadata(&self.source)
            .map_err(|e| Failure::new("the data cannot be read", place(), "a file or a folder of images", e))?;
        if self.source.extension().is_some_and(|ending| ending == "toml") {
            return self.of_config();
        }
        let mut source = Source::of(&self.source);
        source.labels = self.labels.iter().cloned().collect();
        if metadata.is_dir() {
            source.format = Some(Format::Images);
        }
        let name = match (&self.set, otherwise) {
            (Some(set), _) => set.clone(),
            (None, Some(name)) => name.into(),
            (None, None) => name_of(&self.source),
        };
        Ok((name, source, PathBuf::new()))
    }

    fn of_config(&self) -> Result<(String, Source, PathBuf), Failure> {
        let (config, base) = DeviceConfig::load(Some(&self.source), None)?;
        let names: Vec<&str> = config.data.keys().map(String::as_str).collect();
        let wrong = |got: &str| {
            let expected = format!("one of its data sets: {}", names.join(", "));
            Failure::new("no data set is named", self.source.display().to_string(), expected, got)
                .hint("name it with --set")
        };
        let name = match (&self.set, names.as_slice()) {
            (Some(set), _) => set.clone(),
            (None, [one]) => (*one).to_owned(),
            (None, _) => return Err(wrong("no --set")),
        };
        let source = config.data.get(&name).ok_or_else(|| wrong(&name))?.clone();
        Ok((name, source, base))
    }
}

/// A file's name in letters, digits and underscores.
fn name_of(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    plain(name.split('.').next().unwrap_or_default())
}

/// A name that any file may have.
pub fn plain(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(64).collect();
    if plain.is_empty() { "data".into() } else { plain }
}

/// The labels as classes. A split by labels needs some, and not too many.
pub fn classes_of<'a>(labels: Option<&'a Keys>, split: &Split, flag: &str) -> Result<Option<&'a Keys>, Failure> {
    let classes = labels.filter(|keys| keys.names.len() <= CLASSES_MAX);
    if classes.is_some() || !split.needs_classes() {
        return Ok(classes);
    }
    let what = "the data cannot be shared out";
    Err(match labels {
        None => Failure::new(what, split.to_string(), "rows with labels", "none")
            .hint(format!("name the column with {flag}")),
        Some(keys) => {
            let expected = format!("at most {CLASSES_MAX} classes");
            Failure::new(what, split.to_string(), expected, format!("{} distinct labels", keys.names.len()))
                .hint("a label that is a number splits by quantity or by another column")
        }
    })
}

pub fn misfit(e: LoadError) -> Failure {
    match e {
        LoadError::Data(e) => {
            let failure =
                Failure::new(format!("the data does not fit: {}", e.problem.what()), e.place(), &*e.expected, &e.got);
            failure.hint(&*e.hint)
        }
        LoadError::Invalid(e) => {
            let labels = e.field.ends_with(".labels");
            let failure = Failure::new("the data does not fit", e.field, e.allowed, e.value);
            if labels { failure.hint("name the file of labels with --labels") } else { failure }
        }
    }
}

/// A split that cannot be.
pub fn unshareable(e: Invalid) -> Failure {
    let hint = match e.field.as_str() {
        "devices" if e.allowed.starts_with("1 to") => "give fewer --devices, or a smaller --rows-min",
        _ => "give another number of --devices, or another --by",
    };
    Failure::new("the data cannot be shared out", format!("--{}", e.field), e.allowed, e.value).hint(hint)
}
