//! Costs from a file.

use crate::split::encoding;
use crate::split::plan::*;
use littoral_model::lm::{CacheType, LoadError, config};
use littoral_tensor::gguf::{Gguf, Value, Writer};
use littoral_tensor::quant::Kind;
use littoral_wire::pipeline::Activations;

/// Two layers of width 64; the second has its feed-forward matrix in F16. `untied`: with an output matrix of its own.
fn file(untied: bool, layers: u32) -> Vec<u8> {
    let mut file = Writer::new();
    for (key, value) in [
        ("general.architecture", Value::Str("llama")),
        ("llama.block_count", Value::U32(layers)),
        ("llama.embedding_length", Value::U32(64)),
        ("llama.feed_forward_length", Value::U32(96)),
        ("llama.context_length", Value::U32(128)),
        ("llama.attention.head_count", Value::U32(2)),
        ("llama.attention.head_count_kv", Value::U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ] {
        file.set(key, value).unwrap();
    }
    let zeros = vec![0; 1 << 20];
    let mut tensors = vec![("token_embd.weight", [64, 100], Kind::Q8_0), ("blk.0.attn_q.weight", [64, 64], Kind::Q8_0)];
    tensors.extend([("blk.0.ffn_up.weight", [64, 96], Kind::Q8_0), ("blk.1.ffn_up.weight", [64, 96], Kind::F16)]);
    tensors.extend(untied.then_some(("output.weight", [64, 100], Kind::F16)));
    for (name, dims, kind) in tensors {
        let bytes = kind.row_bytes(dims[0]).unwrap() * dims[1];
        file.tensor(name, &dims, kind, &zeros[..bytes]).unwrap();
    }
    file.tensor("blk.1.attn_norm.weight", &[64], Kind::F32, &zeros[..256]).unwrap();
    let mut bytes = Vec::new();
    file.write(&mut bytes).unwrap();
    bytes
}

fn cost(bytes: &[u8]) -> Result<ModelCost, LoadError> {
    let gguf = Gguf::parse(bytes).unwrap();
    ModelCost::of(&gguf, &config(&gguf).unwrap(), CacheType::F16)
}

#[test]
fn layers_weigh_what_the_file_has_of_them() {
    // 34 bytes for 32 weights of Q8_0.
    let tied = cost(&file(false, 2)).unwrap();
    let bytes: Vec<u64> = tied.layers.iter().map(|layer| layer.weight_bytes).collect();
    assert_eq!(bytes, [(64 * 64 + 64 * 96) / 32 * 34, 64 * 96 * 2 + 64 * 4]);
    let flops: Vec<u64> = tied.layers.iter().map(|layer| layer.flops).collect();
    assert_eq!(flops, [2 * (64 * 64 + 64 * 96), 2 * 64 * 96]);
    // One head of keys, one of values, 32 wide, two bytes each.
    assert_eq!((tied.layers[0].kv_bytes, tied.layers[0].window, tied.width), (128, 0, 64));
    let embedding = 64 * 100 / 32 * 34;
    assert_eq!((tied.ends_bytes, tied.output_bytes), (embedding + 64 * 4, embedding));
    let untied = cost(&file(true, 2)).unwrap();
    assert_eq!((untied.ends_bytes, untied.output_bytes), (embedding + 64 * 100 * 2 + 64 * 4, 64 * 100 * 2));
    assert_eq!((untied.output_flops, untied.logits_bytes), (2 * 64 * 100, 400));
}

#[test]
fn a_layer_that_is_not_there_is_missed() {
    let refused = cost(&file(false, 3)).unwrap_err();
    assert_eq!(refused.to_string(), "tensors of layer 2: at least one expected, got none");
}

#[test]
fn vectors_travel_in_three_sizes() {
    let bytes =
        |width| [Activations::F32, Activations::F16, Activations::Int8].map(|form| encoding::bytes(form, width));
    assert_eq!(bytes(4_096), [16_384, 8_192, 4_352]);
    assert_eq!(bytes(65), [260, 130, 73]);
}
