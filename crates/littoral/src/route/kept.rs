//! Answers that were written before: what a model says to the same prompts it says again, so it is asked once.

use super::ask::{Answered, ask};
use crate::input;
use crate::llm;
use crate::output::{self, Failure};
use crate::pending::Pending;
use littoral_infer::route::features::TOP;
use littoral_infer::route::saved::ModelSaid;
use littoral_tensor::pool::Pool;
use std::collections::BTreeMap;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 1 << 30;

/// A model's name, and the digest of its file.
pub fn said(path: &Path) -> Result<ModelSaid, Failure> {
    let bytes = llm::map(path)?;
    let blake3 = blake3::hash(&bytes).to_hex().to_string();
    bytes.forget(0..bytes.len());
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(ModelSaid { name, blake3 })
}

/// The answers of a model, from the file `keep` if they are there, else written now and added to it.
pub fn answers(
    keep: Option<&Path>,
    model: (&Path, &ModelSaid),
    prompts: &[String],
    tokens_max: usize,
    pool: &Pool,
) -> Result<Vec<Answered>, Failure> {
    let (path, said) = model;
    let Some(keep) = keep else { return ask(path, prompts, tokens_max, pool) };
    let key = key(said, prompts, tokens_max);
    let mut kept = match keep.exists() {
        true => read(keep)?,
        false => BTreeMap::new(),
    };
    if let Some(answers) = kept.remove(&key).filter(|answers| answers.len() == prompts.len()) {
        output::talk(&format!("{}: {} answers are in {}", said.name, answers.len(), keep.display()));
        return Ok(answers);
    }
    let pending = Pending::at(keep)?;
    let answers = ask(path, prompts, tokens_max, pool)?;
    kept.insert(key, answers.clone());
    pending.write(serde_json::to_string(&kept).unwrap_or_default())?;
    Ok(answers)
}

fn read(path: &Path) -> Result<BTreeMap<String, Vec<Answered>>, Failure> {
    let text = input::text(path, FILE_BYTES_MAX)?;
    serde_json::from_str(&text).map_err(|e| {
        let expected = "a file of answers that --keep wrote";
        Failure::new("the answers were not read", path.display().to_string(), expected, e)
            .hint("give --keep a new file")
    })
}

/// All that an answer depends on.
fn key(said: &ModelSaid, prompts: &[String], tokens_max: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [&said.blake3, &tokens_max.to_string(), &TOP.to_string()].into_iter().chain(prompts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
