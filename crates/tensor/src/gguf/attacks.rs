//! Files that lie, one test per lie.

use super::tests::{File, array, sample, string};
use super::*;
use crate::quant::Kind;
use proptest::prelude::*;

/// What is said of a file.
fn check(file: File, expected: &str) {
    assert_eq!(Gguf::parse(&file.bytes()).unwrap_err().to_string(), expected);
}

const F32: u32 = 0;

#[test]
fn no_bytes_and_few_bytes() {
    let of = |bytes: &[u8]| Gguf::parse(bytes).unwrap_err().to_string();
    assert_eq!(of(b""), "the magic at byte 0: expected 4 bytes, got 0 until the end");
    assert_eq!(of(b"GGUF\x03"), "the version at byte 4: expected 4 bytes, got 1 until the end");
    assert_eq!(of(b"\x1b[2J"), "the magic at byte 0: expected `GGUF`, got `\\x1b[2J`");
}

#[test]
fn other_versions() {
    let of = |version| File { version, ..File::new() };
    let expected = "the version at byte 4: expected 2 or 3 in little-endian order, got";
    check(of(1), &format!("{expected} 1, whose counts have 32 bits: convert the model anew"));
    check(of(3 << 24), &format!("{expected} 3 in big-endian order"));
    check(of(4), &format!("{expected} 4"));
    check(of(0), &format!("{expected} 0"));
}

#[test]
fn huge_counts() {
    let of = |tensors, keys| File { tensor_count: Some(tensors), key_count: Some(keys), ..File::new() };
    let few = "(the bytes that remain hold no more), got";
    check(of(u64::MAX, 0), &format!("the number of tensors at byte 8: expected at most 0 {few} {}", u64::MAX));
    check(of(0, 1 << 63), &format!("the number of keys at byte 16: expected at most 0 {few} {}", 1u64 << 63));
    let array = array(Type::F64, u64::MAX / 8, &[0; 16]);
    check(
        File { alignment: 1, ..File::new().entry("a", Type::Array, &array) },
        &format!("the length of metadata `a` at byte 41: expected at most 2 {few} {}", u64::MAX / 8),
    );
}

/// As many as the bytes hold, if each took its fewest: still more than any real file has.
#[test]
fn counts_that_only_padding_backs() {
    let of = |tensors, keys| File { tensor_count: Some(tensors), key_count: Some(keys), ..File::new().data(7 << 20) };
    let real = "(no real file has more), got";
    check(of(300_000, 0), &format!("the number of tensors at byte 8: expected at most {TENSORS_MAX} {real} 300000"));
    check(of(0, 100_000), &format!("the number of keys at byte 16: expected at most {KEYS_MAX} {real} 100000"));
}

#[test]
fn strings_that_lie_about_their_length() {
    let mut file = File::new();
    file.entries.push([&u64::MAX.to_le_bytes()[..], b"key"].concat());
    file.entries.push(vec![0; 32]);
    check(file, "key 0 at byte 32: expected 18446744073709551615 bytes, got 64 until the end");
    let long = [&9u64.to_le_bytes()[..], b"short"].concat();
    let file = File { alignment: 1, ..File::new().entry("a", Type::Str, &long) };
    check(file, "metadata `a` at byte 45: expected 9 bytes, got 5 until the end");
}

#[test]
fn strings_that_are_not_utf8() {
    let bad = string(b"ab\xff");
    check(File::new().entry("a", Type::Str, &bad), "metadata `a` at byte 47: expected UTF-8, got byte 0xff");
    let inside = array(Type::Str, 2, &[string(b"fine"), string(b"\xc3")].concat());
    check(File::new().entry("a", Type::Array, &inside), "metadata `a` at byte 69: expected UTF-8, got byte 0xc3");
    let mut file = File::new();
    file.entries.push([&string(b"\x80")[..], &[0; 20]].concat());
    check(file, "key 0 at byte 32: expected UTF-8, got byte 0x80");
    let mut file = File::new();
    file.infos.push([&string(b"\xf0\x9f\x98")[..], &[0; 20]].concat());
    check(file, "the name of tensor 0 at byte 32: expected UTF-8, got byte 0xf0");
}

