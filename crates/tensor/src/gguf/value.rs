//! The thirteen types of metadata.

use super::ARRAY_DEPTH_MAX;
use super::error::GgufError;
use super::read::Reader;
use std::fmt::{self, Display};

/// The type of a value, as files number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Type {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Type {
    pub const ALL: [Type; 13] = [
        Type::U8,
        Type::I8,
        Type::U16,
        Type::I16,
        Type::U32,
        Type::I32,
        Type::F32,
        Type::Bool,
        Type::Str,
        Type::Array,
        Type::U64,
        Type::I64,
        Type::F64,
    ];

    pub fn code(self) -> u32 {
        self as u32
    }

    pub fn of_code(code: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            Type::U8 => "u8",
            Type::I8 => "i8",
            Type::U16 => "u16",
            Type::I16 => "i16",
            Type::U32 => "u32",
            Type::I32 => "i32",
            Type::F32 => "f32",
            Type::Bool => "bool",
            Type::Str => "string",
            Type::Array => "array",
            Type::U64 => "u64",
            Type::I64 => "i64",
            Type::F64 => "f64",
        }
    }

    /// The fewest bytes that a value takes: all of a number, an empty string's length, an empty array's type and length.
    pub(super) fn bytes_min(self) -> usize {
        match self {
            Type::U8 | Type::I8 | Type::Bool => 1,
            Type::U16 | Type::I16 => 2,
            Type::U32 | Type::I32 | Type::F32 => 4,
            Type::U64 | Type::I64 | Type::F64 | Type::Str => 8,
            Type::Array => 12,
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>, what: &dyn Display) -> Result<Self, GgufError> {
        let offset = reader.offset();
        let code = reader.u32(what)?;
        Self::of_code(code).ok_or_else(|| GgufError::malformed(what, offset, "a type from 0 to 12", code))
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value; strings and arrays are borrowed from the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    pub fn value_type(&self) -> Type {
        match self {
            Value::U8(_) => Type::U8,
            Value::I8(_) => Type::I8,
            Value::U16(_) => Type::U16,
            Value::I16(_) => Type::I16,
            Value::U32(_) => Type::U32,
            Value::I32(_) => Type::I32,
            Value::F32(_) => Type::F32,
            Value::Bool(_) => Type::Bool,
            Value::Str(_) => Type::Str,
            Value::Array(_) => Type::Array,
            Value::U64(_) => Type::U64,
            Value::I64(_) => Type::I64,
            Value::F64(_) => Type::F64,
        }
    }

    /// An integer of any width.
    pub fn integer(&self) -> Option<i128> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => Some(v.into()),
            Value::I64(v) => Some(v.into()),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::Str(_) | Value::Array(_) => None,
        }
    }

    /// A float of either width, rounded to `f32`.
    pub fn float(&self) -> Option<f32> {
        match *self {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    pub(super) fn read(reader: &mut Reader<'a>, of: Type, what: &dyn Display) -> Result<Self, GgufError> {
        Self::read_at_depth(reader, of, what, 0)
    }

    fn read_at_depth(reader: &mut Reader<'a>, of: Type, what: &dyn Display, depth: usize) -> Result<Self, GgufError> {
        Ok(match of {
            Type::U8 => Value::U8(u8::from_le_bytes(reader.array(what)?)),
            Type::I8 => Value::I8(i8::from_le_bytes(reader.array(what)?)),
            Type::U16 => Value::U16(u16::from_le_bytes(reader.array(what)?)),
            Type::I16 => Value::I16(i16::from_le_bytes(reader.array(what)?)),
            Type::U32 => Value::U32(u32::from_le_bytes(reader.array(what)?)),
            Type::I32 => Value::I32(i32::from_le_bytes(reader.array(what)?)),
            Type::F32 => Value::F32(f32::from_le_bytes(reader.array(what)?)),
            Type::U64 => Value::U64(u64::from_le_bytes(reader.array(what)?)),
            Type::I64 => Value::I64(i64::from_le_bytes(reader.array(what)?)),
            Type::F64 => Value::F64(f64::from_le_bytes(reader.array(what)?)),
            Type::Bool => Value::Bool(bools(reader, what, 1)?[0] == 1),
            Type::Str => Value::Str(reader.string(what)?),
            Type::Array => Value::Array(Array::read(reader, what, depth + 1)?),
        })
    }
}

/// Values of one type, each decoded when the iterator comes to it.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    of: Type,
    count: usize,
    /// The items as the file has them. They were read once, so reading them again gives no error.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Reads an array as a file has it: the items' type, their number, and they.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut reader = Reader::new(bytes);
        let array = Self::read(&mut reader, &"an array", 1)?;
        match reader.remaining() {
            0 => Ok(array),
            left => Err(GgufError::malformed(&"an array", reader.offset(), "its end", format!("{left} bytes more"))),
        }
    }

    pub fn of(&self) -> Type {
        self.of
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (of, mut reader) = (self.of, Reader::new(self.bytes));
        // The depth was checked when the array was read from the file.
        (0..self.count).map_while(move |_| Value::read(&mut reader, of, &"an item").ok())
    }

    /// Nothing if these are not strings.
    pub(super) fn strings(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let (count, mut reader) = (if self.of == Type::Str { self.count } else { 0 }, Reader::new(self.bytes));
        // Each was read once, so none is replaced by the empty one.
        (0..count).map(move |_| reader.string(&"an item").unwrap_or_default())
    }

    /// The items as a file has them.
    pub(super) fn items(&self) -> &'a [u8] {
        self.bytes
    }

    fn read(reader: &mut Reader<'a>, what: &dyn Display, depth: usize) -> Result<Self, GgufError> {
        if depth > ARRAY_DEPTH_MAX {
            let expected = format!("arrays at most {ARRAY_DEPTH_MAX} deep");
            return Err(GgufError::malformed(what, reader.offset(), expected, "another array within"));
        }
        let of = Type::read(reader, what)?;
        let count = reader.count(&format_args!("the length of {what}"), usize::MAX, of.bytes_min())?;
        let start = reader.offset();
        match of {
            Type::Str | Type::Array => {
                for _ in 0..count {
                    Value::read_at_depth(reader, of, what, depth)?;
                }
            }
            Type::Bool => {
                bools(reader, what, count)?;
            }
            _ => {
                reader.take(what, (count * of.bytes_min()) as u64)?;
            }
        }
        Ok(Self { of, count, bytes: reader.since(start) })
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Bytes that are all 0 or 1.
fn bools<'a>(reader: &mut Reader<'a>, what: &dyn Display, count: usize) -> Result<&'a [u8], GgufError> {
    let start = reader.offset();
    let bytes = reader.take(what, count as u64)?;
    match bytes.iter().position(|byte| *byte > 1) {
        None => Ok(bytes),
        Some(at) => Err(GgufError::malformed(what, start + at, "0 or 1", bytes[at])),
    }
}
