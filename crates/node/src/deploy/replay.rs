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
use littoral_fed::round::{Given, Place};
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
    /// Where updates may be old: at which version each of them began; else empty.
    #[serde(default)]
    pub began: Vec<u64>,
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
    if spec.text().local.time_ms.is_some() || spec.text().pace.compass.is_some() {
        let expected = "a job whose devices make as many steps as it says: how many they had time for is nowhere kept";
        return Err(wrong("spec", expected, "local.time_ms or pace.compass".into()));
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
    // What is each device's own.
    let mut own: BTreeMap<&str, Manifest> = BTreeMap::new();
    // What each device is given instead of the version.
    let mut given = Given::new();
    // Versions that updates may have begun at.
    let mut older: BTreeMap<u64, (Manifest, Chain)> = BTreeMap::new();
    let pace = &spec.settings().pace;
    for entry in &record.versions {
        let work =
            kind_of(&entry.work).ok_or_else(|| wrong("work", "statistics, train or evaluate", entry.work.clone()))?;
        let collection =
            Collection { job: JobId(record.job), version: entry.from_version, work, attempt: entry.attempt };
        let task: Arc<[u8]> = Task { spec: (*spec).clone(), population: entry.population }.encode().into();
        let mut sum = Partial::empty(spec.plan(work).format());
        let mut list = if spec.unmerged(work) { Some(objects.create()?) } else { None };
        older.insert(entry.from_version, (model.clone(), before.clone()));
        if !entry.began.is_empty() && entry.began.len() != entry.included.len() {
            let expected = "a version for each device that is included, or none";
            return Err(wrong("began", expected, format!("{} for {}", entry.began.len(), entry.included.len())));
        }
        for (at, name) in entry.included.iter().enumerate() {
            let (version, device) = (entry.version, name.clone());
            let Some(data) = devices.get(name) else { return Err(ReplayError::NoDevice { version, device }) };
            let began = entry.began.get(at).copied();
            let from = began.unwrap_or(entry.from_version);
            let Some((begun, builds_on)) = older.get(&from) else {
                let expected = "a version that the job lets updates begin at";
                return Err(wrong("began", expected, from.to_string()));
            };
            let asked = match began {
                Some(version) => Collection { version, work: Kind::Prepare, attempt: 0, ..collection },
                None => collection,
            };
            let local = Work::Local {
                entropy: Entropy::new([0; 32]),
                collection: asked,
                task: task.clone(),
                model: given.get(name).unwrap_or(begun).clone(),
                before: builds_on.clone(),
                state: kept.get(name.as_str()).cloned(),
                personal: own.get(name.as_str()).cloned(),
                learnt: None,
                device: stand_in(name),
                name: name.clone(),
                steps_max: 0,
            };
            let learnt = work::run(&local, objects, &**data);
            let sealed = learnt.and_then(|output| match output {
                Output::Prepared { learnt, .. } => {
                    let seal = Work::Seal {
                        collection,
                        task: task.clone(),
                        learnt: learnt.clone(),
                        times: pace.staleness.times(entry.from_version.saturating_sub(from)),
                        name: name.clone(),
                        entropy: Entropy::new([0; 32]),
                    };
                    let sealed = work::run(&seal, objects, &**data);
                    objects.remove(learnt.id()).map_err(WorkFault::from)?;
                    sealed
                }
                other => Ok(other),
            });
            let (update, pending, personal) = match sealed {
                Ok(Output::Local { update, state, personal, learnt, .. }) => {
                    learnt.map(|learnt| objects.remove(learnt.id())).transpose()?;
                    (update, state, personal)
                }
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
            if let Some(personal) = personal {
                own.insert(name, personal);
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
        let (names, places): (Vec<String>, Vec<Place>) =
            named.into_iter().map(|(name, place)| (name.clone(), place)).unzip();
        let order = if spec.unmerged(work) { places } else { Vec::new() };
        let apply = Work::Apply {
            entropy: Entropy::new([0; 32]),
            spec: spec.clone(),
            collection,
            model: model.clone(),
            before: before.clone(),
            state: state.clone(),
            partials: vec![partial.clone()],
            order,
            names: if spec.unmerged(work) { names } else { Vec::new() },
            given: given.clone(),
            devices: entry.included.len() as u32,
            population: entry.population,
            opening: None,
            began: entry.began.first().filter(|from| spec.algorithm().alone() && **from < entry.from_version).and_then(
                |from| {
                    let (model, before) = older.get(from)?;
                    let times = pace.staleness.times(entry.from_version.saturating_sub(*from));
                    Some((model.clone(), before.clone(), times))
                },
            ),
        };
        match work::run(&apply, objects, &NoData) {
            Ok(Output::Applied { model: made, before: chain, state: made_state, given: made_given, .. }) => {
                (model, before, state, given) = (made, chain, made_state, made_given);
            }
            Ok(_) => return Err(wrong("work", "a version", "something else".into())),
            Err(fault) => return Err(ReplayError::Apply { version, fault }),
        }
        objects.remove(partial.id())?;
        older.retain(|version, _| version + u64::from(pace.staleness_max) >= entry.version);
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
