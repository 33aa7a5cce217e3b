//! A run again, from its record: each version is made anew by the devices that were in it, and must have the same name.
//!
//! The record says for each version which devices were included and which model came of it; the devices' folders have
//! the data. The same work, sealed, summed and applied by the same code gives the same bytes, whoever sums first. So a
//! record can be checked by whoever has the data, and by nobody else.

use super::data::NoData;
use crate::job::{JobSpec, Task};
use crate::role::Entropy;
use crate::store::FileObjects;
use crate::work::{self, LocalData, ObjectFault, Objects, Output, Work, WorkFault};
use littoral_fed::aggregate::Partial;
use littoral_fed::compress::accumulate;
use littoral_fed::round::Place;
use littoral_wire::message::{Collection, Work as Kind};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{JobId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// A run's record file: JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub job: u64,
    /// The job as it was submitted.
    pub spec: String,
    /// The cloud's key.
    pub cloud: String,
    pub versions: Vec<VersionRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    pub version: u64,
    pub from_version: u64,
    /// statistics, train or evaluate.
    pub work: String,
    pub attempt: u32,
    /// The model's object id.
    pub model: String,
    /// Names of the devices in it.
    pub included: Vec<String>,
    pub population: u64,
    /// What the cloud said about it; not needed to repeat it.
    #[serde(default)]
    pub line: serde_json::Value,
}

#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("record: {place}: {expected} expected, got {got}")]
    Record { place: String, expected: String, got: String },
    #[error("version {version}: there is no folder of device `{device}`")]
    NoDevice { version: u64, device: String },
    #[error("version {version}: device `{device}`: {fault}")]
    Device { version: u64, device: String, fault: WorkFault },
    #[error("version {version}: {fault}")]
    Apply { version: u64, fault: WorkFault },
    #[error("version {version}: device `{device}`: its update does not fit into the sum: {why}")]
    Sum { version: u64, device: String, why: String },
    #[error(transparent)]
    Object(#[from] ObjectFault),
}

/// How one version came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    pub version: u64,
    pub work: String,
    pub devices: usize,
    /// The object ids: as recorded, and as made here.
    pub recorded: String,
    pub made: String,
}

impl Compared {
    pub fn equal(&self) -> bool {
        self.recorded == self.made
    }
}

/// Repeats a run version by version, telling each to `on_version`, and stops at the first one that differs.
///
/// `devices`: each device's data by its name. `objects`: an empty folder for models and updates.
pub fn replay(
    record: &RunRecord,
    devices: &BTreeMap<String, Arc<dyn LocalData>>,
    objects: &FileObjects,
    on_version: impl FnMut(&Compared),
) -> Result<(), ReplayError> {
    replay_updates(record, devices, objects, |_, _| {}, on_version)
}

