//! Language models of a few kilobytes, one of each family: first inputs for the fuzz target `model`.
//!
//! `cargo run -p littoral-infer --example model_seeds -- fuzz/seeds/model`

use littoral_infer::model::Model;
use littoral_tensor::gguf::{Type, Value, Writer};
use littoral_tensor::quant::Kind;
use std::error::Error;
use std::fs;
use std::path::Path;

const WIDTH: usize = 32;
/// Ones as f32 or as half of Q4_0's blocks: norms are norms, and what weights say does not matter.
const WEIGHTS: [u8; 4 * WIDTH * WIDTH] = [0x3c; 4 * WIDTH * WIDTH];
const TOKENS: [&str; 6] = ["a", "b", "ab", "<|im_end|>", "<0x0A>", "\u{2581}"];
const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: model_seeds DIR")?;
    fs::create_dir_all(&dir)?;
    for family in ["llama", "qwen2", "qwen3", "gemma3"] {
        let file = model(family)?;
        Model::check(&file)?;
        fs::write(Path::new(&dir).join(family), file)?;
    }
    Ok(())
}

fn model(family: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let gemma = family == "gemma3";
    let mut file = Writer::new();
    file.set("general.architecture", Value::Str(family))?;
    for (key, value) in [
        ("block_count", Value::U32(1)),
        ("embedding_length", Value::U32(WIDTH as u32)),
        ("feed_forward_length", Value::U32(WIDTH as u32)),
        ("context_length", Value::U32(64)),
        ("attention.head_count", Value::U32(2)),
        ("attention.head_count_kv", Value::U32(1)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ] {
        file.set(&format!("{family}.{key}"), value)?;
    }
    let more: &[(&str, Value<'_>)] = match family {
        "qwen2" => &[
            ("rope.scaling.type", Value::Str("yarn")),
            ("rope.scaling.factor", Value::F32(2.0)),
            ("rope.scaling.original_context_length", Value::U32(32)),
        ],
        "qwen3" => &[("rope.scaling.type", Value::Str("linear")), ("rope.scaling.factor", Value::F32(2.0))],
        "gemma3" => &[("attention.sliding_window", Value::U32(2)), ("final_logit_softcapping", Value::F32(30.0))],
        _ => &[("rope.dimension_count", Value::U32(8)), ("pooling_type", Value::U32(3))],
    };
    for (key, value) in more {
        file.set(&format!("{family}.{key}"), *value)?;
    }
    file.set("tokenizer.ggml.model", Value::Str(if gemma { "llama" } else { "gpt2" }))?;
    file.set("tokenizer.ggml.pre", Value::Str("qwen2"))?;
    file.set("tokenizer.ggml.bos_token_id", Value::U32(0))?;
    file.set("tokenizer.ggml.eos_token_id", Value::U32(3))?;
    file.set("tokenizer.chat_template", Value::Str(TEMPLATE))?;
    file.strings("tokenizer.ggml.tokens", TOKENS)?;
    file.strings("tokenizer.ggml.merges", ["a b"])?;
    file.array("tokenizer.ggml.token_type", Type::I32, [1, 1, 1, 3, 6, 1].map(Value::I32))?;
    file.array("tokenizer.ggml.scores", Type::F32, [0.0, -1.0, -2.0, 0.0, 0.0, -3.0].map(Value::F32))?;

    let mut tensors: Vec<(String, Vec<usize>)> =
        vec![("token_embd.weight".into(), vec![WIDTH, TOKENS.len()]), ("output_norm.weight".into(), vec![WIDTH])];
    let mut layer = |name: &str, dims: &[usize]| tensors.push((format!("blk.0.{name}"), dims.to_vec()));
    for name in ["attn_norm.weight", "ffn_norm.weight"] {
        layer(name, &[WIDTH]);
    }
    for name in ["attn_q.weight", "attn_output.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"] {
        layer(name, &[WIDTH, WIDTH]);
    }
    for name in ["attn_k.weight", "attn_v.weight"] {
        layer(name, &[WIDTH, WIDTH / 2]);
    }
    if family == "qwen2" {
        layer("attn_q.bias", &[WIDTH]);
        layer("attn_k.bias", &[WIDTH / 2]);
    }
    if gemma || family == "qwen3" {
        layer("attn_q_norm.weight", &[WIDTH / 2]);
        layer("attn_k_norm.weight", &[WIDTH / 2]);
    }
    if gemma {
        layer("post_attention_norm.weight", &[WIDTH]);
    }
    for (name, dims) in &tensors {
        let kind = if dims.len() == 1 { Kind::F32 } else { Kind::Q4_0 };
        let bytes = dims.iter().product::<usize>() / kind.columns() * kind.bytes();
        file.tensor(name, dims, kind, &WEIGHTS[..bytes])?;
    }
    let mut bytes = Vec::new();
    file.write(&mut bytes)?;
    Ok(bytes)
}
