//! `sim --dir`: real processes that are killed in the middle, and others that help. The bits are always the same.

use super::shared_store::{self, Postgres};
use super::world::{Folder, json, littoral, parts, spawn};
use littoral_node::role::{RowKey, Table, Write};
use littoral_node::store::Store;
use littoral_wire::JobId;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr};

const JOB: &str = r#"
name = "kept"
seed = 3
[model]
kind = "mlp"
hidden = [96, 96]
[data]
set = "blobs"
standardise = false
[data.schema]
label = { name = "class", classes = ["a", "b", "c"] }
fields = [{ name = "w" }, { name = "x" }, { name = "y" }, { name = "z" }]
[algorithm]
name = "scaffold"
[local]
batch = 4
epochs = 40
optimiser = { name = "sgd", learning_rate = 0.02 }
[cohort]
target = 24
min = 12
[rounds]
count = 8
deadline_ms = 20000
close_ms = 10000
wait_ms = 5000
"#;

struct World {
    folder: Folder,
    job: String,
}

impl World {
    fn new(test: &str) -> Self {
        let folder = Folder::new(test);
        let job = folder.write("job.toml", JOB).display().to_string();
        Self { folder, job }
    }

    fn dir(&self) -> String {
        self.folder.path("dir").display().to_string()
    }

    /// The simulation, with devices that crash, links that break, and liars that know of each other.
    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let conditions = ["--devices", "40", "--rows", "24", "--faults", "default", "--attack", "alie", "--seed", "5"];
        [&["sim", self.job.as_str()], &conditions[..], more].concat()
    }

    /// Its report, but for what differs from run to run.
    fn report(&self, more: &[&str]) -> (Value, Value) {
        without_times(json(&self.args(more)))
    }
}

fn without_times(mut report: Value) -> (Value, Value) {
    let fields = report.as_object_mut().unwrap();
    for field in ["device_rounds_per_s", "clients_per_s", "peak_rss_mb"] {
        assert!(fields.remove(field).is_some(), "{field}");
    }
    let works = fields.remove("works").unwrap_or_default();
    (report, works)
}

fn count(works: &Value, field: &str) -> u64 {
    works[field].as_u64().unwrap_or_else(|| panic!("{field} in {works}"))
}

/// Reads lines until one begins so.
fn until_line(lines: &mut BufReader<ChildStderr>, begin: &str) {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "no line began with {begin:?}:\n{seen}");
        if line.starts_with(begin) {
            return;
        }
        seen += &line;
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_simulation_that_was_killed_reads_what_it_had_computed() {
    let world = World::new("sim-dir-killed");
    let dir = world.dir();
    let (undisturbed, _) = world.report(&[]);
    assert!(undisturbed["rounds_completed"].as_u64() == Some(8) && undisturbed["aborts"].is_u64());

    let with_dir = ["--dir", dir.as_str()];
    // Twice: what was read is not lost by the second death.
    for version in ["version 3 ", "version 6 "] {
        let mut child = spawn(&[&["--json"], &world.args(&with_dir)[..]].concat());
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        until_line(&mut lines, version);
        kill(child);
    }
    // On one thread: another may have computed what a crash of its device made useless.
    let with_dir = ["--dir", dir.as_str(), "--threads", "1"];
    let (resumed, works) = world.report(&with_dir);
    assert_eq!(resumed, undisturbed);
    let (found, computed) = (count(&works, "found"), count(&works, "computed"));
    // Six versions were there; each has at least `cohort.min` devices' updates.
    assert!(found >= 6 * 12, "{works}");
    let (again, works) = world.report(&with_dir);
    assert_eq!(again, undisturbed);
    // A work whose input a fault has damaged is computed each time: what is wrong on one machine is no result.
    let damaged = undisturbed["faults_injected"]["object damaged"].as_u64().unwrap_or(0);
    let (again_found, again_computed) = (count(&works, "found"), count(&works, "computed"));
    assert!(again_computed <= damaged, "all else is known: {works}");
    assert_eq!(again_found + again_computed, found + computed);

    // A record that is spoiled is computed again.
    let file = world.folder.path("dir/results");
    let mut bytes = fs::read(&file).unwrap();
    let place = bytes.len() - 9;
    bytes[place] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (mended, works) = world.report(&with_dir);
    assert_eq!((mended, count(&works, "computed")), (undisturbed, again_computed + 1));
}

