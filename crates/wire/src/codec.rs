//! Bytes in, values out, and back: the small codec under every message.
//!
//! Integers are little-endian and of fixed width; a sequence is a `u32` count and its items; an option is a `0` or
//! `1` byte and perhaps a value. There is one encoding per value and no padding.
//!
//! **Decoding is total.** Any bytes give a value or a [`DecodeError`] that says what was read, where, what was
//! expected and what stood there. A count is compared with its bound and with the bytes that remain *before* anything
//! is allocated, so a lying length costs nothing. An item of a list takes at most [`SWELL_MAX`] times as many bytes in
//! memory as on the wire; a type that would take more does not compile.

use std::fmt;
use thiserror::Error;

/// A list's item may take this many times its fewest wire bytes in memory: 8 is an empty text (4 bytes on the wire, a
/// 24-byte `String`), rounded up.
pub const SWELL_MAX: usize = 8;

/// Why bytes are not a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("{what} at byte {offset}: {expected} bytes expected, {got} left")]
    Truncated { what: &'static str, offset: usize, expected: usize, got: usize },
    #[error("{what} at byte {offset}: at most {maximum} allowed, the length says {got}")]
    TooLong { what: &'static str, offset: usize, maximum: usize, got: usize },
    #[error("{what} at byte {offset}: {got} is not one of the known values")]
    UnknownTag { what: &'static str, offset: usize, got: u8 },
    #[error("{what} at byte {offset}: not valid UTF-8")]
    NotUtf8 { what: &'static str, offset: usize },
    #[error("{what} at byte {offset}: {why}")]
    Invalid { what: &'static str, offset: usize, why: &'static str },
    #[error("{got} bytes left over after the message's end at byte {offset}")]
    LeftOver { offset: usize, got: usize },
}

/// Reads values from the front of a byte slice.
pub struct Reader<'a> {
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

    pub fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        if self.remaining() < len {
            return Err(DecodeError::Truncated { what, offset: self.at, expected: len, got: self.remaining() });
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(what, N)?);
        Ok(out)
    }

    /// A `u32` count of items that each take at least `item_bytes_min` bytes.
    pub fn count(&mut self, what: &'static str, maximum: usize, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let offset = self.at;
        let got = u32::from_le_bytes(self.array(what)?) as usize;
        if got > maximum {
            return Err(DecodeError::TooLong { what, offset, maximum, got });
        }
        let expected = got.saturating_mul(item_bytes_min);
        if expected > self.remaining() {
            return Err(DecodeError::Truncated { what, offset, expected, got: self.remaining() });
        }
        Ok(got)
    }

    /// Nothing may follow a message.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            got => Err(DecodeError::LeftOver { offset: self.at, got }),
        }
    }
}

/// A value with one encoding.
pub trait Wire: Sized {
    /// The fewest bytes that any value of this type takes; bounds what a count may promise.
    const BYTES_MIN: usize;
    /// The most bytes that any value of this type takes; `usize::MAX` if its type does not say.
    const BYTES_MAX: usize = usize::MAX;
    fn put(&self, out: &mut Vec<u8>);
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Decodes exactly `bytes`: bytes left over are an error.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::take(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            const BYTES_MIN: usize = size_of::<$t>();
            const BYTES_MAX: usize = size_of::<$t>();
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(<$t>::from_le_bytes(reader.array(stringify!($t))?))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i64);

impl Wire for bool {
    const BYTES_MIN: usize = 1;
    const BYTES_MAX: usize = 1;
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        match u8::take(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(DecodeError::UnknownTag { what: "bool", offset, got }),
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    const BYTES_MIN: usize = N;
    const BYTES_MAX: usize = N;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array("bytes")
    }
}

impl<T: Wire> Wire for Option<T> {
    const BYTES_MIN: usize = 1;
    const BYTES_MAX: usize = T::BYTES_MAX.saturating_add(1);
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if bool::take(reader)? { Some(T::take(reader)?) } else { None })
    }
}

/// What a log shows of a field: nothing of one called `secret`, and no 64 numbers of a `signature`.
pub(crate) fn shown<'a>(field: &str, value: &'a dyn fmt::Debug) -> &'a dyn fmt::Debug {
    match field {
        "secret" => &"hidden",
        "signature" => &"64 bytes",
        _ => value,
    }
}

