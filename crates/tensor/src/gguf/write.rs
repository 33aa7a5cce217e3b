//! Writes files of version 3.

use super::error::shown;
use super::tensor::Dims;
use super::value::{Array, Type, Value};
use super::{ALIGNMENT, ALIGNMENT_KEY, KEYS_MAX, MAGIC, TENSORS_MAX};
use crate::quant::Kind;
use std::collections::HashSet;
use std::fmt::Display;
use std::io;
use thiserror::Error;

/// What a file cannot hold. All else that a [`Writer`] takes can be read again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}: expected {expected}, got {got}")]
pub struct WriteError {
    pub what: String,
    pub expected: String,
    pub got: String,
}

impl WriteError {
    fn new(what: impl Display, expected: impl Display, got: impl Display) -> Self {
        Self { what: what.to_string(), expected: expected.to_string(), got: got.to_string() }
    }
}

/// Collects keys and tensors, and writes them in the order in which they came.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    alignment: usize,
    /// Keys with their values, as the file has them.
    entries: Vec<u8>,
    keys: HashSet<String>,
    /// Tensors as the file lists them.
    list: Vec<u8>,
    names: HashSet<String>,
    bytes: Vec<&'a [u8]>,
    /// Of all tensors so far, each from a multiple of the alignment on.
    data_bytes: u64,
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Writer<'a> {
    pub fn new() -> Self {
        let (keys, names) = (HashSet::new(), HashSet::new());
        Self {
            alignment: ALIGNMENT,
            entries: Vec::new(),
            keys,
            list: Vec::new(),
            names,
            bytes: Vec::new(),
            data_bytes: 0,
        }
    }

    /// A key with its value. `general.alignment` must come before the first tensor.
    pub fn set(&mut self, key: &str, value: Value<'_>) -> Result<(), WriteError> {
        let alignment = if key == ALIGNMENT_KEY { self.checked_alignment(value)? } else { self.alignment };
        let mut encoded = Vec::new();
        put(&mut encoded, &value);
        self.entry(key, value.value_type(), &encoded)?;
        self.alignment = alignment;
        Ok(())
    }

    /// A key with an array of items of one type.
    pub fn array<'v>(
        &mut self,
        key: &str,
        of: Type,
        items: impl IntoIterator<Item = Value<'v>>,
    ) -> Result<(), WriteError> {
        let what = || format!("metadata {}", shown(key));
        let (mut encoded, mut count) = (Vec::new(), 0u64);
        for item in items {
            if item.value_type() != of {
                return Err(WriteError::new(what(), format!("items of {of}"), item.value_type()));
            }
            put(&mut encoded, &item);
            count += 1;
        }
        let encoded = [&of.code().to_le_bytes()[..], &count.to_le_bytes(), &encoded].concat();
        match Array::parse(&encoded) {
            Ok(array) => self.set(key, Value::Array(array)),
            // Too deep: all else is right by its making.
            Err(error) => {
                let (_, expected, got) = error.parts();
                Err(WriteError::new(what(), expected, got))
            }
        }
    }

    /// A key with an array of strings.
    pub fn strings<'v>(&mut self, key: &str, items: impl IntoIterator<Item = &'v str>) -> Result<(), WriteError> {
        self.array(key, Type::Str, items.into_iter().map(Value::Str))
    }

    /// A tensor; `dims[0]` is the length of a row.
    pub fn tensor(&mut self, name: &str, dims: &[usize], kind: Kind, bytes: &'a [u8]) -> Result<(), WriteError> {
        let what = format!("tensor {}", shown(name));
        let Some(checked) = Dims::of(dims) else {
            let expected = "at most 4 dimensions from 1 on, and a product that is a number";
            return Err(WriteError::new(what, expected, format!("{dims:?}")));
        };
        match checked.bytes(kind) {
            Some(expected) if expected == bytes.len() => {}
            Some(expected) => {
                let expected = format!("{expected} bytes of {kind} for {dims:?}");
                return Err(WriteError::new(what, expected, bytes.len()));
            }
            None => {
                let expected = format!("rows of a multiple of {} weights, as {kind} needs", kind.columns());
                return Err(WriteError::new(what, expected, format!("{dims:?}")));
            }
        }
        if self.names.len() == TENSORS_MAX {
            return Err(WriteError::new(what, format!("at most {TENSORS_MAX} tensors"), "one more"));
        }
        if !self.names.insert(name.to_owned()) {
            return Err(WriteError::new(what, "names that differ", "the same twice"));
        }
        put(&mut self.list, &Value::Str(name));
        self.list.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| self.list.extend((*dim as u64).to_le_bytes()));
        self.list.extend(kind.code().to_le_bytes());
        self.list.extend(self.data_bytes.to_le_bytes());
        self.data_bytes += (bytes.len() as u64).next_multiple_of(self.alignment as u64);
        self.bytes.push(bytes);
        Ok(())
    }

    /// Writes the whole file: `out` should be buffered if small tensors are many.
    pub fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let counts = [self.names.len(), self.keys.len()].map(|count| (count as u64).to_le_bytes()).concat();
        let head = [&MAGIC[..], &3u32.to_le_bytes(), &counts, &self.entries, &self.list].concat();
        // The last is followed by padding as well: GGML's own reader asks for it.
        for part in [&head[..]].into_iter().chain(self.bytes.iter().copied()) {
            out.write_all(part)?;
            io::copy(&mut io::Read::take(io::repeat(0), self.padding(part.len())), out)?;
        }
        out.flush()
    }

    fn padding(&self, len: usize) -> u64 {
        let (len, alignment) = (len as u64, self.alignment as u64);
        len.next_multiple_of(alignment) - len
    }

    fn checked_alignment(&self, value: Value<'_>) -> Result<usize, WriteError> {
        let alignment = value.integer().and_then(|value| u32::try_from(value).ok()).filter(|v| v.is_power_of_two());
        match alignment {
            Some(alignment) if self.bytes.is_empty() => Ok(alignment as usize),
            Some(_) => Err(WriteError::new("metadata `general.alignment`", "it before the first tensor", "it after")),
            None => Err(WriteError::new("metadata `general.alignment`", "a power of two", format!("{value:?}"))),
        }
    }

    fn entry(&mut self, key: &str, of: Type, value: &[u8]) -> Result<(), WriteError> {
        let what = || format!("metadata {}", shown(key));
        if self.keys.len() == KEYS_MAX {
            return Err(WriteError::new(what(), format!("at most {KEYS_MAX} keys"), "one more"));
        }
        if !self.keys.insert(key.to_owned()) {
            return Err(WriteError::new(what(), "keys that differ", "the same twice"));
        }
        put(&mut self.entries, &Value::Str(key));
        self.entries.extend(of.code().to_le_bytes());
        self.entries.extend(value);
        Ok(())
    }
}

/// A value without its type.
fn put(out: &mut Vec<u8>, value: &Value<'_>) {
    match *value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(v)),
        Value::Str(v) => {
            out.extend((v.len() as u64).to_le_bytes());
            out.extend(v.as_bytes());
        }
        Value::Array(array) => {
            out.extend(array.of().code().to_le_bytes());
            out.extend((array.len() as u64).to_le_bytes());
            out.extend(array.items());
        }
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}
