//! The model down the link: whole in 16 bits, or as small deltas against the version that a device has.
//!
//! The cloud keeps the exact model; devices have its **image**, integers in steps of 2^-24 that cloud and devices reckon
//! alike. A version's delta is model − image, so whatever the last deltas lost is in the next one: errors do not add up over
//! versions (Tang et al. 2019, "DoubleSqueeze", ICML, algorithm 1: error feedback at the server). Nothing else is remembered:
//! the image *is* the memory.
//!
//! ```text
//! block of 256   shift (5 bits), then codes −127..127 (int8) or −7..7 (int4) through the range coder
//! image'         image + code · 2^shift                 integers: the same everywhere
//! ```
//!
//! Codes are rounded to the nearest: the same error on all devices is corrected in the next version.
//!
//! **Base and chain.** Some versions are *keys*: their image is the whole model in halves. The others are a delta to the one
//! before. A device at version v applies v+1, v+2, …; one that is new, or comes from before the last key, takes the key and
//! all deltas since: every road to a version ends at the same image. [`Chain`] says what a device needs, and when a new key
//! is due.
//!
//! The model is public to the fleet; nothing here hides it.

use super::entropy::{Decoder, Encoder, Frequencies};
use super::{CompressError, expect, finite};
use littoral_tensor::quant::half::{f16_to_f32, f32_to_f16};
use std::ops::RangeInclusive;

/// Steps per unit: an image's coordinates lie within ±128.
const PER_UNIT: f64 = 16_777_216.0;
const BLOCK: usize = 256;

/// How finely a delta's codes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    Int8,
    Int4,
}

impl Codes {
    fn most(self) -> i64 {
        match self {
            Self::Int8 => 127,
            Self::Int4 => 7,
        }
    }

    fn frequencies(self) -> Frequencies {
        Frequencies::new(2 * self.most() as usize + 1)
    }
}

/// What devices have of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(Vec<i32>);

impl Image {
    /// The image that a [`whole`] model makes.
    pub fn of_whole(bytes: &[u8], len: usize) -> Result<Self, CompressError> {
        expect("bytes of a model in halves", 2 * len, bytes.len())?;
        let halves = bytes.as_chunks::<2>().0.iter();
        halves.map(|half| steps(f16_to_f32(u16::from_le_bytes(*half)))).collect::<Result<_, _>>().map(Self)
    }

    /// What devices train from and are evaluated with.
    pub fn values(&self) -> Vec<f32> {
        self.0.iter().map(|&v| (f64::from(v) / PER_UNIT) as f32).collect()
    }

    /// The next image. Any bytes give one, or an error and no change.
    pub fn apply(&mut self, delta: &[u8]) -> Result<(), CompressError> {
        let mut decoder = Decoder::new(delta)?;
        let codes = if decoder.raw(1)? == 1 { Codes::Int8 } else { Codes::Int4 };
        let mut frequencies = codes.frequencies();
        let mut next = self.0.clone();
        for block in next.chunks_mut(BLOCK) {
            let shift = decoder.raw(5)?;
            for v in block {
                let code = symbol_code(decoder.symbol(&mut frequencies)?);
                *v = advanced(*v, code, shift)?;
            }
        }
        decoder.finish()?;
        self.0 = next;
        Ok(())
    }
}

/// The model in IEEE halves, and the image of it. Coordinates lie within ±128.
pub fn whole(model: &[f32]) -> Result<(Vec<u8>, Image), CompressError> {
    finite(model)?;
    let bytes: Vec<u8> = model.iter().flat_map(|&v| f32_to_f16(v).to_le_bytes()).collect();
    let image = Image::of_whole(&bytes, model.len())?;
    Ok((bytes, image))
}

