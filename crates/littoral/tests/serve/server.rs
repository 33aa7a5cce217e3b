//! The real binary, serving until a test ends.

use super::tiny;
use littoral_wire::{NodeId, SecretKey};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
    command.env_remove("LITTORAL_DIR").env_remove("LITTORAL_LOG").env_remove("LITTORAL_DATA");
    command
}

/// A folder of a test's own, which goes away with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("littoral-serve-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub struct Server {
    child: Child,
    pub at: SocketAddr,
    pub ready: Value,
    _folder: Folder,
}

impl Server {
    /// The tiny model.
    pub fn start(args: &[&str]) -> Self {
        let folder = Folder::new();
        let model = folder.write("tiny.gguf", tiny::gguf(true));
        Self::of(folder, &model, args)
    }

    pub fn of(folder: Folder, model: &Path, args: &[&str]) -> Self {
        let mut server = Self::listening(model, "127.0.0.1:0", args);
        server._folder = folder;
        server
    }

    /// At a certain place.
    pub fn listening(model: &Path, at: &str, args: &[&str]) -> Self {
        let mut command = binary();
        command.args(["--json", "serve"]).arg(model).args(["--listen", at]).args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let url = ready["url"].as_str().unwrap_or_else(|| panic!("{ready}"));
        let at = url.rsplit_once("//").unwrap().1.parse().unwrap();
        Self { child, at, ready, _folder: Folder::new() }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Without waiting for its end.
    pub fn ask_to_stop(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    pub fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the folder of a machine with a key, and returns the key's public half.
pub fn key_in(dir: &Path, seed: u8) -> String {
    fs::create_dir_all(dir).unwrap();
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(dir.join("key")).unwrap();
    writeln!(file, "{}", NodeId([seed; 32])).unwrap();
    SecretKey::from_bytes([seed; 32]).id().to_string()
}

/// A server that must not come up.
pub fn not_started(args: &[&str]) -> Output {
    let folder = Folder::new();
    let model = folder.write("tiny.gguf", tiny::gguf(true));
    binary().args(["--json", "serve"]).arg(model).args(args).output().unwrap()
}
