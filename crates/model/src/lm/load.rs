//! From a GGUF file to a [`Stage`]: which keys say what, and which tensors are whose.

use super::check::{HEADS_MAX, LAYERS_MAX, WIDTH_MAX};
use super::config::{Architecture, Config, Gate, Rope, Yarn};
use super::layer::Layer;
use super::stage::{Ends, Stage};
use littoral_tensor::gguf::{Gguf, GgufError, Tensor};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Arena, Kind, Matrix, MatrixError, dequantise};
use littoral_tensor::vectors::Pairs;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// Why a file is no language model that runs here.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum LoadError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error("general.architecture: one of {} expected, got {got}", known())]
    Architecture { got: String },
    #[error("{field}: {expected} expected, got {got}")]
    Field { field: String, expected: String, got: String },
    #[error("tensor {name}: {error}")]
    Matrix { name: String, error: MatrixError },
}

fn known() -> String {
    Architecture::ALL.map(Architecture::name).join(", ")
}

/// The numbers of the model in a file.
pub fn config(gguf: &Gguf<'_>) -> Result<Config, LoadError> {
    let metadata = gguf.metadata();
    let name = metadata.str("general.architecture")?;
    let architecture =
        Architecture::of_name(name).ok_or_else(|| LoadError::Architecture { got: name.escape_debug().to_string() })?;
    let key = |part: &str| format!("{name}.{part}");
    let number = |part: &str, most: u32| -> Result<usize, LoadError> {
        let (field, got) = (key(part), metadata.u32(&key(part))?);
        if got == 0 || got > most {
            return Err(LoadError::Field { field, expected: format!("1 to {most}"), got: got.to_string() });
        }
        Ok(got as usize)
    };
    let or = |part: &str, most: u32, default: usize| match metadata.get(&key(part)) {
        Some(_) => number(part, most),
        None => Ok(default),
    };
    let float = |part: &str, default: f32| match metadata.get(&key(part)) {
        Some(entry) => entry.f32(),
        None => Ok(default),
    };
    let gemma = architecture == Architecture::Gemma3;
    let (layers, width) = (number("block_count", LAYERS_MAX)?, number("embedding_length", WIDTH_MAX)?);
    let heads = number("attention.head_count", HEADS_MAX)?;
    let kv_heads = or("attention.head_count_kv", HEADS_MAX, heads)?;
    let head_width = or("attention.key_length", WIDTH_MAX, width / heads)?;
    let value_width = or("attention.value_length", WIDTH_MAX, head_width)?;
    let wrong = |field: &str, expected: String, got: String| Err(LoadError::Field { field: key(field), expected, got });
    if head_width == 0 {
        return wrong("attention.head_count", format!("at most {width}, the width"), heads.to_string());
    }
    if value_width != head_width {
        return wrong("attention.value_length", format!("{head_width}, the width of keys"), value_width.to_string());
    }
    let turned = or("rope.dimension_count", WIDTH_MAX, head_width)?;
    let scaling = match metadata.get(&key("rope.scaling.type")) {
        Some(entry) => entry.str()?,
        None => "none",
    };
    let (mut scale, mut yarn) = (1.0, None);
    match scaling {
        "none" => {}
        "linear" => scale = float("rope.scaling.factor", 1.0)?,
        // Two kinds of layers would each have a ramp of their own; nobody has made such a Gemma.
        "yarn" if !gemma => yarn = Some(self::yarn(gguf, name)?),
        other => {
            let expected = if gemma { "none or linear" } else { "none, linear or yarn" };
            return wrong("rope.scaling.type", expected.into(), other.escape_debug().to_string());
        }
    }
    let (base, base_window) = (float("rope.freq_base", 10_000.0)?, float("rope.freq_base_swa", 10_000.0)?);
    let epsilon = metadata.f32(&key("attention.layer_norm_rms_epsilon"))?;
    let factors = match gguf.find("rope_freqs.weight") {
        Some(_) => vector(gguf, "rope_freqs.weight", turned / 2)?,
        None => Vec::new(),
    };
    let rope = Rope {
        pairs: if architecture == Architecture::Llama { Pairs::Neighbours } else { Pairs::Halves },
        base,
        scale,
        width: turned,
        factors,
        yarn,
    };
    let rope_window = Rope { base: base_window, scale: 1.0, factors: Vec::new(), ..rope.clone() };
    let config = Config {
        architecture,
        layers,
        width,
        heads,
        kv_heads,
        head_width,
        inner: number("feed_forward_length", WIDTH_MAX)?,
        vocabulary: gguf.tensor("token_embd.weight")?.rows(),
        context: number("context_length", u32::MAX)?,
        epsilon,
        gate: if gemma { Gate::Gelu } else { Gate::Silu },
        attention_scale: 1.0 / (head_width as f32).sqrt(),
        window: if gemma { or("attention.sliding_window", u32::MAX, 0)? } else { 0 },
        // Gemma 3: five layers with a window, then one without (Gemma team 2025, section 2).
        window_period: if gemma { 6 } else { 1 },
        rope,
        rope_window,
        embedding_scale: if gemma { (width as f32).sqrt() } else { 1.0 },
        attention_cap: float("attn_logit_softcapping", 0.0)?,
        logit_cap: float("final_logit_softcapping", 0.0)?,
    };
    match config.check() {
        Ok(()) => Ok(config),
        Err(error) => wrong(error.field, error.expected, error.got),
    }
}

