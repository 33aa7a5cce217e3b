//! The real binary with a home of its own, whatever this machine's environment says.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// For what usually takes milliseconds; a machine that is busy with other tests gets this long.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct World {
    dir: PathBuf,
    environment: Vec<(String, String)>,
}

impl World {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("littoral-pull-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self { dir, environment: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn models(&self, path: &str) -> PathBuf {
        self.dir.join("models").join(path)
    }

    /// The machine's own catalogue.
    pub fn catalogue(&self, text: &str) {
        fs::create_dir_all(self.models("")).unwrap();
        fs::write(self.models("catalogue.toml"), text).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", &self.dir).env("LITTORAL_HOME", &self.dir);
        command.env("PIP_CONFIG_FILE", "/dev/null").envs(self.environment.iter().cloned()).args(args);
        command
    }

    pub fn littoral(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command that succeeds prints with `--json`.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.littoral(&[&["--json"], args].concat());
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The line of a command that fails, its last before the hint.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.littoral(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{args:?}: {stderr}");
        let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "{args:?}: {stderr}");
        lines[0].to_owned()
    }

    /// Of the model of that name, as `littoral models` lists it.
    pub fn listed(&self, name: &str) -> Option<Value> {
        let listed = self.json(&["models"]);
        listed["models"].as_array().unwrap().iter().find(|model| model["name"] == name).cloned()
    }

    /// Nothing under any name, nothing half.
    pub fn is_empty(&self) -> bool {
        let folders = ["blobs", "names", "partial"].map(|folder| fs::read_dir(self.models(folder)));
        folders.into_iter().flatten().all(|mut files| files.next().is_none())
    }

    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
            std::thread::yield_now();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not repeat.
pub fn file(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}
