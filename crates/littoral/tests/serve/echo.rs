//! Drafts for a server above that is asked over HTTP as any other would be, and what such a server tells of a prompt.

use super::ask::{CHAT, COMPLETION, chat, text, with};
use super::client::{answer, get, post, stream};
use super::front::{Act, Front};
use super::server::{Folder, Server};
use super::tap::Tap;
use super::tiny;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

/// A large model, one that says other things, and one that says nearly the same as the large one.
pub fn models() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let large = tiny::gguf(true);
    let dir = folder.write("large.gguf", &large).parent().unwrap().to_owned();
    folder.write("small.gguf", tiny::gguf_of(Some(tiny::TEMPLATE), 8));
    let mut near = large;
    let end = near.len();
    near[end - 4_000..].iter_mut().step_by(97).for_each(|byte| *byte ^= 8);
    folder.write("near.gguf", near);
    (folder, dir)
}

pub fn serve(dir: &Path, model: &str, args: &[&str]) -> Server {
    Server::of(Folder::new(), &dir.join(model), &[&["--name", "tiny", "--threads", "1"], args].concat())
}

/// With a server above, once it is known whether it verifies; and what is known.
pub fn below(dir: &Path, model: &str, at: SocketAddr, args: &[&str]) -> (Server, String) {
    let url = format!("http://{at}/v1");
    let edge = serve(dir, model, &[&["--upstream", &url], args].concat());
    let begun = Instant::now();
    loop {
        let drafts = get(edge.at, "/v1/models").json()["data"][0]["upstream"]["drafts"].as_str().unwrap().to_owned();
        if drafts != "off: it has not been looked at yet" {
            return (edge, drafts);
        }
        assert!(begun.elapsed().as_secs() < 60, "the server above is not looked at");
        thread::sleep(std::time::Duration::from_millis(20));
    }
}

pub fn greedy(said: &str, max_tokens: u32) -> Value {
    with(chat(said), json!({"temperature": 0, "max_tokens": max_tokens}))
}

fn posts(tap: &Tap) -> usize {
    tap.sent().windows(5).filter(|window| window == b"POST ").count()
}

/// Text by text, whatever drafts: a model that agrees always, often or hardly ever.
#[test]
fn drafts_for_a_server_above_make_its_own_greedy_answer() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let tap = Tap::to(large.at);
    for (model, drafts) in [("large.gguf", "6"), ("near.gguf", "3"), ("small.gguf", "2"), ("near.gguf", "auto")] {
        let (edge, state) = below(&dir, model, tap.at, &["--upstream-drafts", drafts]);
        assert_eq!(state, "on");
        for said in ["What does the sea say?", "Who is there?", "Hm, ünï?"] {
            let body = greedy(said, 90);
            let (expected, before) = (answer(large.at, CHAT, &body), posts(&tap));
            let reply = post(edge.at, CHAT, &body);
            let (got, asked) = (reply.json(), posts(&tap) - before);
            assert_eq!(text(&got, 0), text(&expected, 0), "{model} {drafts} {said}");
            assert_eq!(got["choices"][0]["finish_reason"], expected["choices"][0]["finish_reason"]);
            let why = "no calibration: the edge promises nothing; drafted here, verified there";
            assert_eq!((reply.header("x-littoral-by"), reply.header("x-littoral-why")), (Some("upstream"), Some(why)));
            let usage = &got["usage"];
            assert_eq!(usage["completion_tokens"], expected["usage"]["completion_tokens"]);
            let exact = "tokens of upstream: that server's greedy ones, up to its batching";
            assert_eq!(usage["littoral"]["exact"], exact, "{usage}");
            assert_eq!(usage["littoral"]["tokens"], json!({"upstream": usage["completion_tokens"]}));
            let tokens = usage["completion_tokens"].as_u64().unwrap() as usize;
            if model == "large.gguf" && tokens > 20 {
                assert!(asked * 4 < tokens, "{asked} requests for {tokens} tokens");
            }
        }
        // A prompt as text, and a stop string, which is looked for here.
        let body = json!({"prompt": "What the sea says: ", "max_tokens": 40, "temperature": 0});
        let expected = answer(large.at, COMPLETION, &body);
        let stop: String = text(&expected, 0).chars().skip(9).take(2).collect();
        for body in [body.clone(), with(body, json!({"stop": stop}))] {
            let (got, expected) = (answer(edge.at, COMPLETION, &body), answer(large.at, COMPLETION, &body));
            assert_eq!(text(&got, 0), text(&expected, 0), "{model} {drafts}");
            assert!(got["usage"]["littoral"]["exact"].is_string(), "{got}");
        }
        // What is not one text, or is to be told more of, is the server's alone.
        for fields in
            [json!({"temperature": 1}), json!({"logprobs": true}), json!({"frequency_penalty": 0.5}), json!({"n": 2})]
        {
            let got = answer(edge.at, CHAT, &with(greedy("Hm?", 9), fields));
            assert!(got["usage"]["littoral"]["exact"].is_null(), "{got}");
        }
        // What is local-only is neither drafted for it nor asked.
        let before = posts(&tap);
        let own = post(edge.at, CHAT, &with(greedy("the patient Ada Quill", 30), json!({"local_only": true})));
        assert_eq!((own.status, own.header("x-littoral-by")), (200, Some("here")));
        assert!(own.json()["usage"]["littoral"]["exact"].is_null());
        assert_eq!(posts(&tap), before);
        assert!(!tap.sent().windows(5).any(|window| window == b"Quill"));
    }
}

