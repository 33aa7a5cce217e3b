//! `littoral bench llm`: a language model's speed and memory on this machine.
//!
//! *Prefill*: 512 ids into an empty state, the logits of the last. *Decode*: 64 ids, one by one, from an empty state, or
//! behind `--depth` others. *Verify*: one pass over 1, 2, 4 or 8 ids behind those, with all their logits: what checking
//! drafts costs. Each is repeated and the median told. *Read*: what this machine reads from memory with as many threads,
//! measured in the same run; bytes of weights per token over that is the floor of decoding.

use super::{Report, median};
use crate::llm;
use crate::memory::peak_rss_mb;
use crate::output::Failure;
use littoral_model::lm::{CacheType, Input, Part, Scratch, Stage, Wanted};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Memory};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

const PROMPT: usize = 512;
const DECODED: usize = 64;
const CHUNK: usize = 128;
const READ_BYTES: usize = 512 << 20;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, or the name of one that is here.
    #[arg(long)]
    model: PathBuf,
    /// The type in which keys and values of earlier tokens are kept; q8_0 takes half the memory of f16.
    #[arg(long, value_name = "TYPE", default_value_t = CacheType::F16, value_parser = crate::llm::cache_type())]
    cache_type: CacheType,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Tokens that come before those that are decoded.
    #[arg(long, default_value_t = 0)]
    depth: usize,
    /// Of which medians are taken.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let pool = Pool::new(args.threads.into());
    let named = crate::named::here(&args.model)?;
    let begun = Instant::now();
    let model = llm::load(&named.path, &pool)?;
    let load_s = begun.elapsed().as_secs_f64();
    let stage = &model.stage;
    let empty = stage.state(args.cache_type)?;
    let mut scratch = Scratch::new(Instructions::here()[0]);
    let vocabulary = stage.config().vocabulary as u32;
    let context = stage.config().context;
    let depth_max = context.saturating_sub(DECODED + 8);
    if args.depth > depth_max {
        let expected = format!("at most {depth_max}, which with what follows fill the context of {context},");
        return Err(Failure::new("nothing was measured", "--depth", expected, args.depth));
    }
    let ids: Vec<u32> = (0..PROMPT as u32).map(|i| (i * 7919 + 1000) % vocabulary).collect();

    let (mut prefill, mut decode, mut kv_bytes) = (Vec::new(), Vec::new(), 0);
    let mut before = empty.clone();
    while before.positions() < args.depth {
        let chunk = &ids[..CHUNK.min(args.depth - before.positions())];
        let part = Part { state: &mut before, input: Input::Ids(chunk), wanted: Wanted::None };
        stage.forward(&mut [part], &mut scratch, &pool);
    }
    let mut verify = [1, 2, 4, 8].map(|tokens| (tokens, Vec::new()));
    for _ in 0..args.repeats {
        let mut state = empty.clone();
        let begun = Instant::now();
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            let wanted = if (i + 1) * CHUNK < PROMPT { Wanted::None } else { Wanted::Last };
            let part = Part { state: &mut state, input: Input::Ids(chunk), wanted };
            stage.forward(&mut [part], &mut scratch, &pool);
        }
        prefill.push(PROMPT as f64 / begun.elapsed().as_secs_f64());
        kv_bytes = state.bytes();

        let mut state = before.clone();
        let begun = Instant::now();
        for id in &ids[..DECODED] {
            let part = Part { state: &mut state, input: Input::Ids(&[*id]), wanted: Wanted::Last };
            stage.forward(&mut [part], &mut scratch, &pool);
        }
        decode.push(DECODED as f64 / begun.elapsed().as_secs_f64());
        // What is longer than all before pays for its room: not when the clock runs.
        let part = Part { state: &mut state, input: Input::Ids(&ids[..8]), wanted: Wanted::All };
        stage.forward(&mut [part], &mut scratch, &pool);
        state.truncate(args.depth + DECODED);
        for (tokens, times) in &mut verify {
            let begun = Instant::now();
            let part = Part { state: &mut state, input: Input::Ids(&ids[..*tokens]), wanted: Wanted::All };
            stage.forward(&mut [part], &mut scratch, &pool);
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            state.truncate(args.depth + DECODED);
        }
    }
    // Before the buffer of the next measurement.
    let peak_rss_mb = peak_rss_mb();
    let read_gb_per_s = read(&pool, args.repeats)?;
    let (prefill, decode) = (median(&prefill), median(&decode));
    let verify: Vec<(usize, f64)> = verify.iter().map(|(tokens, times)| (*tokens, median(times))).collect();
    let file_mb = std::fs::metadata(&named.path).map_or(0.0, |data| data.len() as f64 / 1e6);
    let gb_per_s = read_per_token(stage) as f64 * decode / 1e9;
    let name = args.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut rows = vec![
        ["model".into(), format!("{name}, {}", model.name)],
        ["instructions".into(), Instructions::here()[0].name().into()],
        [format!("prefill of {PROMPT}, tokens per second"), format!("{prefill:.1}")],
        [format!("decode of {DECODED} behind {}, tokens per second", args.depth), format!("{decode:.1}")],
        ["  weights, GB/s".into(), format!("{gb_per_s:.1}")],
        ["  read by this machine, GB/s".into(), format!("{read_gb_per_s:.1}")],
    ];
    for (tokens, ms) in &verify {
        rows.push([format!("{tokens} at once, ms"), format!("{ms:.2}")]);
    }
    rows.extend([
        ["loading, seconds".into(), format!("{load_s:.2}")],
        ["file, MB".into(), format!("{file_mb:.1}")],
        [format!("state of {PROMPT} tokens in {}, MB", args.cache_type), format!("{:.1}", kv_bytes as f64 / 1e6)],
        ["peak memory, MB".into(), format!("{peak_rss_mb:.1}")],
    ]);
    let verify_ms: serde_json::Map<String, serde_json::Value> =
        verify.iter().map(|(tokens, ms)| (tokens.to_string(), (*ms).into())).collect();
    let numbers = json!({
        "model": name,
        "threads": pool.threads(),
        "prefill_tok_s": prefill,
        "decode_tok_s": decode,
        "verify_ms": verify_ms,
        "load_s": load_s,
        "peak_rss_mb": peak_rss_mb,
        "file_mb": file_mb,
        "depth": args.depth,
        "cache_type": args.cache_type.name(),
        "kv_mb": kv_bytes as f64 / 1e6,
        "gb_per_s": gb_per_s,
        "read_gb_per_s": read_gb_per_s,
    });
    Ok(Report { numbers, rows })
}

