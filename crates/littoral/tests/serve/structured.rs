//! Text that must have a form.

use super::ask::{CHAT, COMPLETION, chat, text, with};
use super::client::{answer, post, stream};
use super::server::{Folder, Server, binary};
use super::tiny;
use serde_json::{Value, json};

/// Whatever the model would write, this has an end.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"verdict": {"enum": ["yes", "no"]}, "age": {"type": "integer", "minimum": 3, "maximum": 120}, "sure": {"type": "boolean"}},
        "required": ["verdict", "age", "sure"],
        "additionalProperties": false,
    })
}

fn json_schema(schema: Value) -> Value {
    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": true}}})
}

fn seeded(seed: u64, fields: Value) -> Value {
    with(with(chat("form"), json!({"seed": seed, "max_tokens": 200})), fields)
}

#[test]
fn a_schema_is_followed_to_its_end() {
    let server = Server::start(&[]);
    for seed in 0..6 {
        let reply = answer(server.at, CHAT, &seeded(seed, json_schema(schema())));
        let value: Value = serde_json::from_str(text(&reply, 0)).unwrap_or_else(|e| panic!("{e}: {reply}"));
        assert_eq!(reply["choices"][0]["finish_reason"], "stop");
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["verdict", "age", "sure"], "in the schema's order");
        assert!((3..=120).contains(&value["age"].as_i64().unwrap()), "{value}");
    }
    // Streamed, and as a completion, it is the same.
    let body = seeded(1, json_schema(schema()));
    let whole = answer(server.at, CHAT, &body);
    let events = stream(server.at, CHAT, &body).events();
    let pieces = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let streamed: String =
        pieces.filter_map(|part| part["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect();
    assert_eq!(streamed, text(&whole, 0));
    let body = with(json!({"prompt": "x", "max_tokens": 200}), json!({"structured_outputs": {"json": schema()}}));
    assert!(serde_json::from_str::<Value>(text(&answer(server.at, COMPLETION, &body), 0)).is_ok());
}

#[test]
fn a_text_that_is_cut_short_says_so() {
    let server = Server::start(&[]);
    let reply = answer(server.at, CHAT, &with(seeded(1, json_schema(schema())), json!({"max_tokens": 5})));
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
    assert!(text(&reply, 0).starts_with('{'), "{reply}");
    let reply = answer(server.at, CHAT, &seeded(1, json!({"response_format": {"type": "json_object"}})));
    assert!(text(&reply, 0).starts_with('{'), "{reply}");
}

#[test]
fn other_forms_are_those_of_vllm() {
    let server = Server::start(&[]);
    let said = |form: Value| {
        let reply = answer(server.at, CHAT, &seeded(3, json!({"structured_outputs": form})));
        assert_eq!(reply["choices"][0]["finish_reason"], "stop");
        text(&reply, 0).to_owned()
    };
    assert!(["red", "green \"x\""].contains(&said(json!({"choice": ["red", "green \"x\""]})).as_str()));
    let date = said(json!({"regex": "[0-9]{4}-[0-9]{2}"}));
    assert!(date.len() == 7 && date.as_bytes()[4] == b'-', "{date}");
    let nested = said(json!({"grammar": "start: \"(\" start \")\" | \"a\" | \"b\""}));
    assert_eq!(nested.matches('(').count(), nested.matches(')').count(), "{nested}");
    assert!(serde_json::from_str::<Value>(&said(json!({"json": schema().to_string()}))).is_ok());
}

/// The same seed gives the same text, alone and while others write, with forms and without.
#[test]
fn a_form_changes_nobodys_text() {
    let server = Server::start(&[]);
    let body = |client: u64| match client % 4 {
        0 => seeded(client, json_schema(schema())),
        1 => seeded(client, json!({"structured_outputs": {"regex": "([a-f]{3,9} ){4}"}})),
        2 => seeded(client, json!({"structured_outputs": {"regex": "([a-f]{3,9} ){4}"}, "n": 2, "temperature": 0.5})),
        _ => seeded(client, json!({})),
    };
    let said = |client: u64| answer(server.at, CHAT, &body(client))["choices"].clone();
    let alone: Vec<Value> = (0..8).map(said).collect();
    std::thread::scope(|scope| {
        let together: Vec<_> = (0..8).map(|client| scope.spawn(move || said(client))).collect();
        let together: Vec<Value> = together.into_iter().map(|one| one.join().unwrap()).collect();
        assert_eq!(together, alone);
    });
    // The second choice is what the next seed gives by itself.
    let second = answer(server.at, CHAT, &with(body(2), json!({"seed": 3, "n": 1})));
    assert_eq!(text(&second, 0), alone[2][1]["message"]["content"]);
}

#[test]
fn a_form_that_cannot_be_is_refused_by_name() {
    let server = Server::start(&[]);
    let told = |fields: Value, param: &str| {
        let reply = post(server.at, CHAT, &with(chat("x"), fields.clone()));
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["param"]), (400, &json!(param)), "{fields}: {error}");
        error["message"].as_str().unwrap().to_owned()
    };
    let format = "response_format";
    let message = told(json_schema(json!({"type": "strong"})), format);
    assert!(message.contains("strong"), "{message}");
    let message = told(json_schema(json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}})), format);
    assert!(message.contains("$defs/none"), "{message}");
    told(json_schema(json!("x")), "response_format.json_schema.schema");
    let nameless = json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}});
    told(nameless, "response_format.json_schema.name");
    told(json!({"response_format": "json"}), format);
    let structured = "structured_outputs";
    let message = told(json!({"structured_outputs": {"regex": "a(b"}}), structured);
    assert!(message.contains("unclosed group"), "{message}");
    told(json!({"structured_outputs": {"grammar": "start: nothing"}}), structured);
    told(json!({"structured_outputs": {"regex": "a", "choice": ["b"]}}), structured);
    told(json!({"structured_outputs": {"choice": []}}), structured);
    told(json!({"structured_outputs": {"colour": "red"}}), structured);
    told(with(json_schema(schema()), json!({"structured_outputs": {"regex": "a"}})), structured);
}

