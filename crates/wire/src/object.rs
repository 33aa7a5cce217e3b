//! Objects: models, updates and partial sums as content-addressed chunks.
//!
//! An object is cut into chunks of [`CHUNK_BYTES`]; its [`Manifest`] lists each chunk's BLAKE3 hash; the hash of the
//! manifest names the object ([`ObjectId`]). Whoever wants an object asks for chunks by number, checks each against
//! the manifest, and after an interruption asks only for those that it lacks. What is pulled arrives no faster than
//! the receiver asks: that is the whole of flow control.
//!
//! A model may be told as a change of the model before: then its object begins with the id of that one's object, and so on
//! down to one that is whole. Its [`Chain`] lists those others, so that whoever has some of them asks for the rest.

use crate::bounded::{List, OverBound};
use crate::codec::{DecodeError, Reader, Wire};
use crate::identity::hex;
use std::fmt;
use thiserror::Error;

/// Bytes per chunk; the last chunk may be shorter. A receiver holds at most one chunk per connection while it waits.
pub const CHUNK_BYTES: usize = 128 * 1024;
/// 65,536 chunks: an object has at most 8.6 GB.
pub const CHUNKS_MAX: usize = 65_536;
/// An object of at most this many bytes may travel inside the message that offers it.
pub const INLINE_BYTES_MAX: usize = CHUNK_BYTES;

/// Objects that a model builds on, at most.
pub const CHAIN_MAX: usize = 63;
/// Their chunks, all together: 524 MB.
pub const CHAIN_CHUNKS_MAX: usize = 4_000;

/// BLAKE3 of an object's manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 32]);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..4]))
    }
}

impl std::str::FromStr for ObjectId {
    type Err = crate::identity::IdentityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        crate::identity::unhex(text)
            .map(ObjectId)
            .ok_or_else(|| crate::identity::IdentityError::NotHex { got: text.chars().take(80).collect() })
    }
}

impl Wire for ObjectId {
    const BYTES_MIN: usize = 32;
    const BYTES_MAX: usize = 32;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.array("object id")?))
    }
}

/// Length and chunk hashes of an object.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: u64,
    chunks: List<[u8; 32], CHUNKS_MAX>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    #[error("chunk {index} of object {object}: it has {chunks} chunks")]
    NoSuchChunk { object: ObjectId, index: u32, chunks: u32 },
    #[error("chunk {index} of object {object}: {expected} bytes expected, got {got}")]
    WrongLength { object: ObjectId, index: u32, expected: usize, got: usize },
    #[error("chunk {index} of object {object}: the bytes do not have the hash that the manifest gives")]
    WrongHash { object: ObjectId, index: u32 },
    #[error("an object has at most {CHUNKS_MAX} chunks of {CHUNK_BYTES} bytes, this one needs {got}")]
    TooBig { got: usize },
    #[error("an object of {bytes} bytes has {expected} chunks, got {got} hashes")]
    WrongCount { bytes: u64, expected: u64, got: usize },
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<object {:?}, {} bytes>", self.id(), self.bytes)
    }
}

impl Manifest {
    /// Of bytes that are all in memory.
    pub fn of(bytes: &[u8]) -> Result<Self, ChunkError> {
        Self::from_hashes(bytes.len() as u64, bytes.chunks(CHUNK_BYTES).map(chunk_hash).collect())
    }

    /// Of an object that was hashed chunk by chunk: one hash for each [`CHUNK_BYTES`], begun or full.
    pub fn from_hashes(bytes: u64, chunks: Vec<[u8; 32]>) -> Result<Self, ChunkError> {
        let expected = bytes.div_ceil(CHUNK_BYTES as u64);
        if chunks.len() as u64 != expected {
            return Err(ChunkError::WrongCount { bytes, expected, got: chunks.len() });
        }
        let chunks = List::new(chunks).map_err(|e| ChunkError::TooBig { got: e.got })?;
        Ok(Self { bytes, chunks })
    }

    pub fn id(&self) -> ObjectId {
        ObjectId(*blake3::hash(&self.to_bytes()).as_bytes())
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What [`chunk_hash`] gives for this chunk.
    pub fn chunk_hash(&self, index: u32) -> Option<[u8; 32]> {
        self.chunks.get(index as usize).copied()
    }

    pub fn chunks(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// Bytes in chunk `index`; zero past the end.
    pub fn chunk_bytes(&self, index: u32) -> usize {
        let start = u64::from(index) * CHUNK_BYTES as u64;
        self.bytes.saturating_sub(start).min(CHUNK_BYTES as u64) as usize
    }

    /// Do these bytes belong at `index`?
    pub fn check(&self, index: u32, bytes: &[u8]) -> Result<(), ChunkError> {
        let Some(hash) = self.chunks.get(index as usize) else {
            return Err(ChunkError::NoSuchChunk { object: self.id(), index, chunks: self.chunks() });
        };
        let expected = self.chunk_bytes(index);
        if bytes.len() != expected {
            return Err(ChunkError::WrongLength { object: self.id(), index, expected, got: bytes.len() });
        }
        if chunk_hash(bytes) != *hash {
            return Err(ChunkError::WrongHash { object: self.id(), index });
        }
        Ok(())
    }
}

/// What a model builds on, the whole one first; empty: it is whole itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Chain(List<Manifest, CHAIN_MAX>);

impl Chain {
    pub fn new(objects: Vec<Manifest>) -> Result<Self, OverBound> {
        let chunks = chunks_of(&objects);
        match chunks > CHAIN_CHUNKS_MAX {
            true => Err(OverBound { maximum: CHAIN_CHUNKS_MAX, got: chunks }),
            false => List::new(objects).map(Self),
        }
    }

    pub fn into_vec(self) -> Vec<Manifest> {
        self.0.into_vec()
    }
}

fn chunks_of(objects: &[Manifest]) -> usize {
    objects.iter().map(|object| object.chunks.len()).sum()
}

impl std::ops::Deref for Chain {
    type Target = [Manifest];
    fn deref(&self) -> &[Manifest] {
        &self.0
    }
}

impl Wire for Chain {
    const BYTES_MIN: usize = 4;
    const BYTES_MAX: usize = 4 + CHAIN_MAX * Manifest::BYTES_MIN + CHAIN_CHUNKS_MAX * 32;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        let objects = List::<Manifest, CHAIN_MAX>::take(reader)?;
        match chunks_of(&objects) > CHAIN_CHUNKS_MAX {
            true => Err(DecodeError::Invalid { what: "chain", offset, why: "at most 4000 chunks expected" }),
            false => Ok(Self(objects)),
        }
    }
}

pub fn chunk_hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

impl Wire for Manifest {
    const BYTES_MIN: usize = 12;
    const BYTES_MAX: usize = 8 + List::<[u8; 32], CHUNKS_MAX>::BYTES_MAX;
    fn put(&self, out: &mut Vec<u8>) {
        self.bytes.put(out);
        self.chunks.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        let bytes = u64::take(reader)?;
        let chunks = List::<[u8; 32], CHUNKS_MAX>::take(reader)?;
        if chunks.len() as u64 != bytes.div_ceil(CHUNK_BYTES as u64) {
            return Err(DecodeError::Invalid { what: "manifest", offset, why: "as many hashes as chunks expected" });
        }
        Ok(Self { bytes, chunks })
    }
}