/// What the file says of YaRN.
fn yarn(gguf: &Gguf<'_>, architecture: &str) -> Result<Yarn, LoadError> {
    let key = |part: &str| format!("{architecture}.{part}");
    let float = |part: &str, default: f32| match gguf.metadata().get(&key(part)) {
        Some(entry) => entry.f32(),
        None => Ok(default),
    };
    let number = |part: &str, default: f32, least: f32| -> Result<f32, LoadError> {
        let (field, got) = (key(part), float(part, default)?);
        match got >= least && got.is_finite() {
            true => Ok(got),
            false => {
                Err(LoadError::Field { field, expected: format!("a number from {least} on"), got: got.to_string() })
            }
        }
    };
    // Other models than these have been made with them.
    for (part, usual) in [("yarn_ext_factor", 1.0), ("yarn_attn_factor", 1.0), ("yarn_log_multiplier", 0.0)] {
        let (field, got) = (key(&format!("rope.scaling.{part}")), float(&format!("rope.scaling.{part}"), usual)?);
        if got != usual {
            return Err(LoadError::Field { field, expected: usual.to_string(), got: got.to_string() });
        }
    }
    let context = match gguf.metadata().get(&key("rope.scaling.original_context_length")) {
        Some(entry) => entry.u32()?,
        None => gguf.metadata().u32(&key("context_length"))?,
    };
    if context == 0 {
        let field = key("rope.scaling.original_context_length");
        return Err(LoadError::Field { field, expected: "1 or more".into(), got: "0".into() });
    }
    let factor = number("rope.scaling.factor", 1.0, 1.0)?;
    let more = number("rope.scaling.attn_factor", 1.0, 0.0)?;
    Ok(Yarn {
        factor,
        original_context: context as usize,
        fast_turns: number("rope.scaling.yarn_beta_fast", 32.0, 0.001)?,
        slow_turns: number("rope.scaling.yarn_beta_slow", 1.0, 0.001)?,
        length: f64::from(more) * (0.1 * libm::log(f64::from(factor)) + 1.0),
    })
}

/// Loads the layers of `range`, which may be none, and the ends if they are wanted. `done` hears of the ranges of the file
/// that were copied: their pages may go.
///
/// # Panics
/// If the range is not of the model.
pub fn load(
    gguf: &Gguf<'_>,
    config: &Config,
    range: Range<usize>,
    ends: bool,
    pool: &Pool,
    done: &mut dyn FnMut(Range<usize>),
) -> Result<Stage, LoadError> {
    // What is reserved and not used takes no memory. Rows that fill up the last strips take a little more than the file has.
    let mut arena = Arena::new(gguf.data_bytes() / 16 * 17);
    let Weights { layers, ends } = weights(gguf, config, &range, ends, |name, tensor| {
        let (rows, columns, start) = (tensor.rows(), tensor.columns(), tensor.range.start);
        let mut piece_done = |piece: Range<usize>| done(start + piece.start..start + piece.end);
        let packed =
            Matrix::pack_piecewise(tensor.kind, rows, columns, tensor.bytes, &mut arena, pool, &mut piece_done);
        packed.map_err(|error| LoadError::Matrix { name: name.into(), error })
    })?;
    let ends = ends.map(|(embedding, norm, output)| Ends { embedding, norm, output });
    Ok(Stage { config: config.clone(), range, layers, ends })
}

