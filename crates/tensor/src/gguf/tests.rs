//! A file laid out by hand, what is read from it, and how getters treat types.

use super::*;
use crate::quant::Kind;

/// A file in the making: header, keys, tensors, bytes, each part open to tests that spoil it.
#[derive(Clone)]
pub(super) struct File {
    pub magic: [u8; 4],
    pub version: u32,
    pub tensor_count: Option<u64>,
    pub key_count: Option<u64>,
    pub entries: Vec<Vec<u8>>,
    pub infos: Vec<Vec<u8>>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

impl File {
    pub fn new() -> Self {
        let (entries, infos) = (Vec::new(), Vec::new());
        let (tensor_count, key_count) = (None, None);
        Self { magic: *b"GGUF", version: 3, tensor_count, key_count, entries, infos, alignment: 32, data: Vec::new() }
    }

    pub fn entry(mut self, key: &str, of: Type, value: &[u8]) -> Self {
        self.entries.push([&string(key.as_bytes())[..], &of.code().to_le_bytes(), value].concat());
        self
    }

    pub fn tensor(mut self, name: &str, dims: &[u64], code: u32, offset: u64) -> Self {
        let mut info = string(name.as_bytes());
        info.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| info.extend(dim.to_le_bytes()));
        info.extend(code.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.infos.push(info);
        self
    }

    pub fn data(mut self, bytes: usize) -> Self {
        self.data = (0..bytes).map(|i| i as u8).collect();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.infos.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        self.entries.iter().chain(&self.infos).for_each(|part| out.extend(part));
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }
}

pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// An array's type and length, then its items.
pub(super) fn array(of: Type, count: u64, items: &[u8]) -> Vec<u8> {
    [&of.code().to_le_bytes()[..], &count.to_le_bytes(), items].concat()
}

/// Every type of value, and two tensors.
pub(super) fn sample() -> File {
    File::new()
        .entry("u8", Type::U8, &[200])
        .entry("i8", Type::I8, &[0xff])
        .entry("u16", Type::U16, &[1, 2])
        .entry("i16", Type::I16, &[0xfe, 0xff])
        .entry("u32", Type::U32, &[1, 0, 0, 0])
        .entry("i32", Type::I32, &[0xff; 4])
        .entry("f32", Type::F32, &1.5f32.to_le_bytes())
        .entry("bool", Type::Bool, &[1])
        .entry("string", Type::Str, &string("gr\u{fc}n".as_bytes()))
        .entry("u64", Type::U64, &[0xff; 8])
        .entry("i64", Type::I64, &(-3i64).to_le_bytes())
        .entry("f64", Type::F64, &0.5f64.to_le_bytes())
        .entry("strings", Type::Array, &array(Type::Str, 2, &[string(b"a"), string(b"")].concat()))
        .entry("f32s", Type::Array, &array(Type::F32, 2, &[0, 0, 128, 63, 0, 0, 0, 64]))
        .entry("i8s", Type::Array, &array(Type::I8, 3, &[1, 0xff, 127]))
        .entry("u64s", Type::Array, &array(Type::U64, 1, &7u64.to_le_bytes()))
        .entry("bools", Type::Array, &array(Type::Bool, 2, &[0, 1]))
        .entry("nested", Type::Array, &array(Type::Array, 1, &array(Type::U8, 2, &[4, 5])))
        .tensor("b", &[32, 2], Kind::Q8_0.code(), 32)
        .tensor("a", &[3], Kind::F32.code(), 0)
        .data(32 + 2 * 34)
}

#[test]
fn every_type_is_read() {
    let bytes = sample().bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!((gguf.version(), gguf.alignment()), (3, 32));
    let metadata = gguf.metadata();
    let types: Vec<Type> = metadata.entries()[..12].iter().map(|entry| entry.value.value_type()).collect();
    assert_eq!(types, Type::ALL.into_iter().filter(|of| *of != Type::Array).collect::<Vec<_>>());
    assert_eq!(metadata.u32("u8"), Ok(200));
    assert_eq!(metadata.get("i8").unwrap().value, Value::I8(-1));
    assert_eq!(metadata.u32("u16"), Ok(513));
    assert_eq!(metadata.get("i16").unwrap().value, Value::I16(-2));
    assert_eq!(metadata.get("i64").unwrap().value, Value::I64(-3));
    assert_eq!(metadata.u64("u64"), Ok(u64::MAX));
    assert_eq!((metadata.f32("f32"), metadata.f32("f64")), (Ok(1.5), Ok(0.5)));
    assert_eq!((metadata.bool("bool"), metadata.str("string")), (Ok(true), Ok("grün")));
    assert_eq!(metadata.strings("strings").unwrap().collect::<Vec<_>>(), ["a", ""]);
    assert_eq!(metadata.f32s("f32s"), Ok(vec![1.0, 2.0]));
    assert_eq!(metadata.i32s("i8s"), Ok(vec![1, -1, 127]));
    assert_eq!(metadata.u32s("u64s"), Ok(vec![7]));
    let Value::Array(bools) = metadata.get("bools").unwrap().value else { panic!("an array") };
    assert_eq!(bools.iter().collect::<Vec<_>>(), [Value::Bool(false), Value::Bool(true)]);
    let Value::Array(nested) = metadata.get("nested").unwrap().value else { panic!("an array") };
    assert_eq!(format!("{nested:?}"), "[Array([U8(4), U8(5)])]");
}

#[test]
fn tensors_lie_where_the_list_says() {
    let file = sample();
    let bytes = file.bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.tensors().iter().map(|info| info.name).collect::<Vec<_>>(), ["b", "a"]);
    let (a, b) = (gguf.tensor("a").unwrap(), gguf.tensor("b").unwrap());
    assert_eq!((a.kind, a.dims(), a.bytes), (Kind::F32, &[3][..], &file.data[..12]));
    assert_eq!((b.kind, b.columns(), b.rows(), b.bytes), (Kind::Q8_0, 32, 2, &file.data[32..]));
    assert_eq!(a.range, gguf.data_start()..gguf.data_start() + 12);
    assert_eq!(gguf.find("b").unwrap().weights(), 64);
    assert_eq!(gguf.find("c"), None);
}

