//! Readers: bytes in, a [`Table`](super::table::Table), an [`Array`](super::array::Array), an image or text out.
//!
//! Each is a pure function over [`Read`] (the .npz reader needs [`Seek`](std::io::Seek) too) and knows
//! nothing of schemas and mappings. Each is total: any bytes give a value or a [`DataError`](super::error::DataError),
//! and nothing is allocated that the bytes do not back. Paths are opened in [`super::files`] only.

pub mod csv;
pub mod idx;
pub mod image;
pub mod jsonl;
pub mod npy;
pub mod npz;
pub mod text;

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// Looks at the first two bytes and decompresses if they are gzip's magic number. Several members are read as one file.
pub fn gunzip<'a>(mut reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    if reader.fill_buf()?.starts_with(&MAGIC) {
        Ok(Box::new(MultiGzDecoder::new(reader)))
    } else {
        Ok(Box::new(reader))
    }
}
