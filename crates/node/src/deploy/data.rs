//! A device's rows for jobs, and what it offers.

use crate::data::{self, Limits, Sources, split::split};
use crate::job::JobSpec;
use crate::work::{LocalData, Rows, Watch};
use littoral_model::Examples;
use littoral_wire::message::{DataOffer, Name};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Prepared data sets that are kept in memory.
const CACHED_MAX: usize = 4;

/// For machines without data.
pub struct NoData;

impl LocalData for NoData {
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String> {
        Err(format!("this machine has no data set `{}`", spec.data_set()))
    }
}

/// Files of this device, brought to a job's schema and checked before training. A file that changed is read again.
pub struct DeviceData {
    sources: Sources,
    base: PathBuf,
    limits: Limits,
    /// Newest last.
    cached: Mutex<Vec<(Key, Rows)>>,
}

/// What prepared rows depend on.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    set: String,
    schema: data::Schema,
    held_out: f64,
    seed: u64,
    /// Of each file: bytes and time of its last change.
    files: Vec<Option<(u64, std::time::SystemTime)>>,
}

impl DeviceData {
    /// `base`: the folder at which the sources' relative paths start.
    pub fn new(sources: Sources, base: &Path, limits: Limits) -> Self {
        Self { sources, base: base.to_owned(), limits, cached: Mutex::default() }
    }

    fn key(&self, spec: &JobSpec) -> Key {
        let data = &spec.text().data;
        let stamp = |file: &PathBuf| {
            let found = std::fs::metadata(self.base.join(file)).ok()?;
            Some((found.len(), found.modified().ok()?))
        };
        let files = self.sources.get(&data.set).map(|source| source.files.iter().chain(&source.labels));
        Key {
            set: data.set.clone(),
            schema: data.schema.clone(),
            held_out: data.held_out,
            seed: spec.seed(),
            files: files.into_iter().flatten().map(stamp).collect(),
        }
    }

    fn load(&self, spec: &JobSpec) -> Result<Rows, String> {
        let wanted = &spec.text().data;
        let Some(source) = self.sources.get(&wanted.set) else {
            return Err(format!("this device has no data set `{}`", wanted.set));
        };
        let (prepared, report) =
            data::load(&wanted.set, source, &wanted.schema, &self.base, &self.limits).map_err(|e| e.to_string())?;
        tracing::info!("data set {}: {} rows for job {}", wanted.set, report.rows, spec.name());
        for (field, count) in &report.missing {
            tracing::info!("data set {}: {field}: {count} values are missing", wanted.set);
        }
        // Standardisation puts the fleet's mean there.
        if let Some((field, count)) = report.missing.first().filter(|_| !wanted.standardise) {
            return Err(format!(
                "data set {}: field {field}: a value in every row expected, since the job does not standardise, got \
                 {count} missing; hint: fill them in, or set data.standardise = true in the job",
                wanted.set
            ));
        }
        rows(prepared, wanted.held_out, spec.seed())
    }
}

/// The device's own split, by the job's seed. The simulator splits by the same function.
pub fn rows(prepared: data::Prepared, held_out: f64, seed: u64) -> Result<Rows, String> {
    let halves = split(&prepared, held_out, seed).map_err(|e| e.to_string())?;
    let examples = Examples::try_from(prepared).map_err(|e| e.to_string())?;
    // `Examples` has fewer than 2^32 rows.
    let indices = |rows: Vec<usize>| rows.into_iter().map(|row| row as u32).collect();
    Ok(Rows { examples: Arc::new(examples), train: indices(halves.train), held_out: indices(halves.held_out) })
}

impl LocalData for DeviceData {
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String> {
        let key = self.key(spec);
        // Held while loading: two works that want the same rows read them once.
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rows)) = cached.iter().find(|(known, _)| *known == key) {
            return Ok(rows.clone());
        }
        cached.retain(|(known, _)| (known.set != key.set) || known.files == key.files);
        if cached.len() >= CACHED_MAX {
            cached.remove(0);
        }
        let rows = self.load(spec)?;
        cached.push((key, rows.clone()));
        Ok(rows)
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(Running(Instant::now()))
    }
}

/// A clock on the wall, more or less.
struct Running(Instant);

impl Watch for Running {
    fn ms(&self, _: u64) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a device says it has. A data set that cannot be read is reported here and offered with no rows, so that no job
/// waits for it.
pub fn offers(sources: &Sources, base: &Path, limits: &Limits) -> Vec<DataOffer> {
    let offer = |(name, source): (&String, &data::Source)| {
        let rows = data::files::count(name, source, base, limits).unwrap_or_else(|e| {
            tracing::warn!("data set {name} is offered to no job: {e}");
            0
        });
        DataOffer { name: Name::new(name.as_str()), rows }
    };
    sources.iter().map(offer).collect()
}
