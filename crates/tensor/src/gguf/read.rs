//! Takes numbers and strings from the front of the bytes, and says where that failed.

use super::error::GgufError;
use std::fmt::Display;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn offset(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes from `start` to here.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    pub fn take(&mut self, what: &dyn Display, len: u64) -> Result<&'a [u8], GgufError> {
        match usize::try_from(len) {
            Ok(len) if len <= self.remaining() => {
                let taken = &self.bytes[self.at..self.at + len];
                self.at += len;
                Ok(taken)
            }
            _ => Err(GgufError::malformed(what, self.at, bytes(len), format!("{} until the end", self.remaining()))),
        }
    }

    pub fn array<const N: usize>(&mut self, what: &dyn Display) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(what, N as u64)?);
        Ok(out)
    }

    pub fn u32(&mut self, what: &dyn Display) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub fn u64(&mut self, what: &dyn Display) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of items that take at least `item_bytes_min` bytes each.
    pub fn count(&mut self, what: &dyn Display, maximum: usize, item_bytes_min: usize) -> Result<usize, GgufError> {
        let offset = self.at;
        let got = self.u64(what)?;
        let backed = self.remaining() / item_bytes_min;
        let why = if backed < maximum { "the bytes that remain hold no more" } else { "no real file has more" };
        let maximum = maximum.min(backed);
        match usize::try_from(got) {
            Ok(count) if count <= maximum => Ok(count),
            _ => Err(GgufError::malformed(what, offset, format!("at most {maximum} ({why})"), got)),
        }
    }

    /// A length and as many bytes of UTF-8.
    pub fn string(&mut self, what: &dyn Display) -> Result<&'a str, GgufError> {
        let len = self.u64(what)?;
        let offset = self.at;
        std::str::from_utf8(self.take(what, len)?).map_err(|e| {
            let at = offset + e.valid_up_to();
            GgufError::malformed(what, at, "UTF-8", format!("byte 0x{:02x}", self.bytes[at]))
        })
    }
}

fn bytes(len: u64) -> String {
    if len == 1 { "1 byte".to_owned() } else { format!("{len} bytes") }
}
