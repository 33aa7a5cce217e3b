//! What cannot be done is refused by name, in OpenAI's shape.

use super::ask::{CHAT, COMPLETION, chat, with};
use super::client::{get, open, post};
use super::server::{Folder, Server, not_started};
use super::tiny;
use serde_json::{Value, json};

#[test]
fn a_wrong_field_is_named() {
    let server = Server::start(&[]);
    let check = |path: &str, fields: Value, status: u16, param: &str, code: &str| {
        let body = if path == CHAT { chat("x") } else { json!({"prompt": "x"}) };
        let reply = post(server.at, path, &with(body, fields.clone()));
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["param"], &error["code"]), (status, &json!(param), &json!(code)), "{fields}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(!error["message"].as_str().unwrap().is_empty());
    };
    let wrong = "invalid_value";
    check(CHAT, json!({"temperature": 3}), 400, "temperature", wrong);
    check(CHAT, json!({"temperature": "hot"}), 400, "temperature", wrong);
    check(CHAT, json!({"top_p": -1}), 400, "top_p", wrong);
    check(CHAT, json!({"n": 0}), 400, "n", wrong);
    check(CHAT, json!({"n": 1000}), 400, "n", wrong);
    check(CHAT, json!({"max_tokens": 0}), 400, "max_tokens", wrong);
    check(CHAT, json!({"stop": ""}), 400, "stop", wrong);
    check(CHAT, json!({"stop": ["a", "b", "c", "d", "e"]}), 400, "stop", wrong);
    check(CHAT, json!({"logit_bias": {"259": 1}}), 400, "logit_bias", wrong);
    check(CHAT, json!({"logit_bias": {"1": 101}}), 400, "logit_bias", wrong);
    check(CHAT, json!({"top_logprobs": 2}), 400, "top_logprobs", wrong);
    check(CHAT, json!({"logprobs": true, "top_logprobs": 21}), 400, "top_logprobs", wrong);
    check(CHAT, json!({"seed": 1.5}), 400, "seed", wrong);
    check(CHAT, json!({"stream_options": {}}), 400, "stream_options", wrong);
    check(CHAT, json!({"messages": []}), 400, "messages", wrong);
    check(CHAT, json!({"messages": null}), 400, "messages", "missing_required_parameter");
    check(CHAT, json!({"messages": [{"role": "king", "content": ""}]}), 400, "messages[0].role", wrong);
    check(CHAT, json!({"messages": [{"role": "user", "content": 1}]}), 400, "messages[0].content", wrong);
    check(CHAT, json!({"colour": "red"}), 400, "colour", "unknown_parameter");
    check(CHAT, json!({"model": "other"}), 404, "model", "model_not_found");
    check(COMPLETION, json!({"prompt": ""}), 400, "prompt", wrong);
    check(COMPLETION, json!({"prompt": [259]}), 400, "prompt", wrong);
    check(COMPLETION, json!({"prompt": {}}), 400, "prompt", wrong);
    check(COMPLETION, json!({"max_tokens": tiny::CONTEXT}), 400, "prompt", "context_length_exceeded");
    let unsupported = "unsupported_value";
    check(CHAT, json!({"response_format": {"type": "xml"}}), 400, "response_format", unsupported);
    check(CHAT, json!({"tools": [{"type": "web_search"}]}), 400, "tools[0].type", unsupported);
    check(COMPLETION, json!({"echo": true, "stream": true}), 400, "echo", unsupported);
    check(COMPLETION, json!({"suffix": "x"}), 400, "suffix", unsupported);
    let picture = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
    check(CHAT, json!({"messages": [{"role": "user", "content": picture}]}), 400, "messages[0].content", unsupported);

    // What says nothing new is no fault.
    let fine = json!({"user": "u", "stop": null, "tools": [], "response_format": {"type": "text"}, "n": null});
    assert_eq!(post(server.at, CHAT, &with(chat("x"), fine)).status, 200);
}

#[test]
fn an_overflow_is_told_with_its_numbers() {
    let server = Server::start(&[]);
    let long = "x".repeat(tiny::CONTEXT as usize);
    for (path, body) in [(CHAT, with(chat(&long), json!({"max_tokens": null}))), (COMPLETION, json!({"prompt": long}))]
    {
        let reply = post(server.at, path, &body);
        assert_eq!(reply.status, 400);
        let error = &reply.json()["error"];
        assert_eq!(error["code"], "context_length_exceeded");
        assert!(error["message"].as_str().unwrap().contains("maximum context length is 65536 tokens"), "{error}");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let server = Server::start(&[]);
    let status = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let reply = open(server.at, method, path, headers, body).whole();
        assert!(reply.json()["error"]["message"].is_string(), "{}", reply.body);
        reply.status
    };
    assert_eq!(status("GET", "/v1/elsewhere", &[], ""), 404);
    assert_eq!(status("GET", "/v1/models/other", &[], ""), 404);
    assert_eq!(status("DELETE", CHAT, &[], ""), 405);
    assert_eq!(status("POST", CHAT, &[], "{"), 400);
    assert_eq!(status("POST", CHAT, &[], "[]"), 400);
    assert_eq!(status("POST", CHAT, &[("content-type", "text/plain")], "{}"), 415);
    assert_eq!(status("POST", CHAT, &[], &" ".repeat((4 << 20) + 1)), 413);
}

#[test]
fn a_model_without_a_template_does_not_chat() {
    let folder = Folder::new();
    let model = folder.write("plain.gguf", tiny::gguf(false));
    let server = Server::of(folder, &model, &[]);
    let reply = post(server.at, CHAT, &with(chat("x"), json!({"model": "plain"})));
    assert_eq!(reply.status, 400);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("/v1/completions"));
    assert_eq!(post(server.at, COMPLETION, &json!({"prompt": "x"})).status, 200);
    assert_eq!(get(server.at, "/healthz").body, "ok\n");
}

#[test]
fn a_machine_that_stands_twice_is_refused_at_the_start() {
    let at = format!("{}@127.0.0.1:9", "ab".repeat(32));
    for flag in ["--stage", "--upstream"] {
        let output = not_started(&[flag, &at, flag, &at]);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        assert!(said.contains(flag) && said.contains("each machine once"), "{said}");
    }
}

/// What is wrong with a URL is told without its secrets.
#[test]
fn a_password_in_a_url_is_not_shown() {
    for url in ["http://someone:hush@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?key=hush", "http://a b:hush@host"] {
        let output = not_started(&["--upstream", url]);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        assert!(said.contains("--upstream") && !said.contains("hush"), "{said}");
    }
}
