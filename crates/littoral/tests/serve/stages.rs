//! A model whose layers are in other processes: the text of one process, whoever is killed.

use super::ask::{CHAT, chat, with};
use super::client::{answer, stream};
use super::server::{Folder, Server, binary, key_in};
use super::tiny;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const TOKENS: u32 = 1_500;

/// A process with some layers, which ends with the test.
pub struct Stage {
    child: Child,
    pub address: String,
}

impl Stage {
    pub fn start(folder: &Path, name: &str, listen: &str, allow: &str) -> Self {
        Self::of(folder, name, listen, allow, &[])
    }

    pub fn of(folder: &Path, name: &str, listen: &str, allow: &str, more: &[&str]) -> Self {
        let mut command = binary();
        command.args(["--json", "stage", "--listen", listen, "--allow", allow, "--threads", "1", "--dir"]);
        command.arg(folder.join(name)).arg("--model").arg(folder.join("tiny.gguf")).args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        Self { child, address: ready["address"].as_str().unwrap().to_owned() }
    }

    fn place(&self) -> String {
        self.address.split_once('@').unwrap().1.to_owned()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with the model and the head's key, and that key's public half.
pub fn ground() -> (PathBuf, Folder, String) {
    let folder = Folder::new();
    let dir = folder.write("tiny.gguf", tiny::gguf(true)).parent().unwrap().to_owned();
    let head = key_in(&dir.join("head"), 9);
    (dir, folder, head)
}

pub fn body(said: &str) -> Value {
    with(chat(said), json!({"seed": 5, "max_tokens": TOKENS, "logit_bias": {"257": -100}}))
}

pub fn text(events: &[String]) -> String {
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{:?}", events.last());
    let pieces = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
    pieces.filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

/// Writes, and does something to the stages when a part of the text is there.
pub fn written(server: &Server, said: &str, mut disturb: impl FnMut()) -> String {
    let mut stream = stream(server.at, CHAT, &body(said));
    let mut events = Vec::new();
    while let Some(event) = stream.event() {
        events.push(event);
        if events.len() == 100 {
            disturb();
        }
    }
    text(&events)
}

#[test]
fn a_stage_that_is_killed_is_a_pause_and_not_an_error() {
    let (dir, folder, head) = ground();
    let plain = Server::of(Folder::new(), &dir.join("tiny.gguf"), &[]);
    let expected = written(&plain, "The tide comes in.", || {});
    let mut stages = ["one", "two"].map(|name| Stage::start(&dir, name, "127.0.0.1:0", &head));
    let own = dir.join("head");
    let (first, second) = (stages[0].address.clone(), stages[1].address.clone());
    let args = ["--dir", own.to_str().unwrap(), "--head-layers", "0", "--stage", &first, "--stage", &second];
    let server = Server::of(folder, &dir.join("tiny.gguf"), &args);
    assert_eq!(written(&server, "The tide comes in.", || {}), expected);
    for victim in [0, 1] {
        assert_eq!(written(&server, "The tide comes in.", || stages[victim].kill()), expected, "without {victim}");
        // It comes back where it was, and is lost again.
        let place = stages[victim].place();
        stages[victim] = Stage::start(&dir, ["one", "two"][victim], &place, &head);
        // One that stands still says nothing and closes nothing.
        assert_eq!(
            written(&server, "The tide comes in.", || stages[victim].signal("-STOP")),
            expected,
            "{victim} stands"
        );
        stages[victim].signal("-CONT");
    }
    // All of them at once: the head goes on alone.
    let all = written(&server, "The tide comes in.", || stages.iter_mut().for_each(Stage::kill));
    assert_eq!(all, expected);
}

#[test]
fn a_head_that_was_not_let_in_gets_no_layers() {
    let (dir, folder, _) = ground();
    let other = key_in(&dir.join("other"), 3);
    let stage = Stage::start(&dir, "one", "127.0.0.1:0", &other);
    let own = dir.join("head");
    let server =
        Server::of(folder, &dir.join("tiny.gguf"), &["--dir", own.to_str().unwrap(), "--stage", &stage.address]);
    // It says what it has by itself.
    let reply = answer(server.at, CHAT, &with(chat("Who is there?"), json!({"seed": 1, "max_tokens": 8})));
    let plain = Server::of(Folder::new(), &dir.join("tiny.gguf"), &[]);
    let expected = answer(plain.at, CHAT, &with(chat("Who is there?"), json!({"seed": 1, "max_tokens": 8})));
    assert_eq!(reply["choices"], expected["choices"]);
}
