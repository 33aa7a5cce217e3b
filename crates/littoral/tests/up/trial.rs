//! A trial fleet of four devices under two edges, its processes, and what it leaves.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a run leaves in its folder.
pub const RECORD: &str = "hospitals.record.json";

/// A folder of a test, which goes with it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("littoral-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn up(dir: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_littoral"))
        .args(["up", "--devices", "4", "--edges", "2", "--json", "--dir"])
        .arg(dir)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Process numbers of a fleet by machine.
pub fn pids(dir: &Path) -> BTreeMap<String, u32> {
    serde_json::from_slice(&fs::read(dir.join("pids.json")).unwrap()).unwrap()
}

/// Whether it lived.
#[must_use]
pub fn kill(pid: u32) -> bool {
    let kill = Command::new("sh").args(["-c", &format!("kill -9 {pid}")]).stderr(Stdio::null()).status();
    kill.unwrap().success()
}

pub fn lives(pid: u32) -> bool {
    // A process that has ended but was not waited for yet is a zombie, `Z`.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Follows a run to its end; `on_round` hears of each round that is reported. Returns stdout and stderr.
pub fn follow(mut run: Child, mut on_round: impl FnMut(u64)) -> (Value, String) {
    let mut said = String::new();
    for line in BufReader::new(run.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((round, _)) = line.strip_prefix("round ").and_then(|rest| rest.split_once('/')) {
            on_round(round.parse().unwrap());
        }
        said += &line;
        said.push('\n');
    }
    let out = run.wait_with_output().unwrap();
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stdout));
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    (serde_json::from_str(&text).unwrap(), said)
}

/// Version, included devices and model of each step of the run.
pub fn record(file: &Path) -> Vec<(u64, Vec<String>, String)> {
    let record: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let versions = record["versions"].as_array().unwrap().iter();
    let names = |version: &Value| -> Vec<String> { serde_json::from_value(version["included"].clone()).unwrap() };
    versions
        .map(|version| {
            let mut included = names(version);
            included.sort();
            (version["version"].as_u64().unwrap(), included, version["model"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// A fleet that has trained once and waits for more jobs.
pub struct Held(Child);

impl Held {
    pub fn up(dir: &Path) -> Self {
        let mut run = up(dir, &["--rounds", "1", "--keep-running"]);
        let (out, mut err) = (run.stdout.take().unwrap(), run.stderr.take().unwrap());
        std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
        let mut report = String::new();
        BufReader::new(out).read_line(&mut report).unwrap();
        assert!(report.contains("federated_accuracy"), "{report}");
        Self(run)
    }

    /// Ctrl-C, and the end of all machines.
    pub fn stop(mut self) {
        assert!(Command::new("sh").args(["-c", &format!("kill -INT {}", self.0.id())]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command, and the object that it says.
pub fn ask(args: &[&str]) -> Result<Value, String> {
    let out = Command::new(env!("CARGO_BIN_EXE_littoral")).arg("--json").args(args).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    if out.status.success() { Ok(serde_json::from_str(&said).unwrap()) } else { Err(said) }
}
