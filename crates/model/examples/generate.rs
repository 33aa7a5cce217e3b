//! Token ids in, token ids out: `cargo run --release -p littoral-model --example generate FILE.gguf [THREADS] [ID …]`.
//! Prints what comes greedily after the ids, and how long a prompt of 512 and 64 tokens after it take.

use littoral_model::lm::{self, CacheType, Input, Part, Scratch, Wanted};
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::Instructions;
use std::time::Instant;

fn best(logits: &[f32]) -> u32 {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bytes = std::fs::read(args.next().expect("a file"))?;
    let pool = Pool::new(args.next().map_or(2, |n| n.parse().expect("a number of threads")));
    let ids: Vec<u32> = args.map(|id| id.parse().expect("an id")).collect();
    let start = Instant::now();
    let gguf = Gguf::parse(&bytes)?;
    let config = lm::config(&gguf)?;
    let stage = lm::load(&gguf, &config, 0..config.layers, true, &pool, &mut |_| ())?;
    println!("loaded {} MB in {:.2} s", stage.bytes() / 1_000_000, start.elapsed().as_secs_f64());
    let mut scratch = Scratch::new(Instructions::here()[0]);
    if !ids.is_empty() {
        let (mut state, mut next) = (stage.state(CacheType::F16)?, ids);
        for _ in 0..40 {
            let part = Part { state: &mut state, input: Input::Ids(&next), wanted: Wanted::Last };
            next = vec![best(stage.forward(&mut [part], &mut scratch, &pool).logits)];
            print!("{} ", next[0]);
        }
        println!();
    }
    for _ in 0..3 {
        let prompt: Vec<u32> = (0..512).map(|i| 1000 + i * 7).collect();
        let mut state = stage.state(CacheType::F16)?;
        let start = Instant::now();
        for chunk in prompt.chunks(256) {
            let part = Part { state: &mut state, input: Input::Ids(chunk), wanted: Wanted::Last };
            stage.forward(&mut [part], &mut scratch, &pool);
        }
        let prefill = 512.0 / start.elapsed().as_secs_f64();
        let (mut state, mut next) = (stage.state(CacheType::F16)?, 1000);
        let start = Instant::now();
        for _ in 0..64 {
            let part = Part { state: &mut state, input: Input::Ids(&[next]), wanted: Wanted::Last };
            next = best(stage.forward(&mut [part], &mut scratch, &pool).logits);
        }
        let s = start.elapsed().as_secs_f64();
        let rate = 64.0 * stage.bytes() as f64 / s / 1e9;
        println!("prefill {prefill:.1} tok/s, decode {:.1} tok/s, {rate:.1} GB/s", 64.0 / s);
    }
    Ok(())
}
