//! `inspect`: what people and programs see of a model file, and what is said of one that is none.

use super::world::{Folder, json, littoral, parts};
use littoral_tensor::gguf::{Type, Value, Writer};
use littoral_tensor::quant::Kind;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// A file with a name that would clear a terminal, an array that is long, and three tensors.
fn model(folder: &Folder) -> PathBuf {
    let zeros = [0; 128];
    let mut writer = Writer::new();
    writer.set("general.architecture", Value::Str("llama")).unwrap();
    writer.set("general.name", Value::Str("tiny\u{1b}[2J")).unwrap();
    writer.set("llama.epsilon", Value::F32(1e-5)).unwrap();
    writer.set("nan", Value::F64(f64::NAN)).unwrap();
    writer.set("long", Value::Str(&"x".repeat(100))).unwrap();
    writer.array("tokens", Type::I32, (0..100).map(Value::I32)).unwrap();
    writer.tensor("a", &[32, 2], Kind::Q8_0, &zeros[..68]).unwrap();
    writer.tensor("b", &[3], Kind::F32, &zeros[..12]).unwrap();
    writer.tensor("c", &[2, 2], Kind::F32, &zeros[..16]).unwrap();
    let path = folder.path("model");
    writer.write(&mut fs::File::create(&path).unwrap()).unwrap();
    path
}

#[test]
fn a_program_sees_all_of_it() {
    let folder = Folder::new("inspect-json");
    let path = model(&folder);
    let path = path.to_str().unwrap();
    let expected = json!({
        "file": path,
        "format": "GGUF",
        "version": 3,
        "architecture": "llama",
        "name": "tiny\u{1b}[2J",
        "bytes": fs::metadata(path).unwrap().len(),
        "parameters": 71,
        "alignment": 32,
        "tensor_count": 3,
        "kinds": [
            {"kind": "Q8_0", "tensors": 1, "weights": 64, "bytes": 68},
            {"kind": "F32", "tensors": 2, "weights": 7, "bytes": 28},
        ],
        "metadata": {
            "general.architecture": "llama",
            "general.name": "tiny\u{1b}[2J",
            "llama.epsilon": 1e-5,
            "nan": "NaN",
            "long": "x".repeat(100),
            "tokens": {"type": "i32[100]", "len": 100, "first": [0, 1, 2, 3, 4, 5, 6, 7]},
        },
    });
    assert_eq!(json(&["inspect", path]), expected);
    let tensors = json(&["inspect", path, "--tensors"])["tensors"].clone();
    assert_eq!(tensors.as_array().map(Vec::len), Some(3));
    assert_eq!(tensors[0], json!({"name": "a", "kind": "Q8_0", "dims": [32, 2], "bytes": 68}));
}

#[test]
fn a_person_sees_it_short_and_without_control_characters() {
    let folder = Folder::new("inspect-text");
    let path = model(&folder);
    let (code, stdout, stderr) = parts(&littoral(&["inspect", path.to_str().unwrap(), "--tensors"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in [
        "format        GGUF",
        "name          tiny\\u{1b}[2J",
        "parameters    71",
        "Q8_0  1        64       68\n",
        "llama.epsilon         f32       0.00001",
        &format!("long                  string    {}…\n", "x".repeat(71)),
        "tokens                i32[100]  [0,1,2,3,4,5,6,7, … 100 in all]",
        "a       Q8_0  32 x 2      68",
    ] {
        assert!(stdout.contains(part), "{part:?} in\n{stdout}");
    }
    assert!(stdout.lines().all(|line| !line.contains(char::is_control)));
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn safetensors_are_known_by_their_first_bytes() {
    let folder = Folder::new("inspect-safetensors");
    let path = folder.path("model");
    let header = r#"{"__metadata__": {"job": "j"}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "new": {"dtype": "F4", "shape": [2], "data_offsets": [24, 25]}}"#;
    fs::write(&path, safetensors(header, 25)).unwrap();
    let found = json(&["inspect", path.to_str().unwrap(), "--tensors"]);
    assert_eq!((&found["format"], &found["parameters"]), (&json!("safetensors"), &json!(8)));
    assert_eq!(found["metadata"], json!({"job": "j"}));
    assert_eq!(found["tensors"][0], json!({"name": "w", "kind": "F32", "dims": [2, 3], "bytes": 24}));
}

#[test]
fn what_is_no_model_is_refused_in_four_parts() {
    let folder = Folder::new("inspect-refused");
    let path = folder.path("file");
    let path = path.to_str().unwrap();
    let of = |listed: &str, data| safetensors(listed, data);
    let f32s = |offsets: &str| format!(r#"{{"a": {{"dtype": "F32", "shape": [2], "data_offsets": {offsets}}}}}"#);
    // The file; then a part of the place, of what is expected, and of what was got.
    let cases: &[(Vec<u8>, [&str; 3])] = &[
        (Vec::new(), ["the magic at byte 0", "4 bytes", "0 until the end"]),
        (b"PK\x03\x04....".to_vec(), ["the magic at byte 0", "`GGUF`", "`PK\\x03\\x04`"]),
        (b"GGUF\x01\0\0\0".to_vec(), ["the version at byte 4", "2 or 3", "1, whose counts have 32 bits"]),
        ([&[0xff; 8][..], b"{}"].concat(), ["length at byte 0", "at most 2", "18446744073709551615"]),
        (of("{\"a\": 1}", 0), ["the header at byte 8", "a JSON object", "invalid type"]),
        (of(&f32s("[0, 8]"), 7), ["the offsets of tensor a", "at most 7", "0 to 8"]),
        (of(&f32s("[1, 9]"), 9), ["the offsets of tensor a", "from 0", "1 to 9"]),
        (of(&f32s("[8, 0]"), 9), ["the offsets of tensor a", "from 0", "8 to 0"]),
        (of(&f32s("[0, 4]"), 4), ["tensor a", "8 bytes of F32", "4"]),
        (of(&f32s("[0, 8]"), 9), ["the end of the tensors", "8 bytes", "9 bytes"]),
    ];
    for (bytes, parts) in cases {
        fs::write(path, bytes).unwrap();
        refused(path, "the model file was refused", *parts);
    }
    let unread = "the file was not read";
    refused(folder.path("none").to_str().unwrap(), unread, ["none", "a model file", "No such file"]);
    refused(folder.path("").to_str().unwrap(), unread, ["", "a model file", "a folder"]);
    refused("/dev/null", unread, ["/dev/null", "a model file", "a pipe or a device"]);
}

fn refused(path: &str, what: &str, [place, expected, got]: [&str; 3]) {
    let (code, stdout, _) = parts(&littoral(&["inspect", path, "--json"]));
    let error = serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["error"].clone();
    assert_eq!((code, error["what"].as_str()), (1, Some(what)), "{error}");
    for (part, wanted) in [("where", place), ("expected", expected), ("got", got)] {
        assert!(error[part].as_str().is_some_and(|text| text.contains(wanted)), "{part} {wanted:?}: {error}");
    }
}
