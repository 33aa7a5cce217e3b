//! Compression of updates: fewer bytes up and down the link, each mechanism with its proof as a test.
//!
//! Two kinds, told apart by type, since only one of them can be summed without being read:
//!
//! - **[`Linear`]** maps go *before* rounding: a vector becomes a shorter one (or a better-spread one), the same map for
//!   every device of a round, and sums of images are images of sums. The short vector is rounded, packed, masked and
//!   summed as any section is; the cloud maps the total back. Nothing between device and cloud knows of it.
//! - **[`Codec`]**s make bytes of one device's vector that only decoding turns into numbers again. An edge decodes them, a
//!   block at a time, into the plan's words and adds those ([`accumulate`]), so sums stay exact and free of order. Under
//!   masks there is nothing to decode: [`Codec::why_not_masked`] says why in a sentence.
//!
//! | file | what | kind | L2 norm it leaves |
//! |---|---|---|---|
//! | `randomk` | k coordinates drawn from the round's seed | linear | as it was; rescaled: no bound |
//! | `rotate` | randomised Hadamard rotation in blocks of 2^12 | linear | as it was |
//! | `chain` | one linear map after another, rounded by chance to the plan's grid | linear | + one step per coordinate |
//! | `alternating` | a matrix as one of two thin ones, by turns (PowerSGD) | linear | as it was |
//! | `powersgd` | the same, both in one round | linear, in two sums | as it was, each |
//! | `quantise` | few levels by chance, a scale per block | codec | no bound |
//! | `eden` | rotated, 1 to 4 bits per coordinate, unbiased | codec | no bound |
//! | `sign` | signs and a mean magnitude per block | codec | as it was |
//! | `topk` | the largest coordinates, signs and mean or values | codec | as it was |
//! | `entropy` | a range coder for small alphabets | part of codecs | – |
//!
//! Around them: `random` (seeded draws), [`residual`] (error feedback), [`accumulate`] (how an edge absorbs coded
//! updates), [`downlink`] (the model as a chain of deltas), [`recipe`] (what a job writes).
//!
//! A codec's bytes are bounded by its own arithmetic: nothing is allocated by what bytes claim, every decoder ends after
//! the coordinates that the plan says, and refuses bytes left over.

pub mod accumulate;
pub mod alternating;
pub mod chain;
pub mod downlink;
pub mod eden;
pub mod entropy;
pub mod powersgd;
pub mod quantise;
pub mod random;
pub mod randomk;
pub mod recipe;
pub mod residual;
pub mod rotate;
pub mod sign;
pub mod topk;

pub use alternating::Alternating;
pub use powersgd::PowerSgd;
pub use random::Seed;
pub use recipe::Recipe;

use littoral_tensor::fixed::FixedError;
use thiserror::Error;

/// Most coordinates that a codec hands on at a time.
pub const BLOCK: usize = 4096;

/// Takes decoded coordinates in order. Each call has at most [`BLOCK`] of them, and a multiple of eight but in the last.
pub type Sink<'a> = &'a mut dyn FnMut(&[f32]) -> Result<(), CompressError>;

/// Bytes for one device's vector; only decoding makes numbers of them.
pub trait Codec: Send + Sync {
    fn name(&self) -> &'static str;

    /// Most bytes that `len` coordinates take.
    fn bytes_max(&self, len: usize) -> usize;

    /// Appends the code of `x` to `out`. The seed is the device's own for this round, section and purpose: equal seeds give
    /// equal bytes. Values must be finite.
    fn encode(&self, x: &[f32], seed: &Seed, out: &mut Vec<u8>) -> Result<(), CompressError>;

    /// Hands exactly `len` finite coordinates to `sink`, the same bits on every machine. Any bytes give this or an error.
    fn decode(&self, len: usize, bytes: &[u8], sink: Sink<'_>) -> Result<(), CompressError>;

    /// A proven bound on the decoded vector's L2 norm, given one of the vector's own; `None`: there is none, so no noise can
    /// be calibrated to what follows.
    fn l2_bound(&self, before: f64, len: usize) -> Option<f64>;

    /// Why its updates cannot be summed under masks.
    fn why_not_masked(&self) -> &'static str;

    /// Whether its error is a bias that a residual must make up for over time, and not noise that averages out.
    fn needs_residual(&self) -> bool;
}

/// A map that commutes with sums. All devices of a round share the seed.
pub trait Linear: Send + Sync {
    fn name(&self) -> &'static str;

    /// Coordinates that are sent of `len`.
    fn sent_len(&self, len: usize) -> usize;

    /// What is sent of `x`.
    fn forward(&self, x: &[f32], seed: &Seed) -> Vec<f32>;

    /// From what was sent, or a sum or mean of it, back to `len` coordinates. Panics unless `sent` has
    /// [`Linear::sent_len`] of them.
    fn backward(&self, sent: &[f32], len: usize, seed: &Seed) -> Vec<f32>;