/// The same, and each device's plain update is shown too: the device's name, and the words.
pub fn replay_updates(
    record: &RunRecord,
    devices: &BTreeMap<String, Arc<dyn LocalData>>,
    objects: &FileObjects,
    mut on_update: impl FnMut(&str, &[u8]),
    mut on_version: impl FnMut(&Compared),
) -> Result<(), ReplayError> {
    let wrong = |place: &str, expected: &str, got: String| ReplayError::Record {
        place: place.into(),
        expected: expected.into(),
        got,
    };
    if record.versions.is_empty() {
        return Err(wrong("versions", "at least one version that was made", "none: there is nothing to repeat".into()));
    }
    let spec = JobSpec::parse(&record.spec).map_err(|e| wrong("spec", "a job of this release", e.to_string()))?;
    if spec.private() {
        let expected = "a job without differential privacy: noise is drawn anew, and what was drawn is nowhere kept";
        return Err(wrong("spec, differential_privacy", expected, "a job with it".into()));
    }
    let spec = Arc::new(spec);
    let initial = work::run(&Work::Initial { spec: spec.clone() }, objects, &NoData);
    let mut before = Chain::default();
    let (mut model, mut state) = match initial.map_err(|fault| ReplayError::Apply { version: 0, fault })? {
        Output::Initial { model, state } => (model, state),
        _ => return Err(wrong("spec", "a first version", "none".into())),
    };
    // What each device keeps between rounds.
    let mut kept: BTreeMap<&str, Manifest> = BTreeMap::new();
    for entry in &record.versions {
        let work =
            kind_of(&entry.work).ok_or_else(|| wrong("work", "statistics, train or evaluate", entry.work.clone()))?;
        let collection =
            Collection { job: JobId(record.job), version: entry.from_version, work, attempt: entry.attempt };
        let task: Arc<[u8]> = Task { spec: (*spec).clone(), population: entry.population }.encode().into();
        let mut sum = Partial::empty(spec.plan(work).format());
        let mut list = if spec.unmerged(work) { Some(objects.create()?) } else { None };
        for name in &entry.included {
            let (version, device) = (entry.version, name.clone());
            let Some(data) = devices.get(name) else { return Err(ReplayError::NoDevice { version, device }) };
            let local = Work::Local {
                entropy: Entropy::new([0; 32]),
                collection,
                task: task.clone(),
                model: model.clone(),
                before: before.clone(),
                state: kept.get(name.as_str()).cloned(),
                device: stand_in(name),
                name: name.clone(),
            };
            let (update, pending) = match work::run(&local, objects, &**data) {
                Ok(Output::Local { update, state, .. }) => (update, state),
                Ok(_) => return Err(wrong("work", "an update", "something else".into())),
                Err(fault) => return Err(ReplayError::Device { version, device, fault }),
            };
            let mut bytes = vec![0; usize::try_from(update.bytes()).unwrap_or(0)];
            objects.read(update.id(), 0, &mut bytes)?;
            on_update(name, &bytes);
            if let Some(list) = &mut list {
                list.append(&bytes)?;
            }
            let absorbed = match spec.codec(work) {
                None => sum.absorb(stand_in(name), &bytes).map_err(|e| e.to_string()),
                Some(codec) => {
                    let absorbed = accumulate::absorb(&mut sum, stand_in(name), codec, spec.plan(work), &bytes);
                    absorbed.map_err(|e| e.to_string())
                }
            };
            absorbed.map_err(|why| ReplayError::Sum { version, device, why })?;
            objects.remove(update.id())?;
            // It was included, so what it wanted to keep became current.
            if let Some(pending) = pending {
                kept.insert(name, pending);
            }
        }
        let version = entry.version;
        let whole = sum.bytes().map_err(|e| ReplayError::Sum { version, device: String::new(), why: e.to_string() })?;
        let partial = match list {
            Some(list) => list.finish()?,
            None => {
                let mut writer = objects.create()?;
                writer.append(whole)?;
                writer.finish()?
            }
        };
        let mut named: Vec<(&String, Place)> =
            (0..).zip(&entry.included).map(|(row, name)| (name, Place { partial: 0, row })).collect();
        named.sort_by_key(|(name, _)| *name);
        let apply = Work::Apply {
            entropy: Entropy::new([0; 32]),
            spec: spec.clone(),
            collection,
            model: model.clone(),
            before: before.clone(),
            state: state.clone(),
            partials: vec![partial.clone()],
            order: if spec.unmerged(work) { named.into_iter().map(|(_, place)| place).collect() } else { Vec::new() },
            devices: entry.included.len() as u32,
            population: entry.population,
            opening: None,
        };
        match work::run(&apply, objects, &NoData) {
            Ok(Output::Applied { model: made, before: chain, state: made_state, .. }) => {
                (model, before, state) = (made, chain, made_state);
            }
            Ok(_) => return Err(wrong("work", "a version", "something else".into())),
            Err(fault) => return Err(ReplayError::Apply { version, fault }),
        }
        objects.remove(partial.id())?;
        let compared = Compared {
            version,
            work: entry.work.clone(),
            devices: entry.included.len(),
            recorded: entry.model.clone(),
            made: model.id().to_string(),
        };
        on_version(&compared);
        if !compared.equal() {
            return Ok(());
        }
    }
    Ok(())
}

fn kind_of(name: &str) -> Option<Kind> {
    match name {
        "statistics" => Some(Kind::Statistics),
        "train" => Some(Kind::Train),
        "evaluate" => Some(Kind::Evaluate),
        _ => None,
    }
}

/// The record has names, not keys; nothing that is computed depends on the key.
fn stand_in(name: &str) -> NodeId {
    NodeId(*blake3::hash(name.as_bytes()).as_bytes())
}
