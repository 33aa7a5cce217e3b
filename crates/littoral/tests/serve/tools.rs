//! Functions that the model may ask its reader to call. The tiny model's template knows none, so they are told as text.

use super::ask::{CHAT, chat, text, with};
use super::client::{answer, post, stream};
use super::server::{Folder, Server};
use super::tiny;
use serde_json::{Value, json};

fn tools() -> Value {
    let function = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}});
    // A reference points into its own function's schema.
    let place = json!({
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city", "days"],
        "additionalProperties": false,
        "$defs": {"city": {"type": "string", "maxLength": 5}},
    });
    json!([function("weather", place), function("now", json!(null))])
}

fn asking(seed: u64, fields: Value) -> Value {
    with(with(chat("tools"), json!({"seed": seed, "max_tokens": 600, "tools": tools()})), fields)
}

fn check_calls(choice: &Value, only: Option<&str>) -> usize {
    let message = &choice["message"];
    assert!(message["content"].is_null(), "{message}");
    let calls = message["tool_calls"].as_array().unwrap_or_else(|| panic!("{choice}"));
    for call in calls {
        assert_eq!(call["type"], "function");
        assert!(call["id"].as_str().unwrap().starts_with("call_"));
        let name = call["function"]["name"].as_str().unwrap();
        assert!(only.is_none_or(|only| only == name), "{call}");
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        match name {
            "weather" => {
                assert!(arguments["city"].as_str().unwrap().chars().count() <= 5, "{arguments}");
                assert!((1..=7).contains(&arguments["days"].as_i64().unwrap()), "{arguments}");
            }
            "now" => assert_eq!(arguments, json!({})),
            other => panic!("{other}"),
        }
    }
    calls.len()
}

#[test]
fn a_call_that_is_demanded_is_a_valid_call() {
    let server = Server::start(&[]);
    let named = json!({"type": "function", "function": {"name": "weather"}});
    for seed in 0..4 {
        let one = json!({"tool_choice": "required", "parallel_tool_calls": false});
        let reply = answer(server.at, CHAT, &asking(seed, one));
        let choice = &reply["choices"][0];
        assert_eq!((check_calls(choice, None), &choice["finish_reason"]), (1, &json!("tool_calls")));
        let reply = answer(server.at, CHAT, &asking(seed, json!({"tool_choice": named, "parallel_tool_calls": false})));
        assert_eq!(check_calls(&reply["choices"][0], Some("weather")), 1);
    }
    let reply = answer(server.at, CHAT, &asking(1, json!({"tool_choice": "required", "n": 3, "max_tokens": 3000})));
    let mut ids = Vec::new();
    for choice in reply["choices"].as_array().unwrap() {
        assert!((1..=16).contains(&check_calls(choice, None)));
        ids.extend(choice["message"]["tool_calls"].as_array().unwrap().iter().map(|call| call["id"].to_string()));
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids are different");
}

#[test]
fn a_stream_of_calls_says_what_the_whole_says() {
    let server = Server::start(&[]);
    for fields in [json!({}), json!({"max_tokens": 70}), json!({"parallel_tool_calls": false, "logprobs": true})] {
        let body = asking(2, with(json!({"tool_choice": "required"}), fields));
        let whole = &answer(server.at, CHAT, &body)["choices"][0];
        let mut calls: Vec<(String, String)> = Vec::new();
        let (mut content, mut tokens, mut reason) = (String::new(), 0, Value::Null);
        for event in stream(server.at, CHAT, &body).events() {
            let Ok(part) = serde_json::from_str::<Value>(&event) else { continue };
            let choice = &part["choices"][0];
            content += choice["delta"]["content"].as_str().unwrap_or_default();
            tokens += choice["logprobs"]["content"].as_array().map_or(0, Vec::len);
            for call in choice["delta"]["tool_calls"].as_array().unwrap_or(&Vec::new()) {
                let index = call["index"].as_u64().unwrap() as usize;
                let function = &call["function"];
                if let Some(name) = function["name"].as_str() {
                    assert_eq!((index, &call["type"]), (calls.len(), &json!("function")));
                    calls.push((name.to_owned(), String::new()));
                }
                calls[index].1 += function["arguments"].as_str().unwrap();
            }
            if !choice["finish_reason"].is_null() {
                reason = choice["finish_reason"].clone();
            }
        }
        let told = whole["message"]["tool_calls"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let expected: Vec<_> =
            told.map(|call| (text(&call["function"]["name"]), text(&call["function"]["arguments"]))).collect();
        assert_eq!((calls, content.as_str(), &reason), (expected, "", &whole["finish_reason"]));
        assert_eq!(tokens, whole["logprobs"]["content"].as_array().map_or(0, Vec::len));
    }
}

#[test]
fn a_call_and_its_result_are_part_of_a_conversation() {
    let server = Server::start(&[]);
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Ulm\"}"}});
    let messages = json!([
        {"role": "user", "content": "Ulm?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]);
    let prompt_tokens =
        |body: &Value| answer(server.at, CHAT, body)["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    // A token is a byte; the template writes two tokens and two line breaks around each role and content.
    let call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}\n</tool_call>";
    let texts = ["user", "Ulm?", "assistant", call, "user", "<tool_response>\nrain\n</tool_response>", "assistant"];
    let expected = texts.iter().map(|text| text.len()).sum::<usize>() + 3 * 4 + 2;
    let body = json!({"messages": messages, "max_tokens": 1});
    assert_eq!(prompt_tokens(&body), expected);
    // Told of tools, but not with "none".
    assert!(prompt_tokens(&with(body.clone(), json!({"tools": tools()}))) > expected + 300);
    assert_eq!(prompt_tokens(&with(body, json!({"tools": tools(), "tool_choice": "none"}))), expected);
}

/// A template that knows the form is given tools and calls as they are, arguments as values.
#[test]
fn a_template_that_knows_tools_is_told_of_them_itself() {
    let template = "{% for t in tools or [] %}{{ t | tojson }}<tool_call>{% endfor %}\
        {% for m in messages %}{{ m.role }}({{ m.content }})\
        {% for c in m.tool_calls or [] %}{{ c.function.name }}:{{ c.function.arguments.city }}{% endfor %};{% endfor %}";
    let folder = Folder::new();
    let model = folder.write("tiny.gguf", tiny::gguf_with(Some(template)));
    let server = Server::of(folder, &model, &[]);
    let call =
        json!({"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Ulm\"}"}});
    let messages = json!([
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]);
    let said = "user(?);assistant()weather:Ulm;tool(rain);";
    // Keys in their order, with the spaces of Python's JSON.
    let tool = "{\"type\": \"function\", \"function\": {\"name\": \"now\"}}";
    let told: Value = serde_json::from_str(tool).unwrap();
    for (tools, expected) in [(json!([]), said.len()), (json!([told]), tool.len() + "<tool_call>".len() + said.len())] {
        let reply = answer(server.at, CHAT, &json!({"messages": messages, "tools": tools, "max_tokens": 1}));
        assert_eq!(reply["usage"]["prompt_tokens"], expected, "{tools}");
    }
}

#[test]
fn a_text_without_calls_is_text() {
    let server = Server::start(&[]);
    let free = answer(server.at, CHAT, &asking(4, json!({"max_tokens": 60})));
    assert!(free["choices"][0]["message"]["tool_calls"].is_null());
    assert!(!text(&free, 0).is_empty());
    // With a form as well, it is a call or of the form.
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [["a"], ["b"]]}}});
    for seed in 0..4 {
        let reply = answer(server.at, CHAT, &asking(seed, json!({"response_format": format, "temperature": 2})));
        let choice = &reply["choices"][0];
        match choice["message"]["content"].as_str() {
            Some(text) => {
                assert!(["[\"a\"]", "[\"b\"]"].contains(&text.replace(char::is_whitespace, "").as_str()), "{text}")
            }
            None => assert!(check_calls(choice, None) > 0),
        }
    }
}

