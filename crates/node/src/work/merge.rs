//! Sums of updates as one: a part of what [`super::apply`] does, for whoever takes it over.
//!
//! Addition modulo 2^bits: in whatever parts it is done, the whole has the same bits.

use super::apply::refused;
use super::{Objects, Output, WorkFault};
use littoral_tensor::fixed::add_packed;
use littoral_wire::ObjectId;

/// Bytes of each sum that are in memory at a time, about.
const BLOCK_BYTES: u64 = 1 << 20;

/// `sums`: of `bytes` each, whole groups of words of `bits`.
pub fn run(bits: u32, bytes: u64, sums: &[ObjectId], objects: &dyn Objects) -> Result<Output, WorkFault> {
    let block = (BLOCK_BYTES / u64::from(bits.max(1))).max(1) * u64::from(bits);
    let mut out = objects.create()?;
    let (mut sum, mut other) = (Vec::new(), Vec::new());
    for start in (0..bytes).step_by(block.max(1) as usize) {
        let len = (bytes - start).min(block) as usize;
        sum.clear();
        sum.resize(len, 0);
        other.resize(len, 0);
        for object in sums {
            objects.read(*object, start, &mut other)?;
            add_packed(&mut sum, &other, bits).map_err(refused)?;
        }
        out.append(&sum)?;
    }
    Ok(Output::Merged { sum: out.finish()? })
}
