//! A small model here whose answers a large one in another process verifies: the large one's text, and the small one's when
//! it is gone.

use super::ask::{CHAT, chat, with};
use super::client::stream;
use super::server::{Folder, Server, key_in};
use super::tap::Tap;
use super::tiny;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const TOKENS: u32 = 600;

fn body(said: &str, temperature: f64) -> Value {
    let fields = json!({"seed": 5, "max_tokens": TOKENS, "temperature": temperature, "logit_bias": {"257": -100}});
    with(chat(said), fields)
}

/// The text, and what happens in the middle of it.
fn written(server: &Server, body: &Value, mut disturb: impl FnMut()) -> String {
    let mut stream = stream(server.at, CHAT, body);
    let (mut text, mut events, mut last) = (String::new(), 0, String::new());
    while let Some(event) = stream.event() {
        events += 1;
        if events == 100 {
            disturb();
        }
        if let Ok(event) = serde_json::from_str::<Value>(&event) {
            text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        }
        last = event;
    }
    assert_eq!(last, "[DONE]");
    text
}

fn verifier(dir: &Path, name: &str, listen: &str, allow: &str) -> Server {
    let own = dir.join(name);
    let args =
        ["--verify", listen, "--allow", allow, "--name", "tiny", "--dir", own.to_str().unwrap(), "--threads", "1"];
    Server::of(Folder::new(), &dir.join("large.gguf"), &args)
}

/// An edge below a verifier, which is used by now.
struct Pair {
    dir: PathBuf,
    edge_key: String,
    large: Server,
    /// Where it verifies.
    at: String,
    edge: Server,
}

impl Pair {
    fn new(seed: u8) -> Self {
        Self::with(seed, &[])
    }

