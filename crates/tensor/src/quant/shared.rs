//! Bytes that nobody writes any more and several may hold: memory that was filled, or a file that is mapped.
//!
//! [`Memory`] is written by the one who has it. Turned into a [`Shared`] it is only read, so what reads weights need not
//! know whether they were packed here or lie in a file.

use super::memory::Memory;
use crate::mapped::Mapped;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A range of bytes whose owner stays as long as anybody has a part of them.
#[derive(Clone)]
pub struct Shared {
    owner: Owner,
    /// Within the owner's bytes, whose number never changes.
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Memory(Arc<Memory>),
    File(Arc<Mapped>),
}

impl Shared {
    /// Some of these bytes; `None` if they are not all there. The same bytes in memory: nothing is copied.
    pub fn part(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let range = self.range.start + range.start..self.range.start + range.end;
        Some(Self { owner: self.owner.clone(), range })
    }
}

impl From<Memory> for Shared {
    fn from(memory: Memory) -> Self {
        let range = 0..memory.len();
        Self { owner: Owner::Memory(Arc::new(memory)), range }
    }
}

impl From<Arc<Mapped>> for Shared {
    fn from(file: Arc<Mapped>) -> Self {
        let range = 0..file.len();
        Self { owner: Owner::File(file), range }
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes: &[u8] = match &self.owner {
            Owner::Memory(memory) => memory,
            Owner::File(file) => file,
        };
        &bytes[self.range.clone()]
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = match self.owner {
            Owner::Memory(_) => "memory",
            Owner::File(_) => "a file",
        };
        write!(f, "{} bytes of {of}", self.range.len())
    }
}
