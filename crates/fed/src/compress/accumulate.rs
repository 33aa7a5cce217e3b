//! How an edge absorbs coded updates: it decodes them into the words that the plan's own rounding would have packed, and
//! adds those. So a partial sum is what it always was, in any order and over any tree with the same bits; and whoever
//! simulates an edge adds the same words.
//!
//! ```text
//! coded update   whole part as the plan packs it, then per section its code's length (4 bytes, little-endian) and code
//! ```
//!
//! A decoded coordinate is rounded to the plan's nearest step, limited to its range and multiplied by the weight, as
//! `seal` does with coordinates that are not compressed. Decoding goes a block of 4,096 coordinates at a time: an edge needs
//! its partial (1.0 x an update), the coded bytes (at most [`bytes_max`]; for the recipes' defaults an eighth of an update or
//! less in practice, and they may lie on disk) and 32 KB.
//!
//! A sum cannot be told apart again, so [`absorb`] decodes twice: once to know that the bytes are whole and well formed,
//! once to add. Nothing is added of an update that is refused.

use super::random::derive;
use super::{BLOCK, Codec, CompressError, Seed, ended, take};
use crate::aggregate::{Absorbing, Partial, Refused};
use crate::plan::Plan;
use littoral_tensor::fixed;
use littoral_wire::NodeId;
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Error)]
pub enum AbsorbError {
    #[error(transparent)]
    Code(#[from] CompressError),
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Fewest bytes of a coded update under a plan.
pub fn bytes_min(plan: &Plan) -> usize {
    plan.header_bytes() + 4 * plan.sections().len()
}

/// Most bytes of a coded update under a plan.
pub fn bytes_max(codec: &dyn Codec, plan: &Plan) -> usize {
    plan.header_bytes() + plan.sections().iter().map(|section| 4 + codec.bytes_max(section.len)).sum::<usize>()
}

/// Decodes a coded update and hands its packed words on in order, the whole part first: together they are
/// `plan.format().bytes()` bytes. Each piece is whole groups of eight words. Returns, per section, how many coordinates
/// lay outside its range.
pub fn decode_into_words(
    codec: &dyn Codec,
    plan: &Plan,
    update: &[u8],
    emit: &mut dyn FnMut(&[u8]) -> Result<(), CompressError>,
) -> Result<Vec<u64>, CompressError> {
    let mut rest = update;
    let header = take(&mut rest, plan.header_bytes())?;
    let mut first = [0; 8];
    fixed::unpack(&header[..plan.bits() as usize], plan.bits(), &mut first)?;
    let weight = match u32::try_from(first[0]) {
        Ok(weight) if weight <= plan.weight_max() => weight,
        _ => return Err(CompressError::Weight { weight_max: plan.weight_max(), got: first[0] }),
    };
    emit(header)?;
    let mut saturated = Vec::with_capacity(plan.sections().len());
    for section in 0..plan.sections().len() {
        let length = take(&mut rest, 4)?.try_into().map_or(0, u32::from_le_bytes);
        let code = take(&mut rest, length as usize)?;
        saturated.push(section_into_words(codec, plan, section, weight, code, emit)?);
    }
    ended(rest)?;
    Ok(saturated)
}

/// The same for one section's code. Panics past the last section.
pub fn section_into_words(
    codec: &dyn Codec,
    plan: &Plan,
    section: usize,
    weight: u32,
    code: &[u8],
    emit: &mut dyn FnMut(&[u8]) -> Result<(), CompressError>,
) -> Result<u64, CompressError> {
    let (bits, levels) = (plan.bits(), plan.levels().into());
    let inv_step = plan.step(section).recip() as f32;
    let section = &plan.sections()[section];
    let times = if section.weighted { weight.into() } else { 1 };
    let mut words = vec![0; fixed::packed_len(BLOCK.min(section.len), bits)];
    let mut saturated = 0;
    codec.decode(section.len, code, &mut |block| {
        let words = &mut words[..fixed::packed_len(block.len(), bits)];
        saturated += fixed::quantise_pack(block, inv_step, levels, times, bits, words)?;
        emit(words)
    })?;
    Ok(saturated)
}

/// Adds a device's coded update to a partial, or nothing of it.
pub fn absorb(
    partial: &mut Partial,
    device: NodeId,
    codec: &dyn Codec,
    plan: &Plan,
    update: &[u8],
) -> Result<(), AbsorbError> {
    partial.admits(device, plan.format().bytes() as u64)?;
    decode_into_words(codec, plan, update, &mut |_| Ok(()))?;
    let mut absorbing = Absorbing::begin(partial, &[device])?;
    let mut refused = Ok(());
    decode_into_words(codec, plan, update, &mut |words| {
        if refused.is_ok() {
            refused = absorbing.chunk(partial, &[words]);
        }
        Ok(())
    })?;
    refused?;
    Ok(absorbing.finish(partial)?)
}

/// The seed of one section's code.
pub(crate) fn section_seed(seed: &Seed, section: usize) -> Seed {
    derive(seed, "section", section as u64)
}
