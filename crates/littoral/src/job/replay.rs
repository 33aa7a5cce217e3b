//! `littoral job replay`: a run again, from its record, on the devices' own folders.

use crate::input::text;
use crate::output::{self, Failure};
use crate::sites::sites;
use littoral_node::deploy::replay::{Compared, RunRecord, replay};
use littoral_node::store::FileObjects;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const RECORD_BYTES_MAX: u64 = 1 << 30;

pub fn run(record: &Path, devices: &Path, json: bool) -> Result<(), Failure> {
    let shown = record.display().to_string();
    let record: RunRecord = serde_json::from_str(&text(record, RECORD_BYTES_MAX)?)
        .map_err(|e| Failure::new("the record was not read", &shown, "a file of `littoral job record`", e))?;
    let devices = sites(devices)?.iter().map(|site| (site.name.clone(), site.data())).collect();
    let room = Room::make()?;
    let objects = FileObjects::open(&room.0)
        .map_err(|e| Failure::new("no room to work", room.0.display().to_string(), "a folder", e))?;
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
