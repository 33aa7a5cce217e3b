//! A device, an edge and a cloud, each with a model of its own: the edge's layers are on two machines, it verifies what the device
//! drafts, and drafts for the cloud itself.

use super::ask::{CHAT, chat, with};
use super::client::{post, stream};
use super::server::{Folder, Server, key_in};
use super::stages::Stage;
use super::tap::Tap;
use super::tiny;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TOKENS: u32 = 600;

fn body(said: &str) -> Value {
    let fields = json!({"seed": 5, "max_tokens": TOKENS, "temperature": 0.8, "logit_bias": {"257": -100}});
    with(chat(said), fields)
}

/// The text, who wrote which parts of it one after the other, and what happens in the middle.
fn written(server: &Server, said: &str, mut happens: impl FnMut()) -> (String, Vec<String>) {
    let mut stream = stream(server.at, CHAT, &body(said));
    let (mut text, mut parts) = (String::new(), Vec::new());
    for at in 0.. {
        let Some(event) = stream.event() else { break };
        if at == 100 {
            happens();
        }
        let Ok(event) = serde_json::from_str::<Value>(&event) else { continue };
        text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        let by = event["littoral"]["by"].as_str().map(str::to_owned);
        parts.extend(by.filter(|by| parts.last() != Some(by)));
    }
    (text, parts)
}

/// Who answers now, and why.
fn by(server: &Server) -> (String, String) {
    let reply = post(server.at, CHAT, &with(chat("Hm?"), json!({"max_tokens": 4})));
    let header = |name| reply.header(name).unwrap_or_default().to_owned();
    (header("x-littoral-by"), header("x-littoral-why"))
}