/// No text begins so, which is seen when the request is checked; or goes on so, which is seen only when it is written.
#[test]
fn a_form_that_leads_nowhere_is_the_requests_fault() {
    let server = Server::start(&[]);
    let told = |fields: Value, param: Value| {
        let reply = post(server.at, CHAT, &with(seeded(1, json!({})), fields.clone()));
        let error = reply.json()["error"].clone();
        let expected = (400, &json!("invalid_request_error"), &param);
        assert_eq!((reply.status, &error["type"], &error["param"]), expected, "{fields}: {error}");
        assert!(error["message"].as_str().unwrap().contains("no token can come next"), "{error}");
    };
    told(json_schema(json!({"$ref": "#"})), json!("response_format"));
    told(json!({"structured_outputs": {"grammar": "start: start"}}), json!("structured_outputs"));
    let later = json!({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]});
    told(json_schema(later.clone()), Value::Null);
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": later}});
    told(json!({"tools": [tool], "tool_choice": "required"}), Value::Null);
    let events = stream(server.at, CHAT, &with(seeded(1, json!({})), json_schema(later))).events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["type"], "invalid_request_error", "{last}");
}

#[test]
fn run_follows_a_form_too() {
    let folder = Folder::new();
    let model = folder.write("tiny.gguf", tiny::gguf(true));
    let run = |args: &[&str]| {
        let output = binary().args(["--json", "run"]).arg(&model).arg("x").args(args).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, said) = run(&["--regex", "[0-9]{4}-[a-c]{3}"]);
    let text = said["text"].as_str().unwrap();
    assert!(code == Some(0) && text.len() == 8 && text.as_bytes()[4] == b'-', "{said}");
    let file = folder.write("schema.json", schema().to_string());
    let (_, said) = run(&["--json-schema", file.to_str().unwrap()]);
    assert!(serde_json::from_str::<Value>(said["text"].as_str().unwrap()).unwrap()["sure"].is_boolean());
    let file = folder.write("bad.lark", "start: nothing");
    let (code, said) = run(&["--grammar", file.to_str().unwrap()]);
    assert_eq!((code, &said["error"]["where"]), (Some(1), &json!(file.to_str().unwrap())), "{said}");
    let absent = run(&["--json-schema", "/nowhere/schema.json"]);
    assert_eq!((absent.0, &absent.1["error"]["where"]), (Some(1), &json!("/nowhere/schema.json")));
}