    /// A proven bound on the L2 norm of what is sent, given one of the vector's own.
    fn l2_bound(&self, before: f64, len: usize) -> Option<f64>;

    /// As [`Codec::needs_residual`].
    fn needs_residual(&self) -> bool;
}

/// How a recipe compresses.
pub enum Compressor {
    /// Before rounding, one sum.
    Linear(Box<dyn Linear>),
    /// Before rounding, one sum, by a map that each version brings along.
    Alternating(Alternating),
    /// Before rounding, two sums after each other.
    TwoSums(PowerSgd),
    /// After training, decoded at the edge.
    Coded(Box<dyn Codec>),
}

impl Compressor {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear(linear) => linear.name(),
            Self::Alternating(_) | Self::TwoSums(_) => "powersgd",
            Self::Coded(codec) => codec.name(),
        }
    }

    /// Can sums be taken under masks? If not: why, as a sentence.
    pub fn masked(&self) -> Result<(), &'static str> {
        match self {
            Self::Linear(_) | Self::Alternating(_) | Self::TwoSums(_) => Ok(()),
            Self::Coded(codec) => Err(codec.why_not_masked()),
        }
    }

    /// A proven bound on the L2 norm of what reaches the sum (of each sum), given one of the vector's own.
    pub fn l2_bound(&self, before: f64, len: usize) -> Option<f64> {
        match self {
            Self::Linear(linear) => linear.l2_bound(before, len),
            Self::Alternating(alternating) => Some(alternating.l2_bound(before)),
            Self::TwoSums(powersgd) => powersgd.l2_bound(before),
            Self::Coded(codec) => codec.l2_bound(before, len),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum CompressError {
    #[error("coordinate {index} is {value}: only finite values can be compressed")]
    NotFinite { index: usize, value: f32 },
    #[error("compression.{field} is {got}, allowed is {allowed}")]
    Setting { field: &'static str, allowed: &'static str, got: String },
    #[error("{what}: {expected} expected, got {got}")]
    Shape { what: &'static str, expected: usize, got: usize },
    #[error("a coded update ends after {got} bytes, too early")]
    Short { got: usize },
    #[error("a coded update has {left} bytes more than its coordinates need")]
    LeftOver { left: usize },
    #[error("a coded update says {what} {got}, allowed is {allowed}")]
    Value { what: &'static str, allowed: &'static str, got: String },
    #[error("a device weighs 0 to {weight_max}, its update says {got}")]
    Weight { weight_max: u32, got: i64 },
    #[error(transparent)]
    Fixed(#[from] FixedError),
}

/// Integer steps as values: what words say.
pub fn values(steps: impl IntoIterator<Item = i64>, step: f64) -> Vec<f32> {
    steps.into_iter().map(|n| (n as f64 * step) as f32).collect()
}

/// Values in the nearest integer steps: how a total that was mapped back goes on to the algorithm's cloud half.
pub fn in_steps(values: &[f32], step: f64) -> Vec<i64> {
    values.iter().map(|&v| (f64::from(v) / step).round() as i64).collect()
}

fn expect(what: &'static str, expected: usize, got: usize) -> Result<(), CompressError> {
    if expected == got { Ok(()) } else { Err(CompressError::Shape { what, expected, got }) }
}

fn finite(x: &[f32]) -> Result<(), CompressError> {
    match x.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(CompressError::NotFinite { index, value: x[index] }),
        None => Ok(()),
    }
}

/// The next `count` of `bytes`.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], CompressError> {
    let (head, rest) = bytes.split_at_checked(count).ok_or(CompressError::Short { got: bytes.len() })?;
    *bytes = rest;
    Ok(head)
}

fn ended(bytes: &[u8]) -> Result<(), CompressError> {
    if bytes.is_empty() { Ok(()) } else { Err(CompressError::LeftOver { left: bytes.len() }) }
}

/// A scale that was sent: finite and not below 0, so that no decoded value is beyond the floats' range times `times`.
fn scale(bytes: [u8; 4], times: f32) -> Result<f32, CompressError> {
    let scale = f32::from_le_bytes(bytes);
    match (scale * times).is_finite() && scale >= 0.0 {
        true => Ok(scale),
        false => Err(CompressError::Value { what: "a scale of", allowed: "0 or more, finite", got: scale.to_string() }),
    }
}

/// All coordinates at once, for those who have room.
pub fn decoded(codec: &dyn Codec, len: usize, bytes: &[u8]) -> Result<Vec<f32>, CompressError> {
    let mut x = Vec::with_capacity(len);
    codec.decode(len, bytes, &mut |block| {
        x.extend_from_slice(block);
        Ok(())
    })?;
    expect("decoded coordinates", len, x.len())?;
    Ok(x)
}
