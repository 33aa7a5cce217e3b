//! A server that is asked to stop finishes what it has begun.

use super::ask::{CHAT, chat, with};
use super::client::{get, post, stream};
use super::server::Server;
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn what_has_begun_is_finished_and_nothing_new_is_taken() {
    let server = Server::start(&[]);
    let long = json!({"max_tokens": 8_000, "logit_bias": {"257": -100}});
    let mut answer = stream(server.at, CHAT, &with(chat("long"), long));
    answer.event().unwrap();
    answer.event().unwrap();
    server.ask_to_stop();
    let begun = Instant::now();
    while get(server.at, "/readyz").status != 503 {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let refused = post(server.at, CHAT, &chat("late"));
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.json()["error"]["code"], "shutting_down");
    assert_eq!(get(server.at, "/healthz").status, 200);
    let events = answer.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert!(events[events.len() - 2].contains("\"finish_reason\":\"length\""));
    assert_eq!(server.end(), Some(0));
}

#[test]
fn after_the_time_of_grace_answers_are_cut_short_and_say_so() {
    let server = Server::start(&["--grace", "200ms"]);
    let endless = json!({"max_tokens": 60_000, "logit_bias": {"257": -100}});
    let mut answer = stream(server.at, CHAT, &with(chat("endless"), endless));
    answer.event().unwrap();
    server.ask_to_stop();
    let last = answer.events().pop().unwrap();
    assert!(last.contains("shutting_down"), "{last}");
    assert_eq!(server.end(), Some(0));
}
