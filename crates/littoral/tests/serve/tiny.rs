//! A language model of a few kilobytes, with random weights: what it says means nothing, but it says it as a real one
//! does. Its tokens are the 256 bytes, those that frame a chat, and the one join that a vocabulary must have.

use littoral_tensor::gguf::{Type, Value, Writer};
use littoral_tensor::quant::Kind;
use littoral_tensor::quant::half::f32_to_f16;

const LAYERS: usize = 2;
const WIDTH: usize = 64;
const HEADS: usize = 2;
const HEAD_WIDTH: usize = 32;
const INNER: usize = 96;
pub const CONTEXT: u32 = 1 << 16;
/// Of `<|im_end|>`, after which the model writes no more.
pub const END: usize = 257;

pub const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A file; without `template` it is no model for chats.
pub fn gguf(template: bool) -> Vec<u8> {
    gguf_with(template.then_some(TEMPLATE))
}

pub fn gguf_with(template: Option<&str>) -> Vec<u8> {
    gguf_of(template, 7)
}

/// Of another seed it has the same vocabulary and says other things.
pub fn gguf_of(template: Option<&str>, seed: u64) -> Vec<u8> {
    gguf_layers(template, seed, LAYERS)
}

/// Of so many layers.
pub fn gguf_layers(template: Option<&str>, seed: u64, layers: usize) -> Vec<u8> {
    gguf_sized(template, seed, layers, INNER)
}

/// Its layers have about 204 bytes for each element inside.
pub fn gguf_sized(template: Option<&str>, seed: u64, layers: usize, inner: usize) -> Vec<u8> {
    let tokens: Vec<String> = alphabet()
        .into_iter()
        .map(String::from)
        .chain(["<|im_start|>".into(), "<|im_end|>".into(), "QZ".into()])
        .collect();
    let kinds = (0..tokens.len()).map(|id| Value::I32(if id == END || id == END - 1 { 3 } else { 1 }));
    let mut weights = Weights(seed);
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![WIDTH, tokens.len()], Kind::Q8_0, weights.matrix(WIDTH * tokens.len())),
        ("output.weight".to_owned(), vec![WIDTH, tokens.len()], Kind::Q8_0, weights.matrix(WIDTH * tokens.len())),
        ("output_norm.weight".to_owned(), vec![WIDTH], Kind::F32, weights.vector(WIDTH)),
    ];
    for layer in 0..layers {
        for norm in ["attn_norm", "ffn_norm"] {
            tensors.push((format!("blk.{layer}.{norm}.weight"), vec![WIDTH], Kind::F32, weights.vector(WIDTH)));
        }
        let (q, kv) = (HEADS * HEAD_WIDTH, HEAD_WIDTH);
        for (name, columns, rows) in [
            ("attn_q", WIDTH, q),
            ("attn_k", WIDTH, kv),
            ("attn_v", WIDTH, kv),
            ("attn_output", q, WIDTH),
            ("ffn_gate", WIDTH, inner),
            ("ffn_up", WIDTH, inner),
            ("ffn_down", inner, WIDTH),
        ] {
            let matrix = weights.matrix(columns * rows);
            tensors.push((format!("blk.{layer}.{name}.weight"), vec![columns, rows], Kind::Q8_0, matrix));
        }
    }
    let mut file = Writer::new();
    for (key, value) in [
        ("general.architecture", Value::Str("llama")),
        ("general.name", Value::Str("tiny")),
        ("llama.block_count", Value::U32(layers as u32)),
        ("llama.embedding_length", Value::U32(WIDTH as u32)),
        ("llama.feed_forward_length", Value::U32(inner as u32)),
        ("llama.context_length", Value::U32(CONTEXT)),
        ("llama.attention.head_count", Value::U32(HEADS as u32)),
        ("llama.attention.head_count_kv", Value::U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("tokenizer.ggml.model", Value::Str("gpt2")),
        ("tokenizer.ggml.pre", Value::Str("gpt-2")),
        ("tokenizer.ggml.eos_token_id", Value::U32(END as u32)),
    ] {
        file.set(key, value).unwrap();
    }
    file.strings("tokenizer.ggml.tokens", tokens.iter().map(String::as_str)).unwrap();
    file.strings("tokenizer.ggml.merges", ["Q Z"]).unwrap();
    file.array("tokenizer.ggml.token_type", Type::I32, kinds).unwrap();
    if let Some(template) = template {
        file.set("tokenizer.chat_template", Value::Str(template)).unwrap();
    }
    for (name, dims, kind, bytes) in &tensors {
        file.tensor(name, dims, *kind, bytes).unwrap();
    }
    let mut bytes = Vec::new();
    file.write(&mut bytes).unwrap();
    bytes
}

/// The letters that byte-level models write bytes with: printable ones stand for themselves, the others are moved up.
fn alphabet() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut moved = 0x100..;
    let letter = |byte| char::from_u32(if printable(byte) { byte } else { moved.next().unwrap() }).unwrap();
    (0..256).map(letter).collect()
}

struct Weights(u64);

impl Weights {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1 << 23) as f32 - 1.0
    }

    fn vector(&mut self, len: usize) -> Vec<u8> {
        (0..len).flat_map(|_| (1.0 + 0.3 * self.next()).to_le_bytes()).collect()
    }

    fn matrix(&mut self, weights: usize) -> Vec<u8> {
        let block = |of: &mut Self| {
            let scale = f32_to_f16(0.002).to_le_bytes();
            scale.into_iter().chain((0..32).map(|_| (of.next() * 127.0) as i8 as u8)).collect::<Vec<u8>>()
        };
        (0..weights / 32).flat_map(|_| block(self)).collect()
    }
}
