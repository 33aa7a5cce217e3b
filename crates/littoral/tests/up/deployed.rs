//! A fleet and its simulation are one system: the same names, the same files, the same bits.

use super::trial::{Folder, Held, ask, kill, pids, record};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For three jobs that take seconds.
const DEADLINE: Duration = Duration::from_secs(240);

/// The job that `up` trained, changed: another name, and TOML in place of some fields.
fn job(dir: &Path, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let mut job: toml::Table = fs::read_to_string(dir.join("hospitals.toml")).unwrap().parse().unwrap();
    job.insert("name".into(), name.into());
    for (field, text) in changes {
        let value: toml::Table = format!("{field} = {text}").parse().unwrap();
        job.extend(value);
    }
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, job.to_string()).unwrap();
    path
}

/// Version and model of each step that the simulation of this fleet made.
fn simulated(dir: &Path, job: &Path) -> Vec<(u64, String)> {
    let csv_file = job.with_extension("csv");
    let paths = [job, dir, &csv_file].map(|path| path.to_str().unwrap());
    let done = ask(&["sim", paths[0], "--fleet", paths[1], "--csv", paths[2]]).unwrap();
    assert_eq!(done["checks_broken"], Value::Array(Vec::new()));
    let text = fs::read_to_string(csv_file).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = |name| head.iter().position(|column| *column == name).unwrap();
    let (version, model) = (column("version"), column("model"));
    lines.map(|line| (line[version].parse().unwrap(), line[model].to_owned())).collect()
}

/// Three jobs at once over one fleet, while a device, an edge and the cloud are killed: each makes, version by version, the
/// bits that the simulator makes of the same folders.
#[test]
fn deployed_is_simulated_bit_for_bit() {
    let folder = Folder::new("deployed");
    let (dir, cloud) = (&folder.0, folder.0.join("cloud"));
    let fleet = Held::up(dir);
    let many = ("rounds", "{ count = 80 }");
    let mlp = ("model", "{ kind = \"mlp\", hidden = [12] }");
    let jobs = [
        job(dir, "softmax", &[many]),
        job(dir, "mlp", &[many, mlp, ("seed", "5")]),
        job(dir, "scaffold", &[many, mlp, ("algorithm", "{ name = \"scaffold\" }")]),
    ];
    let of_cloud = ["--dir", cloud.to_str().unwrap()];
    let numbers = jobs.each_ref().map(|job| {
        let said = ask(&[&["job", "submit", job.to_str().unwrap()][..], &of_cloud].concat()).unwrap();
        said["job"].as_u64().unwrap().to_string()
    });

    // Last one first; the next only after a round that was made since.
    let (mut victims, begun) = (vec![(60, "cloud"), (40, "edge-1"), (20, "hospital-2")], Instant::now());
    loop {
        // A cloud that has just been killed says nothing.
        let list = ask(&[&["job", "ls"][..], &of_cloud].concat()).unwrap_or_default();
        let listed = list["jobs"].as_array().cloned().unwrap_or_default();
        let ours: Vec<&Value> = listed.iter().filter(|job| numbers.contains(&job["job"].to_string())).collect();
        // While version 0 is made again there is no round.
        let slowest = ours.iter().map(|job| job["round"].as_u64().unwrap_or(0)).min().unwrap_or(0);
        if let Some((_, victim)) = victims.pop_if(|(at, _)| *at <= slowest) {
            assert!(kill(pids(dir)[victim]));
        }
        if ours.len() == jobs.len() && ours.iter().all(|job| job["state"] == "finished") {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{list}");
    }
    assert!(victims.is_empty(), "the jobs were over before {victims:?}");

    let records = numbers.each_ref().map(|number| {
        let file = dir.join(format!("{number}.record.json"));
        ask(&[&["job", "record", number, "-o", file.to_str().unwrap()][..], &of_cloud].concat()).unwrap();
        record(&file)
    });
    fleet.stop();
    for (job, record) in jobs.iter().zip(records) {
        let deployed: Vec<(u64, String)> = record.into_iter().map(|(version, _, model)| (version, model)).collect();
        // Statistics, eighty rounds and the evaluation of the last version.
        assert_eq!(deployed.len(), 82);
        assert_eq!(deployed, simulated(dir, job), "{}", job.display());
    }
}
