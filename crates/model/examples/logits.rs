//! The logits of every position of some ids: `cargo run --release -p littoral-model --example logits FILE.gguf IDS OUT`.
//!
//! IDS is a file of numbers with spaces between; OUT becomes positions x vocabulary in f32, little-endian. For
//! `oracles/distributions.py`, which compares them.

use littoral_model::lm::{self, CacheType, Input, Part, Scratch, Wanted};
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::Instructions;
use std::io::Write;

/// The logits of a big vocabulary are a megabyte a token.
const CHUNK: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, ids, out] = args.as_slice() else { return Err("three words expected: FILE.gguf IDS OUT".into()) };
    let bytes = littoral_tensor::Mapped::new(&std::fs::File::open(file)?)?;
    let ids = std::fs::read_to_string(ids)?.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let (gguf, pool) = (Gguf::parse(&bytes)?, Pool::new(2));
    let config = lm::config(&gguf)?;
    let stage = lm::load(&gguf, &config, 0..config.layers, true, &pool, &mut |_| ())?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocabulary) {
        return Err(format!("an id below {} expected, got {id}", config.vocabulary).into());
    }
    let (mut state, mut scratch) = (stage.state(CacheType::F16)?, Scratch::new(Instructions::here()[0]));
    let mut out = std::io::BufWriter::new(std::fs::File::create(out)?);
    for chunk in ids.chunks(CHUNK) {
        let part = Part { state: &mut state, input: Input::Ids(chunk), wanted: Wanted::All };
        for logit in stage.forward(&mut [part], &mut scratch, &pool).logits {
            out.write_all(&logit.to_le_bytes())?;
        }
    }
    Ok(out.flush()?)
}
