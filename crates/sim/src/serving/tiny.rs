//! Language models of a few kilobytes: one letter a token, weights drawn from a seed.

use littoral_tensor::gguf::{Value, Writer};
use littoral_tensor::quant::Kind;

pub(super) const VOCABULARY: usize = 64;
pub(super) const WIDTH: usize = 32;
pub(super) const CONTEXT: u32 = 96;

/// A file of the Llama family.
pub(super) fn file(layers: u32) -> Vec<u8> {
    let mut seed = 5u64;
    let mut floats = |count: usize, around: f32, scale: f32| -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = ((seed >> 40) as f32) / (1 << 23) as f32 - 1.0;
            bytes.extend((around + scale * draw).to_le_bytes());
        }
        bytes
    };
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![WIDTH, VOCABULARY], floats(WIDTH * VOCABULARY, 0.0, 0.4)),
        ("output_norm.weight".to_owned(), vec![WIDTH], floats(WIDTH, 1.0, 0.4)),
    ];
    for layer in 0..layers {
        for norm in ["attn_norm", "ffn_norm"] {
            tensors.push((format!("blk.{layer}.{norm}.weight"), vec![WIDTH], floats(WIDTH, 1.0, 0.4)));
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
            // Layers add little, so that a model of one layer often guesses right what one of six writes.
            let scale = if matches!(name, "attn_output" | "ffn_down") { 0.03 } else { 0.4 };
            let name = format!("blk.{layer}.{name}.weight");
            tensors.push((name, vec![columns, rows], floats(columns * rows, 0.0, scale)));
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
        ("llama.context_length", CONTEXT),
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
