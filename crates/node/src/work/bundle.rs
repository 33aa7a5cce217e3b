//! An edge's list of updates: for jobs whose rule must see each of them ([`littoral_fed::robust`]).
//!
//! The updates lie on disk, and so does the list: of neither more than a chunk is in memory, however many they are.

use super::{Objects, Output, WorkFault};
use littoral_wire::ObjectId;
use littoral_wire::object::CHUNK_BYTES;

/// Writes the updates one after another, in the order given, into one object.
pub fn run(updates: &[(ObjectId, u64)], objects: &dyn Objects) -> Result<Output, WorkFault> {
    let mut list = objects.create()?;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    for &(update, bytes) in updates {
        for offset in (0..bytes).step_by(CHUNK_BYTES) {
            chunk.resize((bytes - offset).min(CHUNK_BYTES as u64) as usize, 0);
            objects.read(update, offset, &mut chunk)?;
            list.append(&chunk)?;
        }
    }
    Ok(Output::Bundled { list: list.finish()? })
}
