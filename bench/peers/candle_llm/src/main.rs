//! candle on a model file, as one line of JSON.
//!
//! usage: candle-llm MODEL [THREADS]
//!
//! The work is that of `littoral bench llm`: 512 ids into an empty context, the logits of the last; 64 ids one by one from
//! an empty context; medians of three. candle empties its cache when position 0 comes.

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Result, Tensor, bail};
use candle_transformers::models::{quantized_gemma3, quantized_llama, quantized_qwen2, quantized_qwen3};
use std::fs::File;
use std::time::Instant;

const PROMPT: u32 = 512;
const DECODED: u32 = 64;
const REPEATS: usize = 3;

enum Model {
    Llama(quantized_llama::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
    Gemma3(quantized_gemma3::ModelWeights),
}

impl Model {
    fn load(path: &str, device: &Device) -> Result<Self> {
        let mut file = File::open(path)?;
        let content = Content::read(&mut file)?;
        let architecture = match content.metadata.get("general.architecture") {
            Some(value) => value.to_string()?.clone(),
            None => bail!("{path} does not say its architecture"),
        };
        Ok(match architecture.as_str() {
            "llama" => Self::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut file, device)?),
            "qwen2" => Self::Qwen2(quantized_qwen2::ModelWeights::from_gguf(content, &mut file, device)?),
            "qwen3" => Self::Qwen3(quantized_qwen3::ModelWeights::from_gguf(content, &mut file, device)?),
            "gemma3" => Self::Gemma3(quantized_gemma3::ModelWeights::from_gguf(content, &mut file, device)?),
            other => bail!("no model here for the architecture {other}"),
        })
    }

    /// Logits of the last of these ids. Reads one, which waits for all.
    fn decode(&mut self, ids: &[u32], position: u32, device: &Device) -> Result<f32> {
        let (ids, position) = (Tensor::new(ids, device)?.unsqueeze(0)?, position as usize);
        let logits = match self {
            Self::Llama(model) => model.forward(&ids, position)?,
            Self::Qwen2(model) => model.forward(&ids, position)?,
            Self::Qwen3(model) => model.forward(&ids, position)?,
            Self::Gemma3(model) => model.forward(&ids, position)?,
        };
        logits.flatten_all()?.get(0)?.to_scalar::<f32>()
    }

    fn empty(&mut self) {
        if let Self::Qwen3(model) = self {
            model.clear_kv_cache();
        }
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else { bail!("usage: candle-llm MODEL [THREADS]") };
    let threads = arguments.next().unwrap_or_else(|| "2".into());
    // SAFETY: no other thread has been started. candle reads it when it first wants threads.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", &threads) };
    let device = Device::Cpu;
    let begun = Instant::now();
    let mut model = Model::load(&path, &device)?;
    let load_s = begun.elapsed().as_secs_f64();

    let vocabulary = {
        let mut file = File::open(&path)?;
        match Content::read(&mut file)?.metadata.get("tokenizer.ggml.tokens") {
            Some(tokens) => tokens.to_vec()?.len() as u32,
            None => bail!("{path} has no tokens"),
        }
    };
    let ids: Vec<u32> = (0..PROMPT).map(|i| (i * 7919 + 1000) % vocabulary).collect();
    let (mut prefill, mut decoding) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        model.empty();
        let begun = Instant::now();
        model.decode(&ids, 0, &device)?;
        prefill.push(f64::from(PROMPT) / begun.elapsed().as_secs_f64());
        model.empty();
        let begun = Instant::now();
        for position in 0..DECODED {
            model.decode(&ids[position as usize..][..1], position, &device)?;
        }
        decoding.push(f64::from(DECODED) / begun.elapsed().as_secs_f64());
    }
    let numbers = serde_json::json!({
        "prefill_tok_s": median(prefill), "decode_tok_s": median(decoding), "load_s": load_s,
    });
    println!("{}", serde_json::json!({ "as it comes": numbers }));
    Ok(())
}