#[test]
fn types_that_are_none() {
    let mut file = File::new();
    file.entries.push([&string(b"a")[..], &13u32.to_le_bytes(), &[0; 8]].concat());
    check(file, "the type of metadata `a` at byte 33: expected a type from 0 to 12, got 13");
    let mut bytes = array(Type::U8, 0, &[]);
    bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    check(
        File::new().entry("a", Type::Array, &bytes),
        "metadata `a` at byte 37: expected a type from 0 to 12, got 4294967295",
    );
}

#[test]
fn bools_that_are_neither() {
    check(File::new().entry("a", Type::Bool, &[2]), "metadata `a` at byte 37: expected 0 or 1, got 2");
    let bools = array(Type::Bool, 3, &[0, 1, 255]);
    check(File::new().entry("a", Type::Array, &bools), "metadata `a` at byte 51: expected 0 or 1, got 255");
}

/// Arrays that hold one array each; without a bound a file of a megabyte would end the stack.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = array(Type::U8, 1, &[7]);
    for _ in 1..depth {
        bytes = array(Type::Array, 1, &bytes);
    }
    bytes
}

#[test]
fn deeply_nested_metadata() {
    let of = |depth| File::new().entry("a", Type::Array, &nested(depth));
    assert!(Gguf::parse(&of(ARRAY_DEPTH_MAX).bytes()).is_ok());
    let at = 37 + 12 * ARRAY_DEPTH_MAX;
    let expected = format!("metadata `a` at byte {at}: expected arrays at most 4 deep, got another array within");
    check(of(ARRAY_DEPTH_MAX + 1), &expected);
    check(of(2000), &expected);
}

#[test]
fn duplicate_keys_and_names() {
    check(
        File::new().entry("a", Type::U8, &[1]).entry("b", Type::U8, &[1]).entry("a", Type::I8, &[1]),
        "key 2 at byte 52: expected keys that differ, got `a` as key 0 is",
    );
    check(
        File::new().tensor("a", &[1], F32, 0).tensor("a", &[1], F32, 32).data(64),
        "the name of tensor 1 at byte 57: expected names that differ, got `a` as tensor 0 is",
    );
}

#[test]
fn bad_alignment() {
    let of = |value: u32| File::new().entry("general.alignment", Type::U32, &value.to_le_bytes());
    let expected = "metadata `general.alignment` at byte 53: expected a power of two, got";
    check(of(0), &format!("{expected} 0"));
    check(of(48), &format!("{expected} 48"));
    check(of(u32::MAX), &format!("{expected} 4294967295"));
    check(
        File::new().entry("general.alignment", Type::Str, &string(b"32")),
        "metadata `general.alignment` at byte 53: \
         expected an integer from 0 to 4294967295, got the string `32`",
    );
    // Larger than the file: there is room for no tensor, and no addition overflows.
    assert!(Gguf::parse(&of(1 << 31).bytes()).is_ok());
    check(
        of(1 << 31).tensor("a", &[1], F32, 0).data(4),
        "the offset of tensor `a` at byte 82: expected 4 bytes from 0 + 2147483648 on, got a file of 100 bytes",
    );
}

#[test]
fn offsets_that_are_not_aligned_or_outside() {
    let of = |offset| File::new().tensor("a", &[1], F32, offset).data(36);
    let at = "the offset of tensor `a` at byte 49: expected";
    assert!(Gguf::parse(&of(32).bytes()).is_ok());
    check(of(4), &format!("{at} a multiple of 32, got 4"));
    check(of(64), &format!("{at} 4 bytes from 64 + 64 on, got a file of 100 bytes"));
    check(of(u64::MAX - 31), &format!("{at} 4 bytes from {} + 64 on, got a file of 100 bytes", u64::MAX - 31));
    // One that is of no known kind begins in the file, too.
    check(
        File::new().tensor("a", &[1], 99, 32).data(32),
        &format!("{at} at least 1 byte from 32 + 64 on, got a file of 96 bytes"),
    );
}

