//! A model version as a safetensors file: 8 bytes of header length, a JSON header, the tensors
//! (github.com/huggingface/safetensors, format 0.x). Beside the model's own segments it has `standardise.mean` and
//! `standardise.inverse_deviation`, which inputs must go through first.
//!
//! Written from front to back, one block of parameters in memory at a time. Of a job that leaves segments on devices the file has the
//! whole model all the same: these segments as the job began with them, and their names in the metadata, `personal`. Then the
//! weights are in memory as a whole.

use crate::job::JobSpec;
use crate::work::VersionError;
use serde_json::{Map, Value, json};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ExportError {
    #[error("the model object has {expected} bytes by the job's layout, got {got}")]
    Length { expected: u64, got: u64 },
    #[error(transparent)]
    Image(#[from] VersionError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The objects of a model's chain, the whole one first, as one object that [`safetensors`] reads.
pub fn whole(spec: &JobSpec, mut objects: Vec<Vec<u8>>) -> Result<Vec<u8>, ExportError> {
    match spec.version().image {
        true => Ok(crate::work::expand(spec, &objects)?),
        false => Ok(objects.pop().unwrap_or_default()),
    }
}

/// Writes the model that lies in `object` in the layout of [`crate::job::VersionLayout`].
pub fn safetensors(spec: &JobSpec, object: &mut (impl Read + Seek), out: &mut impl Write) -> Result<(), ExportError> {
    let version = spec.version();
    let expected = version.model_bytes() as u64;
    let got = object.seek(SeekFrom::End(0))?;
    if got != expected {
        return Err(ExportError::Length { expected, got });
    }
    let mut header = Map::new();
    let mut metadata = json!({"job": spec.name(), "algorithm": spec.algorithm_name()});
    if !spec.home().is_empty() {
        metadata["personal"] = spec.own_segments().join(" ").into();
    }
    header.insert("__metadata__".into(), metadata);
    let mut tensor = |name: &str, shape: &[usize], bytes: Range<usize>| {
        header
            .insert(name.to_owned(), json!({"dtype": "F32", "shape": shape, "data_offsets": [bytes.start, bytes.end]}));
    };
    // Segments follow each other without gaps, and so do the blocks of weights.
    for segment in spec.model().layout().segments() {
        tensor(&segment.name, &segment.shape, 4 * segment.offset..4 * (segment.offset + segment.len));
    }
    if version.inputs > 0 {
        let (start, bytes) = (4 * spec.home().params(), 4 * version.inputs);
        tensor("standardise.mean", &[version.inputs], start..start + bytes);
        tensor("standardise.inverse_deviation", &[version.inputs], start + bytes..start + 2 * bytes);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Tensors begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut buffer = Vec::new();
    let vectors = 1 + version.broadcast;
    let weights = version.blocks().map(|block| version.at(&block, 0, vectors));
    let standardisation = version.standardisation();
    let mut shared = Vec::new();
    for part in weights {
        buffer.resize(part.len(), 0);
        object.seek(SeekFrom::Start(part.start as u64))?;
        object.read_exact(&mut buffer)?;
        match spec.home().is_empty() {
            true => out.write_all(&buffer)?,
            false => shared.extend_from_slice(&buffer),
        }
    }
    if !spec.home().is_empty() {
        let first = spec.model().init(spec.seed());
        let mut shared = &shared[..];
        let mut at = 0;
        for range in spec.home().shared() {
            write_first(&first[at..range.start], out)?;
            let (here, rest) = shared.split_at(4 * range.len());
            out.write_all(here)?;
            (shared, at) = (rest, range.end);
        }
        write_first(&first[at..], out)?;
    }
    buffer.resize(standardisation.len(), 0);
    object.seek(SeekFrom::Start(standardisation.start as u64))?;
    object.read_exact(&mut buffer)?;
    out.write_all(&buffer)?;
    Ok(())
}

/// Weights that are in no version.
fn write_first(weights: &[f32], out: &mut impl Write) -> io::Result<()> {
    weights.iter().try_for_each(|weight| out.write_all(&weight.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::SAMPLE_TOML;
    use std::io::Cursor;

    /// SCAFFOLD's object has a second vector between the weights' blocks: it must not get into the file.
    #[test]
    fn a_file_has_the_weights_and_the_standardisation_only() {
        let toml = SAMPLE_TOML.replace("\"fedavg\"", "\"scaffold\"").replace("hidden = [16]", "hidden = [40000]");
        let spec = JobSpec::parse(&toml).unwrap();
        let version = spec.version();
        assert!(version.blocks().count() > 1 && version.broadcast == 1 && version.inputs == 3);
        let mut object = vec![0; version.model_bytes()];
        let mut put = |at: usize, value: f32| object[at..at + 4].copy_from_slice(&value.to_le_bytes());
        for block in version.blocks() {
            for (i, param) in block.clone().enumerate() {
                put(version.at(&block, 0, 2).start + 4 * i, param as f32);
                put(version.at(&block, 1, 2).start + 4 * i, -1.0);
            }
        }
        (0..6).for_each(|i| put(version.standardisation_at() + 4 * i, 0.5 + i as f32));
        let mut file = Vec::new();
        safetensors(&spec, &mut Cursor::new(&object), &mut file).unwrap();

        let header_bytes = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + header_bytes]).unwrap();
        let tensor = |name: &str| -> Vec<f32> {
            let offset = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize + 8 + header_bytes;
            let shape = header[name]["shape"].as_array().unwrap();
            let values = file[offset(0)..offset(1)].chunks_exact(4);
            let values: Vec<f32> = values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            assert_eq!(shape.iter().map(|n| n.as_u64().unwrap() as usize).product::<usize>(), values.len());
            values
        };
        for segment in spec.model().layout().segments() {
            assert!(tensor(&segment.name).iter().zip(segment.range()).all(|(value, param)| *value == param as f32));
        }
        assert_eq!(tensor("standardise.mean"), [0.5, 1.5, 2.5]);
        assert_eq!(tensor("standardise.inverse_deviation"), [3.5, 4.5, 5.5]);
        assert_eq!(file.len() - 8 - header_bytes, 4 * (version.params + 6));

        object.pop();
        assert!(matches!(
            safetensors(&spec, &mut Cursor::new(&object), &mut Vec::new()),
            Err(ExportError::Length { .. })
        ));
    }
}
