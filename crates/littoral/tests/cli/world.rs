//! The real binary, folders that go away, and machines that are stopped when a test ends.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// For what usually takes milliseconds; a machine that is busy with other tests gets this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Folder(PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("littoral-cli-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
    command.env_remove("LITTORAL_DIR").env_remove("LITTORAL_LOG").env_remove("LITTORAL_DATA");
    command
}

pub fn littoral(args: &[&str]) -> Output {
    binary().args(args).output().unwrap()
}

/// The same, running, with pipes.
pub fn spawn(args: &[&str]) -> Child {
    binary().args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Exit code, stdout, stderr.
pub fn parts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// What a command printed with `--json`: one object on one line, and nothing else.
pub fn json(args: &[&str]) -> Value {
    let (code, stdout, stderr) = parts(&littoral(&[&["--json"], args].concat()));
    assert_eq!(stdout.lines().count(), 1, "exit {code}\nstdout: {stdout}\nstderr: {stderr}");
    let value: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(value.get("error").is_some(), code != 0, "exit {code} with {value}");
    value
}

/// Asks again until the answer is as wanted.
pub fn until(what: &str, mut ask: impl FnMut() -> Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let answer = ask();
        if wanted(&answer) {
            return answer;
        }
        assert!(begin.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; last: {answer}");
        std::thread::yield_now();
    }
}

/// A role that runs until the test ends.
pub struct Machine {
    child: Child,
    said: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub ready: Value,
}

impl Machine {
    pub fn start(role: &str, dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        Self::start_with_log(role, dir, fs::File::create(dir.join("log")).unwrap())
    }

    pub fn start_with_log(role: &str, dir: &Path, log: fs::File) -> Self {
        let mut command = binary();
        command.args(["--json", role, "--dir"]).arg(dir);
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut machine = Self { child, said, ready: Value::Null };
        machine.ready = machine.next();
        machine
    }

    /// The next that it says on stdout, where it has a server beside it.
    pub fn next(&mut self) -> Value {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert!(said.get("error").is_none(), "{said}");
        said
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> i32 {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