/// It dies in the middle: the small model goes on from there, and the parts say whose they are.
#[test]
fn when_the_server_above_dies_the_small_model_goes_on() {
    let (_folder, dir) = models();
    let mut large = serve(&dir, "large.gguf", &[]);
    let (edge, _) = below(&dir, "near.gguf", large.at, &["--upstream-drafts", "2"]);
    // One that is long.
    let long = |said: &&&str| answer(large.at, CHAT, &greedy(said, 240))["usage"]["completion_tokens"] == 240;
    let said = ["Who?", "What is it?", "What does the wind say?", "Say it again.", "1 2 3"];
    let body = greedy(said.iter().find(long).expect("a long answer"), 240);
    let expected = text(&answer(large.at, CHAT, &body), 0).to_owned();
    let body = with(body, json!({"stream_options": {"include_usage": true}}));
    let mut events = stream(edge.at, CHAT, &body);
    let (mut got, mut parts, mut usage, mut last) = (String::new(), Vec::<String>::new(), Value::Null, String::new());
    for at in 0.. {
        let Some(event) = events.event() else { break };
        if at == 20 {
            large.kill();
        }
        last = event.clone();
        let Ok(event) = serde_json::from_str::<Value>(&event) else { continue };
        got.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        if let Some(by) = event["littoral"]["by"].as_str().filter(|by| parts.last().is_none_or(|last| last != by)) {
            parts.push(by.to_owned());
        }
        if event["usage"].is_object() {
            usage = event["usage"]["littoral"]["tokens"].clone();
        }
    }
    assert_eq!((last.as_str(), parts), ("[DONE]", vec!["upstream".to_owned(), "here".to_owned()]));
    assert!(got.chars().take(20).eq(expected.chars().take(20)), "{got}\n{expected}");
    assert!(usage["upstream"].as_u64() >= Some(20) && usage["here"].as_u64() >= Some(20), "{usage}");
}

/// A server that has no `prompt_logprobs`, and is asked by `echo` instead; and one that has neither.
#[test]
fn another_way_to_be_told_is_found_and_none_is_said() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let without = |fields: &'static [&'static str]| {
        let refused = move |body: &str| fields.iter().any(|field| body.contains(&format!("\"{field}\"")));
        let said = json!({"error": {"message": "no such field"}});
        let front = Front::of(large.at, move |_, body| match refused(body) {
            true => Act::say("400 Bad Request", "", &said),
            false => Act::Pass,
        });
        front.at
    };
    let (edge, state) = below(&dir, "near.gguf", without(&["prompt_logprobs"]), &["--upstream-drafts", "4"]);
    assert_eq!(state, "on");
    let body = greedy("What does the sea say?", 60);
    let got = answer(edge.at, CHAT, &body);
    assert_eq!(text(&got, 0), text(&answer(large.at, CHAT, &body), 0));
    assert!(got["usage"]["littoral"]["exact"].is_string(), "{got}");
    let (edge, state) = below(&dir, "near.gguf", without(&["prompt_logprobs", "echo"]), &[]);
    let why = "off: drafts cannot be verified there: by `prompt_logprobs` 400 Bad Request: no such field; by `echo` 400 Bad \
               Request: no such field";
    assert_eq!(state, why);
    let got = post(edge.at, CHAT, &body);
    assert_eq!(
        (got.header("x-littoral-by"), got.json()["usage"]["littoral"]["exact"].is_null()),
        (Some("upstream"), true)
    );
    let (_edge, state) = below(&dir, "near.gguf", large.at, &["--upstream-drafts", "off"]);
    assert_eq!(state, "off: this machine's model does not draft for it");
}

/// What is told of a prompt's tokens is what was told when they were written, in both forms.
#[test]
fn a_completion_tells_its_prompt() {
    let server = Server::start(&[]);
    let prompt: Vec<u32> = "Once upon".bytes().map(u32::from).collect();
    let body = json!({"prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 2, "return_token_ids": true});
    let written = answer(server.at, COMPLETION, &body)["choices"][0].clone();
    assert_eq!(written["prompt_token_ids"], json!(prompt));
    let ids: Vec<u64> = written["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let all: Vec<u64> = prompt.iter().map(|id| u64::from(*id)).chain(ids.iter().copied()).collect();
    let echoed = with(body, json!({"prompt": all, "echo": true, "prompt_logprobs": 2, "max_tokens": 1}));
    let told = answer(server.at, COMPLETION, &echoed)["choices"][0].clone();
    let part = |of: &Value, name: &str, from: usize, count: usize| {
        of["logprobs"][name].as_array().unwrap()[from..from + count].to_vec()
    };
    for name in ["tokens", "token_logprobs", "top_logprobs"] {
        assert_eq!(part(&told, name, prompt.len(), ids.len()), part(&written, name, 0, ids.len()), "{name}");
        assert_eq!(told["logprobs"][name].as_array().unwrap().len(), all.len() + 1);
    }
    assert!(told["logprobs"]["top_logprobs"][0].is_null() && told["prompt_logprobs"][0].is_null());
    for (place, (id, logprob)) in ids.iter().zip(part(&written, "token_logprobs", 0, ids.len())).enumerate() {
        let entry = &told["prompt_logprobs"][prompt.len() + place];
        assert_eq!(
            (&entry[id.to_string()]["logprob"], &entry[id.to_string()]["rank"]),
            (&logprob, &json!(1)),
            "{entry}"
        );
        assert_eq!(entry.as_object().unwrap().len(), 2);
    }
    assert!(told["text"].as_str().unwrap().starts_with("Once upon"), "{told}");
    for fields in [json!({"stream": true}), json!({"n": 2})] {
        let refused = post(server.at, COMPLETION, &with(echoed.clone(), fields));
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("echo")));
    }
}
