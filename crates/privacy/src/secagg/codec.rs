//! Bytes in, values out: little-endian, one encoding per value, no padding.
//!
//! Decoding is total: any bytes give a value or an error. A count is compared with its bound and with the bytes that are
//! left before anything is allocated, so a lying length costs nothing.

use thiserror::Error;

/// Why bytes are not a message of secure aggregation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("{what} at byte {offset}: {expected} bytes expected, {got} left")]
    Truncated { what: &'static str, offset: usize, expected: usize, got: usize },
    #[error("{what} at byte {offset}: at most {maximum} allowed, got {got}")]
    TooLarge { what: &'static str, offset: usize, maximum: u64, got: u64 },
    #[error("{what} at byte {offset}: {got} is not one of the known values")]
    Unknown { what: &'static str, offset: usize, got: u8 },
    #[error("{what} at byte {offset}: {why}")]
    Invalid { what: &'static str, offset: usize, why: &'static str },
    #[error("{got} bytes left over at byte {offset}")]
    LeftOver { offset: usize, got: usize },
}

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        let got = self.bytes.len() - self.at;
        if got < len {
            return Err(DecodeError::Truncated { what, offset: self.at, expected: len, got });
        }
        self.at += len;
        Ok(&self.bytes[self.at - len..self.at])
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(what, N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(DecodeError::Unknown { what, offset: self.at - 1, got }),
        }
    }

    /// A `u32` count of items that take at least `item_bytes_min` bytes each, which is not 0.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        maximum: u32,
        item_bytes_min: usize,
    ) -> Result<usize, DecodeError> {
        let offset = self.at;
        let count = self.u32(what)?;
        if count > maximum {
            return Err(DecodeError::TooLarge { what, offset, maximum: maximum.into(), got: count.into() });
        }
        let (expected, got) = (count as usize * item_bytes_min, self.bytes.len() - self.at);
        if expected > got {
            return Err(DecodeError::Truncated { what, offset, expected, got });
        }
        Ok(count as usize)
    }

    pub(crate) fn unknown(&self, what: &'static str, got: u8) -> DecodeError {
        DecodeError::Unknown { what, offset: self.at, got }
    }

    pub(crate) fn invalid(&self, what: &'static str, why: &'static str) -> DecodeError {
        DecodeError::Invalid { what, offset: self.at, why }
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            got => Err(DecodeError::LeftOver { offset: self.at, got }),
        }
    }
}

/// A set of places below a length, one bit each; unused bits are 0.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    len: u32,
    bytes: Vec<u8>,
}

impl Bitmap {
    /// The empty set of places below `len`.
    pub fn new(len: u32) -> Self {
        Self { len, bytes: vec![0; len.div_ceil(8) as usize] }
    }

    pub(crate) fn of(flags: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut set = Self::new(flags.len() as u32);
        flags.enumerate().filter(|(_, there)| *there).for_each(|(place, _)| set.insert(place as u32));
        set
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// `place` is below the length.
    pub fn insert(&mut self, place: u32) {
        self.bytes[place as usize / 8] |= 1 << (place % 8);
    }

    pub fn contains(&self, place: u32) -> bool {
        place < self.len && self.bytes[place as usize / 8] >> (place % 8) & 1 == 1
    }

    /// How many places are in the set.
    pub fn count(&self) -> u32 {
        self.bytes.iter().map(|byte| byte.count_ones()).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len).filter(|&place| self.contains(place))
    }

    pub(crate) fn is_subset_of(&self, other: &Self) -> bool {
        self.len == other.len && self.bytes.iter().zip(&other.bytes).all(|(a, b)| a & !b == 0)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }

    pub(crate) fn get(reader: &mut Reader<'_>, what: &'static str, maximum: u32) -> Result<Self, DecodeError> {
        let offset = reader.at;
        let len = reader.u32(what)?;
        if len > maximum {
            return Err(DecodeError::TooLarge { what, offset, maximum: maximum.into(), got: len.into() });
        }
        let bytes = reader.take(what, len.div_ceil(8) as usize)?;
        if !len.is_multiple_of(8) && bytes.last().is_some_and(|last| last >> (len % 8) != 0) {
            return Err(reader.invalid(what, "bits above the last are set"));
        }
        Ok(Self { len, bytes: bytes.to_vec() })
    }
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.count(), self.len)
    }
}
