//! A small model here and a large one above: who answers, who says so, and what never leaves.

use super::ask::{CHAT, COMPLETION, chat, text, with};
use super::client::{Reply, answer, get, open, post};
use super::server::{Folder, Server, key_in};
use super::tap::Tap;
use super::tiny;
use littoral_infer::route::calibrate::{Labelled, calibrate};
use littoral_infer::route::features::{When, names};
use littoral_infer::route::saved::{FORMAT, ModelSaid, Router, Saved};
use littoral_infer::route::score::{Example, Scorer};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

const SECRET: &str = "the patient Ada Quill";

/// Two models of one vocabulary in a folder: large.gguf and small.gguf.
pub fn models() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let dir = folder.write("large.gguf", tiny::gguf(true)).parent().unwrap().to_owned();
    folder.write("small.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 8));
    (folder, dir)
}

pub fn serve(dir: &Path, model: &str, args: &[&str]) -> Server {
    Server::of(Folder::new(), &dir.join(model), &[&["--name", "tiny", "--threads", "1"], args].concat())
}

pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed().as_secs() < 60, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Deterministic, and as long as asked.
pub fn asked(said: &str) -> Value {
    with(chat(said), json!({"temperature": 0, "logit_bias": {"257": -100}}))
}

/// An answer that is drafted here, where somebody above verifies it.
pub fn greedy(said: &str) -> Value {
    with(chat(said), json!({"temperature": 0}))
}

pub fn by(reply: &Reply) -> (&str, &str) {
    (reply.header("x-littoral-by").unwrap(), reply.header("x-littoral-why").unwrap_or_default())
}

