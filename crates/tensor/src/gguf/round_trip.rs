//! What a writer takes, a reader gives back; what a writer refuses.

use super::tests::{array, sample};
use super::*;
use crate::quant::Kind;
use proptest::prelude::*;

/// A value that owns what it holds: a type, and bytes to make it of. Arrays are given as a file has them.
#[derive(Clone, Debug)]
enum Owned {
    Scalar(Type, u64),
    Str(String),
    Array(Vec<u8>),
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Owned::Str(text) => Value::Str(text),
            Owned::Array(bytes) => Value::Array(Array::parse(bytes).unwrap()),
            Owned::Scalar(of, bits) => match of {
                Type::U8 => Value::U8(*bits as u8),
                Type::I8 => Value::I8(*bits as i8),
                Type::U16 => Value::U16(*bits as u16),
                Type::I16 => Value::I16(*bits as i16),
                Type::U32 => Value::U32(*bits as u32),
                Type::I32 => Value::I32(*bits as i32),
                Type::F32 => Value::F32(f32::from_bits(*bits as u32)),
                Type::U64 => Value::U64(*bits),
                Type::I64 => Value::I64(*bits as i64),
                Type::F64 => Value::F64(f64::from_bits(*bits)),
                Type::Bool | Type::Str | Type::Array => Value::Bool(bits % 2 == 1),
            },
        }
    }
}

fn arrays() -> impl Strategy<Value = Vec<u8>> {
    let strings = proptest::collection::vec(".{0,5}", 0..4).prop_map(|texts| {
        let items: Vec<u8> = texts.iter().flat_map(|text| super::tests::string(text.as_bytes())).collect();
        array(Type::Str, texts.len() as u64, &items)
    });
    let numbers = proptest::collection::vec(any::<f32>(), 0..4).prop_map(|numbers| {
        let items: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        array(Type::F32, numbers.len() as u64, &items)
    });
    let bools = proptest::collection::vec(0u8..2, 0..4).prop_map(|items| array(Type::Bool, items.len() as u64, &items));
    prop_oneof![strings, numbers, bools].prop_recursive(3, 8, 3, |inner| {
        proptest::collection::vec(inner, 0..3)
            .prop_map(|arrays| array(Type::Array, arrays.len() as u64, &arrays.concat()))
    })
}

fn values() -> impl Strategy<Value = Owned> {
    let scalars = (0..Type::ALL.len(), any::<u64>()).prop_map(|(of, bits)| Owned::Scalar(Type::ALL[of], bits));
    prop_oneof![scalars, ".{0,9}".prop_map(Owned::Str), arrays().prop_map(Owned::Array)]
}

/// Blocks in a row, other dimensions, a kind, the first byte.
fn tensors() -> impl Strategy<Value = (Vec<usize>, Kind, Vec<u8>)> {
    let dims = proptest::collection::vec(1usize..4, 1..=DIMS_MAX);
    (dims, 0..Kind::ALL.len(), any::<u8>()).prop_map(|(mut dims, kind, first)| {
        let kind = Kind::ALL[kind];
        let blocks: usize = dims.iter().product();
        dims[0] *= kind.columns();
        (dims, kind, (0..blocks * kind.bytes()).map(|i| first.wrapping_add(i as u8)).collect())
    })
}

fn written(writer: &Writer<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    writer.write(&mut file).unwrap();
    file
}

/// Writes again what was read.
fn copy(gguf: &Gguf<'_>) -> Vec<u8> {
    let mut writer = Writer::new();
    for entry in gguf.metadata().entries() {
        writer.set(entry.key, entry.value).unwrap();
    }
    for info in gguf.tensors() {
        let tensor = gguf.tensor(info.name).unwrap();
        writer.tensor(tensor.name, tensor.dims(), tensor.kind, tensor.bytes).unwrap();
    }
    written(&writer)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        values in proptest::collection::btree_map(".{0,12}", values(), 0..6),
        tensors in proptest::collection::btree_map(".{0,12}", tensors(), 0..5),
        alignment in proptest::option::of(0u32..9),
    ) {
        let mut writer = Writer::new();
        let alignment = alignment.map(|power| 1 << power);
        if let Some(alignment) = alignment {
            writer.set("general.alignment", Value::U32(alignment)).unwrap();
        }
        for (key, value) in &values {
            writer.set(key, value.value()).unwrap();
        }
        for (name, (dims, kind, bytes)) in &tensors {
            writer.tensor(name, dims, *kind, bytes).unwrap();
        }
        let file = written(&writer);
        let gguf = Gguf::parse(&file).unwrap();
        prop_assert_eq!((gguf.version(), gguf.alignment()), (3, alignment.map_or(ALIGNMENT, |a| a as usize)));
        prop_assert_eq!(gguf.metadata().entries().len(), values.len() + usize::from(alignment.is_some()));
        for (key, value) in &values {
            let got = gguf.metadata().get(key).unwrap().value;
            // Floats that are no numbers are not equal to themselves.
            prop_assert_eq!(format!("{got:?}"), format!("{:?}", value.value()));
        }
        prop_assert_eq!(gguf.tensors().len(), tensors.len());
        for (name, (dims, kind, bytes)) in &tensors {
            let got = gguf.tensor(name).unwrap();
            prop_assert_eq!((got.dims(), got.kind, got.bytes), (&dims[..], *kind, &bytes[..]));
        }
        prop_assert_eq!(copy(&gguf), file);
    }
}