/// Bytes of weights that one token needs: all, but of an embedding that is not the output one row.
fn read_per_token(stage: &Stage) -> usize {
    stage.bytes() - stage.lookup_bytes()
}

/// The best of some passes over memory that no cache holds.
fn read(pool: &Pool, repeats: u32) -> Result<f64, Failure> {
    let none = || Failure::new("the measurement failed", "memory", format!("{READ_BYTES} bytes"), "none");
    let mut memory = Memory::zeroed(READ_BYTES).ok_or_else(none)?;
    // Pages that nobody wrote are all the same one.
    memory.fill(1);
    let piece = 1 << 20;
    let mut times = Vec::new();
    for _ in 0..repeats.max(3) {
        let begun = Instant::now();
        pool.run(READ_BYTES / piece, 1, |range| {
            let part = &memory[range.start * piece..range.end * piece];
            let sums = part.chunks_exact(64).fold([0u64; 8], |mut sums, line| {
                for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
                    let word = word.try_into().map_or(0, u64::from_le_bytes);
                    *sum = sum.wrapping_add(word);
                }
                sums
            });
            std::hint::black_box(sums);
        });
        times.push(READ_BYTES as f64 / begun.elapsed().as_secs_f64() / 1e9);
    }
    Ok(times.into_iter().fold(0.0, f64::max))
}
