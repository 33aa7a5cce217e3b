//! What a model writes where it may call functions. The first byte chooses what was asked for, the second the pieces in
//! which the text comes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::tiny;
use littoral_infer::model::Model;
use littoral_node::serve::fuzzed::{Ask, Calls, Form, Heard, Kind};
use littoral_tensor::pool::Pool;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// As the model likes, at most one, and one that it must.
static FORMS: LazyLock<[Form; 3]> = LazyLock::new(|| {
    let model = Model::load(&tiny::gguf(true), &Pool::new(1), &mut |_| {}).expect("a model of our own");
    [("auto", true), ("auto", false), ("required", true)].map(|(choice, parallel)| {
        let tools = ["f", "weather"].map(|name| json!({"type": "function", "function": {"name": name}}));
        let body = json!({
            "messages": [{"role": "user", "content": "x"}], "tools": tools, "tool_choice": choice,
            "parallel_tool_calls": parallel, "max_tokens": 1
        });
        let ask = Ask::read(Kind::Chat, body.to_string().as_bytes(), &model, "tiny");
        ask.ok().and_then(|ask| ask.calls).expect("tools of our own")
    })
});

#[derive(Debug, Default, PartialEq)]
struct Told {
    text: String,
    calls: Vec<(String, String)>,
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[choice, pieces], text)) = bytes.split_first_chunk() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let choice = usize::from(choice) % FORMS.len();
    let whole = told(&FORMS[choice], text, usize::MAX);
    assert_eq!(whole, told(&FORMS[choice], text, usize::from(pieces).max(1)), "in one piece and in many");
    if choice == 2 {
        // Such a text was made to have the form, so that nothing checks it.
        return;
    }
    assert!(whole.calls.len() <= [16, 1][choice]);
    for (name, arguments) in &whole.calls {
        assert!(name == "f" || name == "weather");
        assert!(serde_json::from_str::<Value>(arguments).is_ok_and(|arguments| arguments.is_object()));
    }
    assert!(!whole.calls.is_empty() || whole.text == text, "words that were lost");
});

fn told(form: &Form, text: &str, pieces: usize) -> Told {
    let mut calls = Calls::new(form.clone());
    let characters: Vec<char> = text.chars().collect();
    let mut heard: Vec<Heard> = Vec::new();
    for piece in characters.chunks(pieces) {
        heard.extend(calls.push(&piece.iter().collect::<String>()));
    }
    heard.extend(calls.finish());
    let mut told = Told::default();
    for one in heard {
        match one {
            Heard::Text(piece) => told.text += &piece,
            Heard::Call { index, name } => {
                assert_eq!(index, told.calls.len());
                told.calls.push((name, String::new()));
            }
            Heard::Arguments { index, piece } => told.calls[index].1 += &piece,
        }
    }
    assert_eq!(calls.count(), told.calls.len());
    told
}