/// The delta that moves `image` towards `model`; `image` becomes what devices will have.
pub fn delta(image: &mut Image, model: &[f32], codes: Codes) -> Result<Vec<u8>, CompressError> {
    expect("coordinates of the model", image.0.len(), model.len())?;
    finite(model)?;
    let most = codes.most();
    let mut out = Vec::new();
    let (mut encoder, mut frequencies) = (Encoder::new(&mut out), codes.frequencies());
    encoder.raw(u32::from(codes == Codes::Int8), 1);
    let mut next = image.0.clone();
    for (block, model) in next.chunks_mut(BLOCK).zip(model.chunks(BLOCK)) {
        let wanted = block.iter().zip(model).map(|(&v, &w)| Ok(i64::from(steps(w)?) - i64::from(v)));
        let wanted: Vec<i64> = wanted.collect::<Result<_, CompressError>>()?;
        let largest = wanted.iter().map(|d| d.unsigned_abs()).max().unwrap_or(0);
        let shift = (0..31).find(|&shift| rounded(largest as i64, shift) <= most).unwrap_or(31);
        encoder.raw(shift, 5);
        for (v, d) in block.iter_mut().zip(wanted) {
            let code = rounded(d, shift);
            encoder.symbol(code_symbol(code), &mut frequencies);
            *v = advanced(*v, code, shift)?;
        }
    }
    encoder.finish();
    image.0 = next;
    Ok(out)
}

/// The versions since the last key.
#[derive(Clone, Debug)]
pub struct Chain {
    key: u64,
    key_bytes: usize,
    /// Of the deltas to key + 1, key + 2, …
    delta_bytes: Vec<usize>,
}

/// What a device needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// The deltas to these versions, in order.
    Deltas(RangeInclusive<u64>),
    /// The whole of version `key`, then the deltas to all versions up to `newest`.
    Key {
        key: u64,
        newest: u64,
    },
}

impl Chain {
    /// At a key, so many bytes whole.
    pub fn new(key: u64, key_bytes: usize) -> Self {
        Self { key, key_bytes, delta_bytes: Vec::new() }
    }

    pub fn newest(&self) -> u64 {
        self.key + self.delta_bytes.len() as u64
    }

    /// The next version is a delta of so many bytes.
    pub fn push(&mut self, bytes: usize) {
        self.delta_bytes.push(bytes);
    }

    /// Should the next version be a key? Once the deltas since the last one are as many bytes as it: whoever is new pays
    /// twice a key at most, and whoever follows too, over the whole chain.
    pub fn key_is_due(&self) -> bool {
        self.delta_bytes.iter().sum::<usize>() >= self.key_bytes
    }

    /// For a device that has version `has`, or none.
    pub fn needs(&self, has: Option<u64>) -> Needs {
        let newest = self.newest();
        match has {
            Some(has) if has == newest => Needs::Nothing,
            Some(has) if (self.key..newest).contains(&has) => Needs::Deltas(has + 1..=newest),
            _ => Needs::Key { key: self.key, newest },
        }
    }

    /// What that is in bytes.
    pub fn bytes(&self, needs: &Needs) -> usize {
        let since = |first: u64| self.delta_bytes.iter().skip((first - self.key - 1) as usize).sum::<usize>();
        match needs {
            Needs::Nothing => 0,
            Needs::Deltas(versions) => since(*versions.start()),
            Needs::Key { .. } => self.key_bytes + since(self.key + 1),
        }
    }
}

fn steps(value: f32) -> Result<i32, CompressError> {
    let steps = (f64::from(value) * PER_UNIT).round();
    match steps.abs() < 2_147_483_648.0 {
        true => Ok(steps as i32),
        false => Err(CompressError::Value { what: "a weight of", allowed: "within ±128", got: value.to_string() }),
    }
}

fn advanced(value: i32, code: i64, shift: u32) -> Result<i32, CompressError> {
    let next = i64::from(value) + code * (1 << shift);
    i32::try_from(next).map_err(|_| CompressError::Value {
        what: "a weight of",
        allowed: "within ±128",
        got: (next as f64 / PER_UNIT).to_string(),
    })
}

/// d / 2^shift to the nearest, halves away from zero.
fn rounded(d: i64, shift: u32) -> i64 {
    let half = (1i64 << shift) >> 1;
    ((d.abs() + half) >> shift) * d.signum()
}

/// The most frequent first.
fn code_symbol(code: i64) -> usize {
    if code > 0 { 2 * code as usize - 1 } else { 2 * code.unsigned_abs() as usize }
}

fn symbol_code(symbol: usize) -> i64 {
    let magnitude = symbol.div_ceil(2) as i64;
    if symbol % 2 == 1 { magnitude } else { -magnitude }
}
