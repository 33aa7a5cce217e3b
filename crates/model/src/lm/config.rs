//! Architectures of language models, and the numbers that describe one.

use littoral_tensor::attention::CacheType;
use littoral_tensor::vectors::Pairs;
use std::fmt;

/// Families that are known. They share one skeleton (norm, attention, norm, gated feed-forward) and differ in what
/// [`Config`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// Llama 1 to 3, TinyLlama, SmolLM (Touvron et al. 2023).
    Llama,
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: norms on queries and keys.
    Qwen3,
    /// Gemma 3: norms on queries and keys and after each part, GELU, most layers look through a sliding window.
    Gemma3,
}

impl Architecture {
    pub const ALL: [Self; 4] = [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Gemma3];

    /// As in `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stands between the two halves of a feed-forward layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    Silu,
    Gelu,
}

/// How positions turn queries and keys.
#[derive(Clone, PartialEq, Debug)]
pub struct Rope {
    pub pairs: Pairs,
    pub base: f32,
    /// Positions are divided by it (linear scaling); 1: not.
    pub scale: f32,
    /// Elements of a head that are turned.
    pub width: usize,
    /// Each frequency is divided by its factor (Llama 3); empty: not.
    pub factors: Vec<f32>,
    pub yarn: Option<Yarn>,
}

/// YaRN (Peng et al. 2023, section 3), with the rounding that Hugging Face transformers and llama.cpp have: pairs that turn
/// often within the original context stay as they are, those that hardly turn once go slower by the factor, and between
/// them is a ramp over the pairs' numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Yarn {
    /// Contexts are longer by it; at least 1.
    pub factor: f32,
    /// Positions that the model was first trained for.
    pub original_context: usize,
    /// Turns within it from which on a pair is fast, and up to which it is slow.
    pub fast_turns: f32,
    pub slow_turns: f32,
    /// Queries and keys become longer by it: 0.1 ln(factor) + 1, if the file does not say more.
    pub length: f64,
}

impl Rope {
    /// The angle between a position and the next, for each pair. In f64 with software functions, so that all machines get
    /// the same.
    pub(super) fn frequencies(&self) -> Vec<f64> {
        let (pairs, base) = (self.width / 2, f64::from(self.base));
        let frequency = |i: usize| {
            let frequency = libm::pow(base, -(2.0 * i as f64) / self.width as f64);
            frequency / self.factors.get(i).map_or(1.0, |factor| f64::from(*factor))
        };
        let frequencies = (0..pairs).map(frequency);
        match &self.yarn {
            None => frequencies.collect(),
            Some(yarn) => {
                let (first, last) = yarn.ramp(pairs as f64, base);
                let slowed = |(i, frequency): (usize, f64)| {
                    let slow = ((i as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
                    frequency * (1.0 - slow) + frequency / f64::from(yarn.factor) * slow
                };
                frequencies.enumerate().map(slowed).collect()
            }
        }
    }
}

impl Yarn {
    /// The last pair that is fast and the first that is slow.
    fn ramp(&self, pairs: f64, base: f64) -> (f64, f64) {
        // Pair i turns original_context base^(-i / pairs) / 2 pi times.
        let pair = |turns: f32| {
            let most = self.original_context as f64 / (2.0 * std::f64::consts::PI * f64::from(turns));
            pairs * libm::log(most) / libm::log(base)
        };
        (pair(self.fast_turns).floor().max(0.0), pair(self.slow_turns).ceil().min(2.0 * pairs - 1.0))
    }
}

/// All numbers of a language model but its weights.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    pub architecture: Architecture,
    pub layers: usize,
    /// Elements of the vector that flows from layer to layer.
    pub width: usize,
    pub heads: usize,
    /// Heads of keys and values; each serves `heads / kv_heads` heads of queries.
    pub kv_heads: usize,
    pub head_width: usize,
    /// Elements inside a feed-forward layer.
    pub inner: usize,
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    pub epsilon: f32,
    pub gate: Gate,
    /// Scores are multiplied by it.
    pub attention_scale: f32,
    /// Positions that a layer with a window sees; 0: there are none.
    pub window: usize,
    /// Every so many layers one sees all; 1: all do.
    pub window_period: usize,
    pub rope: Rope,
    /// That of layers with a window.
    pub rope_window: Rope,
    /// Embeddings are multiplied by it.
    pub embedding_scale: f32,
    /// Bounds on scores and logits; 0: none.
    pub attention_cap: f32,
    pub logit_cap: f32,
}

impl Config {
    /// Does this layer look through the window?
    pub fn windowed(&self, layer: usize) -> bool {
        self.window > 0 && !(layer + 1).is_multiple_of(self.window_period)
    }

    /// Bytes that one position takes in the state of one layer.
    pub fn state_bytes_per_layer(&self, cache_type: CacheType) -> usize {
        2 * self.kv_heads * cache_type.row_bytes(self.head_width)
    }
}