/// Declares structs whose encoding is their fields in order.
macro_rules! wire_struct {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $t:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $t,)* }
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), $crate::codec::shown(stringify!($field), &self.$field)))*
                    .finish()
            }
        }
        impl $crate::codec::Wire for $name {
            const BYTES_MIN: usize = 0 $(+ <$t as $crate::codec::Wire>::BYTES_MIN)*;
            const BYTES_MAX: usize = 0usize $(.saturating_add(<$t as $crate::codec::Wire>::BYTES_MAX))*;
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn take(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self { $($field: <$t as $crate::codec::Wire>::take(reader)?,)* })
            }
        }
    )*};
}

/// Declares an enum of plain names, one byte each.
macro_rules! wire_names {
    ($($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $tag:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant = $tag,)* }
        impl $crate::codec::Wire for $name {
            const BYTES_MIN: usize = 1;
            const BYTES_MAX: usize = 1;
            fn put(&self, out: &mut Vec<u8>) {
                out.push(*self as u8);
            }
            fn take(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                let offset = reader.offset();
                match u8::take(reader)? {
                    $($tag => Ok(Self::$variant),)*
                    got => Err($crate::codec::DecodeError::UnknownTag { what: stringify!($name), offset, got }),
                }
            }
        }
    )*};
}

/// Declares an enum of messages, one tag byte per variant and then its fields in order; of at most `bytes_max` bytes.
/// The enum has `broken_promise`, which says what is wrong with fields that their types allow.
macro_rules! wire_messages {
    ($(#[$meta:meta])* pub enum $enum:ident, bytes_max: $bytes_max:expr, {
        $($(#[$vmeta:meta])* $tag:literal $name:ident { $($(#[$fmeta:meta])* $field:ident: $t:ty,)* })*
    }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq)]
        pub enum $enum {
            $($(#[$vmeta])* $name { $($(#[$fmeta])* $field: $t,)* },)*
        }

        impl $enum {
            /// Every variant, in the order of tags: tag, name, and the most bytes that its fields can take.
            pub const VARIANTS: &'static [(u8, &'static str, usize)] =
                &[$(($tag, stringify!($name), 1usize $(.saturating_add(<$t as $crate::codec::Wire>::BYTES_MAX))*),)*];

            /// The message's name, for logs and counters.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name),)* }
            }
        }

        impl ::std::fmt::Debug for $enum {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                match self {
                    $(Self::$name { $($field,)* } => f
                        .debug_struct(stringify!($name))
                        $(.field(stringify!($field), $crate::codec::shown(stringify!($field), $field)))*
                        .finish(),)*
                }
            }
        }

        impl $crate::codec::Wire for $enum {
            const BYTES_MIN: usize = 1;
            const BYTES_MAX: usize = $bytes_max;
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name { $($field,)* } => {
                        out.push($tag);
                        $($field.put(out);)*
                    })*
                }
            }
            fn take(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                let offset = reader.offset();
                let message = match u8::take(reader)? {
                    $($tag => Self::$name { $($field: $crate::codec::Wire::take(reader)?,)* },)*
                    got => return Err($crate::codec::DecodeError::UnknownTag { what: "message", offset, got }),
                };
                match message.broken_promise() {
                    Some(why) => Err($crate::codec::DecodeError::Invalid { what: message.name(), offset, why }),
                    None => Ok(message),
                }
            }

            /// More than [`BYTES_MAX`](Self::BYTES_MAX) are refused unread.
            fn from_bytes(bytes: &[u8]) -> Result<Self, $crate::codec::DecodeError> {
                if bytes.len() > $bytes_max {
                    let (maximum, got) = ($bytes_max, bytes.len());
                    return Err($crate::codec::DecodeError::TooLong { what: "message", offset: 0, maximum, got });
                }
                let mut reader = $crate::codec::Reader::new(bytes);
                let message = Self::take(&mut reader)?;
                reader.finish()?;
                Ok(message)
            }
        }
    };
}

pub(crate) use {wire_messages, wire_names, wire_struct};
