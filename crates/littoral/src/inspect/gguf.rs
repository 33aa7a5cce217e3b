//! What a GGUF file says of itself.

use super::report::{Contents, Field, TensorRow};
use littoral_tensor::gguf::{Array, Entry, Gguf, GgufError, TensorInfo, Value};
use serde_json::{Value as Json, json};

/// Items of an array that are shown.
const ITEMS_SHOWN: usize = 8;

pub fn contents(bytes: &[u8]) -> Result<Contents, GgufError> {
    let gguf = Gguf::parse(bytes)?;
    let text = |key: &str| gguf.metadata().get(key).and_then(|entry| entry.str().ok()).map(str::to_owned);
    Ok(Contents {
        format: "GGUF",
        version: Some(gguf.version()),
        architecture: text("general.architecture"),
        name: text("general.name"),
        alignment: Some(gguf.alignment()),
        metadata: gguf.metadata().entries().iter().map(field).collect(),
        tensors: gguf.tensors().iter().map(row).collect(),
    })
}

fn row(info: &TensorInfo<'_>) -> TensorRow {
    TensorRow {
        name: info.name.to_owned(),
        kind: info.kind_name(),
        dims: info.dims().to_vec(),
        weights: info.weights() as u64,
        bytes: info.range().map(|range| range.len() as u64),
    }
}

fn field(entry: &Entry<'_>) -> Field {
    let (key, of) = (entry.key.to_owned(), entry.value.value_type());
    match entry.value {
        Value::Array(array) => {
            let of = format!("{}[{}]", array.of(), array.len());
            Field { key, of, value: first(&array), len: Some(array.len()) }
        }
        value => Field { key, of: of.to_string(), value: shown(&value), len: None },
    }
}

fn first(array: &Array<'_>) -> Json {
    array.iter().take(ITEMS_SHOWN).map(|item| shown(&item)).collect()
}

fn shown(value: &Value<'_>) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::Str(text) => json!(text),
        Value::Array(array) => first(array),
        Value::F32(value) => float(value.to_string()),
        Value::F64(value) => float(value.to_string()),
        Value::U64(value) => json!(value),
        _ => value.integer().and_then(|value| i64::try_from(value).ok()).into(),
    }
}

/// As short as its own width allows: 0.00001 and not 0.000009999999747378752. What JSON has no number for is a text.
fn float(text: String) -> Json {
    let number = text.parse().ok().and_then(serde_json::Number::from_f64);
    number.map_or(Json::String(text), Json::Number)
}