#[test]
fn a_folder_of_another_simulation_is_refused() {
    let world = World::new("sim-dir-other");
    let dir = world.dir();
    let quick = ["--faults", "none", "--dir", dir.as_str()];
    let run = |more: &[&str]| {
        let args = ["sim", world.job.as_str(), "--devices", "24", "--rows", "8"];
        parts(&littoral(&[&args[..], &quick, more].concat()))
    };
    assert_eq!(run(&[]).0, 0);
    let refused = |more: &[&str], expected: &str, got: &str| {
        let (code, _, stderr) = run(more);
        assert_eq!(code, 1, "{stderr}");
        assert!(
            stderr.contains(expected) && stderr.contains(got) && stderr.contains("give another folder"),
            "{stderr}"
        );
    };
    refused(&["--seed", "9"], "--seed 9 expected", "got --seed 0");
    refused(&["--attack", "alie"], "--attack alie", "got --attack none");
    let other = fs::read_to_string(&world.job).unwrap().replace("epochs = 40", "epochs = 39");
    fs::write(&world.job, other).unwrap();
    refused(&[], "job (its text's hash)", "got job (its text's hash)");

    let foreign = world.folder.path("foreign");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "mine").unwrap();
    let (code, _, stderr) = parts(&littoral(&world.args(&["--dir", foreign.to_str().unwrap()])));
    assert!(code == 1 && stderr.contains("thesis.tex"), "{stderr}");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 2, "nothing is left there but the lock");
}

/// `place`: the options of the simulation, and the place at which helpers join.
fn helped(world: &World, simulation: &[&str], place: &str, helpers: usize) {
    let (undisturbed, _) = world.report(&[]);
    let join = || spawn(&["--json", "sim", "--threads", "1", "--join", place]);
    let mut here: Vec<Child> = (0..helpers.min(1)).map(|_| join()).collect();
    let wanted = here.len().to_string();
    let with = [simulation, &["--threads", "1", "--helpers", &wanted]].concat();
    let runner = spawn(&[&["--json"], &world.args(&with)[..]].concat());
    if helpers > 1 {
        // The first one dies with a batch in its hands. Its lease holds the simulation up until the others are here.
        let mut dying = here.remove(0);
        until_line(&mut BufReader::new(dying.stderr.take().unwrap()), "a batch of");
        kill(dying);
        here.extend((1..helpers).map(|_| join()));
    }
    let output = runner.wait_with_output().unwrap();
    let (code, stdout, stderr) = parts(&output);
    assert_eq!(code, 0, "{stderr}");
    let (report, works) = without_times(serde_json::from_str(&stdout).unwrap());
    assert_eq!(report, undisturbed, "{helpers} helpers: the same bits");
    assert_eq!(count(&works, "by_helpers") > 0, helpers > 0, "{works}");
    let mut done = 0;
    for helper in here {
        let (code, stdout, stderr) = parts(&helper.wait_with_output().unwrap());
        assert_eq!(code, 0, "{stderr}");
        done += count(&serde_json::from_str(&stdout).unwrap(), "works");
    }
    assert!(done + count(&works, "computed") >= count(&works, "by_helpers"), "{done}, {works}");
}

#[test]
fn the_bits_are_the_same_with_helpers_and_when_one_dies() {
    for helpers in [0, 1, 3] {
        let world = World::new(&format!("sim-dir-helped-{helpers}"));
        let dir = world.dir();
        helped(&world, &["--dir", &dir], &dir, helpers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_meet_in_a_database_and_a_bucket() {
    let Some(server) = Postgres::here().await else { return };
    let world = World::new("sim-dir-shared");
    let (dir, bucket) = (world.dir(), world.folder.path("bucket"));
    let config =
        |database: &str| format!("[shared]\ndatabase = {database:?}\nbucket = \"file://{}\"\n", bucket.display());
    let url = server.database().await;
    let shared = world.folder.write("shared.toml", &config(&url)).display().to_string();
    helped(&world, &["--dir", &dir, "--shared", &shared], &shared, 3);

    // A database in which something else lives is left alone.
    let cloud = shared_store::open(&url, &shared_store::bucket(None, "", &bucket), &world.folder.path("cloud")).await;
    let key = RowKey { table: Table::Node, job: JobId(0), version: 0, item: vec![1] };
    cloud.commit(vec![Write::Put { key, value: vec![2] }], Vec::new()).await.unwrap();
    let args = world.args(&["--dir", &dir, "--shared", &shared]);
    let (code, _, stderr) = parts(&littoral(&args));
    assert!(code == 1 && stderr.contains("a database of its own expected"), "{stderr}");
}
