//! The body of an HTTP request in OpenAI's words. The first byte chooses what is asked, and of a model with tools or without.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::tiny;
use littoral_infer::model::Model;
use littoral_node::serve::fuzzed::{Ask, Asked, Kind, Refusal, Vectors};
use littoral_tensor::pool::Pool;
use std::sync::LazyLock;

const TEMPLATE: &str = "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m | tojson }}\
                        {% endfor %}";

static MODELS: LazyLock<[Model; 2]> = LazyLock::new(|| {
    [tiny::gguf(true), tiny::gguf_with(Some(TEMPLATE))]
        .map(|file| Model::load(&file, &Pool::new(1), &mut |_| {}).expect("a model of our own"))
});

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    let (model, refused) = (&MODELS[usize::from(choice / 3 % 2)], |refusal: Refusal| {
        assert!(refusal.status.is_client_error());
        assert!(refusal.to_json()["error"]["message"].as_str().is_some_and(|said| !said.is_empty()));
    });
    let (context, vocabulary) = (model.context(), model.tokeniser.len() as u32);
    let kind = match choice % 3 {
        0 => Kind::Chat,
        1 => Kind::Completion,
        _ => {
            if let Ok(read) = Vectors::read(body, model, "tiny").map_err(refused) {
                assert_eq!(read.prompt_tokens, read.texts.iter().map(Vec::len).sum::<usize>());
            }
            return;
        }
    };
    let Ok(ask) = Ask::read(kind, body, model, "tiny").map_err(refused) else { return };
    assert!((1..=16).contains(&ask.asked.len()));
    for asked in &ask.asked {
        let Asked::Text { request, .. } = asked else { panic!("vectors were not asked for") };
        assert!(request.prompt.len() + request.max_tokens <= context);
        // Ids that a client wrote itself are looked at where a request is taken in.
        assert!(kind == Kind::Completion || request.prompt.iter().all(|id| *id < vocabulary));
    }
});
