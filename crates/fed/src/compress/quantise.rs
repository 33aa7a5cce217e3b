//! Stochastic quantisation: QSGD, Alistarh et al. 2017 (NeurIPS), section 3.1, with the block's largest magnitude as its
//! scale instead of its norm (as they do in their experiments).
//!
//! ```text
//! scale = max |x_i| over the block        code_i = sign(x_i) · (|x_i| / scale · s, rounded up or down by chance)
//! x̂_i  = code_i · scale / s               E x̂ = x,   E‖x̂ − x‖² ≤ min(n/s², √n/s) ‖x‖²
//! ```
//!
//! s = 127 (int8), 7 (int4) or 1 (ternary; Wen et al. 2017). Their bound holds with the smaller scale too.
//! Codes are packed at their width, or go through the entropy coder, whose counts follow the vector.
//!
//! Rounding by chance grows the norm (E‖x̂‖² ≥ ‖x‖²), up to √n · scale: no bound is told, and noise cannot follow.

use super::entropy::{Decoder, Encoder, Frequencies};
use super::random::{Draws, Seed};
use super::{BLOCK, Codec, CompressError, Sink, ended, finite, take};
use littoral_tensor::fixed;

/// Codes of `bits` bits and one scale per `block` coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantise {
    bits: u32,
    block: usize,
    entropy: bool,
}

impl Quantise {
    /// `bits` 2 (ternary) to 8; `block` 8 to 4,096, a power of two; `entropy`: whether codes go through the range coder.
    pub fn new(bits: u32, block: usize, entropy: bool) -> Result<Self, CompressError> {
        if !(2..=8).contains(&bits) {
            return Err(CompressError::Setting { field: "bits", allowed: "2 to 8", got: bits.to_string() });
        }
        if !(block.is_power_of_two() && (8..=BLOCK).contains(&block)) {
            let allowed = "a power of two from 8 to 4096";
            return Err(CompressError::Setting { field: "block", allowed, got: block.to_string() });
        }
        Ok(Self { bits, block, entropy })
    }

    /// s: the largest code.
    pub fn levels(&self) -> i64 {
        (1 << (self.bits - 1)) - 1
    }

    fn symbols(&self) -> usize {
        2 * self.levels() as usize + 1
    }
}

/// The upper half of an f32, rounded up: no magnitude is above its scale.
fn scale_of(block: &[f32]) -> u16 {
    let largest = block.iter().map(|v| v.abs().to_bits()).max().unwrap_or(0);
    // The largest finite f32 rounds up to infinity here; it stays below, and its code saturates.
    (largest.div_ceil(1 << 16) as u16).min(0x7f7f)
}

fn scale_from(bits: u16) -> Result<f32, CompressError> {
    match bits {
        0..=0x7f7f => Ok(f32::from_bits(u32::from(bits) << 16)),
        _ => Err(CompressError::Value { what: "a scale of", allowed: "0 to 0x7f7f", got: format!("{bits:#x}") }),
    }
}

/// Codes −s..=s as symbols, the most frequent first.
fn symbol(code: i64) -> usize {
    if code > 0 { 2 * code as usize - 1 } else { 2 * code.unsigned_abs() as usize }
}

fn code(symbol: usize) -> i64 {
    let magnitude = symbol.div_ceil(2) as i64;
    if symbol % 2 == 1 { magnitude } else { -magnitude }
}

impl Codec for Quantise {
    fn name(&self) -> &'static str {
        match self.bits {
            2 => "ternary",
            4 => "int4",
            8 => "int8",
            _ => "stochastic quantisation",
        }
    }

    fn bytes_max(&self, len: usize) -> usize {
        let blocks = len.div_ceil(self.block);
        match self.entropy {
            // A symbol costs at most log2(2^16) bits, its scale 16.
            true => 8 + 2 * len + 2 * blocks,
            false => blocks * 2 + len.div_ceil(8) * self.bits as usize,
        }
    }

    fn encode(&self, x: &[f32], seed: &Seed, out: &mut Vec<u8>) -> Result<(), CompressError> {
        finite(x)?;
        let (mut draws, s) = (Draws::new(seed), self.levels());
        let mut codes = |block: &[f32], bits: u16| -> Result<Vec<i64>, CompressError> {
            let per_unit = s as f64 / f64::from(scale_from(bits)?);
            let code = |v: &f32| {
                let magnitude = i64::from(draws.round(f64::from(v.abs()) * per_unit)).min(s);
                if *v < 0.0 { -magnitude } else { magnitude }
            };
            // A block of zeros has no scale to divide by.
            Ok(if bits == 0 { vec![0; block.len()] } else { block.iter().map(code).collect() })
        };
        if self.entropy {
            let (mut encoder, mut frequencies) = (Encoder::new(out), Frequencies::new(self.symbols()));
            for block in x.chunks(self.block) {
                let bits = scale_of(block);
                encoder.raw(bits.into(), 16);
                if bits > 0 {
                    codes(block, bits)?.into_iter().for_each(|c| encoder.symbol(symbol(c), &mut frequencies));
                }
            }
            encoder.finish();
            return Ok(());
        }
        for block in x.chunks(self.block) {
            let bits = scale_of(block);
            out.extend_from_slice(&bits.to_le_bytes());
            let start = out.len();
            out.resize(start + fixed::packed_len(block.len(), self.bits), 0);
            fixed::pack(&codes(block, bits)?, self.bits, &mut out[start..])?;
        }
        Ok(())
    }

    fn decode(&self, len: usize, bytes: &[u8], sink: Sink<'_>) -> Result<(), CompressError> {
        let s = self.levels();
        let (mut codes, mut values) = ([0i64; BLOCK], [0f32; BLOCK]);
        let mut emit = |bits: u16, codes: &[i64]| {
            let unit = f64::from(scale_from(bits)?) / s as f64;
            for (value, &code) in values.iter_mut().zip(codes) {
                // Of 2^bits codes only 2 s + 1 are written.
                if code < -s {
                    let got = code.to_string();
                    return Err(CompressError::Value { what: "a code of", allowed: "-s to s", got });
                }
                *value = (code as f64 * unit) as f32;
            }
            sink(&values[..codes.len()])
        };
        let sizes = (0..len).step_by(self.block).map(|start| self.block.min(len - start));
        if !self.entropy {
            let mut bytes = bytes;
            for size in sizes {
                let scale = take(&mut bytes, 2)?;
                let packed = take(&mut bytes, fixed::packed_len(size, self.bits))?;
                fixed::unpack(packed, self.bits, &mut codes[..size])?;
                emit(u16::from_le_bytes([scale[0], scale[1]]), &codes[..size])?;
            }
            return ended(bytes);
        }
        let (mut decoder, mut frequencies) = (Decoder::new(bytes)?, Frequencies::new(self.symbols()));
        for size in sizes {
            let bits = decoder.raw(16)? as u16;
            for c in &mut codes[..size] {
                *c = if bits == 0 { 0 } else { code(decoder.symbol(&mut frequencies)?) };
            }
            emit(bits, &codes[..size])?;
        }
        decoder.finish()
    }

    fn l2_bound(&self, _: f64, _: usize) -> Option<f64> {
        None
    }

    fn why_not_masked(&self) -> &'static str {
        "each device's codes have scales of its own, so a sum of codes is no sum of updates"
    }

    fn needs_residual(&self) -> bool {
        false
    }
}