#[test]
fn overlapping_tensors() {
    let of = |first, second| File::new().tensor("a", &[16], F32, first).tensor("b", &[16], F32, second).data(128);
    assert!(Gguf::parse(&of(64, 0).bytes()).is_ok());
    let expected = "expected bytes apart from those of";
    check(of(0, 0), &format!("the offset of tensor `b` at byte 82: {expected} `a`, 96..160, got 96..160"));
    check(of(32, 0), &format!("the offset of tensor `a` at byte 49: {expected} `b`, 96..160, got 128..192"));
    let file = File::new().tensor("a", &[16], F32, 0).tensor("b", &[1], 99, 32).data(64);
    check(file, &format!("the offset of tensor `b` at byte 82: {expected} `a`, 96..160, got 128..129"));
}

#[test]
fn dims_that_overflow() {
    let of = |dims: &[u64]| File::new().tensor("a", dims, F32, 0).data(64);
    let expected = format!("expected at least 1, and a product of at most {}", usize::MAX);
    check(of(&[1 << 32, 1 << 32]), &format!("the dimensions of tensor `a` at byte 45: {expected}, got 4294967296"));
    check(of(&[u64::MAX, 1, 2]), &format!("the dimensions of tensor `a` at byte 53: {expected}, got 2"));
    check(of(&[4, 0]), &format!("the dimensions of tensor `a` at byte 45: {expected}, got 0"));
    check(
        of(&[1 << 62]),
        "the offset of tensor `a` at byte 49: expected more bytes than any file has from 0 + 64 on, \
         got a file of 128 bytes",
    );
    check(of(&[1; 5]), "the dimensions of tensor `a` at byte 33: expected at most 4, got 5");
}

#[test]
fn rows_that_are_no_whole_blocks() {
    check(
        File::new().tensor("a", &[33, 32], Kind::Q4_0.code(), 0).data(1024),
        "the type of tensor `a` at byte 53: expected rows of a multiple of 32 weights, as Q4_0 needs, got rows of 33",
    );
    check(
        File::new().tensor("a", &[], Kind::Q8_0.code(), 0).data(64),
        "the type of tensor `a` at byte 37: expected rows of a multiple of 32 weights, as Q8_0 needs, got rows of 1",
    );
}

#[test]
fn names_that_would_clear_a_terminal_or_fill_it() {
    let name = format!("\u{1b}[2J{}", "x".repeat(1000));
    let said = Gguf::parse(&File::new().tensor(&name, &[0], F32, 0).bytes()).unwrap_err().to_string();
    assert!(said.starts_with("the dimensions of tensor `\\u{1b}[2Jxxx") && said.len() < 250, "{said}");
    assert!(!said.contains(char::is_control));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sample().bytes();
    for len in 0..bytes.len() {
        let said = Gguf::parse(&bytes[..len]).unwrap_err().to_string();
        assert!(said.contains("at byte") && said.contains("expected") && said.contains("got"), "{len}: {said}");
    }
}

/// Reads all that can be asked of a file.
fn walk(bytes: &[u8]) {
    let Ok(gguf) = Gguf::parse(bytes) else { return };
    for Entry { key, value, .. } in gguf.metadata().entries() {
        let metadata = gguf.metadata();
        let _ = (metadata.u32(key), metadata.f32(key), metadata.str(key), metadata.bool(key));
        let _ = (metadata.strings(key).map(Iterator::count), metadata.f32s(key), metadata.i32s(key));
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len());
        }
    }
    for info in gguf.tensors() {
        let found = gguf.tensor(info.name).map(|tensor| (tensor.range.clone(), tensor.bytes.len())).ok();
        assert_eq!(found, info.range().map(|range| (range.clone(), range.len())));
    }
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
                                 len in any::<prop::sample::Index>()) {
        let mut bytes = sample().bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        walk(&bytes);
        walk(&bytes[..len.index(bytes.len())]);
    }

    #[test]
    fn any_bytes_after_a_header_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), tensors in 0u64..3, keys in 0u64..3) {
        let mut file = File { tensor_count: Some(tensors), key_count: Some(keys), ..File::new() };
        file.infos.push(tail);
        walk(&file.bytes());
    }
}