fn until(server: &Server, expected: &str) -> String {
    let begun = Instant::now();
    loop {
        let (name, why) = by(server);
        if name == expected {
            return why;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{name} answers, not {expected}: {why}");
    }
}

fn words<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

/// A folder with the models of the device (`small.gguf`) and of the edge (`tiny.gguf`).
fn ground(layers: usize, inner: usize) -> (PathBuf, Folder) {
    let folder = Folder::new();
    let edges = tiny::gguf_sized(Some(tiny::TEMPLATE), 7, layers, inner);
    let dir = folder.write("tiny.gguf", edges).parent().unwrap().to_owned();
    folder.write("small.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 8));
    (dir, folder)
}

fn serve(dir: &Path, name: &str, model: &str, args: &[&str]) -> Server {
    let own = dir.join(name);
    let own = ["--tier", name, "--name", "tiny", "--threads", "1", "--dir", own.to_str().unwrap()];
    Server::of(Folder::new(), &dir.join(model), &words(&[&own, args]))
}

fn at(server: &Server) -> &str {
    server.ready["verifies"].as_str().unwrap()
}

#[test]
fn the_one_in_the_middle_is_split_verifies_and_drafts() {
    // A millisecond or so for a token.
    let (dir, folder) = ground(4, 9_600);
    folder.write("large.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 9));
    let (edge_key, device_key) = (key_in(&dir.join("edge"), 41), key_in(&dir.join("device"), 42));
    let verify = |key| ["--verify", "127.0.0.1:0", "--allow", key];
    let mut cloud = serve(&dir, "cloud", "large.gguf", &verify(&edge_key));
    let mut stage = Stage::start(&dir, "stage", "127.0.0.1:0", &edge_key);
    let (key, place) = at(&cloud).split_once('@').unwrap();
    let wire = Tap::to(place.parse().unwrap());
    let above = format!("cloud={key}@{}", wire.at);
    let args = ["--upstream", &above, "--stage", &stage.address, "--place", "even"];
    let edge = serve(&dir, "edge", "tiny.gguf", &words(&[&args, &verify(&device_key)]));
    let above = format!("edge={}", at(&edge));
    let device = serve(&dir, "device", "small.gguf", &["--upstream", &above]);
    let plain = serve(&dir, "plain", "tiny.gguf", &[]);
    until(&edge, "cloud");
    until(&device, "edge");

    let said = "What does the wind say?";
    let (of_edge, of_cloud) = (written(&plain, said, || {}).0, written(&cloud, said, || {}).0);
    assert_ne!(of_edge, of_cloud);
    let one = |name: &str| vec![name.to_owned()];
    // Both at once, over the same layers; in the middle those on the other machine are lost.
    let (own, drafted) = std::thread::scope(|scope| {
        let own = scope.spawn(|| written(&edge, said, || {}));
        let drafted = written(&device, said, || stage.kill());
        (own.join().unwrap(), drafted)
    });
    assert_eq!(drafted, (of_edge.clone(), one("edge")));
    assert_eq!(own, (of_cloud.clone(), one("cloud")));
    // Without the cloud the edge goes on by itself, and the device does not notice.
    wire.slow();
    let (text, parts) = written(&edge, said, || {
        cloud.kill();
        wire.cut();
    });
    assert_eq!(parts, ["cloud", "edge"]);
    assert!(text != of_cloud && text.chars().take(60).eq(of_cloud.chars().take(60)), "{text}");
    assert_eq!(written(&edge, said, || {}), (of_edge.clone(), one("edge")));
    assert_eq!(written(&device, said, || {}), (of_edge, one("edge")));
}

/// It answers by itself while all of its layers have a machine, and the text is the same when the cloud helps out.
#[test]
fn a_cloud_with_the_edges_own_model_answers_while_the_edge_cannot() {
    // The head has room for one layer of four.
    let (dir, _folder) = ground(4, 3_200);
    let edge_key = key_in(&dir.join("edge"), 43);
    let cloud = serve(&dir, "cloud", "tiny.gguf", &["--verify", "127.0.0.1:0", "--allow", &edge_key]);
    let mut stage = Stage::start(&dir, "stage", "127.0.0.1:0", &edge_key);
    let above = format!("cloud={}", at(&cloud));
    let args = ["--upstream", &above, "--stage", &stage.address, "--place", "even", "--memory-mb", "1"];
    let device_key = key_in(&dir.join("device"), 44);
    let verify = ["--verify", "127.0.0.1:0", "--allow", &device_key];
    let edge = serve(&dir, "edge", "tiny.gguf", &words(&[&args, &verify]));
    let above = format!("edge={}", at(&edge));
    let device = serve(&dir, "device", "small.gguf", &["--upstream", &above]);
    until(&device, "edge");
    let same = "the machine above has the same model: the edge answers";
    let begun = Instant::now();
    while by(&edge) != ("edge".to_owned(), same.to_owned()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", by(&edge));
    }
    let said = "What does the wind say?";
    let (text, parts) = written(&edge, said, || {});
    assert_eq!(parts, ["edge"]);
    // The stage is lost in the middle, and the cloud goes on with what the edge has begun.
    assert_eq!(written(&edge, said, || stage.kill()), (text.clone(), vec!["edge".to_owned(), "cloud".to_owned()]));
    let why = until(&edge, "cloud");
    // What the edge would verify it cannot: those below answer by themselves.
    until(&device, "device");
    assert!(why.starts_with("some layers of the edge's model have no machine"), "{why}");
    assert_eq!(written(&edge, said, || {}), (text.clone(), vec!["cloud".to_owned()]));
    let place = stage.address.split_once('@').unwrap().1.to_owned();
    stage = Stage::start(&dir, "stage", &place, &edge_key);
    until(&edge, "edge");
    until(&device, "edge");
    assert_eq!(written(&edge, said, || {}), (text, vec!["edge".to_owned()]));
    // What must not leave waits for the stage instead.
    let local = with(body(said), json!({"local_only": true}));
    let mut stream = stream(edge.at, CHAT, &local);
    let mut parts = Vec::new();
    for at in 0.. {
        let Some(event) = stream.event() else { break };
        if at == 100 {
            stage.kill();
            until(&edge, "cloud");
            stage = Stage::start(&dir, "stage", &place, &edge_key);
        }
        let by = serde_json::from_str::<Value>(&event)
            .ok()
            .and_then(|event| event["littoral"]["by"].as_str().map(str::to_owned));
        parts.extend(by.filter(|by| parts.last() != Some(by)));
    }
    assert_eq!(parts, ["edge"]);
    drop(stage);
}

/// Who is answered above has no need of a place here.
#[test]
fn while_the_edge_is_busy_the_cloud_answers_at_once() {
    let (dir, _folder) = ground(4, 9_600);
    let edge_key = key_in(&dir.join("edge"), 45);
    let cloud = serve(&dir, "cloud", "tiny.gguf", &["--verify", "127.0.0.1:0", "--allow", &edge_key]);
    let above = format!("cloud={}", at(&cloud));
    let args = ["--upstream", &above, "--parallel", "1", "--router-wait", "1ms"];
    let edge = serve(&dir, "edge", "tiny.gguf", &args);
    // Minutes long.
    let mut long = stream(edge.at, CHAT, &with(body("What does the sea say?"), json!({"max_tokens": 60_000})));
    (0..20).for_each(|_| drop(long.event()));
    let begun = Instant::now();
    let (name, why) = by(&edge);
    assert!(name == "cloud" && why.starts_with("the edge would begin with it in about"), "{name}: {why}");
    assert!(begun.elapsed() < Duration::from_secs(10) && long.event().is_some(), "{:?}", begun.elapsed());
}
