//! A language model of a few kilobytes, what is asked of it, and what it says.
#![allow(dead_code, reason = "each test takes what it needs")]

use littoral_infer::engine::{Engine, Event, Finish, Limits, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::sample::SamplingParams;
use littoral_model::lm::CacheType;
use littoral_tensor::gguf::{Value, Writer};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::Kind;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const VOCABULARY: usize = 64;
pub const WIDTH: usize = 32;
pub const CONTEXT: u32 = 96;

/// A file of the Llama family: weights drawn from a seed, one letter a token.
pub fn file(layers: u32) -> Vec<u8> {
    file_of(layers, CONTEXT)
}

/// The same with another context.
pub fn file_of(layers: u32, context: u32) -> Vec<u8> {
    let mut seed = 5u64;
    let mut floats = |count: usize, around: f32| -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = ((seed >> 40) as f32) / (1 << 23) as f32 - 1.0;
            bytes.extend((around + 0.4 * draw).to_le_bytes());
        }
        bytes
    };
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![WIDTH, VOCABULARY], floats(WIDTH * VOCABULARY, 0.0)),
        ("output_norm.weight".to_owned(), vec![WIDTH], floats(WIDTH, 1.0)),
    ];
    for layer in 0..layers {
        for norm in ["attn_norm", "ffn_norm"] {
            tensors.push((format!("blk.{layer}.{norm}.weight"), vec![WIDTH], floats(WIDTH, 1.0)));
        }
        for (name, columns, rows) in [
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, 16),
            ("attn_v", WIDTH, 16),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", WIDTH, 48),
            ("ffn_up", WIDTH, 48),
            ("ffn_down", 48, WIDTH),
        ] {
            let name = format!("blk.{layer}.{name}.weight");
            tensors.push((name, vec![columns, rows], floats(columns * rows, 0.0)));
        }
    }
    let mut writer = Writer::new();
    let text = [("general.architecture", "llama"), ("general.name", "tiny"), ("tokenizer.ggml.model", "gpt2")];
    for (key, value) in text {
        writer.set(key, Value::Str(value)).unwrap();
    }
    for (key, value) in [
        ("llama.block_count", layers),
        ("llama.embedding_length", WIDTH as u32),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
        ("llama.feed_forward_length", 48),
        ("llama.context_length", context),
        ("tokenizer.ggml.eos_token_id", VOCABULARY as u32 - 1),
    ] {
        writer.set(key, Value::U32(value)).unwrap();
    }
    writer.set("tokenizer.ggml.pre", Value::Str("gpt-2")).unwrap();
    writer.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)).unwrap();
    let mut tokens: Vec<String> = (0..VOCABULARY as u8).map(|i| ((b'!' + i) as char).to_string()).collect();
    tokens[VOCABULARY - 2] = "!#".into();
    writer.strings("tokenizer.ggml.tokens", tokens.iter().map(String::as_str)).unwrap();
    writer.strings("tokenizer.ggml.merges", ["! #"]).unwrap();
    for (name, dims, bytes) in &tensors {
        writer.tensor(name, dims, Kind::F32, bytes).unwrap();
    }
    let mut out = Vec::new();
    writer.write(&mut out).unwrap();
    out
}

pub fn model(layers: u32) -> Arc<Model> {
    Arc::new(Model::load(&file(layers), &Pool::new(1), &mut |_| ()).unwrap())
}

pub fn request(seed: u32, prompt_tokens: usize, max_tokens: usize) -> Request {
    Request {
        prompt: (0..prompt_tokens as u32).map(|i| (i * (seed + 3) + seed) % (VOCABULARY as u32 - 1)).collect(),
        max_tokens,
        sampling: SamplingParams { seed: seed.into(), ..SamplingParams::default() },
        constraint: None,
        top_logprobs: None,
        ignore_end: true,
    }
}

/// What each sequence was given, and how it ended.
pub type Texts = BTreeMap<SequenceId, (Vec<u32>, Option<Finish>)>;

pub fn hear(events: Vec<Event>, texts: &mut Texts) {
    for event in events {
        match event {
            Event::Started { sequence, .. } => drop(texts.entry(sequence).or_default()),
            Event::Token { sequence, id, .. } => texts.get_mut(&sequence).unwrap().0.push(id),
            Event::Tried { .. } => {}
            Event::Embedded { .. } => panic!("nobody asked for a vector"),
            Event::Finished { sequence, why } => texts.get_mut(&sequence).unwrap().1 = Some(why),
        }
    }
}

/// What one engine writes if nothing else runs.
pub fn alone(model: &Arc<Model>, request: Request) -> (Vec<u32>, Option<Finish>) {
    let (mut engine, mut texts) =
        (Engine::new(model.clone(), CacheType::F16, Limits::default()).unwrap(), Texts::new());
    engine.submit(request).unwrap();
    while !engine.idle() {
        hear(engine.step(&Pool::new(1)), &mut texts);
    }
    texts.into_values().next().unwrap()
}
