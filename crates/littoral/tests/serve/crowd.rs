//! Many clients at once: the same text for each, a place for those who fit, a word for those who do not.

use super::ask::{CHAT, chat, text, with};
use super::client::{answer, get, post, stream};
use super::server::{Folder, Server};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// So many tokens that nobody waits for the end.
fn endless(said: &str) -> Value {
    with(chat(said), json!({"max_tokens": 60_000, "logit_bias": {"257": -100}}))
}

fn alone_and_together(at: SocketAddr, model: &str, tokens: u32) {
    let said = |client: u64| {
        let fields = json!({"model": model, "seed": client, "max_tokens": tokens, "temperature": client % 3});
        let body = with(chat(&format!("Say {client} words about the sea, please.")), fields);
        // Every fourth must have a form.
        let form = json!({"response_format": {"type": if client % 4 == 1 { "json_object" } else { "text" }}});
        let body = with(body, form);
        let reply = answer(at, CHAT, &body);
        text(&reply, 0).to_owned()
    };
    let alone: Vec<String> = (0..8).map(said).collect();
    std::thread::scope(|scope| {
        let together: Vec<_> = (0..8).map(|client| scope.spawn(move || said(client))).collect();
        let together: Vec<String> = together.into_iter().map(|one| one.join().unwrap()).collect();
        assert_eq!(together, alone);
    });
}

#[test]
fn eight_at_once_get_the_text_that_each_gets_alone() {
    alone_and_together(Server::start(&[]).at, "tiny", 100);
    alone_and_together(Server::start(&["--cache-type", "q8_0"]).at, "tiny", 100);
}

#[test]
fn a_real_model_gives_each_the_same_text_alone_and_at_once() {
    let name = "smollm2-135m-instruct-q4_1";
    let Some(models) = std::env::var_os("LITTORAL_MODELS") else {
        println!("LITTORAL_MODELS is not set: no real model was asked");
        return;
    };
    let server = Server::of(Folder::new(), &Path::new(&models).join(format!("{name}.gguf")), &[]);
    alone_and_together(server.at, name, 24);
}

fn metric(at: SocketAddr, name: &str) -> u64 {
    let text = get(at, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.trim().parse().unwrap()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn too_many_are_told_to_come_again_and_a_client_that_leaves_makes_room() {
    let server = Server::start(&["--parallel", "1", "--queue", "1"]);
    let mut first = stream(server.at, CHAT, &endless("first"));
    while !first.event().unwrap().contains("content\":\"\"") {}
    let second = stream(server.at, CHAT, &chat("second"));
    until("one waits", || metric(server.at, "littoral_requests_waiting") == 1);
    let third = post(server.at, CHAT, &chat("third"));
    assert_eq!((third.status, third.header("retry-after")), (429, Some("2")));
    assert_eq!(third.json()["error"]["code"], "rate_limit_exceeded");
    // One that takes two places finds none either, and takes none.
    assert_eq!(post(server.at, CHAT, &with(chat("both"), json!({"n": 2}))).status, 429);
    // For one that takes three there never is room: to come again would not help.
    let never = post(server.at, CHAT, &with(chat("three"), json!({"n": 3})));
    assert_eq!((never.status, &never.json()["error"]["param"]), (400, &json!("n")));
    assert!(never.body.contains("at most 2 answers in all"), "{}", never.body);

    drop(first);
    assert_eq!(second.events().pop().as_deref(), Some("[DONE]"));
    assert_eq!(metric(server.at, "littoral_requests_total{outcome=\"cancelled\"}"), 1);
    assert_eq!(metric(server.at, "littoral_requests_total{outcome=\"busy\"}"), 2);
    until("none runs", || metric(server.at, "littoral_requests_running") == 0);
    assert_eq!(post(server.at, CHAT, &chat("third")).status, 200);
}

#[test]
fn a_client_that_leaves_while_it_waits_is_forgotten() {
    let server = Server::start(&["--parallel", "1"]);
    let _first = stream(server.at, CHAT, &endless("first"));
    let waiting: Vec<_> = (0..3).map(|_| stream(server.at, CHAT, &chat("waits"))).collect();
    until("three wait", || metric(server.at, "littoral_requests_waiting") == 3);
    drop(waiting);
    until("none waits", || metric(server.at, "littoral_requests_waiting") == 0);
}

#[test]
fn metrics_count_what_was_done() {
    let server = Server::start(&[]);
    let reply = answer(server.at, CHAT, &with(chat("count"), json!({"n": 2, "logit_bias": {"257": -100}})));
    let prompt = reply["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(metric(server.at, "littoral_tokens_written_total"), 80);
    let read = metric(server.at, "littoral_tokens_read_total") + metric(server.at, "littoral_tokens_reused_total");
    assert_eq!(read, 2 * prompt);
    assert_eq!(metric(server.at, "littoral_requests_total{outcome=\"length\"}"), 2);
    assert_eq!(metric(server.at, "littoral_time_to_first_token_seconds_count"), 2);
    assert_eq!(metric(server.at, "littoral_inter_token_seconds_bucket{le=\"+Inf\"}"), 78);
}
