//! What a model expects is what its architecture says, whatever we do to be fast: logits against plain numpy in f32 over the
//! dequantised weights (`oracles/reference.py`), which is another's reading of the same papers.
//!
//! Tiny models of each family are made here, from a description that stands in the golden file with the reference's logits
//! (`oracles/tiny_distributions.py`, which llama.cpp agrees with as well). Real models come from the folder
//! `$LITTORAL_MODELS`; where a file is absent the test says so and passes (`oracles/distributions.py`).

use littoral_model::lm::{self, CacheType, Input, Part, Scratch, Stage, Wanted};
use littoral_tensor::Mapped;
use littoral_tensor::gguf::{Gguf, Value, Writer};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Kind};
use serde::Deserialize;
use std::path::{Path, PathBuf};

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
    lm::load(&gguf, &config, 0..config.layers, true, pool, &mut |_| ()).unwrap()
}

/// `hear` gets each position and its logits.
fn logits(stage: &Stage, ids: &[u32], pool: &Pool, mut hear: impl FnMut(usize, &[f32])) {
    let (mut state, mut scratch) = (stage.state(CacheType::F16).unwrap(), Scratch::new(Instructions::here()[0]));
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

/// What a file says of positions and we do not do is refused by its name, and so is nonsense.
#[test]
fn scalings_that_are_not_done_are_named() {
    let tiny: Tiny = serde_json::from_str(include_str!("golden/distributions/tiny.json")).unwrap();
    let model = tiny.models.into_iter().find(|model| model.name == "qwen 3 yarn").unwrap();
    let refusal_without = |absent: &str, key: &str, kind: &str, value: serde_json::Value| {
        let mut keys = model.keys.clone();
        keys.retain(|(name, ..)| name != key && name != absent);
        keys.push((key.to_owned(), kind.to_owned(), value));
        let bytes = TinyModel { keys, name: String::new(), tensors: model.tensors.clone(), logits: Vec::new() }.file();
        lm::config(&Gguf::parse(&bytes).unwrap()).unwrap_err().to_string()
    };
    let refusal = |key: &str, kind: &str, value: serde_json::Value| refusal_without("", key, kind, value);
    for (key, kind, value) in [
        ("type", "str", "longrope".into()),
        ("factor", "f32", 0.5.into()),
        ("yarn_ext_factor", "f32", 0.25.into()),
        ("yarn_log_multiplier", "f32", 0.1.into()),
        ("yarn_beta_slow", "f32", 0.0.into()),
        ("original_context_length", "u32", 0.into()),
    ] {
        let key = format!("qwen3.rope.scaling.{key}");
        let told = refusal(&key, kind, value);
        assert!(told.starts_with(&format!("{key}: ")), "{told}");
    }
    assert!(refusal("qwen3.rope.scaling.type", "str", "longrope".into()).ends_with("expected, got longrope"));
    // Where no width of heads is named, it is the model's through the heads: more heads than that leave none.
    let heads = refusal_without("qwen3.attention.key_length", "qwen3.attention.head_count", "u32", 1_000.into());
    assert!(heads.starts_with("qwen3.attention.head_count: at most "), "{heads}");
    // With these every logit would be the same, or none a number.
    for (key, value) in [
        ("attention.layer_norm_rms_epsilon", 0.0),
        ("rope.freq_base", 0.0),
        ("rope.freq_base_swa", 1.0),
        ("final_logit_softcapping", -1.0),
    ] {
        let key = format!("qwen3.{key}");
        let told = refusal(&key, "f32", value.into());
        assert!(told.starts_with(&format!("{key}: ")), "{told}");
    }
}

#[derive(Deserialize)]
struct Real {
    file: String,
    sha256: String,
    /// Of a text.
    ids: Vec<u32>,
    /// The mean divergence from the reference over 511 positions, and llama.cpp's, when the file was written.
    mean_kl: f64,
    llama_cpp_mean_kl: f64,
    /// Then, too, and as [`coarse`] tells it: of position 0, and the mean of the others that are here.
    coarse_kl: [f64; 2],
    /// A position, the likeliest ids after it, and the reference's logarithms of their probabilities.
    positions: Vec<(usize, Vec<u32>, Vec<f64>)>,
}

/// KL(p || q) in nats, of some ids one by one and all others taken together: from below, since taking together forgets.
fn coarse(p: &[f64], q: &[f64]) -> f64 {
    let rest = |x: &[f64]| 1.0 - x.iter().map(|x| x.exp()).sum::<f64>().min(1.0 - 1e-12);
    let others = rest(p) * (rest(p) / rest(q)).ln();
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>() + others
}

fn compare(golden: &str) {
    let real: Real = serde_json::from_str(golden).unwrap();
    let folder = std::env::var_os("LITTORAL_MODELS").map_or_else(PathBuf::new, PathBuf::from);
    let path = Path::new(&folder).join(&real.file);
    let Ok(file) = std::fs::File::open(&path) else {
        println!("{} is absent: nothing is compared", path.display());
        return;
    };
    let pool = Pool::new(2);
    let stage = load(&Mapped::new(&file).unwrap(), &pool);
    let (mut first, mut sum, mut same) = (0.0, 0.0, 0);
    let mut rest = real.positions.iter().peekable();
    logits(&stage, &real.ids, &pool, |position, logits| {
        let Some((_, ids, expected)) = rest.next_if(|(at, ..)| *at == position) else { return };
        let most = logits.iter().fold(f32::NEG_INFINITY, |most, logit| most.max(*logit));
        let total: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
        let got: Vec<f64> = ids.iter().map(|id| f64::from(logits[*id as usize] - most) - total.ln()).collect();
        *(if position == 0 { &mut first } else { &mut sum }) += coarse(expected, &got);
        same += u32::from(logits[ids[0] as usize] == most);
    });
    assert!(rest.next().is_none());
    let (count, [first_then, mean_then]) = (real.positions.len(), real.coarse_kl);
    let mean = sum / (count - 1) as f64;
    let said = format!(
        "{}: {mean:.6} nats from the reference, {mean_then:.6} before; after one id {first:.5}, {first_then:.5} before; \
         {same} of {count} likeliest ids are the reference's",
        real.file
    );
    println!("{said}");
    let said = format!("{said} (if the file's SHA-256 is {})", real.sha256);
    // The bounds of the project.
    assert!(mean < 0.01 && real.mean_kl < 0.01 && real.mean_kl < 1.1 * real.llama_cpp_mean_kl, "{said}");
    // Bits are the same everywhere, so these move only when the arithmetic is changed. A twentieth is what another order
    // of roundings may take; for more, `oracles/distributions.py` must say whether the bounds still hold.
    assert!(mean < 1.05 * mean_then && first < 1.05 * first_then, "{said}");
}

#[test]
fn smollm2() {
    compare(include_str!("golden/distributions/smollm2-135m-instruct-q4_1.json"));
}

#[test]
fn gemma3() {
    compare(include_str!("golden/distributions/gemma-3-270m-q4_k_m.json"));
}

#[test]
fn qwen2() {
    compare(include_str!("golden/distributions/qwen2.5-coder-0.5b.json"));
}

#[test]
fn qwen2_bigger() {
    compare(include_str!("golden/distributions/qwen2.5-coder-1.5b.json"));
}
