//! A chat template out of a stranger's model file, and after a zero byte what somebody says in the chat.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_model::text::{ChatTemplate, Json, Kind, Prompt, Tokeniser, Vocabulary};
use std::sync::LazyLock;

static TOKENISER: LazyLock<Tokeniser> = LazyLock::new(|| {
    let mut tokens: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    tokens.extend(["<|im_start|>", "<|im_end|>", "</s>"].map(String::from));
    Tokeniser::new(&Vocabulary {
        model: "llama",
        scores: vec![0.0; tokens.len()],
        kinds: [vec![Kind::Byte; 256], vec![Kind::Control; 3]].concat(),
        tokens: tokens.iter().map(String::as_str).collect(),
        bos: Some(256),
        eos: Some(257),
        add_bos: Some(false),
        ..Vocabulary::default()
    })
    .expect("a tokeniser of bytes")
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (source, said) = text.split_once('\0').unwrap_or((text, "hello"));
    let template = match ChatTemplate::new(source) {
        Ok(template) => template,
        Err(error) => return one_line(error),
    };
    let tool = serde_json::json!({"type": "function", "function": {"name": said, "parameters": {"type": "object"}}});
    let messages = [Json::message("system", "be kind"), Json::message("user", said)];
    let prompt = Prompt {
        messages: &messages,
        tools: &[Json::new(&tool)],
        add_generation_prompt: true,
        bos: "<|im_start|>",
        eos: "<|im_end|>",
        now: Some(1_700_000_000),
        ..Prompt::default()
    };
    match (template.render(&prompt), template.ids(&prompt, &TOKENISER)) {
        (Ok(text), Ok(ids)) if !said.contains('<') => assert_eq!(ids, TOKENISER.encode(&text, true)),
        (Ok(_), Ok(ids)) => assert!(ids.iter().all(|id| (*id as usize) < TOKENISER.len())),
        (text, ids) => [text.err(), ids.err()].into_iter().flatten().for_each(one_line),
    }
});
