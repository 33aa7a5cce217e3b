//! Servers above that are not as they should be: they tell too much, are another model by now, want to be left alone, hang, or end a
//! stream in the middle.

use super::ask::{CHAT, with};
use super::client::{Reply, get, post, stream};
use super::echo::{below, greedy, models, serve};
use super::front::{Act, Front};
use super::server::Server;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed().as_secs() < 60, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Answers otherwise once it is told to.
fn switched(place: SocketAddr, act: impl Fn(u8, &str, &str) -> Act + Send + Sync + 'static) -> (Front, Arc<AtomicU8>) {
    let switch = Arc::new(AtomicU8::new(0));
    let state = switch.clone();
    (Front::of(place, move |path, body| act(state.load(SeqCst), path, body)), switch)
}

fn drafts(edge: &Server) -> String {
    get(edge.at, "/v1/models").json()["data"][0]["upstream"]["drafts"].as_str().unwrap().to_owned()
}

fn by(reply: &Reply) -> (&str, &str) {
    (reply.header("x-littoral-by").unwrap(), reply.header("x-littoral-why").unwrap_or_default())
}

/// What is not one text, so that nothing is drafted for it.
fn drawn() -> Value {
    with(greedy("What does the sea say?", 20), json!({"temperature": 1, "seed": 3}))
}

fn wrote(reply: &Reply, who: &str) -> u64 {
    reply.json()["usage"]["littoral"]["tokens"][who].as_u64().unwrap_or(0)
}

#[test]
fn an_answer_is_no_longer_than_what_was_asked_for() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let padded = |said: String| said.replacen('{', &format!("{{\"x\": \"{}\", ", "x".repeat(200_000)), 1);
    let (front, switch) = switched(large.at, move |state, path, _| match (state, path) {
        (1.., "/v1/completions") => Act::Edit(|body| body, padded),
        _ => Act::Pass,
    });
    let (edge, state) = below(&dir, "near.gguf", front.at, &["--upstream-drafts", "2"]);
    assert_eq!(state, "on");
    switch.store(1, SeqCst);
    // The small model goes on.
    let reply = post(edge.at, CHAT, &greedy("What does the sea say?", 30));
    assert!(reply.status == 200 && wrote(&reply, "upstream") == 0 && wrote(&reply, "here") > 0, "{}", reply.body);
    let (_edge, state) = below(&dir, "near.gguf", front.at, &[]);
    let line = "off: drafts cannot be verified there: by `prompt_logprobs` an answer of at most ";
    let bytes = state.strip_prefix(line).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    assert!(bytes.is_some_and(|bytes| (65_536..200_000).contains(&bytes)), "{state}");
}

#[test]
fn another_model_at_the_same_place_is_noticed_and_looked_at_anew() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let (front, switch) = switched(large.at, |state, path, _| match (state, path) {
        (1, "/v1/completions") => {
            Act::Edit(|body| body, |said| said.replace("\"model\":\"tiny\"", "\"model\":\"other\""))
        }
        (2, _) => Act::Edit(
            |body| body.replace("\"model\":\"third\"", "\"model\":\"tiny\""),
            |said| {
                said.replace("\"model\":\"tiny\"", "\"model\":\"third\"").replace("\"id\":\"tiny\"", "\"id\":\"third\"")
            },
        ),
        _ => Act::Pass,
    });
    let (edge, state) = below(&dir, "near.gguf", front.at, &["--upstream-drafts", "2"]);
    assert_eq!(state, "on");
    let body = greedy("What does the sea say?", 30);
    assert!(wrote(&post(edge.at, CHAT, &body), "upstream") > 0);
    switch.store(1, SeqCst);
    let reply = post(edge.at, CHAT, &body);
    assert!(reply.status == 200 && wrote(&reply, "upstream") == 0 && wrote(&reply, "here") > 0, "{}", reply.body);
    let why = "off: another model answers there: `other`, and it was `tiny` when it was looked at";
    assert_eq!(drafts(&edge), why);
    // It still answers as a whole.
    let reply = post(edge.at, CHAT, &body);
    assert!(by(&reply).0 == "upstream" && reply.json()["usage"]["littoral"]["exact"].is_null(), "{}", reply.body);
    until("it is not looked at anew", || drafts(&edge) == "on");
    assert!(wrote(&post(edge.at, CHAT, &body), "upstream") > 0);
    // By its list alone.
    switch.store(2, SeqCst);
    let why = "off: another model is listed there: `third`, and it was `tiny` when it was looked at";
    until("its list is not looked at", || drafts(&edge) == why);
    until("it is not looked at anew", || drafts(&edge) == "on");
}