#[test]
fn what_is_no_tool_is_refused_by_name() {
    let server = Server::start(&[]);
    let refused = |fields: Value, param: &str| {
        let reply = post(server.at, CHAT, &asking(1, fields.clone()));
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{fields}: {}", reply.body);
    };
    let tool = |name: &str, parameters: Value| json!([{"type": "function", "function": {"name": name, "parameters": parameters}}]);
    refused(json!({"tools": tool("a b", json!({}))}), "tools[0].function.name");
    refused(json!({"tools": tool("a", json!({"type": "array"}))}), "tools[0].function.parameters");
    refused(json!({"tools": [tools()[0], tools()[0]]}), "tools[1].function.name");
    refused(json!({"tools": [{"type": "web_search"}]}), "tools[0].type");
    refused(json!({"tools": "all"}), "tools");
    refused(
        json!({"tools": tool("a", json!({"properties": {"x": {"type": "strong"}}})), "tool_choice": "required"}),
        "tools",
    );
    // Where the model may call, such a function may get any object, unless it is to be strict.
    let mut loose = tool("a", json!({"properties": {"x": {"type": "strong"}}}));
    assert_eq!(post(server.at, CHAT, &asking(1, json!({"tools": loose, "max_tokens": 9}))).status, 200);
    loose[0]["function"]["strict"] = json!(true);
    refused(json!({"tools": loose}), "tools[0].function.parameters");
    loose[0]["function"]["strict"] = json!("yes");
    refused(json!({"tools": loose}), "tools[0].function.strict");
    refused(json!({"tools": [], "tool_choice": "required"}), "tool_choice");
    refused(json!({"tool_choice": "perhaps"}), "tool_choice");
    refused(json!({"tool_choice": {"type": "function", "function": {"name": "other"}}}), "tool_choice");
    refused(json!({"parallel_tool_calls": "no"}), "parallel_tool_calls");
    refused(json!({"structured_outputs": {"regex": "a"}}), "structured_outputs");
    let said = |message: Value| json!({"messages": [{"role": "user", "content": "x"}, message]});
    let call =
        |arguments: &str| json!([{"id": "1", "type": "function", "function": {"name": "now", "arguments": arguments}}]);
    refused(said(json!({"role": "tool", "content": "x", "tool_call_id": "none"})), "messages[1].tool_call_id");
    refused(said(json!({"role": "user", "content": "x", "tool_calls": call("{}")})), "messages[1].tool_calls");
    let place = "messages[1].tool_calls[0].function.arguments";
    refused(said(json!({"role": "assistant", "tool_calls": call("{")})), place);
}