#[test]
fn arrays_are_made_of_items() {
    let mut writer = Writer::new();
    writer.strings("tokens", ["a", "b"]).unwrap();
    writer.array("scores", Type::F32, [1.0, -1.0].map(Value::F32)).unwrap();
    writer.array("none", Type::U8, []).unwrap();
    let file = written(&writer);
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.metadata().strings("tokens").unwrap().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(gguf.metadata().f32s("scores"), Ok(vec![1.0, -1.0]));
    assert_eq!(gguf.metadata().u32s("none"), Ok(vec![]));
}

/// Written anew in the order of the list, with padding at the end.
#[test]
fn a_file_laid_out_by_hand_is_copied() {
    let bytes = sample().bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    let copied = copy(&gguf);
    let again = Gguf::parse(&copied).unwrap();
    assert_eq!(again.metadata().entries(), gguf.metadata().entries());
    assert_eq!(again.tensor("b").unwrap().range, again.data_start()..again.data_start() + 68);
    assert_eq!(copied.len(), again.data_start() + 96 + 32);
}

fn check(made: Result<(), WriteError>, expected: &str) {
    assert_eq!(made.unwrap_err().to_string(), expected);
}

#[test]
fn what_no_reader_takes_is_not_written() {
    let mut writer = Writer::new();
    writer.set("a", Value::Bool(true)).unwrap();
    check(writer.set("a", Value::U8(1)), "metadata `a`: expected keys that differ, got the same twice");
    check(writer.array("b", Type::U8, [Value::I8(1)]), "metadata `b`: expected items of u8, got i8");
    let deep = (1..ARRAY_DEPTH_MAX).fold(array(Type::U8, 0, &[]), |inner, _| array(Type::Array, 1, &inner));
    let deep = Value::Array(Array::parse(&deep).unwrap());
    check(
        writer.array("b", Type::Array, [deep]),
        "metadata `b`: expected arrays at most 4 deep, got another array within",
    );
    check(
        writer.set("general.alignment", Value::U32(3)),
        "metadata `general.alignment`: expected a power of two, got U32(3)",
    );
    writer.tensor("t", &[1], Kind::F32, &[0; 4]).unwrap();
    check(
        writer.set("general.alignment", Value::U32(4)),
        "metadata `general.alignment`: expected it before the first tensor, got it after",
    );
    check(writer.tensor("t", &[1], Kind::F32, &[0; 4]), "tensor `t`: expected names that differ, got the same twice");
    check(writer.tensor("u", &[2], Kind::F32, &[0; 4]), "tensor `u`: expected 8 bytes of F32 for [2], got 4");
    check(
        writer.tensor("u", &[2], Kind::Q4_0, &[0; 4]),
        "tensor `u`: expected rows of a multiple of 32 weights, as Q4_0 needs, got [2]",
    );
    let dims = "tensor `u`: expected at most 4 dimensions from 1 on, and a product that is a number, got";
    check(writer.tensor("u", &[0], Kind::F32, &[]), &format!("{dims} [0]"));
    check(writer.tensor("u", &[1; 5], Kind::F32, &[0; 4]), &format!("{dims} [1, 1, 1, 1, 1]"));
    check(writer.tensor("u", &[usize::MAX, 2], Kind::F32, &[]), &format!("{dims} [{}, 2]", usize::MAX));
    let file = written(&writer);
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!((gguf.metadata().entries().len(), gguf.tensors().len()), (1, 1));
}
