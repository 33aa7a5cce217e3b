//! Small model files: first inputs for the fuzz target `gguf`.
//!
//! `cargo run -p littoral-tensor --example gguf_seeds -- fuzz/seeds/gguf`

use littoral_tensor::gguf::{Array, Type, Value, Writer};
use littoral_tensor::quant::Kind;
use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: gguf_seeds DIR")?;
    fs::create_dir_all(&dir)?;
    let save = |name: &str, writer: Writer<'_>| -> Result<(), Box<dyn Error>> {
        let mut file = Vec::new();
        writer.write(&mut file)?;
        Ok(fs::write(Path::new(&dir).join(name), file)?)
    };
    save("empty", Writer::new())?;
    save("values", values()?)?;
    save("arrays", arrays()?)?;
    let zeros = [0; 256];
    let mut model = Writer::new();
    model.set("general.architecture", Value::Str("llama"))?;
    model.set("general.alignment", Value::U32(8))?;
    model.tensor("token_embd.weight", &[32, 2], Kind::Q4_0, &zeros[..36])?;
    model.tensor("output_norm.weight", &[3], Kind::F32, &zeros[..12])?;
    model.tensor("experts", &[1, 2, 1, 2], Kind::F16, &zeros[..8])?;
    save("tensors", model)?;
    for kind in Kind::ALL {
        let mut one = Writer::new();
        one.tensor("t", &[kind.columns()], kind, &zeros[..kind.bytes()])?;
        save(&format!("kind-{kind}"), one)?;
    }
    Ok(())
}

fn values() -> Result<Writer<'static>, Box<dyn Error>> {
    let mut writer = Writer::new();
    let values = [
        Value::U8(1),
        Value::I8(-1),
        Value::U16(2),
        Value::I16(-2),
        Value::U32(3),
        Value::I32(-3),
        Value::F32(0.5),
        Value::Bool(true),
        Value::Str("text"),
        Value::U64(4),
        Value::I64(-4),
        Value::F64(0.25),
    ];
    for value in values {
        writer.set(value.value_type().name(), value)?;
    }
    Ok(writer)
}

fn arrays() -> Result<Writer<'static>, Box<dyn Error>> {
    let mut writer = Writer::new();
    writer.strings("strings", ["a", "", "bc"])?;
    writer.array("f32", Type::F32, [0.5, -0.5].map(Value::F32))?;
    writer.array("i32", Type::I32, [1, -1].map(Value::I32))?;
    writer.array("bool", Type::Bool, [true, false].map(Value::Bool))?;
    // Two arrays of one byte: type 0, length 1, the byte.
    let inner = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];
    let inner = Value::Array(Array::parse(&inner)?);
    writer.array("nested", Type::Array, [inner, inner])?;
    Ok(writer)
}
