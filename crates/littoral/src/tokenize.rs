//! `littoral tokenize`: the ids of a text.

use crate::llm;
use crate::output::{self, Failure};
use littoral_infer::model::ModelError;
use littoral_model::text::{Tokeniser, Vocabulary};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A text is read whole.
pub const TEXT_BYTES_MAX: u64 = 64 << 20;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, or the name of one that is here.
    #[arg(long)]
    model: PathBuf,
    /// The text's file.
    #[arg(long, value_name = "FILE", required_unless_present = "text", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// The text itself.
    text: Option<String>,
    /// Count special tokens that are written in the text as such.
    #[arg(long)]
    special: bool,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let text = match (&args.file, &args.text) {
        (Some(file), _) => crate::input::text(file, TEXT_BYTES_MAX)?,
        (None, text) => text.clone().unwrap_or_default(),
    };
    let tokeniser = tokeniser(&crate::named::here(&args.model)?.path)?;
    let ids = tokeniser.encode_document(&text, args.special);
    if json {
        output::object(&json!({"ids": ids}));
    } else {
        for id in ids {
            output::line(&format!("{id}\t{}", tokeniser.token(id).unwrap_or_default().escape_debug()));
        }
    }
    Ok(())
}

/// The tokeniser alone: the weights are not read.
fn tokeniser(path: &Path) -> Result<Tokeniser, Failure> {
    let bytes = llm::map(path)?;
    let header = llm::header(path, &bytes)?;
    let made = Vocabulary::from_gguf(&header).and_then(|vocabulary| Tokeniser::new(&vocabulary));
    made.map_err(|e| llm::refused(path, &ModelError::Vocabulary(e)))
}
