//! `littoral score`: how well a model expects a text.
//!
//! The text's ids are cut into windows of 512, one after the other; each begins with an empty state, and its first id is
//! given, not scored. Perplexity is e to the mean negative log-probability of the scored ids.

use crate::llm;
use crate::output::{self, Failure};
use crate::tokenize::TEXT_BYTES_MAX;
use littoral_infer::sample::LogProbs;
use littoral_model::lm::{CacheType, Input, Part, Scratch, Wanted};
use littoral_tensor::quant::Instructions;
use serde_json::json;
use std::path::PathBuf;

const WINDOW: usize = 512;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, or the name of one that is here.
    #[arg(long)]
    model: PathBuf,
    /// The text's file.
    text: PathBuf,
    /// The type in which keys and values of earlier tokens are kept; q8_0 takes half the memory of f16.
    #[arg(long, value_name = "TYPE", default_value_t = CacheType::F16, value_parser = crate::llm::cache_type())]
    cache_type: CacheType,
    /// Threads; by default one for each processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let text = crate::input::text(&args.text, TEXT_BYTES_MAX)?;
    let pool = llm::pool(args.threads.map(usize::from));
    let model = llm::load(&crate::named::here(&args.model)?.path, &pool)?;
    let empty = model.stage.state(args.cache_type)?;
    let ids = model.tokeniser.encode_document(&text, false);
    let vocabulary = model.stage.config().vocabulary;
    let mut scratch = Scratch::new(Instructions::here()[0]);
    let (mut scored, mut sum) = (0u64, 0f64);
    for window in ids.chunks(WINDOW) {
        let mut state = empty.clone();
        // In parts, since the logits of 512 tokens of a big vocabulary are half a gigabyte.
        for (start, part) in window.chunks(64).enumerate().map(|(i, part)| (64 * i, part)) {
            let input = Part { state: &mut state, input: Input::Ids(part), wanted: Wanted::All };
            let logits = model.stage.forward(&mut [input], &mut scratch, &pool).logits;
            for (at, logits) in logits.chunks_exact(vocabulary).enumerate() {
                if let Some(next) = window.get(start + at + 1) {
                    sum -= f64::from(LogProbs::of(logits).get(*next));
                    scored += 1;
                }
            }
        }
        output::talk(&format!("{scored} of {} tokens scored", ids.len()));
    }
    if scored == 0 {
        return Err(Failure::new("nothing to score", args.text.display().to_string(), "at least 2 tokens", ids.len()));
    }
    let mean = sum / scored as f64;
    if json {
        output::object(
            &json!({"tokens": scored, "nll_per_token": mean, "perplexity": mean.exp(), "cache_type": args.cache_type.name()}),
        );
    } else {
        output::line(&format!("{scored} tokens, {mean:.4} nats each, perplexity {:.4}", mean.exp()));
    }
    Ok(())
}
