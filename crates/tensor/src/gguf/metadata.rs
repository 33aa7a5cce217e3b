//! Keys with values, in the file's order, and getters that say what is wrong with a value.

use super::error::{GgufError, Shown, shown};
use super::read::Reader;
use super::value::{Array, Type, Value};

/// A key's length, a type, and the smallest value.
pub(super) const ENTRY_BYTES_MIN: usize = 8 + 4 + 1;

/// A key with its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    pub key: &'a str,
    pub value: Value<'a>,
    /// Where the value stands in the file.
    pub offset: usize,
}

/// What a file says about its model: keys, each once.
#[derive(Clone, Debug)]
pub struct Metadata<'a> {
    entries: Vec<Entry<'a>>,
    /// Indices into `entries`, by key.
    by_key: Vec<usize>,
}

impl<'a> Metadata<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Result<Self, GgufError> {
        let mut entries = Vec::new();
        let mut key_offsets = Vec::new();
        for index in 0..count {
            key_offsets.push(reader.offset());
            let key = reader.string(&format_args!("key {index}"))?;
            let of = Type::read(reader, &format_args!("the type of metadata {}", Shown(key)))?;
            let offset = reader.offset();
            let value = Value::read(reader, of, &format_args!("metadata {}", Shown(key)))?;
            entries.push(Entry { key, value, offset });
        }
        let mut by_key: Vec<usize> = (0..count).collect();
        by_key.sort_by_key(|&index| entries[index].key);
        match by_key.windows(2).find(|pair| entries[pair[0]].key == entries[pair[1]].key) {
            None => Ok(Self { entries, by_key }),
            Some(pair) => Err(GgufError::malformed(
                &format_args!("key {}", pair[1]),
                key_offsets[pair[1]],
                "keys that differ",
                format!("{} as key {} is", shown(entries[pair[1]].key), pair[0]),
            )),
        }
    }

    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// The entry of that key, if there is one. An optional number: `get(key).map(|e| e.u32()).transpose()?`.
    pub fn get(&self, key: &str) -> Option<&Entry<'a>> {
        let found = self.by_key.binary_search_by_key(&key, |&index| self.entries[index].key).ok()?;
        Some(&self.entries[self.by_key[found]])
    }

    fn need(&self, key: &str, expected: &'static str) -> Result<&Entry<'a>, GgufError> {
        self.get(key).ok_or_else(|| GgufError::NoKey { key: shown(key), expected })
    }

    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        self.need(key, U32)?.u32()
    }

    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        self.need(key, U64)?.u64()
    }

    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        self.need(key, F32)?.f32()
    }

    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        self.need(key, BOOL)?.bool()
    }

    pub fn str(&self, key: &str) -> Result<&'a str, GgufError> {
        self.need(key, STR)?.str()
    }

    pub fn strings(&self, key: &str) -> Result<impl ExactSizeIterator<Item = &'a str> + use<'a>, GgufError> {
        self.need(key, STRINGS)?.strings()
    }

    pub fn f32s(&self, key: &str) -> Result<Vec<f32>, GgufError> {
        self.need(key, F32S)?.f32s()
    }

    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, GgufError> {
        self.need(key, I32S)?.i32s()
    }

    pub fn u32s(&self, key: &str) -> Result<Vec<u32>, GgufError> {
        self.need(key, U32S)?.u32s()
    }
}

const U32: &str = "an integer from 0 to 4294967295";
const U64: &str = "an integer that is not negative";
const F32: &str = "a float";
const BOOL: &str = "a bool";
const STR: &str = "a string";
const STRINGS: &str = "an array of strings";
const F32S: &str = "an array of floats";
const I32S: &str = "an array of integers from -2147483648 to 2147483647";
const U32S: &str = "an array of integers from 0 to 4294967295";

/// Integers are taken in any width if the value fits; floats of 64 bits are rounded.
impl<'a> Entry<'a> {
    pub fn u32(&self) -> Result<u32, GgufError> {
        self.integer(U32)
    }

    pub fn u64(&self) -> Result<u64, GgufError> {
        self.integer(U64)
    }

    pub fn f32(&self) -> Result<f32, GgufError> {
        self.value.float().ok_or_else(|| self.wrong(F32))
    }

    pub fn bool(&self) -> Result<bool, GgufError> {
        match self.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.wrong(BOOL)),
        }
    }

    pub fn str(&self) -> Result<&'a str, GgufError> {
        match self.value {
            Value::Str(value) => Ok(value),
            _ => Err(self.wrong(STR)),
        }
    }

    pub fn strings(&self) -> Result<impl ExactSizeIterator<Item = &'a str> + use<'a>, GgufError> {
        match self.value {
            Value::Array(array) if array.of() == Type::Str => Ok(array.strings()),
            _ => Err(self.wrong(STRINGS)),
        }
    }

    pub fn f32s(&self) -> Result<Vec<f32>, GgufError> {
        self.items(F32S, |value| value.float())
    }

    pub fn i32s(&self) -> Result<Vec<i32>, GgufError> {
        self.items(I32S, |value| value.integer()?.try_into().ok())
    }

    pub fn u32s(&self) -> Result<Vec<u32>, GgufError> {
        self.items(U32S, |value| value.integer()?.try_into().ok())
    }

    fn integer<T: TryFrom<i128>>(&self, expected: &'static str) -> Result<T, GgufError> {
        self.value.integer().and_then(|value| value.try_into().ok()).ok_or_else(|| self.wrong(expected))
    }

    fn items<T>(&self, expected: &'static str, decode: impl Fn(&Value<'a>) -> Option<T>) -> Result<Vec<T>, GgufError> {
        let Value::Array(array) = self.value else { return Err(self.wrong(expected)) };
        let item = |(index, value)| decode(&value).ok_or_else(|| self.wrong_item(expected, &array, index, &value));
        array.iter().enumerate().map(item).collect()
    }

    fn wrong(&self, expected: &'static str) -> GgufError {
        GgufError::WrongType { key: shown(self.key), offset: self.offset, expected, got: described(&self.value) }
    }

    fn wrong_item(&self, expected: &'static str, array: &Array<'_>, index: usize, value: &Value<'_>) -> GgufError {
        let got = format!("an array of {}, {} at index {index}", array.of(), described(value));
        GgufError::WrongType { key: shown(self.key), offset: self.offset, expected, got }
    }
}

fn described(value: &Value<'_>) -> String {
    let of = value.value_type();
    match value {
        Value::Str(text) => format!("the {of} {}", shown(text)),
        Value::Array(array) => format!("an array of {}", array.of()),
        Value::Bool(value) => format!("the {of} {value}"),
        Value::F32(value) => format!("the {of} {value}"),
        Value::F64(value) => format!("the {of} {value}"),
        _ => format!("the {of} {}", value.integer().unwrap_or_default()),
    }
}