    fn with(seed: u8, args: &[&str]) -> Self {
        let folder = Folder::new();
        let dir = folder.write("large.gguf", tiny::gguf(true)).parent().unwrap().to_owned();
        folder.write("small.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 8));
        let edge_key = key_in(&dir.join("edge"), seed);
        let large = verifier(&dir, "cloud", "127.0.0.1:0", &edge_key);
        let at = large.ready["verifies"].as_str().unwrap().to_owned();
        let own = dir.join("edge");
        let own = ["--upstream", &at, "--name", "tiny", "--dir", own.to_str().unwrap(), "--threads", "1"];
        let edge = Server::of(folder, &dir.join("small.gguf"), &[&own[..], args].concat());
        // The link comes up in its own time.
        let (begun, body) = (std::time::Instant::now(), body("Who is there?", 0.0));
        while written(&edge, &body, || {}) != written(&large, &body, || {}) {
            assert!(begun.elapsed().as_secs() < 60, "the large model does not answer");
        }
        Self { dir, edge_key, large, at, edge }
    }
}

#[test]
fn the_answer_is_the_large_models_while_it_is_there() {
    let Pair { dir, edge_key, mut large, at, edge } = Pair::new(21);
    let small = Server::of(Folder::new(), &dir.join("small.gguf"), &["--name", "tiny", "--threads", "1"]);
    for temperature in [0.0, 1.0] {
        let body = body("What does the sea say?", temperature);
        assert_eq!(written(&edge, &body, || {}), written(&large, &body, || {}), "temperature {temperature}");
    }
    // It dies in the middle, and nothing breaks.
    let body = body("What does the wind say?", 0.0);
    let (of_large, of_small) = (written(&large, &body, || {}), written(&small, &body, || {}));
    let mixed = written(&edge, &body, || large.kill());
    assert!(mixed != of_small && mixed.chars().take(40).eq(of_large.chars().take(40)), "{mixed}");
    // Without it, the small one answers.
    assert_eq!(written(&edge, &body, || {}), of_small);
    // It comes back.
    let place = at.split_once('@').unwrap().1;
    let large = verifier(&dir, "cloud", place, &edge_key);
    let begun = std::time::Instant::now();
    while written(&edge, &body, || {}) != of_large {
        assert!(begun.elapsed().as_secs() < 60, "the large model is not used again");
    }
    drop(large);
}

/// The model drafts, or what stood in the text before, or both; who did is told.
#[test]
fn what_drafts_can_be_chosen_and_is_told() {
    let what = |seed, source: &str| {
        let Pair { large, edge, .. } = Pair::with(seed, &["--upstream-draft-source", source]);
        // It says the same letter again and again.
        let body = with(body("What does the wind say?", 0.0), json!({"max_tokens": 300, "logit_bias": {"65": 100}}));
        let [got, expected] = [&edge, &large].map(|server| super::client::answer(server.at, CHAT, &body));
        assert_eq!(got["choices"], expected["choices"]);
        let drafted = got["usage"]["littoral"]["drafted"].clone();
        let tokens = |source: &str, what: &str| drafted[source][what].as_u64().unwrap_or(0);
        assert!(tokens("lookup", "held") <= tokens("lookup", "tokens"), "{drafted}");
        let metrics = super::client::get(edge.at, "/metrics").body;
        let none = |source: &str| metrics.contains(&format!("littoral_drafts_total{{source=\"{source}\"}} 0\n"));
        assert_eq!((none("model"), none("lookup")), (source == "lookup", source == "model"));
        (tokens("model", "tokens"), tokens("lookup", "held"))
    };
    let (of_model, quoted) = what(51, "model");
    assert!(of_model > 0 && quoted == 0);
    let (of_model, quoted) = what(52, "lookup");
    assert!(of_model == 0 && quoted > 0, "{quoted}");
    assert!(what(53, "both").1 > 0);
}

/// As a service manager does it: started again at once, it knows nothing of the answer, and goes on with it all the same.
#[test]
fn a_verifier_that_is_started_again_goes_on_with_the_answer() {
    let Pair { dir, edge_key, mut large, at, edge } = Pair::new(37);
    for temperature in [0.0, 1.0] {
        let body = body("What does the wind say?", temperature);
        let of_large = written(&large, &body, || {});
        let text = written(&edge, &body, || {
            large.kill();
            large = verifier(&dir, "cloud", at.split_once('@').unwrap().1, &edge_key);
        });
        assert_eq!(text, of_large, "temperature {temperature}");
    }
}

/// A device with two machines above, each behind a wire.
struct Tiers {
    device: Server,
    near: (Server, Tap),
    far: (Server, Tap),
    body: Value,
    of_large: String,
}

impl Tiers {
    fn new(seed: u8) -> Self {
        let folder = Folder::new();
        let dir = folder.write("large.gguf", tiny::gguf(true)).parent().unwrap().to_owned();
        folder.write("small.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 8));
        let device_key = key_in(&dir.join("device"), seed);
        let above = |name: &str| {
            let server = verifier(&dir, name, "127.0.0.1:0", &device_key);
            let (key, place) = server.ready["verifies"].as_str().unwrap().split_once('@').unwrap();
            let wire = Tap::to(place.parse().unwrap());
            let at = format!("{name}={key}@{}", wire.at);
            ((server, wire), at)
        };
        let ((near, edge_at), (far, cloud_at)) = (above("edge"), above("cloud"));
        let own = dir.join("device").to_str().unwrap().to_owned();
        let args = ["--upstream", &edge_at, "--upstream", &cloud_at, "--tier", "device"];
        let args = [&args[..], &["--name", "tiny", "--dir", &own, "--threads", "1"]].concat();
        let device = Server::of(folder, &dir.join("small.gguf"), &args);
        let body = with(body("What does the wind say?", 0.0), json!({"stream_options": {"include_usage": true}}));
        let by = |server: &Server| {
            let reply = super::client::post(server.at, CHAT, &chat("Hm?"));
            reply.header("x-littoral-by").unwrap().to_owned()
        };
        let begun = std::time::Instant::now();
        while by(&device) != "edge" {
            assert!(begun.elapsed().as_secs() < 60, "the nearer machine does not verify");
        }
        let of_large = written(&far.0, &body, || {});
        Self { device, near, far, body, of_large }
    }
}

/// The device's answer, with something that happens at its third token; who wrote which parts of it; the usage.
fn told(
    device: &Server,
    body: &Value,
    wire: &Tap,
    mut happens: impl FnMut(),
) -> (String, Vec<(String, String)>, Value) {
    // Its first tokens are here long before its last.
    wire.slow();
    let mut stream = stream(device.at, CHAT, body);
    let (mut text, mut parts, mut usage) = (String::new(), Vec::<(String, String)>::new(), Value::Null);
    for at in 0.. {
        let Some(event) = stream.event() else { break };
        if at == 3 {
            happens();
        }
        let Ok(event) = serde_json::from_str::<Value>(&event) else { continue };
        let piece = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        text.push_str(piece);
        if let Some(by) = event["littoral"]["by"].as_str() {
            match parts.last_mut().filter(|(last, _)| last == by) {
                Some((_, text)) => text.push_str(piece),
                None => parts.push((by.to_owned(), piece.to_owned())),
            }
        }
        if event["usage"].is_object() {
            usage = event["usage"]["littoral"].clone();
        }
    }
    (text, parts, usage)
}

fn names(parts: &[(String, String)]) -> Vec<&str> {
    parts.iter().map(|(by, _)| by.as_str()).collect()
}

/// The nearer one dies in the middle of an answer, and the text is the same; both die, and the device goes on. Who wrote what is
/// told part by part.
#[test]
fn when_the_nearer_machine_dies_the_next_one_goes_on() {
    let Tiers { device, mut near, mut far, body, of_large } = Tiers::new(23);
    let (text, parts, usage) = told(&device, &body, &near.1, || {
        near.0.kill();
        near.1.cut();
    });
    assert_eq!(text, of_large);
    assert_eq!(names(&parts), ["edge", "cloud"]);
    let tokens = |name: &str| usage["tokens"][name].as_u64().unwrap_or(0);
    assert!(
        usage["by"] == "edge" && tokens("edge") > 0 && tokens("edge") + tokens("cloud") == u64::from(TOKENS),
        "{usage}"
    );
    let (text, parts, _) = told(&device, &body, &far.1, || {
        far.0.kill();
        far.1.cut();
    });
    assert_eq!(names(&parts), ["cloud", "device"]);
    // All that the large model wrote is the beginning of its answer; what follows is the small one's.
    assert!(text != of_large && !parts[0].1.is_empty() && of_large.starts_with(&parts[0].1), "{parts:?}");
}

/// The same where nothing says that the machine is gone: its link stays open, and nothing comes over it any more.
#[test]
fn when_the_nearer_machine_falls_silent_the_next_one_goes_on() {
    let Tiers { device, near, far: _far, body, of_large } = Tiers::new(27);
    let (text, parts, _) = told(&device, &body, &near.1, || near.1.mute());
    assert_eq!(text, of_large);
    assert_eq!(names(&parts), ["edge", "cloud"]);
}

#[test]
fn a_machine_that_was_not_let_in_answers_by_itself() {
    let folder = Folder::new();
    let dir = folder.write("large.gguf", tiny::gguf(true)).parent().unwrap().to_owned();
    folder.write("small.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 8));
    key_in(&dir.join("edge"), 21);
    let stranger = key_in(&dir.join("stranger"), 22);
    let large = verifier(&dir, "cloud", "127.0.0.1:0", &stranger);
    let own = dir.join("edge");
    let args =
        ["--upstream", large.ready["verifies"].as_str().unwrap(), "--name", "tiny", "--dir", own.to_str().unwrap()];
    let edge = Server::of(folder, &dir.join("small.gguf"), &args);
    let small = Server::of(Folder::new(), &dir.join("small.gguf"), &["--name", "tiny"]);
    let body = body("Who is there?", 0.0);
    assert_eq!(written(&edge, &body, || {}), written(&small, &body, || {}));
}

/// Killed with as many answers in flight as the large model's machine writes at once, each minutes long: its places are for others
/// at once.
#[test]
fn an_edge_that_is_killed_leaves_its_places_to_others() {
    let folder = Folder::new();
    // Some milliseconds a token.
    let dir = folder.write("large.gguf", tiny::gguf_sized(Some(tiny::TEMPLATE), 7, 4, 60_000));
    let dir = dir.parent().unwrap().to_owned();
    folder.write("small.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 8));
    let edge_key = key_in(&dir.join("edge"), 29);
    let own = dir.join("cloud");
    let args = ["--verify", "127.0.0.1:0", "--allow", &edge_key, "--name", "tiny", "--dir", own.to_str().unwrap()];
    let args = [&args[..], &["--threads", "1", "--parallel", "2"]].concat();
    let large = Server::of(Folder::new(), &dir.join("large.gguf"), &args);
    let own = dir.join("edge");
    let args = ["--upstream", large.ready["verifies"].as_str().unwrap(), "--name", "tiny"];
    let args = [&args[..], &["--dir", own.to_str().unwrap(), "--threads", "1"]].concat();
    let mut edge = Server::of(folder, &dir.join("small.gguf"), &args);
    let long = |said: &str| with(body(said, 0.0), json!({"max_tokens": 50_000}));
    let short = with(body("Who is there?", 0.0), json!({"max_tokens": 8}));
    let expected = written(&large, &short, || {});
    let begun = std::time::Instant::now();
    while written(&edge, &short, || {}) != expected {
        assert!(begun.elapsed().as_secs() < 60, "the large model does not answer");
    }
    let mut streams =
        ["What does the sea say?", "What does the wind say?"].map(|said| stream(edge.at, CHAT, &long(said)));
    for stream in &mut streams {
        (0..5).for_each(|_| drop(stream.event()));
    }
    edge.kill();
    let begun = std::time::Instant::now();
    assert_eq!(written(&large, &short, || {}), expected);
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}