pub fn said(at: SocketAddr, body: &Value) -> String {
    text(&answer(at, CHAT, body), 0).to_owned()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A router for which short prompts are easy and long ones hard.
pub fn router(dir: &Path) -> PathBuf {
    let router = |when| {
        let example = |at: usize| {
            let length = 5.0 + (at % 200) as f64;
            let mut features = vec![0.0; names(when).len()];
            features[0] = length.ln_1p();
            Example { features, worse: length > 60.0 }
        };
        let examples: Vec<Example> = (0..2000).map(example).collect();
        let scorer = Scorer::fit(when, &examples).unwrap();
        let labelled = |e: &Example| Labelled { score: scorer.score(&e.features), worse: e.worse };
        let labelled: Vec<Labelled> = examples.iter().map(labelled).collect();
        let calibration = calibrate(&labelled, &[0.9, 0.7], 0.1, 0.1).ok();
        Router { scorer, calibration, nothing: None }
    };
    let model = |name: &str| {
        let hash = blake3::hash(&std::fs::read(dir.join(name)).unwrap()).to_hex().to_string();
        ModelSaid { name: name.into(), blake3: hash }
    };
    let saved = Saved {
        format: FORMAT,
        small: model("small.gguf"),
        large: model("large.gguf"),
        exact_answers: false,
        before: router(When::Before),
        after: router(When::After),
        examples: vec![],
    };
    let path = dir.join("route.json");
    std::fs::write(&path, serde_json::to_string(&saved).unwrap()).unwrap();
    path
}

#[test]
fn a_server_above_answers_and_is_not_missed_when_it_is_gone() {
    let (_folder, dir) = models();
    let mut large = serve(&dir, "large.gguf", &[]);
    let tap = Tap::to(large.at);
    let edge = serve(&dir, "small.gguf", &["--upstream", &format!("http://{}/v1", tap.at)]);
    let small = serve(&dir, "small.gguf", &[]);
    let body = asked("What does the sea say?");
    let (of_large, of_small) = (said(large.at, &body), said(small.at, &body));
    assert_ne!(of_large, of_small);
    until("the server above is not asked", || by(&post(edge.at, CHAT, &body)).0 == "upstream");
    let reply = post(edge.at, CHAT, &body);
    assert_eq!(by(&reply), ("upstream", "no calibration: the edge promises nothing"));
    assert_eq!(text(&reply.json(), 0), of_large);
    // Streamed as it streams, and what this server does not do goes up as it is: it was the one above that refused.
    let events = post(edge.at, CHAT, &with(body.clone(), json!({"stream": true}))).body;
    let piece = |event: &str| {
        let event: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap_or_default();
        event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(events.trim_end().split("\n\n").map(piece).collect::<String>(), of_large);
    assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
    let odd = post(edge.at, CHAT, &with(body.clone(), json!({"nonsense": 1})));
    assert_eq!((odd.status, by(&odd).0), (400, "upstream"));
    // It dies: the small one answers, and says so.
    large.kill();
    let reply = post(edge.at, CHAT, &body);
    let (who, why) = by(&reply);
    assert!(who == "here" && why.starts_with("the cloud cannot be reached: the edge answers"), "{who}, {why}");
    assert_eq!(text(&reply.json(), 0), of_small);
    let usage = reply.json()["usage"]["littoral"].clone();
    assert_eq!(usage, json!({"by": "here", "tokens": {"here": 40}, "upstream_passes": 0}));
    // It comes back.
    let at = large.at.to_string();
    let again = Server::listening(&dir.join("large.gguf"), &at, &["--name", "tiny", "--threads", "1"]);
    until("the server above is not asked again", || by(&post(edge.at, CHAT, &body)).0 == "upstream");
    let metrics = get(edge.at, "/metrics").body;
    let away = metrics.lines().find_map(|line| line.strip_prefix("littoral_requests_away_total ")).unwrap();
    assert!(away.parse::<u64>().unwrap() >= 5, "{away}");
    drop(again);
}

/// By its own mark, by its key, by the name of its key, by its text however it is put: not a byte of it is sent.
#[test]
fn what_is_local_only_never_leaves() {
    let (folder, dir) = models();
    let keys = folder.write("keys", "sk-any\nsk-own local-only\nsk-ward name=ward-7\n");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let policy = folder.write("policy.toml", "words = [\"patient ada\"]\nkeys = [\"ward-*\"]\n");
    let edge_key = key_in(&dir.join("edge"), 31);
    let cloud_dir = dir.join("cloud");
    let verify = ["--verify", "127.0.0.1:0", "--allow", &edge_key, "--dir", cloud_dir.to_str().unwrap(), "--open"];
    let large = serve(&dir, "large.gguf", &verify);
    let (key, place) = large.ready["verifies"].as_str().unwrap().split_once('@').unwrap();
    let taps = [Tap::to(large.at), Tap::to(place.parse().unwrap())];
    let uppers = [format!("http://{}/v1", taps[0].at), format!("{key}@{}", taps[1].at)];
    for (tap, upper) in taps.iter().zip(&uppers) {
        let own = dir.join("edge");
        let args =
            ["--upstream", upper, "--local-only", policy.to_str().unwrap(), "--api-key-file", keys.to_str().unwrap()];
        let edge = serve(&dir, "small.gguf", &[&args[..], &["--dir", own.to_str().unwrap()]].concat());
        let ask = |path: &str, key: &str, body: &Value| {
            open(edge.at, "POST", path, &[("authorization", &format!("Bearer {key}"))], &body.to_string()).whole()
        };
        let free = greedy("Who is there?");
        until("the server above is not asked", || by(&ask(CHAT, "sk-any", &free)).0 == "upstream");
        // Where drafts of such answers are verified over HTTP, they are by then, and its own questions are over.
        let drafted = || ask(CHAT, "sk-any", &free).json()["usage"]["littoral"]["exact"].is_string();
        until("drafts are not verified", || !upper.starts_with("http") || drafted());
        // Asks whether it is there go on over HTTP; over a link of ours nothing does.
        let posts = |sent: &[u8]| sent.windows(5).filter(|window| window == b"POST ").count();
        let marked = with(greedy(SECRET), json!({"local_only": true}));
        let mut before = tap.sent();
        if !upper.starts_with("http") {
            // Drafts for the answer before may still have been on their way.
            until("bytes go on over the link", || {
                ask(CHAT, "sk-any", &marked);
                let now = tap.sent();
                std::mem::replace(&mut before, now.clone()).len() == now.len()
            });
        }
        // Another server would have other ids.
        let prompt_of_ids = match upper.starts_with("http") {
            true => "local-only: it has a list of numbers, in which a policy cannot look for words",
            false => "local-only: its text matches",
        };
        let parts = json!([{"type": "text", "text": "the PATI"}, {"type": "text", "text": "ENT\nAda Quill"}]);
        let ids: Vec<u32> = SECRET.bytes().map(u32::from).collect();
        let cases = [
            (CHAT, "sk-any", marked.clone(), "local-only: the request is marked local-only"),
            (
                CHAT,
                "sk-any",
                with(marked, json!({"local_only": "yes"})),
                "local-only: the request is marked local-only",
            ),
            (CHAT, "sk-own", greedy("Quill"), "local-only: its API key is local-only"),
            (CHAT, "sk-ward", greedy("Quill"), "local-only: its API key is local-only (`ward-*`)"),
            (CHAT, "sk-any", greedy(SECRET), "local-only: its text matches the local-only policy (`patient ada`)"),
            (
                CHAT,
                "sk-any",
                with(greedy(""), json!({"messages": [{"role": "user", "content": parts}]})),
                "local-only: its text",
            ),
            (COMPLETION, "sk-any", json!({"prompt": ids, "temperature": 0}), prompt_of_ids),
            (
                CHAT,
                "sk-any",
                greedy("It says: {\"who\": \"the pat\\u0069ent\\nAda Quill\"}."),
                "local-only: its text matches",
            ),
            // As JSON in a text, its letters written otherwise.
            (CHAT, "sk-any", greedy("{\"who\": \"the pat\\u0069ent\\nAda Quill\"}"), "local-only: its text matches"),
        ];
        for (path, key, body, expected) in &cases {
            let reply = ask(path, key, body);
            assert_eq!(reply.status, 200, "{body}: {}", reply.body);
            let (who, why) = by(&reply);
            assert!(who == "here" && why.starts_with(expected), "{body}: {who}, {why}");
        }
        // What cannot be read here is not sent on to be read there.
        let picture = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:Quill"}}]}]);
        for fields in [json!({"nonsense": 1}), json!({"localOnly": true}), json!({"messages": picture})] {
            let odd = ask(CHAT, "sk-any", &with(greedy("Quill"), fields));
            assert!(odd.status == 400 && odd.header("x-littoral-by").is_none(), "{}", odd.body);
        }
        let sent = tap.sent();
        if upper.starts_with("http") {
            assert_eq!(posts(&sent), posts(&before));
        } else {
            assert_eq!(sent.len(), before.len());
        }
        assert!(!contains(&sent, "Quill"));
    }
}

/// Where nothing else is held back, what this server cannot read may be sent on to be read there; what is marked is not, however it
/// is marked and whatever else is wrong with it.
#[test]
fn what_is_marked_never_leaves_where_nothing_else_is_held_back() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let tap = Tap::to(large.at);
    let edge = serve(&dir, "small.gguf", &["--upstream", &format!("http://{}/v1", tap.at)]);
    until("the server above is not asked", || by(&post(edge.at, CHAT, &asked("Who is there?"))).0 == "upstream");
    let marked = with(asked("Quill"), json!({"local_only": true}));
    let long = with(asked(&"Quill ".repeat(3_000)), json!({"local_only": true}));
    let mut bodies: Vec<String> = [
        marked.clone(),
        with(marked.clone(), json!({"nonsense": 1})),
        with(marked.clone(), json!({"n": 99})),
        long,
        with(asked("Quill"), json!({"localOnly": true})),
        with(asked("Quill"), json!({"Local-Only": "yes"})),
        with(asked("Quill"), json!({"extra_body": {"local_only": true}})),
    ]
    .map(|body| body.to_string())
    .into();
    // Two fields of one name: whichever a reader takes.
    for twice in ["true,\"local_only\":false", "false,\"local_only\":true"] {
        bodies.push(asked("Quill").to_string().replacen('{', &format!("{{\"local_only\":{twice},"), 1));
    }
    for body in bodies {
        let reply = open(edge.at, "POST", CHAT, &[], &body).whole();
        let here = reply.header("x-littoral-by").is_none_or(|by| by == "here");
        assert!(here && matches!(reply.status, 200 | 400), "{}: {}", reply.status, reply.body);
    }
    assert!(!contains(&tap.sent(), "Quill"));
    // Not marked, it is another matter.
    post(edge.at, CHAT, &with(asked("Quill"), json!({"nonsense": 1})));
    assert!(contains(&tap.sent(), "Quill"));
}

/// Before an answer and after one, over both kinds of links.
#[test]
fn a_router_decides_by_its_score() {
    let (_folder, dir) = models();
    let route = router(&dir);
    let edge_key = key_in(&dir.join("edge"), 32);
    let (cloud_dir, own) = (dir.join("cloud"), dir.join("edge"));
    let verify = ["--verify", "127.0.0.1:0", "--allow", &edge_key, "--dir", cloud_dir.to_str().unwrap()];
    let large = serve(&dir, "large.gguf", &verify);
    let small = serve(&dir, "small.gguf", &[]);
    let (short, long) = (asked("Hm?"), asked(&"Say it again. ".repeat(9)));
    for upper in [format!("http://{}/v1", large.at), large.ready["verifies"].as_str().unwrap().to_owned()] {
        for when in ["before", "after"] {
            let args = ["--upstream", &upper, "--router", route.to_str().unwrap(), "--router-when", when];
            let edge = serve(&dir, "small.gguf", &[&args[..], &["--dir", own.to_str().unwrap()]].concat());
            until("the server above is not asked", || by(&post(edge.at, CHAT, &long)).0 == "upstream");
            let reply = post(edge.at, CHAT, &long);
            // A machine of ours is asked in the way that is fastest by what was measured, which stands behind the reason.
            let why = by(&reply).1;
            assert!(why.starts_with("score 0.") && why.contains(", below 0.700"), "{why}");
            assert_eq!(text(&reply.json(), 0), said(large.at, &long));
            let reply = post(edge.at, CHAT, &short);
            let (who, why) = by(&reply);
            assert!(who == "here" && why.contains("worse in at most 10 %"), "{why}");
            assert_eq!(text(&reply.json(), 0), said(small.at, &short));
            // A stop string, log-probabilities and a stream are what they are without a router.
            let stop: String = text(&reply.json(), 0).chars().skip(9).take(2).collect();
            let wanted = json!({"logprobs": true, "top_logprobs": 2, "stop": [stop]});
            let body = with(short.clone(), wanted);
            let (of_edge, of_small) = (answer(edge.at, CHAT, &body), answer(small.at, CHAT, &body));
            assert_eq!(of_edge["choices"], of_small["choices"]);
            // Of several answers none is scored: nobody could say which.
            let several = post(edge.at, CHAT, &with(short.clone(), json!({"n": 2})));
            assert!(by(&several).0 == "upstream" && by(&several).1.starts_with("the edge has no score for it"));
        }
    }
    let other = dir.join("large.gguf");
    let refused = super::server::binary()
        .args(["--json", "serve", other.to_str().unwrap(), "--upstream", "http://127.0.0.1:9/v1", "--router"])
        .arg(&route)
        .output()
        .unwrap();
    let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(refused["error"]["expected"], "a calibration for the model that is served", "{refused}");
}

/// Answers of the small model are always other ones here: ten audits are enough to see that, whoever is above. Another large model than
/// the calibration's has no promise from the beginning.
#[test]
fn audits_and_another_large_model_take_the_promise_back() {
    let (folder, dir) = models();
    folder.write("other.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 9));
    let route = router(&dir);
    let edge_key = key_in(&dir.join("edge"), 34);
    let (cloud_dir, other_dir, own) = (dir.join("cloud"), dir.join("other"), dir.join("edge"));
    let verify = |dir: &Path| {
        let dir = dir.to_str().unwrap().to_owned();
        ["--verify", "127.0.0.1:0", "--allow", &edge_key, "--dir", &dir].map(str::to_owned)
    };
    let serving =
        |model: &str, args: &[String]| serve(&dir, model, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let large = serving("large.gguf", &verify(&cloud_dir));
    let other = serving("other.gguf", &verify(&other_dir));
    let short = asked("Hm?");
    let verifies = |server: &Server| server.ready["verifies"].as_str().unwrap().to_owned();
    for upper in [format!("http://{}/v1", large.at), verifies(&large)] {
        let _ = std::fs::remove_file(route.with_extension("watch.json"));
        let args = ["--upstream", &upper, "--router", route.to_str().unwrap(), "--router-audit", "1"];
        let edge = serve(&dir, "small.gguf", &[&args[..], &["--dir", own.to_str().unwrap()]].concat());
        let audits = || {
            let metrics = get(edge.at, "/metrics").body;
            let count = metrics.lines().find_map(|line| line.strip_prefix("littoral_audits_total "));
            count.unwrap().parse::<u64>().unwrap()
        };
        // One after the other: while one is carried out no other is.
        until("the promise is not taken back", || {
            let before = audits();
            let reply = post(edge.at, CHAT, &short);
            if by(&reply).1.contains("worse in at most") {
                until("an audit is not carried out", || audits() > before);
            }
            by(&reply).0 == "upstream"
        });
        let why = by(&post(edge.at, CHAT, &short)).1.to_owned();
        assert!(why.starts_with("the calibration is withdrawn: 10 of 10 audited answers were worse"), "{why}");
        assert!(get(edge.at, "/metrics").body.contains("\nlittoral_audits_worse_total 10\n"));
        assert!(route.with_extension("watch.json").exists());
    }
    std::fs::remove_file(route.with_extension("watch.json")).unwrap();
    let args = ["--upstream", &verifies(&other), "--router", route.to_str().unwrap(), "--dir", own.to_str().unwrap()];
    let edge = serve(&dir, "small.gguf", &args);
    until("the machine above is not asked", || by(&post(edge.at, CHAT, &short)).0 == "upstream");
    let why = by(&post(edge.at, CHAT, &short)).1.to_owned();
    assert!(why.starts_with("the calibration is of another large model: the edge promises nothing"), "{why}");
}

/// One that breaks off in the middle of an event: what was whole is passed on, then an error, and that is the end.
#[test]
fn a_server_that_breaks_off_ends_the_stream_with_an_error() {
    let (_folder, dir) = models();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let count = stream.read(&mut head).unwrap_or(0);
            let models = r#"{"data": [{"id": "other"}]}"#;
            let said = match head[..count].starts_with(b"GET") {
                true => format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{models}", models.len()),
                // More was promised than comes.
                false => "content-type: text/event-stream\r\ncontent-length: 999\r\n\r\ndata: {\"choices\": []}\n\ndata: {\"ch".into(),
            };
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n{said}");
        }
    });
    let edge = serve(&dir, "small.gguf", &["--upstream", &format!("other=http://{at}/v1")]);
    let body = with(asked("Hm?"), json!({"stream": true}));
    until("the server above is not asked", || by(&post(edge.at, CHAT, &body)).0 == "other");
    let said = post(edge.at, CHAT, &body).body;
    let events: Vec<&str> = said.trim_end().split("\n\n").collect();
    assert!(events.len() == 2 && events[0] == "data: {\"choices\": []}", "{said}");
    let error: Value = serde_json::from_str(events[1].strip_prefix("data: ").unwrap()).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().starts_with("the server above broke off"), "{said}");
}

