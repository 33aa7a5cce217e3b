//! Answers that were written before: what a model says to the same prompts it says again, so it is asked once.

use super::ask::{Answered, Answerer, unanswered};
use crate::input;
use crate::llm;
use crate::output::{self, Failure};
use crate::pending::Pending;
use littoral_infer::route::features::TOP;
use littoral_infer::route::saved::ModelSaid;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::KERNELS;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 1 << 30;
/// Prompts that are answered before the file is written again.
const CHUNK: usize = 100;

/// A model's name, and the digest of its file.
pub fn said(path: &Path) -> Result<ModelSaid, Failure> {
    let bytes = llm::map(path)?;
    let blake3 = blake3::hash(&bytes).to_hex().to_string();
    bytes.forget(0..bytes.len());
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(ModelSaid { name, blake3 })
}

/// The answers of a model, from the file `keep` if they are there, else written now and added to it a hundred at a time: who
/// is interrupted goes on from there.
pub fn answers(
    keep: Option<&Path>,
    model: (&Path, &ModelSaid),
    prompts: &[String],
    tokens_max: usize,
    pool: &Pool,
) -> Result<Vec<Answered>, Failure> {
    let (path, said) = model;
    let mut kept = match keep {
        Some(keep) if keep.exists() => read(keep)?,
        _ => BTreeMap::new(),
    };
    let keys: Vec<String> = prompts.iter().map(|prompt| key(said, prompt, tokens_max)).collect();
    let missing: Vec<(usize, &str)> =
        (0..prompts.len()).filter(|at| !kept.contains_key(&keys[*at])).map(|at| (at, prompts[at].as_str())).collect();
    let mut done = prompts.len() - missing.len();
    let talk = |done: usize| output::talk(&format!("{}: {done} of {} prompts answered", said.name, prompts.len()));
    if done > 0 {
        talk(done);
    }
    if !missing.is_empty() {
        // That it can be written is known before anybody is asked.
        keep.map(Pending::private).transpose()?;
        let answerer = Answerer::load(path, pool)?;
        for chunk in missing.chunks(CHUNK) {
            for ((at, _), answered) in chunk.iter().zip(answerer.ask(chunk, tokens_max, pool)?) {
                kept.insert(keys[*at].clone(), answered);
            }
            if let Some(keep) = keep {
                Pending::private(keep)?.write(json(&kept, keep)?)?;
            }
            done += chunk.len();
            talk(done);
        }
    }
    let of = |(at, key): (usize, &String)| kept.get(key).cloned().ok_or_else(|| unanswered(at, "none".to_owned()));
    keys.iter().enumerate().map(of).collect()
}

/// What a file will have. `path` is for the error.
pub fn json(content: &impl Serialize, path: &Path) -> Result<String, Failure> {
    serde_json::to_string(content)
        .map_err(|e| Failure::new("the file is not written", path.display().to_string(), "numbers that JSON has", e))
}

fn read(path: &Path) -> Result<BTreeMap<String, Answered>, Failure> {
    let text = input::text(path, FILE_BYTES_MAX)?;
    serde_json::from_str(&text).map_err(|e| {
        let expected = "a file of answers that --keep wrote";
        Failure::new("the answers were not read", path.display().to_string(), expected, e)
            .hint("give --keep a new file")
    })
}

/// All that an answer depends on.
fn key(said: &ModelSaid, prompt: &str, tokens_max: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [KERNELS, said.blake3.as_str(), &tokens_max.to_string(), &TOP.to_string(), prompt] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
