//! `littoral job replay`: a run again, from its record, on the devices' own folders.

use crate::input::text;
use crate::output::{self, Failure};
use littoral_node::config::{Config, DeviceConfig};
use littoral_node::deploy::replay::{Compared, RunRecord, replay};
use littoral_node::deploy::{DeviceData, Enrolment};
use littoral_node::store::FileObjects;
use littoral_node::work::LocalData;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RECORD_BYTES_MAX: u64 = 1 << 30;

pub fn run(record: &Path, devices: &Path, json: bool) -> Result<(), Failure> {
    let shown = record.display().to_string();
    let record: RunRecord = serde_json::from_str(&text(record, RECORD_BYTES_MAX)?)
        .map_err(|e| Failure::new("the record was not read", &shown, "a file of `littoral job record`", e))?;
    let devices = data_of(devices)?;
    let room = Room::make()?;
    let objects = FileObjects::open(&room.0).map_err(|e| Failure::new("no room to work", "", "", e))?;
    let mut differs: Option<Compared> = None;
    let mut equal = 0;
    replay(&record, &devices, &objects, |version| {
        let word = if version.equal() { "equal" } else { "different" };
        let line = format!("version {}: {} of {} devices: {word}", version.version, version.work, version.devices);
        output::talk(&line);
        match version.equal() {
            true => equal += 1,
            false => differs = Some(version.clone()),
        }
    })?;
    if let Some(version) = differs {
        let place = format!("version {} ({}, {} devices)", version.version, version.work, version.devices);
        let expected = format!("the model {}", version.recorded);
        return Err(Failure::new("the replay differs from the record", place, expected, version.made)
            .hint("the data, the record or the program is not that of the run"));
    }
    let model = record.versions.last().map(|version| version.model.clone()).unwrap_or_default();
    if json {
        output::object(&json!({"equal": true, "versions": equal, "model": model}));
    } else {
        output::line(&format!("equal: {equal} versions, to model {model}"));
    }
    Ok(())
}

/// Each device's data by the name under which it was enrolled.
fn data_of(folder: &Path) -> Result<BTreeMap<String, Arc<dyn LocalData>>, Failure> {
    let unreadable =
        |e: std::io::Error| Failure::new("the devices were not read", folder.display().to_string(), "a folder", e);
    let mut found: BTreeMap<String, Arc<dyn LocalData>> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let dir = entry.map_err(unreadable)?.path();
        if !dir.join(DeviceConfig::FILE_NAME).is_file() {
            continue;
        }
        let (config, base) = DeviceConfig::load(None, Some(&dir))?;
        let folder_name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = match Enrolment::load(&dir)? {
            Some(enrolment) => enrolment.name,
            None if config.name.is_empty() => folder_name,
            None => config.name.clone(),
        };
        found.insert(name, Arc::new(DeviceData::new(config.data.clone(), &base, config.limits.of_data())));
    }
    Ok(found)
}

/// A folder for this run's objects, which goes with it.
struct Room(PathBuf);

impl Room {
    fn make() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("littoral-replay-{}", std::process::id()));
        fs::create_dir_all(&path)
            .map_err(|e| Failure::new("no room to work", path.display().to_string(), "a folder", e))?;
        Ok(Self(path))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