/// Whether or not it is drafted for: what it says is heeded by all.
#[test]
fn a_server_that_wants_to_be_left_alone_is() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    for (draft, body) in [("off", drawn()), ("2", greedy("What does the sea say?", 30))] {
        let busy = json!({"error": {"message": "too many"}});
        let (front, switch) = switched(large.at, move |state, path, _| match (state, path) {
            (seconds @ 1.., "/v1/completions" | CHAT) => {
                Act::say("429 Too Many Requests", &format!("retry-after: {seconds}\r\n"), &busy)
            }
            _ => Act::Pass,
        });
        let (edge, _) = below(&dir, "near.gguf", front.at, &["--upstream-drafts", draft]);
        until("the server above is not asked", || by(&post(edge.at, CHAT, &body)).0 == "upstream");
        switch.store(8, SeqCst);
        let (before, begun) = (front.posts(), Instant::now());
        let reply = post(edge.at, CHAT, &body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        if draft == "off" {
            let why = "the cloud cannot be reached: the edge answers (429 Too Many Requests, to be asked again in 8 s)";
            assert_eq!(by(&reply), ("here", why));
        } else {
            assert!(wrote(&reply, "here") > 0, "{}", reply.body);
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "nobody waits for so long");
        let asked = front.posts();
        assert!(asked > before && asked <= before + 3, "{asked} after {before}");
        let until_then = front.last_post();
        switch.store(0, SeqCst);
        until("it is not asked again", || {
            let reply = post(edge.at, CHAT, &body);
            let away = by(&reply).0 == "upstream";
            assert!(away || until_then.elapsed() < Duration::from_secs(20), "{}", by(&reply).1);
            let early = front.posts() > asked && until_then.elapsed() < Duration::from_millis(7_900);
            assert!(!early, "it was asked {:?} after it had said 8 s", until_then.elapsed());
            away
        });
    }
}

/// A short pause is waited out, and nobody hears of it.
#[test]
fn a_short_pause_is_waited_out() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let refusals = AtomicU8::new(0);
    let (front, switch) = switched(large.at, move |state, path, _| {
        match path == CHAT && state == 1 && refusals.fetch_add(1, SeqCst) == 0 {
            true => Act::say("503 Service Unavailable", "retry-after: 1\r\n", &json!({})),
            false => Act::Pass,
        }
    });
    let (edge, _) = below(&dir, "near.gguf", front.at, &["--upstream-drafts", "off"]);
    until("the server above is not asked", || by(&post(edge.at, CHAT, &drawn())).0 == "upstream");
    switch.store(1, SeqCst);
    let (before, begun) = (front.posts(), Instant::now());
    let reply = post(edge.at, CHAT, &drawn());
    assert_eq!((by(&reply).0, front.posts()), ("upstream", before + 2));
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

/// Its list answers, and nothing else does.
#[test]
fn a_server_that_hangs_is_given_up() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let begun = "data: {\"choices\": []}\n\n";
    for draft in ["off", "2"] {
        let (front, switch) = switched(large.at, move |state, path, _| match (state, path) {
            (1, "/v1/completions" | CHAT) => Act::Hang,
            (2, CHAT) => Act::Begin(begun),
            _ => Act::Pass,
        });
        let args = ["--upstream-drafts", draft, "--upstream-timeout", "1s"];
        let (edge, _) = below(&dir, "near.gguf", front.at, &args);
        let body = if draft == "off" { drawn() } else { greedy("What does the sea say?", 30) };
        let streamed = with(body.clone(), json!({"stream": true, "stream_options": {"include_usage": true}}));
        until("the server above is not asked", || by(&post(edge.at, CHAT, &body)).0 == "upstream");
        if draft == "off" {
            // One that has begun cannot go on here.
            switch.store(2, SeqCst);
            let said = post(edge.at, CHAT, &streamed).body;
            assert!(said.starts_with(begun) && said.contains("it was silent for 1"), "{said}");
            assert!(said.trim_end().rsplit("\n\n").next().unwrap().starts_with("data: {\"error\":"), "{said}");
        }
        switch.store(1, SeqCst);
        let from = Instant::now();
        let reply = post(edge.at, CHAT, &streamed);
        assert!(from.elapsed() < Duration::from_secs(20), "{:?}", from.elapsed());
        assert!(reply.status == 200 && reply.body.ends_with("data: [DONE]\n\n"), "{}", reply.body);
        if draft == "off" {
            let (who, why) = by(&reply);
            let expected = "the cloud cannot be reached: the edge answers (no answer within 1";
            assert!(who == "here" && why.starts_with(expected), "{who}, {why}");
        } else {
            assert!(
                reply.body.contains("\"tokens\":{\"here\":30}") && !reply.body.contains("{\"by\":\"upstream\"}"),
                "{}",
                reply.body
            );
        }
    }
}

