//! What a model's parts weigh, and what a token costs in each.

use littoral_model::lm::{CacheType, Config, LoadError};
use littoral_tensor::gguf::Gguf;

/// Tokens of one pass: what a stage works in has room for so many.
const PASS_TOKENS: u64 = 512;

/// One layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerCost {
    /// In memory and read for each token: about the file's bytes of its tensors.
    pub weight_bytes: u64,
    /// Keys and values of one position.
    pub kv_bytes: u64,
    /// Positions that it looks back at, at most; 0: all.
    pub window: u64,
    /// Multiplications and additions with weights, for one token.
    pub flops: u64,
    /// The same with keys and values, for one token and one position that it looks at.
    pub flops_per_position: u64,
}

/// A model as the planner sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelCost {
    /// First to last; they may differ (mixed quantisation does).
    pub layers: Vec<LayerCost>,
    /// Embedding, final norm and output matrix in memory.
    pub ends_bytes: u64,
    /// Of it, what is read for a token: the output matrix.
    pub output_bytes: u64,
    pub output_flops: u64,
    /// Elements of the vector that goes from stage to stage.
    pub width: u64,
    /// What each stage works in.
    pub scratch_bytes: u64,
    /// What the head needs beside it for each stream: logits.
    pub logits_bytes: u64,
}

impl ModelCost {
    /// From a file's head; the weights are not read.
    ///
    /// # Errors
    /// A layer without tensors, or a tensor of a kind that is not known.
    pub fn of(gguf: &Gguf<'_>, config: &Config, cache_type: CacheType) -> Result<Self, LoadError> {
        let Config { width, heads, kv_heads, head_width, inner, vocabulary, .. } = *config;
        let mut layers: Vec<LayerCost> = (0..config.layers)
            .map(|layer| LayerCost {
                weight_bytes: 0,
                kv_bytes: config.state_bytes_per_layer(cache_type) as u64,
                window: if config.windowed(layer) { config.window as u64 } else { 0 },
                flops: 0,
                flops_per_position: 4 * (heads * head_width) as u64,
            })
            .collect();
        for info in gguf.tensors() {
            let Some(cost) = layer_of(info.name).and_then(|layer| layers.get_mut(layer)) else { continue };
            cost.weight_bytes += gguf.tensor(info.name)?.bytes.len() as u64;
            // A vector's elements are few and used once.
            cost.flops += if info.dims().len() > 1 { 2 * info.weights() as u64 } else { 0 };
        }
        if let Some(empty) = layers.iter().position(|layer| layer.weight_bytes == 0) {
            let (field, expected) = (format!("tensors of layer {empty}"), "at least one".to_owned());
            return Err(LoadError::Field { field, expected, got: "none".to_owned() });
        }
        let embedding_bytes = gguf.tensor("token_embd.weight")?.bytes.len() as u64;
        // Without an output matrix of its own the embedding is one.
        let own = gguf.find("output.weight").map(|_| gguf.tensor("output.weight")).transpose()?;
        let own_bytes = own.map(|tensor| tensor.bytes.len() as u64);
        let per_token = 4 * width + 3 * heads * head_width + 2 * kv_heads * head_width + 3 * inner;
        Ok(Self {
            layers,
            ends_bytes: embedding_bytes + own_bytes.unwrap_or(0) + 4 * width as u64,
            output_bytes: own_bytes.unwrap_or(embedding_bytes),
            output_flops: 2 * (vocabulary * width) as u64,
            width: width as u64,
            scratch_bytes: PASS_TOKENS * 4 * per_token as u64,
            logits_bytes: 4 * vocabulary as u64,
        })
    }
}

/// Of `blk.7.attn_q.weight`: 7.
fn layer_of(tensor: &str) -> Option<usize> {
    tensor.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}
