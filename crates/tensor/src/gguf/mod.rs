//! Files of language models: GGUF versions 2 and 3, little-endian.
//!
//! A file is a header, metadata (keys with typed values), a list of tensors, and after them the tensors' bytes
//! (github.com/ggml-org/ggml, docs/gguf.md). [`Gguf::parse`] reads all but the last from a byte slice, most often a
//! [`crate::Mapped`] file, and borrows from it: strings and arrays stay where they are and are decoded when asked for.
//! [`Writer`] makes version 3.
//!
//! **Reading is total.** Any bytes give a value or a [`GgufError`] that says what was read, at which byte, what was
//! expected and what stood there. A count is compared with its bound and with the bytes that remain before anything is
//! read by it, and lists grow as their items are read, so a lying count costs nothing. What `parse` has accepted needs
//! no further check: every string is UTF-8, every tensor of a known kind has all its bytes and shares them with none.
//!
//! Not here: what keys and tensors mean, and big-endian files.

#[cfg(test)]
mod attacks;
mod error;
mod metadata;
mod read;
#[cfg(test)]
mod round_trip;
mod tensor;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use error::GgufError;
pub use metadata::{Entry, Metadata};
pub use tensor::{Tensor, TensorInfo};
pub use value::{Array, Type, Value};
pub use write::{WriteError, Writer};

use read::Reader;

/// Tensors in a file. The most that is known are about 47 000, where each expert of a large model is a tensor by itself.
pub const TENSORS_MAX: usize = 1 << 18;
/// Keys in a file. Real ones have some tens.
pub const KEYS_MAX: usize = 1 << 16;
/// Arrays within arrays: an array of numbers has depth 1. No known key has more than 1.
pub const ARRAY_DEPTH_MAX: usize = 4;
/// Dimensions of a tensor, as in GGML.
pub const DIMS_MAX: usize = 4;
/// Where tensors begin at a multiple of, if `general.alignment` does not say.
pub const ALIGNMENT: usize = 32;

const MAGIC: [u8; 4] = *b"GGUF";
const ALIGNMENT_KEY: &str = "general.alignment";

/// A file that was read: its metadata and its tensors, borrowed from its bytes.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    version: u32,
    alignment: usize,
    metadata: Metadata<'a>,
    tensors: Vec<TensorInfo<'a>>,
    /// Indices into `tensors`, by name.
    by_name: Vec<usize>,
    data_start: usize,
}

impl<'a> Gguf<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut reader = Reader::new(bytes);
        let version = version(&mut reader)?;
        let tensor_count = reader.count(&"the number of tensors", TENSORS_MAX, tensor::INFO_BYTES_MIN)?;
        let key_count = reader.count(&"the number of keys", KEYS_MAX, metadata::ENTRY_BYTES_MIN)?;
        let metadata = Metadata::read(&mut reader, key_count)?;
        let alignment = alignment(&metadata)?;
        let mut stored = Vec::new();
        for index in 0..tensor_count {
            stored.push(tensor::Stored::read(&mut reader, index)?);
        }
        let (data_start, tensors) = tensor::place(stored, reader.offset(), alignment, bytes.len())?;
        let by_name = tensor::by_name(&tensors)?;
        Ok(Self { bytes, version, alignment, metadata, tensors, by_name, data_start })
    }

    /// 2 or 3; they differ only in that 3 may be big-endian.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn alignment(&self) -> usize {
        self.alignment
    }

    pub fn metadata(&self) -> &Metadata<'a> {
        &self.metadata
    }

    /// All tensors in the file's order, also those of unknown kinds.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }

    /// Where the tensors' bytes begin.
    pub fn data_start(&self) -> usize {
        self.data_start
    }

    /// Bytes from there to the end of the file.
    pub fn data_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(self.data_start)
    }

    /// The tensor of that name, if the file has it.
    pub fn find(&self, name: &str) -> Option<&TensorInfo<'a>> {
        let found = self.by_name.binary_search_by_key(&name, |&index| self.tensors[index].name).ok()?;
        Some(&self.tensors[self.by_name[found]])
    }

    /// The tensor of that name with its bytes. An error if there is none, or if its kind is not known.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'a>, GgufError> {
        let info = self.find(name).ok_or_else(|| GgufError::NoTensor { name: error::shown(name) })?;
        info.with_bytes(self.bytes)
    }
}

fn version(reader: &mut Reader<'_>) -> Result<u32, GgufError> {
    let got: [u8; 4] = reader.array(&"the magic")?;
    if got != MAGIC {
        return Err(GgufError::malformed(&"the magic", 0, "`GGUF`", format!("`{}`", got.escape_ascii())));
    }
    let offset = reader.offset();
    let version = reader.u32(&"the version")?;
    let got = match version {
        2 | 3 => return Ok(version),
        1 => "1, whose counts have 32 bits: convert the model anew".to_owned(),
        _ if (1..=3).contains(&version.swap_bytes()) => format!("{} in big-endian order", version.swap_bytes()),
        _ => version.to_string(),
    };
    Err(GgufError::malformed(&"the version", offset, "2 or 3 in little-endian order", got))
}

fn alignment(metadata: &Metadata<'_>) -> Result<usize, GgufError> {
    let Some(entry) = metadata.get(ALIGNMENT_KEY) else { return Ok(ALIGNMENT) };
    let alignment = entry.u32()?;
    if !alignment.is_power_of_two() {
        return Err(GgufError::malformed(&"metadata `general.alignment`", entry.offset, "a power of two", alignment));
    }
    Ok(alignment as usize)
}
