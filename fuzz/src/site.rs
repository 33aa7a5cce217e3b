//! A site's files, in memory where the system has a place for that.

use crate::one_line;
use littoral_node::data::{self, Features, Labels, Limits, Prepared, Schema, Source, split::split, statistics::Sums};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// This process's own folder; the same few files in it are written again and again.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("littoral-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    });
    &FOLDER
}

pub fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    fs::write(&path, bytes).expect("a file");
    path
}

/// Loads a data set from the files that were written. Whatever comes out must be whole and fit for training; whatever is
/// refused is refused in one line.
pub fn load(source: &Source, schema: &Schema) -> Option<Prepared> {
    let limits = Limits::default();
    let counted = data::files::count("x", source, folder(), &limits);
    if let Err(error) = &counted {
        one_line(error);
    }
    let (prepared, report) = match data::load("x", source, schema, folder(), &limits) {
        Ok(loaded) => loaded,
        Err(error) => {
            one_line(error);
            return None;
        }
    };
    let rows = prepared.rows();
    assert!(rows > 0 && report.rows == rows as u64);
    match &prepared.features {
        Features::F32 { width, values } => {
            assert!(values.len() == rows * width && !values.iter().any(|value| value.is_infinite()));
        }
        Features::U8 { width, values, .. } => assert_eq!(values.len(), rows * width),
        Features::Tokens { .. } => {}
    }
    if let Labels::Values { values, .. } = &prepared.labels {
        assert!(values.iter().all(|value| value.is_finite()));
    }
    if !matches!(prepared.features, Features::Tokens { .. }) {
        assert_eq!(counted, Ok(rows as u64), "two readers of one file");
    }
    let halves = split(&prepared, 0.3, 1).expect("a split");
    assert_eq!(halves.train.len() + halves.held_out.len(), rows);
    if let Err(error) = Sums::of(&prepared, &schema.inputs()) {
        one_line(error);
    }
    littoral_model::Examples::try_from(prepared.clone()).expect("features and labels that agree");
    Some(prepared)
}
