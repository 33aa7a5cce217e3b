//! Texts, byte strings and lists whose greatest length is part of their type, so that every message has a bound that
//! can be read off its declaration.

use crate::codec::{DecodeError, Reader, SWELL_MAX, Wire};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// UTF-8 of at most `MAX` bytes. A longer text is cut at a character's end when it is made: texts are for people.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX {
            let end = (0..=MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
            text.truncate(end);
        }
        Self(text)
    }
}

impl<const MAX: usize> From<&str> for Text<MAX> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const MAX: usize> From<String> for Text<MAX> {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// The exact text, unlike what is displayed.
impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// Control characters are shown escaped: a peer's text must not clear a terminal or forge a line of a log. The exact
/// text is what this type dereferences to.
impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&printable(&self.0))
    }
}

/// A text as it may stand in a line for people: control characters escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(2 * text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> Wire for Text<MAX> {
    const BYTES_MIN: usize = 4;
    const BYTES_MAX: usize = 4 + MAX;
    fn put(&self, out: &mut Vec<u8>) {
        (self.0.len() as u32).put(out);
        out.extend_from_slice(self.0.as_bytes());
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = reader.count("text", MAX, 1)?;
        let offset = reader.offset();
        match std::str::from_utf8(reader.take("text", len)?) {
            Ok(text) => Ok(Self(text.to_owned())),
            Err(_) => Err(DecodeError::NotUtf8 { what: "text", offset }),
        }
    }
}

/// More items than the bound of a [`List`] or [`Blob`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {maximum} fit in one message, got {got}")]
pub struct OverBound {
    pub maximum: usize,
    pub got: usize,
}

/// At most `MAX` bytes, shared with whoever else has them: a chunk goes from a disk's memory to many links without being copied.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Blob<const MAX: usize>(Bytes);

impl<const MAX: usize> Blob<MAX> {
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, OverBound> {
        let bytes = bytes.into();
        if bytes.len() > MAX {
            return Err(OverBound { maximum: MAX, got: bytes.len() });
        }
        Ok(Self(bytes))
    }
    /// Copies them if somebody else has them too.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into()
    }
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl<const MAX: usize> Deref for Blob<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Blob<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl<const MAX: usize> Wire for Blob<MAX> {
    const BYTES_MIN: usize = 4;
    const BYTES_MAX: usize = 4 + MAX;
    fn put(&self, out: &mut Vec<u8>) {
        (self.0.len() as u32).put(out);
        out.extend_from_slice(&self.0);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = reader.count("bytes", MAX, 1)?;
        Ok(Self(Bytes::copy_from_slice(reader.take("bytes", len)?)))
    }
}

/// At most `MAX` values.
#[derive(Clone, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(Vec<T>);

/// The first few items and how many follow: a message with a whole cohort still fits on a line of a log.
impl<T: fmt::Debug, const MAX: usize> fmt::Debug for List<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let mut list = f.debug_list();
        list.entries(self.0.iter().take(SHOWN));
        if self.0.len() > SHOWN {
            list.entry(&format_args!("and {} more", self.0.len() - SHOWN));
        }
        list.finish()
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> List<T, MAX> {
    pub fn new(items: Vec<T>) -> Result<Self, OverBound> {
        if items.len() > MAX {
            return Err(OverBound { maximum: MAX, got: items.len() });
        }
        Ok(Self(items))
    }
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Wire, const MAX: usize> Wire for List<T, MAX> {
    const BYTES_MIN: usize = 4;
    const BYTES_MAX: usize = MAX.saturating_mul(T::BYTES_MAX).saturating_add(4);
    fn put(&self, out: &mut Vec<u8>) {
        (self.0.len() as u32).put(out);
        self.0.iter().for_each(|item| item.put(out));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // The bytes back the items: an item of no bytes would let a count promise any length, and one that swells
        // would let few bytes fill the memory.
        const { assert!(T::BYTES_MIN > 0 && size_of::<T>() <= SWELL_MAX * T::BYTES_MIN) };
        let count = reader.count("list", MAX, T::BYTES_MIN)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::take(reader)?);
        }
        Ok(Self(items))
    }
}
