//! A stage without a copy of the model's file: it fetches its layers, checks and keeps them, and the text is the same.

use super::ask::CHAT;
use super::client::stream;
use super::server::{Folder, Server, binary, key_in};
use super::stages::{body, ground, text, written};
use super::tiny;
use littoral_model::lm::{self, Tile};
use littoral_node::peer::{Greeted, greet};
use littoral_node::transport::{Address, Identity, TcpOptions, TcpTransport};
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::pipeline::{Get, Layers, Neighbour};
use littoral_wire::{Blob, List, Pipeline, Wire};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

const KEY: [u8; 32] = [9; 32];
const MODEL: [u8; 32] = [7; 32];
/// Chunks that a stage asks for at a time.
const IN_FLIGHT: usize = 16;

/// A process that ends with the test, what it said first, and the lines of its log.
struct Process {
    child: Child,
    ready: Value,
    log: mpsc::Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, log) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        Self { child, ready, log }
    }

    /// Without a model of its own.
    fn stage(dir: &Path, name: &str, listen: &str, allow: &str) -> Self {
        let mut command = binary();
        command.args(["--json", "stage", "--listen", listen, "--allow", allow, "--threads", "1", "--dir"]);
        Self::start(command.arg(dir.join(name)))
    }

    fn address(&self) -> Address {
        self.ready["address"].as_str().unwrap().parse().unwrap()
    }

    /// Waits for a line with these words; returns those before it.
    fn until(&self, words: &str) -> Vec<String> {
        let mut before = Vec::new();
        for line in &self.log {
            if line.contains(words) {
                return before;
            }
            before.push(line);
        }
        panic!("{words:?} expected, got {before:#?}");
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stage_without_the_file_writes_the_same_text_and_keeps_its_layers() {
    let (dir, _folder, head) = ground();
    let model = dir.join("tiny.gguf");
    let plain = Server::of(Folder::new(), &model, &[]);
    let expected = written(&plain, "The tide comes in.", || {});
    let mut stage = Process::stage(&dir, "one", "127.0.0.1:0", &head);
    let address = stage.address();
    let mut command = binary();
    command.args(["--json", "serve"]).arg(&model).args(["--listen", "127.0.0.1:0", "--head-layers", "0", "--dir"]);
    let server = Process::start(command.arg(dir.join("head")).args(["--stage", &address.to_string()]));
    let at: SocketAddr = server.ready["url"].as_str().unwrap().rsplit_once("//").unwrap().1.parse().unwrap();
    let ask = |kill: Option<&mut Process>| {
        let (mut stream, mut events, mut kill) = (stream(at, CHAT, &body("The tide comes in.")), Vec::new(), kill);
        while let Some(event) = stream.event() {
            events.push(event);
            if let (100, Some(stage)) = (events.len(), kill.as_mut()) {
                stage.kill();
            }
        }
        text(&events)
    };
    server.until("one has 2 of its 2 layers");
    server.until("layers [0..2] on one");
    stage.until("2 layers fetched");
    assert_eq!(ask(None), expected);
    // Without it the head goes on, and it comes back with its layers.
    assert_eq!(ask(Some(&mut stage)), expected);
    let again = Process::stage(&dir, "one", &address.host_port().unwrap(), &head);
    server.until("layers [0..2] on one");
    assert_eq!(ask(None), expected);
    drop(server);
    let log = again.until("is gone");
    assert!(!log.iter().any(|line| line.contains("fetched")), "{log:#?}");
}

/// With another model and no folder for layers it can be of no use, which is said wherever it would have been in a plan.
#[test]
fn a_stage_that_cannot_fetch_is_out_of_all_plans_and_says_why() {
    let (dir, _folder, head) = ground();
    let (model, other) = (dir.join("tiny.gguf"), dir.join("other.gguf"));
    std::fs::write(&other, tiny::gguf_layers(None, 7, 3)).unwrap();
    let mut command = binary();
    command.args(["--json", "stage", "--listen", "127.0.0.1:0", "--allow", &head, "--threads", "1", "--dir"]);
    command.arg(dir.join("one")).arg("--model").arg(&other).args(["--standby-mb", "0"]);
    let stage = Process::start(&mut command);
    let address = stage.address().to_string();
    let no_disk = "out: it has no copy of the model's file, and no disk for layers (--standby-mb)";
    let mut command = binary();
    command.args(["--json", "plan"]).arg(&model).arg("--dir").arg(dir.join("head"));
    let planned = command.args(["--threads", "1", "--stage", &address]).output().unwrap();
    let planned: Value = serde_json::from_slice(&planned.stdout).unwrap();
    assert_eq!(planned["order"], serde_json::json!(["head"]), "{planned}");
    assert_eq!((&planned["why"][1]["device"], &planned["why"][1]["why"]), (&"one".into(), &no_disk.into()));
    let expected = written(&Server::of(Folder::new(), &model, &[]), "The tide comes in.", || {});
    for (place, said) in
        [("latency", no_disk), ("even", "is out of all plans, it lacks the model's file: it has no folder")]
    {
        let mut command = binary();
        command.args(["--json", "serve"]).arg(&model).args(["--listen", "127.0.0.1:0", "--place", place, "--dir"]);
        let server = Process::start(command.arg(dir.join("head")).args(["--stage", &address]));
        server.until(said);
        let at: SocketAddr = server.ready["url"].as_str().unwrap().rsplit_once("//").unwrap().1.parse().unwrap();
        let (mut stream, mut events) = (stream(at, CHAT, &body("The tide comes in.")), Vec::new());
        while let Some(event) = stream.event() {
            events.push(event);
        }
        assert_eq!(text(&events), expected, "{place}");
    }
}

/// What a head says of a model, and how it says it.
struct Head {
    transport: TcpTransport,
    tiles: Vec<(Manifest, Vec<u8>)>,
}

impl Head {
    fn new() -> Self {
        let bytes = tiny::gguf_sized(None, 7, 2, 1 << 14);
        let gguf = Gguf::parse(&bytes).unwrap();
        let config = lm::config(&gguf).unwrap();
        let stage = lm::load(&gguf, &config, 0..config.layers, false, &Pool::new(1), &mut |_| ()).unwrap();
        let tile = |layer| {
            let mut bytes = Vec::new();
            Tile::write(&stage, layer, &mut bytes).unwrap();
            (Manifest::of(&bytes).unwrap(), bytes)
        };
        let transport = TcpTransport::dialler(&Identity::from_secret(&KEY), TcpOptions::default()).unwrap();
        Self { transport, tiles: (0..config.layers).map(tile).collect() }
    }

    async fn dial(&self, at: &Address, first: Pipeline) -> Greeted {
        greet::dial_for(&self.transport, at, first).await.unwrap()
    }

    /// The link on which it says what is to be had; the stage has no model.
    async fn hello(&self, at: &Address, sources: Vec<Neighbour>) -> Greeted {
        let mut link = self.dial(at, Pipeline::Hello {}).await;
        let Pipeline::Offer { offer } = hear(&mut link).await else { panic!("an offer expected") };
        assert!(offer.models.is_empty());
        say(&mut link, Pipeline::Get { get: get(sources) }).await;
        link
    }

    /// Answers which tile a layer is.
    async fn which(&self, link: &mut Greeted, layer: u32) {
        assert_eq!(hear(link).await, Pipeline::Which { model: MODEL, layer });
        let manifest = self.tiles[layer as usize].0.clone();
        say(link, Pipeline::Tile { model: MODEL, layer, manifest }).await;
    }

    fn chunk(&self, layer: usize, chunk: u32) -> Pipeline {
        let (manifest, bytes) = &self.tiles[layer];
        let bytes = bytes.chunks(CHUNK_BYTES).nth(chunk as usize).unwrap().to_vec();
        Pipeline::Chunk { object: manifest.id(), chunk, bytes: Blob::new(bytes).unwrap() }
    }

    fn chunks(&self, layer: usize) -> u32 {
        self.tiles[layer].0.chunks()
    }
}

fn get(sources: Vec<Neighbour>) -> Get {
    let layers = List::new(vec![Layers { start: 0, end: 2 }]).unwrap();
    Get { model: MODEL, layers, sources: List::new(sources).unwrap() }
}

async fn say(link: &mut Greeted, said: Pipeline) {
    link.sender.send(said.to_bytes().into()).await.unwrap();
    link.sender.flush().await.unwrap();
}

async fn hear(link: &mut Greeted) -> Pipeline {
    Pipeline::from_bytes(&link.receiver.recv().await.unwrap().expect("a message")).unwrap()
}

async fn wanted(link: &mut Greeted) -> u32 {
    let Pipeline::Want { chunk, .. } = hear(link).await else { panic!("a chunk is to be asked for") };
    chunk
}

/// How many layers it says that it has, and why not more.
async fn has(link: &mut Greeted) -> (u32, Option<String>) {
    let Pipeline::Has { model: MODEL, layers, why } = hear(link).await else { panic!("what it has expected") };
    (layers.iter().map(|part| part.end - part.start).sum(), why.map(String::from))
}

fn corrupt(said: Pipeline) -> Pipeline {
    let Pipeline::Chunk { object, chunk, bytes } = said else { panic!("a chunk") };
    let mut bytes = bytes.to_vec();
    bytes[77] ^= 1;
    Pipeline::Chunk { object, chunk, bytes: Blob::new(bytes).unwrap() }
}

#[tokio::test]
async fn what_arrived_is_not_asked_for_again_and_what_is_corrupt_is_asked_of_another() {
    let folder = Folder::new();
    let dir = folder.write("empty", "").parent().unwrap().to_owned();
    let (head, allow) = (Head::new(), key_in(&dir.join("head"), KEY[0]));
    let (chunks, before) = (head.chunks(0), 5);
    assert!(chunks as usize > IN_FLIGHT + before, "{chunks} chunks");
    let mut stage = Process::stage(&dir, "one", "127.0.0.1:0", &allow);
    let at = stage.address();

    let mut link = head.hello(&at, Vec::new()).await;
    assert_eq!(has(&mut link).await, (0, None));
    let mut supply = head.dial(&at, Pipeline::Supply {}).await;
    head.which(&mut supply, 0).await;
    let mut kept = BTreeSet::new();
    for _ in 0..before {
        let chunk = wanted(&mut supply).await;
        say(&mut supply, head.chunk(0, chunk)).await;
        kept.insert(chunk);
    }
    // It asks for one more when one is kept, so these are all kept.
    for _ in 0..IN_FLIGHT {
        wanted(&mut supply).await;
    }
    stage.kill();

    let stage = Process::stage(&dir, "one", &at.host_port().unwrap(), &allow);
    let mut link = head.hello(&at, Vec::new()).await;
    assert_eq!(has(&mut link).await, (0, None));
    let mut supply = head.dial(&at, Pipeline::Supply {}).await;
    head.which(&mut supply, 0).await;
    let first = wanted(&mut supply).await;
    assert!(!kept.contains(&first));
    say(&mut supply, corrupt(head.chunk(0, first))).await;
    let (layers, why) = has(&mut link).await;
    let why = why.unwrap();
    assert_eq!(layers, 0);
    assert!(why.starts_with("layer 0: the head: it is not to be trusted: chunk 5 of object "), "{why}");
    stage.until("layer 0 does not come");
    // The head dials again.
    let mut supply = head.dial(&at, Pipeline::Supply {}).await;
    for layer in 0..2 {
        head.which(&mut supply, layer as u32).await;
        let mut asked = BTreeSet::new();
        let lacking = if layer == 0 { chunks - before as u32 } else { head.chunks(1) };
        for _ in 0..lacking {
            let chunk = wanted(&mut supply).await;
            asked.insert(chunk);
            say(&mut supply, head.chunk(layer, chunk)).await;
        }
        let expected = (0..head.chunks(layer)).filter(|chunk| layer == 1 || !kept.contains(chunk));
        assert_eq!(asked, expected.collect());
        assert_eq!(has(&mut link).await, (layer as u32 + 1, None));
    }

    // Another machine, to which the head sends nothing but rubbish.
    let other = Process::stage(&dir, "two", "127.0.0.1:0", &allow);
    let machines = List::new(vec![other.address().id]).unwrap();
    say(&mut link, Pipeline::Share { machines }).await;
    say(&mut link, Pipeline::Get { get: get(Vec::new()) }).await;
    assert_eq!(has(&mut link).await, (2, None));
    let source = Neighbour { id: at.id, at: at.host_port().unwrap().into() };
    let mut other_link = head.hello(&other.address(), vec![source]).await;
    assert_eq!(has(&mut other_link).await, (0, None));
    for layer in 0..2 {
        let mut supply = head.dial(&other.address(), Pipeline::Supply {}).await;
        head.which(&mut supply, layer as u32).await;
        let chunk = wanted(&mut supply).await;
        say(&mut supply, corrupt(head.chunk(layer, chunk))).await;
        assert_eq!(has(&mut other_link).await, (layer as u32 + 1, None));
        other.until("came from another machine: the head: it is not to be trusted");
    }
    // Whom the head did not name gets nothing.
    let stranger = TcpTransport::dialler(&Identity::from_secret(&[77; 32]), TcpOptions::default()).unwrap();
    let mut link = greet::dial_for(&stranger, &at, Pipeline::Fetch {}).await.unwrap();
    assert!(!matches!(link.receiver.recv().await, Ok(Some(_))));
    stage.until(&format!("{} gets no layers from here", Identity::from_secret(&[77; 32]).id()));
}

/// Layers of 3.3 MB, and room for one of them: the head is told that this machine can never have both, and is not asked again.
#[tokio::test]
async fn a_folder_that_is_too_small_is_said_once() {
    let folder = Folder::new();
    let dir = folder.write("empty", "").parent().unwrap().to_owned();
    let (head, allow) = (Head::new(), key_in(&dir.join("head"), KEY[0]));
    let mut command = binary();
    command.args(["--json", "stage", "--listen", "127.0.0.1:0", "--allow", &allow, "--threads", "1"]);
    let stage = Process::start(command.args(["--standby-mb", "4", "--dir"]).arg(dir.join("one")));
    let mut link = head.hello(&stage.address(), Vec::new()).await;
    assert_eq!(has(&mut link).await, (0, None));
    let mut supply = head.dial(&stage.address(), Pipeline::Supply {}).await;
    head.which(&mut supply, 0).await;
    for _ in 0..head.chunks(0) {
        let chunk = wanted(&mut supply).await;
        say(&mut supply, head.chunk(0, chunk)).await;
    }
    assert_eq!(has(&mut link).await, (1, None));
    head.which(&mut supply, 1).await;
    let Pipeline::Cannot { reason } = hear(&mut link).await else { panic!("that it cannot") };
    assert!(reason.starts_with("layer 1: a tile of ") && reason.ends_with("a greater --standby-mb"), "{}", &*reason);
}

/// It waits for chunks, and is told to end.
#[tokio::test]
async fn a_stage_that_fetches_ends_without_a_word_too_many() {
    let folder = Folder::new();
    let dir = folder.write("empty", "").parent().unwrap().to_owned();
    let (head, allow) = (Head::new(), key_in(&dir.join("head"), KEY[0]));
    let mut stage = Process::stage(&dir, "one", "127.0.0.1:0", &allow);
    let mut link = head.hello(&stage.address(), Vec::new()).await;
    assert_eq!(has(&mut link).await, (0, None));
    let mut supply = head.dial(&stage.address(), Pipeline::Supply {}).await;
    head.which(&mut supply, 0).await;
    wanted(&mut supply).await;
    let id = stage.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(stage.child.wait().unwrap().success());
    let said: Vec<String> = stage.log.iter().collect();
    assert!(!said.iter().any(|line| line.contains("panicked")), "{said:#?}");
}