/// What [`load`] would refuse of a whole model, found without reading its matrices: each is there and has its shape.
pub fn check(gguf: &Gguf<'_>, config: &Config) -> Result<(), LoadError> {
    weights(gguf, config, &(0..config.layers), true, |_, _| Ok(())).map(drop)
}

struct Weights<M> {
    layers: Vec<Layer<M>>,
    /// Embedding, norm, output.
    ends: Option<(Arc<M>, Vec<f32>, Arc<M>)>,
}

/// `matrix` makes something of each matrix, which has the right shape, in this order.
fn weights<'a, M>(
    gguf: &Gguf<'a>,
    config: &Config,
    range: &Range<usize>,
    ends: bool,
    mut matrix: impl FnMut(&str, &Tensor<'a>) -> Result<M, LoadError>,
) -> Result<Weights<M>, LoadError> {
    assert!(range.start <= range.end && range.end <= config.layers, "layers {range:?} of {}", config.layers);
    let Config { width, inner, vocabulary, head_width, .. } = *config;
    let (q_rows, kv_rows) = (config.heads * head_width, config.kv_heads * head_width);
    let mut matrix = |name: &str, rows: usize, columns: usize| -> Result<M, LoadError> {
        let tensor = gguf.tensor(name)?;
        if (tensor.rows(), tensor.columns()) != (rows, columns) {
            let (expected, got) = (format!("{columns} x {rows}"), format!("{} x {}", tensor.columns(), tensor.rows()));
            return Err(LoadError::Field { field: format!("tensor {name}"), expected, got });
        }
        matrix(name, &tensor)
    };
    let ends = if ends {
        let embedding = Arc::new(matrix("token_embd.weight", vocabulary, width)?);
        let output = match gguf.find("output.weight") {
            None => embedding.clone(),
            Some(_) => Arc::new(matrix("output.weight", vocabulary, width)?),
        };
        Some((embedding, vector(gguf, "output_norm.weight", width)?, output))
    } else {
        None
    };
    let mut layers = Vec::with_capacity(range.len());
    for layer in range.clone() {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let may = |part: &str, len: usize| match gguf.find(&name(part)) {
            Some(_) => vector(gguf, &name(part), len),
            None => Ok(Vec::new()),
        };
        layers.push(Layer {
            attention_norm: vector(gguf, &name("attn_norm.weight"), width)?,
            q: matrix(&name("attn_q.weight"), q_rows, width)?,
            k: matrix(&name("attn_k.weight"), kv_rows, width)?,
            v: matrix(&name("attn_v.weight"), kv_rows, width)?,
            q_bias: may("attn_q.bias", q_rows)?,
            k_bias: may("attn_k.bias", kv_rows)?,
            v_bias: may("attn_v.bias", kv_rows)?,
            q_norm: may("attn_q_norm.weight", head_width)?,
            k_norm: may("attn_k_norm.weight", head_width)?,
            o: matrix(&name("attn_output.weight"), width, q_rows)?,
            after_attention_norm: may("post_attention_norm.weight", width)?,
            feed_norm: vector(gguf, &name("ffn_norm.weight"), width)?,
            gate: matrix(&name("ffn_gate.weight"), inner, width)?,
            up: matrix(&name("ffn_up.weight"), inner, width)?,
            down: matrix(&name("ffn_down.weight"), width, inner)?,
            after_feed_norm: may("post_ffw_norm.weight", width)?,
        });
    }
    Ok(Weights { layers, ends })
}

/// A tensor of one dimension, as floats.
fn vector(gguf: &Gguf<'_>, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
    let tensor = gguf.tensor(name)?;
    let float = matches!(tensor.kind, Kind::F32 | Kind::F16 | Kind::BF16);
    if tensor.rows() != 1 || tensor.columns() != len || !float {
        let got = format!("{} x {} in {}", tensor.columns(), tensor.rows(), tensor.kind);
        let expected = format!("{len} floats");
        return Err(LoadError::Field { field: format!("tensor {name}"), expected, got });
    }
    let mut values = vec![0.0; len];
    dequantise(tensor.kind, tensor.bytes, &mut values);
    Ok(values)
}
