//! The header of a safetensors file (github.com/huggingface/safetensors): a length of eight bytes, and so much JSON.

use super::Fault;
use super::report::{Contents, Field, TensorRow};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// Real headers have some hundred kilobytes.
const HEADER_BYTES_MAX: u64 = 16 << 20;

#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Listed>,
}

#[derive(Deserialize)]
struct Listed {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Tensors by name, and beside them one key that is none.
impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                header.metadata = map.next_value()?;
            } else if header.tensors.insert(name, map.next_value()?).is_some() {
                return Err(A::Error::custom("a tensor's name twice"));
            }
        }
        Ok(header)
    }
}

pub fn contents(bytes: &[u8]) -> Result<Contents, Fault> {
    let fault = |place: &str, expected: String, got: String| Fault { place: place.to_owned(), expected, got };
    let (len, rest) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let len = u64::from_le_bytes(*len);
    let maximum = HEADER_BYTES_MAX.min(rest.len() as u64);
    if len > maximum {
        return Err(fault("the header's length at byte 0", format!("at most {maximum}"), len.to_string()));
    }
    let (header, data) = rest.split_at(len as usize);
    let header: Header = serde_json::from_slice(header)
        .map_err(|e| fault("the header at byte 8", "a JSON object of tensors".to_owned(), e.to_string()))?;
    let mut listed: Vec<(String, Listed)> = header.tensors.into_iter().collect();
    listed.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut tensors = Vec::new();
    let mut end = 0;
    for (name, tensor) in listed {
        let [start, stop] = tensor.data_offsets;
        if start != end || stop < start || stop > data.len() as u64 {
            let (place, expected) =
                (format!("the offsets of tensor {name}"), format!("from {end} to at most {}", data.len()));
            return Err(Fault { place, expected, got: format!("{start} to {stop}") });
        }
        end = stop;
        let weights = tensor.shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim as u64));
        let bits = weights.and_then(|weights| weights.checked_mul(bits(&tensor.dtype).unwrap_or(0)));
        let (Some(weights), Some(bits)) = (weights, bits) else {
            let (place, got) = (format!("the shape of tensor {name}"), format!("{:?}", tensor.shape));
            return Err(Fault { place, expected: "a product that is a number".to_owned(), got });
        };
        let bytes = stop - start;
        if bits > 0 && bits.div_ceil(8) != bytes {
            let expected = format!("{} bytes of {} for {:?}", bits.div_ceil(8), tensor.dtype, tensor.shape);
            return Err(Fault { place: format!("tensor {name}"), expected, got: format!("{bytes}") });
        }
        tensors.push(TensorRow { name, kind: tensor.dtype, dims: tensor.shape, weights, bytes: Some(bytes) });
    }
    if end != data.len() as u64 {
        let got = format!("{} bytes of them", data.len());
        return Err(fault("the end of the tensors", format!("{end} bytes, as the header says"), got));
    }
    let field =
        |(key, value)| Field { key, of: "string".to_owned(), value: serde_json::Value::String(value), len: None };
    Ok(Contents {
        format: "safetensors",
        version: None,
        architecture: None,
        name: None,
        alignment: None,
        metadata: header.metadata.into_iter().map(field).collect(),
        tensors,
    })
}

/// Bits of a weight, for the types that are known.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" => 64,
        _ => return None,
    })
}