/// What a getter says of a value that it cannot give.
fn check(got: Result<impl std::fmt::Debug, GgufError>, expected: &str) {
    assert_eq!(got.unwrap_err().to_string(), expected);
}

#[test]
fn a_getter_says_what_is_wrong_with_a_value() {
    let bytes = sample().bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    let metadata = gguf.metadata();
    let at = |key: &str| metadata.get(key).unwrap().offset;
    let integer = "an integer from 0 to 4294967295";
    check(metadata.u32("x"), &format!("metadata `x`: expected {integer}, got no such key"));
    check(metadata.u32("i32"), &format!("metadata `i32` at byte {}: expected {integer}, got the i32 -1", at("i32")));
    check(metadata.u32("f32"), &format!("metadata `f32` at byte {}: expected {integer}, got the f32 1.5", at("f32")));
    check(
        metadata.u32("u64"),
        &format!("metadata `u64` at byte {}: expected {integer}, got the u64 18446744073709551615", at("u64")),
    );
    check(
        metadata.bool("string"),
        &format!("metadata `string` at byte {}: expected a bool, got the string `grün`", at("string")),
    );
    check(
        metadata.strings("i8s").map(Vec::from_iter),
        &format!("metadata `i8s` at byte {}: expected an array of strings, got an array of i8", at("i8s")),
    );
    check(
        metadata.u32s("i8s"),
        &format!(
            "metadata `i8s` at byte {}: expected an array of integers from 0 to 4294967295, \
             got an array of i8, the i8 -1 at index 1",
            at("i8s")
        ),
    );
    check(gguf.tensor("c").map(|_| ()), "tensor `c`: expected among the file's tensors, got none of that name");
}

#[test]
fn a_version_2_file_and_one_with_its_own_alignment_are_read() {
    let mut file = sample();
    file.version = 2;
    assert_eq!(Gguf::parse(&file.bytes()).unwrap().version(), 2);
    let mut file = File::new().entry("general.alignment", Type::U32, &[64, 0, 0, 0]).tensor("a", &[1], 0, 64).data(68);
    file.alignment = 64;
    assert_eq!(Gguf::parse(&file.bytes()).unwrap().tensor("a").unwrap().bytes, [64, 65, 66, 67]);
}

#[test]
fn a_kind_that_is_not_known_is_refused_by_name_when_asked_for() {
    let bytes = File::new().tensor("a", &[256], 16, 0).tensor("b", &[1], 99, 32).data(64).bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.tensors()[0].range(), None);
    let known = Kind::ALL.map(Kind::name).join(", ");
    check(gguf.tensor("a").map(|_| ()), &format!("tensor `a` at byte 24: expected one of {known}, got IQ2_XXS"));
    check(gguf.tensor("b").map(|_| ()), &format!("tensor `b` at byte 57: expected one of {known}, got type 99"));
}

#[test]
fn an_errors_parts_say_what_its_message_does() {
    let (place, expected, got) = Gguf::parse(b"GGML").unwrap_err().parts();
    assert_eq!([place, expected, got], ["the magic at byte 0", "`GGUF`", "`GGML`"]);
}
