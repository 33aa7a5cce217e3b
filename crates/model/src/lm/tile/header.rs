//! A tile's first bytes: for which kernels it is, the numbers of the model, and which layer.
//!
//! ```text
//! magic, version               8 bytes, u32
//! kernels                      text
//! architecture                 text
//! layers, width, heads, kv_heads, head_width, inner, vocabulary, context, window, window_period    u32
//! epsilon, attention_scale, embedding_scale, attention_cap, logit_cap     f32
//! gate                         u32: 0 SiLU, 1 GELU
//! rope, rope_window            each: pairs (u32: 0 neighbours, 1 halves), base, scale (f32), width, factors (u32, f32 each),
//!                              yarn (u32: 0 none, 1: factor, fast_turns, slow_turns (f32), original_context (u32), length (f64))
//! layer                        u32
//! ```
//! A text is its bytes behind their number.

use super::TileError;
use crate::lm::check::WIDTH_MAX;
use crate::lm::config::{Architecture, Config, Gate, Rope, Yarn};
use littoral_tensor::quant::KERNELS;
use littoral_tensor::vectors::Pairs;

const MAGIC: [u8; 8] = *b"LIT-TILE";
const VERSION: u32 = 1;
const TEXT_BYTES_MAX: usize = 64;

pub fn start(config: &Config, index: usize) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    put_text(KERNELS, &mut out);
    put_text(config.architecture.name(), &mut out);
    for number in counts(config) {
        put_u32(number, &mut out);
    }
    let Config { epsilon, attention_scale, embedding_scale, attention_cap, logit_cap, .. } = *config;
    put_f32s(&[epsilon, attention_scale, embedding_scale, attention_cap, logit_cap], &mut out);
    put_u32(usize::from(config.gate == Gate::Gelu), &mut out);
    put_rope(&config.rope, &mut out);
    put_rope(&config.rope_window, &mut out);
    put_u32(index, &mut out);
    out
}

fn counts(config: &Config) -> [usize; 10] {
    let Config { layers, width, heads, kv_heads, head_width, inner, vocabulary, context, .. } = *config;
    let Config { window, window_period, .. } = *config;
    [layers, width, heads, kv_heads, head_width, inner, vocabulary, context, window, window_period]
}

fn put_rope(rope: &Rope, out: &mut Vec<u8>) {
    put_u32(usize::from(rope.pairs == Pairs::Halves), out);
    put_f32s(&[rope.base, rope.scale], out);
    put_u32(rope.width, out);
    put_u32(rope.factors.len(), out);
    put_f32s(&rope.factors, out);
    put_u32(usize::from(rope.yarn.is_some()), out);
    if let Some(yarn) = &rope.yarn {
        put_f32s(&[yarn.factor, yarn.fast_turns, yarn.slow_turns], out);
        put_u32(yarn.original_context, out);
        out.extend(yarn.length.to_le_bytes());
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_u32(text.len(), out);
    out.extend(text.as_bytes());
}

/// # Panics
/// If it does not fit; the numbers of a [`Config`] that was checked do.
pub fn put_u32(number: usize, out: &mut Vec<u8>) {
    out.extend(u32::try_from(number).expect("a number of a model fits into 32 bits").to_le_bytes());
}

pub fn put_f32s(numbers: &[f32], out: &mut Vec<u8>) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// Reads one number after another.
#[derive(Clone)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that were read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What [`start`] wrote, checked.
    pub fn start(&mut self) -> Result<(Config, usize), TileError> {
        let magic = self.bytes(MAGIC.len())?;
        if magic != MAGIC {
            return Err(TileError::field("magic", MAGIC.escape_ascii(), magic.escape_ascii()));
        }
        self.is("version", VERSION)?;
        let kernels = self.text("kernels")?;
        if kernels != KERNELS {
            return Err(TileError::field("kernels", KERNELS, kernels.escape_debug()));
        }
        let name = self.text("architecture")?;
        let known = || Architecture::ALL.map(Architecture::name).join(", ");
        let architecture = Architecture::of_name(name)
            .ok_or_else(|| TileError::field("architecture", format!("one of {}", known()), name.escape_debug()))?;
        let mut counts = [0; 10];
        for count in &mut counts {
            *count = self.usize()?;
        }
        let [layers, width, heads, kv_heads, head_width, inner, vocabulary, context, window, window_period] = counts;
        let mut scales = [0.0; 5];
        for scale in &mut scales {
            *scale = self.f32()?;
        }
        let [epsilon, attention_scale, embedding_scale, attention_cap, logit_cap] = scales;
        let config = Config {
            architecture,
            layers,
            width,
            heads,
            kv_heads,
            head_width,
            inner,
            vocabulary,
            context,
            epsilon,
            gate: if self.flag("gate")? { Gate::Gelu } else { Gate::Silu },
            attention_scale,
            window,
            window_period,
            rope: self.rope()?,
            rope_window: self.rope()?,
            embedding_scale,
            attention_cap,
            logit_cap,
        };
        config.check()?;
        let index = self.usize()?;
        match index < config.layers {
            true => Ok((config, index)),
            false => Err(TileError::field("layer", format!("one of {}", config.layers), index)),
        }
    }

    fn rope(&mut self) -> Result<Rope, TileError> {
        let pairs = if self.flag("rope's pairs")? { Pairs::Halves } else { Pairs::Neighbours };
        let (base, scale, width, factors) = (self.f32()?, self.f32()?, self.usize()?, self.usize()?);
        if factors > WIDTH_MAX as usize {
            return Err(TileError::field("rope's factors", format!("at most {WIDTH_MAX}"), factors));
        }
        let factors = Self::of(self.bytes(4 * factors)?).f32s();
        let yarn = match self.flag("rope's yarn")? {
            false => None,
            true => {
                let (factor, fast_turns, slow_turns) = (self.f32()?, self.f32()?, self.f32()?);
                let original_context = self.usize()?;
                let length = f64::from_bits(self.u64()?);
                Some(Yarn { factor, original_context, fast_turns, slow_turns, length })
            }
        };
        Ok(Rope { pairs, base, scale, width, factors, yarn })
    }

    fn is(&mut self, field: &str, expected: u32) -> Result<(), TileError> {
        match self.u32()? {
            got if got == expected => Ok(()),
            got => Err(TileError::field(field, expected, got)),
        }
    }

    fn flag(&mut self, field: &str) -> Result<bool, TileError> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(TileError::field(field, "0 or 1", got)),
        }
    }

    fn text(&mut self, field: &str) -> Result<&'a str, TileError> {
        let len = self.usize()?;
        if len > TEXT_BYTES_MAX {
            return Err(TileError::field(field, format!("a text of at most {TEXT_BYTES_MAX} bytes"), len));
        }
        let bytes = self.bytes(len)?;
        str::from_utf8(bytes).map_err(|_| TileError::field(field, "a text", bytes.escape_ascii()))
    }

    /// All that are left.
    pub fn f32s(&self) -> Vec<f32> {
        let (numbers, _) = self.bytes[self.at..].as_chunks();
        numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()
    }

    fn f32(&mut self) -> Result<f32, TileError> {
        self.u32().map(f32::from_bits)
    }

    pub fn usize(&mut self) -> Result<usize, TileError> {
        self.u32().map(|number| number as usize)
    }

    pub fn u32(&mut self) -> Result<u32, TileError> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    pub fn u64(&mut self) -> Result<u64, TileError> {
        let bytes = self.bytes(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], TileError> {
        let end = self.at.saturating_add(count);
        let short = TileError::Short { expected: end, got: self.bytes.len() };
        let bytes = self.bytes.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(bytes)
    }
}
