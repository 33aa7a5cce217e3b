//! What a model expects is what its architecture says, whatever we do to be fast: logits against plain numpy in f32 over the
//! dequantised weights (`oracles/reference.py`), which is another's reading of the same papers.
//!
//! Tiny models of each family are made here, from a description that stands in the golden file with the reference's logits
//! (`oracles/tiny_distributions.py`, which llama.cpp agrees with as well).

use littoral_model::lm::{self, Input, Part, Scratch, Stage, Wanted};
use littoral_tensor::gguf::{Gguf, Value, Writer};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Kind};
use serde::Deserialize;

#[derive(Deserialize)]
struct Tiny {
    ids: Vec<u32>,
    /// Where the reference's logits are given.
    positions: Vec<usize>,
    models: Vec<TinyModel>,
}

#[derive(Deserialize)]
struct TinyModel {
    name: String,
    /// Name, type, value.
    keys: Vec<(String, String, serde_json::Value)>,
    /// Name, dimensions, and weights of `around + spread * draw`.
    tensors: Vec<(String, Vec<usize>, f32, f32)>,
    logits: Vec<Vec<f32>>,
}

impl TinyModel {
    fn file(&self) -> Vec<u8> {
        let mut seed = 11u64;
        let mut draw = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 40) as f32) / (1 << 23) as f32 - 1.0
        };
        let weights: Vec<Vec<u8>> = (self.tensors.iter())
            .map(|(_, dims, around, spread)| {
                let count = dims.iter().product();
                (0..count).flat_map(|_: usize| (around + spread * draw()).to_le_bytes()).collect()
            })
            .collect();
        let mut writer = Writer::new();
        for (name, kind, value) in &self.keys {
            let value = match kind.as_str() {
                "str" => Value::Str(value.as_str().unwrap()),
                "u32" => Value::U32(value.as_u64().unwrap() as u32),
                "f32" => Value::F32(value.as_f64().unwrap() as f32),
                other => panic!("{other}"),
            };
            writer.set(name, value).unwrap();
        }
        for ((name, dims, ..), weights) in self.tensors.iter().zip(&weights) {
            writer.tensor(name, dims, Kind::F32, weights).unwrap();
        }
        let mut out = Vec::new();
        writer.write(&mut out).unwrap();
        out
    }
}

fn load(bytes: &[u8], pool: &Pool) -> Stage {
    let gguf = Gguf::parse(bytes).unwrap();
    let config = lm::config(&gguf).unwrap();
    lm::load(&gguf, &config, 0..config.layers, pool, &mut |_| ()).unwrap()
}

/// `hear` gets each position and its logits.
fn logits(stage: &Stage, ids: &[u32], pool: &Pool, mut hear: impl FnMut(usize, &[f32])) {
    let (mut state, mut scratch) = (stage.state(), Scratch::new(Instructions::here()[0]));
    for (chunk, start) in ids.chunks(64).zip((0..).step_by(64)) {
        let part = Part { state: &mut state, input: Input::Ids(chunk), wanted: Wanted::All };
        let logits = stage.forward(&mut [part], &mut scratch, pool).logits;
        for (i, logits) in logits.chunks_exact(stage.config().vocabulary).enumerate() {
            hear(start + i, logits);
        }
    }
}

#[test]
fn tiny_models_of_each_family() {
    let tiny: Tiny = serde_json::from_str(include_str!("golden/distributions/tiny.json")).unwrap();
    let pool = Pool::new(2);
    for model in &tiny.models {
        let stage = load(&model.file(), &pool);
        let mut furthest = 0f32;
        logits(&stage, &tiny.ids, &pool, |position, got| {
            let Some(row) = tiny.positions.iter().position(|at| *at == position) else { return };
            assert_eq!(got.len(), model.logits[row].len());
            for (got, expected) in got.iter().zip(&model.logits[row]) {
                furthest = furthest.max((got - expected).abs());
            }
        });
        println!("{}: logits at most {furthest:.1e} from the reference", model.name);
        // Keys and values are kept in half precision, whose rounding of 2^-12 a softmax over scores of up to 20 enlarges:
        // 0.006 was seen. Any one piece of an architecture left out, or one position or pair turned wrongly, is 0.03 to 12.
        assert!(furthest < 0.012, "{}: {furthest}", model.name);
    }
}