/// Whoever reads a stream is never left to take a part of it for the whole.
#[test]
fn a_stream_without_its_end_ends_with_an_error() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let (front, switch) = switched(large.at, move |state, path, _| match (state, path) {
        (1, CHAT) => Act::events("data: {\"choices\": []}\n\ndata: {\"ch"),
        (2, CHAT) => Act::events("data: {\"choices\": []}\n\ndata: {\"error\": {\"message\": \"its own\"}}\n\n"),
        (3, CHAT) => Act::events("data: {\"choices\": []}\r\n\r\ndata: [DONE]\r\n"),
        (4, CHAT) => Act::Begin("data: {\"choices\": []}\n\n"),
        _ => Act::Pass,
    });
    let (edge, _) = below(&dir, "near.gguf", front.at, &["--upstream-drafts", "off", "--grace", "200ms"]);
    until("the server above is not asked", || by(&post(edge.at, CHAT, &drawn())).0 == "upstream");
    let streamed = with(drawn(), json!({"stream": true}));
    let events = |state: u8| -> Vec<String> {
        switch.store(state, SeqCst);
        let said = post(edge.at, CHAT, &streamed).body.replace("\r\n", "\n");
        said.trim_end().split("\n\n").map(str::to_owned).collect()
    };
    let told = events(1);
    assert!(told.len() == 2 && told[1].contains("the server above broke off: its stream ended before"), "{told:?}");
    let error: Value = serde_json::from_str(told[1].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["type"], "server_error");
    let told = events(2);
    assert!(told.len() == 2 && told[1].contains("its own"), "{told:?}");
    let told = events(3);
    assert!(told.len() == 2 && told[1] == "data: [DONE]", "{told:?}");
    // This server is stopped in the middle.
    switch.store(4, SeqCst);
    let mut answer = stream(edge.at, CHAT, &drawn());
    answer.event().unwrap();
    edge.ask_to_stop();
    let last = answer.events().pop().unwrap();
    assert!(last.contains("shutting_down"), "{last}");
    assert_eq!(edge.end(), Some(0));
}

/// A portal's page before the network, a proxy's empty answer: none of it is passed on as an answer.
#[test]
fn what_is_no_answer_is_none_whatever_its_status_says() {
    let (_folder, dir) = models();
    let large = serve(&dir, "large.gguf", &[]);
    let say = |status: &str, media: &str, body: &str| {
        Act::Say(status.into(), format!("content-type: {media}\r\n"), body.into())
    };
    let (front, switch) = switched(large.at, move |state, path, _| match (state, path) {
        (1, CHAT) => say("200 OK", "text/html", "<html>log in</html>"),
        (2, CHAT) => say("200 OK", "application/json", ""),
        (3, CHAT) => say("200 OK", "application/json", "{\"choices\": [{\"message\""),
        (4, CHAT) => say("204 No Content", "application/json", ""),
        (5, CHAT) => say("200 OK", "application/json", "{}"),
        (6, CHAT) => Act::events("data: [DONE]\n\n"),
        _ => Act::Pass,
    });
    let (edge, _) = below(&dir, "near.gguf", front.at, &["--upstream-drafts", "off"]);
    let streamed = with(drawn(), json!({"stream": true}));
    for (state, body) in
        [(1, drawn()), (1, streamed.clone()), (2, drawn()), (3, drawn()), (4, drawn()), (5, streamed), (6, drawn())]
    {
        switch.store(0, SeqCst);
        until("the server above is not asked", || by(&post(edge.at, CHAT, &drawn())).0 == "upstream");
        switch.store(state, SeqCst);
        let reply = post(edge.at, CHAT, &body);
        let (who, why) = by(&reply);
        assert!(
            reply.status == 200 && who == "here" && why.contains("expected"),
            "{state}: {who}, {why}: {}",
            reply.body
        );
    }
}
