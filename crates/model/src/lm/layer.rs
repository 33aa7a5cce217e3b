//! The weights of one layer, by the names that GGUF files give them.

use littoral_tensor::quant::Matrix;

/// Rows x columns of a matrix: outputs x inputs. `M` is `()` where a file is only checked.
#[derive(Debug)]
pub struct Layer<M = Matrix> {
    /// `attn_norm`: width.
    pub attention_norm: Vec<f32>,
    /// `attn_q`: (heads head_width) x width; `attn_k`, `attn_v`: (kv_heads head_width) x width.
    pub q: M,
    pub k: M,
    pub v: M,
    /// Added to queries, keys and values; empty: nothing.
    pub q_bias: Vec<f32>,
    pub k_bias: Vec<f32>,
    pub v_bias: Vec<f32>,
    /// `attn_q_norm`, `attn_k_norm`: head_width; empty: none.
    pub q_norm: Vec<f32>,
    pub k_norm: Vec<f32>,
    /// `attn_output`: width x (heads head_width).
    pub o: M,
    /// `post_attention_norm`: width; empty: none.
    pub after_attention_norm: Vec<f32>,
    /// `ffn_norm`: width.
    pub feed_norm: Vec<f32>,
    /// `ffn_gate`, `ffn_up`: inner x width; `ffn_down`: width x inner.
    pub gate: M,
    pub up: M,
    pub down: M,
    /// `post_ffw_norm`: width; empty: none.
    pub after_feed_norm: Vec<f32>,
}
