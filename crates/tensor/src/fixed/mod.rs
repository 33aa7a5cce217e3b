//! Fixed point: floats become integers that any tree of machines adds to the same bits.
//!
//! A value is divided by a step, rounded, limited to `[-levels, levels - 1]` and multiplied by an integer weight
//! ([`quantise()`]). The words travel packed, two's complement modulo 2^bits, least significant bit first, so that
//! eight words take exactly `bits` bytes ([`pack()`]). Sums are taken on the packed bytes ([`add_packed`]): since addition
//! modulo 2^bits is associative and commutative, order of arrival and shape of the tree leave no trace.
//! At the end [`dequantise`] multiplies by the step.
//!
//! What this is not: it neither chooses steps, levels and bits nor proves that a sum cannot wrap. That is planned for a
//! whole job, once, by the caller: `bits >= ceil(log2(2 * devices * weight_max * levels))`.

mod add;
mod pack;
mod quantise;

pub use add::{add_packed, sub_packed};
pub use pack::{dequantise, dequantise_packed, pack, packed_len, unpack};
pub use quantise::{quantise, quantise_pack, quantise_pack32};

use thiserror::Error;

#[derive(Clone, Debug, Error, PartialEq)]
pub enum FixedError {
    #[error("fixed point: value {index} is not a number")]
    NotANumber { index: usize },
    #[error("fixed point: {field} is {got}, expected {expected}")]
    Setting { field: &'static str, expected: &'static str, got: String },
    #[error("fixed point: {what} has length {got}, expected {expected}")]
    Length { what: &'static str, expected: usize, got: usize },
}

/// How many words are handled at a time where an intermediate copy is needed; it stays in the first-level cache.
const BLOCK: usize = 512;

fn check_bits(bits: u32) -> Result<usize, FixedError> {
    if (1..=64).contains(&bits) {
        return Ok(bits as usize);
    }
    Err(FixedError::Setting { field: "bits", expected: "1 to 64", got: bits.to_string() })
}

fn check_len(what: &'static str, expected: usize, got: usize) -> Result<(), FixedError> {
    if expected == got { Ok(()) } else { Err(FixedError::Length { what, expected, got }) }
}