#[test]
fn a_key_may_ask_so_often() {
    let folder = Folder::new();
    let keys = folder.write("keys", "sk-few requests-per-minute=2\nsk-short tokens-per-minute=30\n");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(&["--api-key-file", keys.to_str().unwrap()]);
    let ask = |key: &str| {
        let body = asked("Hm?").to_string();
        open(server.at, "POST", CHAT, &[("authorization", &format!("Bearer {key}"))], &body).whole()
    };
    assert_eq!([ask("sk-few").status, ask("sk-few").status], [200, 200]);
    let refused = ask("sk-few");
    assert_eq!(refused.status, 429);
    assert!(refused.json()["error"]["message"].as_str().unwrap().starts_with("this key may use 2 requests a minute"));
    assert!((1..=30).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    // Its first answer is longer than what it may have in a minute.
    assert_eq!([ask("sk-short").status, ask("sk-short").status], [200, 429]);
    for (text, line) in [("sk-few requests-per-minute=0\n", 1), ("sk-few local-only\n\nsk-few\n", 3)] {
        let wrong = folder.write("wrong", text);
        std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o600)).unwrap();
        let output = super::server::not_started(&["--api-key-file", wrong.to_str().unwrap()]);
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(error["error"]["where"].as_str().unwrap().ends_with(&format!("wrong, line {line}")), "{error}");
    }
}
