//! One small made-up model of each family: what comes out does not depend on how the work was cut.

use super::*;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::half::f32_to_f16;
use littoral_tensor::quant::{Instructions, Kind, Matrix};
use littoral_tensor::vectors::Pairs;
use std::ops::Range;
use std::sync::Arc;

pub(super) const LAYERS: usize = 3;
const VOCABULARY: usize = 50;

struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1 << 23) as f32 - 1.0
    }

    fn vector(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| 1.0 + 0.3 * self.next()).collect()
    }

    /// In Q8_0, so that integer kernels take part.
    fn matrix(&mut self, rows: usize, columns: usize, pool: &Pool) -> Matrix {
        let mut bytes = Vec::new();
        for _ in 0..rows * columns / 32 {
            bytes.extend(f32_to_f16(0.002).to_le_bytes());
            bytes.extend((0..32).map(|_| (self.next() * 127.0) as i8 as u8));
        }
        Matrix::pack(Kind::Q8_0, rows, columns, &bytes, pool).unwrap()
    }
}

pub(super) fn config(architecture: Architecture) -> Config {
    let gemma = architecture == Architecture::Gemma3;
    let pairs = if architecture == Architecture::Llama { Pairs::Neighbours } else { Pairs::Halves };
    let rope = Rope { pairs, base: 10_000.0, scale: 1.0, width: 32, factors: Vec::new(), yarn: None };
    Config {
        architecture,
        layers: LAYERS,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_width: 32,
        inner: 96,
        vocabulary: VOCABULARY,
        context: 128,
        epsilon: 1e-5,
        gate: if gemma { Gate::Gelu } else { Gate::Silu },
        attention_scale: 0.18,
        window: if gemma { 20 } else { 0 },
        window_period: 2,
        rope: Rope { base: 1e6, ..rope.clone() },
        rope_window: rope,
        embedding_scale: if gemma { 8.0 } else { 1.0 },
        attention_cap: 0.0,
        logit_cap: 0.0,
    }
}

pub(super) fn stage(architecture: Architecture, range: Range<usize>, ends: bool, pool: &Pool) -> Stage {
    let config = config(architecture);
    let (width, head_width) = (config.width, config.head_width);
    let (q_rows, kv_rows) = (config.heads * head_width, config.kv_heads * head_width);
    let qk_norm = matches!(architecture, Architecture::Qwen3 | Architecture::Gemma3);
    let gemma = architecture == Architecture::Gemma3;
    let mut draws = Draws(7);
    let mut layers: Vec<layer::Layer> = (0..LAYERS)
        .map(|_| {
            let mut some = |there: bool, len: usize| if there { draws.vector(len) } else { Vec::new() };
            let bias = architecture == Architecture::Qwen2;
            let (q_bias, k_bias, v_bias) = (some(bias, q_rows), some(bias, kv_rows), some(bias, kv_rows));
            let (q_norm, k_norm) = (some(qk_norm, head_width), some(qk_norm, head_width));
            let (after_attention_norm, after_feed_norm) = (some(gemma, width), some(gemma, width));
            layer::Layer {
                attention_norm: draws.vector(width),
                q: draws.matrix(q_rows, width, pool),
                k: draws.matrix(kv_rows, width, pool),
                v: draws.matrix(kv_rows, width, pool),
                o: draws.matrix(width, q_rows, pool),
                feed_norm: draws.vector(width),
                gate: draws.matrix(config.inner, width, pool),
                up: draws.matrix(config.inner, width, pool),
                down: draws.matrix(width, config.inner, pool),
                q_bias,
                k_bias,
                v_bias,
                q_norm,
                k_norm,
                after_attention_norm,
                after_feed_norm,
            }
        })
        .collect();
    let (embedding, norm) = (Arc::new(draws.matrix(VOCABULARY, width, pool)), draws.vector(width));
    let layers = layers.drain(range.clone()).collect();
    let ends = ends.then(|| stage::Ends { output: embedding.clone(), embedding, norm });
    Stage { config, range, layers, ends }
}

pub(super) fn ids(seed: u64, len: usize) -> Vec<u32> {
    let mut draws = Draws(seed);
    (0..len).map(|_| ((draws.next() + 1.0) * 0.5 * VOCABULARY as f32) as u32 % VOCABULARY as u32).collect()
}

/// The logits of all tokens, the prompt given in chunks.
fn logits(stage: &Stage, state: &mut State, chunks: &[&[u32]], instructions: Instructions, pool: &Pool) -> Vec<u32> {
    let mut scratch = Scratch::new(instructions);
    let mut all = Vec::new();
    for chunk in chunks {
        let part = Part { state, input: Input::Ids(chunk), wanted: Wanted::All };
        all.extend(stage.forward(&mut [part], &mut scratch, pool).logits.iter().map(|logit| logit.to_bits()));
    }
    all
}

#[test]
fn logits_depend_on_the_sequence_only() {
    let (one, three) = (Pool::new(1), Pool::new(3));
    let (prompt, other) = (ids(1, 53), ids(2, 31));
    let best = Instructions::here()[0];
    for (architecture, cache_type) in Architecture::ALL.into_iter().flat_map(|a| CacheType::ALL.map(|c| (a, c))) {
        let case = format!("{architecture}, {cache_type}");
        let whole = stage(architecture, 0..LAYERS, true, &one);
        let empty = whole.state(cache_type).unwrap();
        let mut state = empty.clone();
        let expected = logits(&whole, &mut state, &[&prompt], Instructions::Scalar, &one);
        assert!(expected.iter().all(|bits| f32::from_bits(*bits).is_finite()), "{case}");

        // Chunks, token by token, threads, instructions.
        let chunks = [&prompt[..1], &prompt[1..20], &prompt[20..21], &prompt[21..]];
        for instructions in Instructions::here() {
            let got = logits(&whole, &mut empty.clone(), &chunks, instructions, &three);
            assert!(got == expected, "{case} in chunks on {}", instructions.name());
        }
        let singly: Vec<&[u32]> = prompt.chunks(1).collect();
        assert!(logits(&whole, &mut empty.clone(), &singly, best, &one) == expected, "{case} singly");

        // Rejected drafts leave no trace, and forks do not touch each other.
        let mut cut = empty.clone();
        logits(&whole, &mut cut, &[&prompt[..30], &other], best, &three);
        cut.truncate(30);
        let mut fork = cut.clone();
        logits(&whole, &mut fork, &[&other], best, &three);
        let rest = logits(&whole, &mut cut, &[&prompt[30..]], best, &three);
        assert!(rest == expected[30 * VOCABULARY..], "{case} after a rejection");
        assert!(cut.to_bytes() == state.to_bytes(), "{case}: states");

        // On another machine from here on.
        fork.truncate(30);
        let mut moved = empty.clone().read(30, &fork.to_bytes()).unwrap();
        let rest = logits(&whole, &mut moved, &[&prompt[30..]], best, &three);
        assert!(rest == expected[30 * VOCABULARY..], "{case} after a journey");
    }
}

/// The type is what a pass reads and writes: other bits, about the same logits.
#[test]
fn eight_bits_are_near_half_precision() {
    let pool = Pool::new(2);
    let prompt = ids(1, 53);
    for architecture in Architecture::ALL {
        let whole = stage(architecture, 0..LAYERS, true, &pool);
        let of = |cache_type| {
            let mut state = whole.state(cache_type).unwrap();
            let bits = logits(&whole, &mut state, &[&prompt], Instructions::here()[0], &pool);
            // 53 positions have room for 64.
            assert_eq!(state.bytes(), 64 * LAYERS * whole.config().state_bytes_per_layer(cache_type));
            bits.into_iter().map(f32::from_bits).collect::<Vec<f32>>()
        };
        let (half, eight) = (of(CacheType::F16), of(CacheType::Q8_0));
        let size = half.iter().map(|logit| logit * logit).sum::<f32>().sqrt();
        let distance = half.iter().zip(&eight).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        // An element's error is up to 1 / 254 of its group's largest; over three layers of random weights 0.034 was seen.
        assert!(distance > 0.0 && distance < 0.05 * size, "{architecture}: {distance} of {size}");
    }
}

#[test]
fn sequences_of_one_pass_do_not_touch_each_other() {
    let pool = Pool::new(2);
    let best = Instructions::here()[0];
    let whole = stage(Architecture::Qwen2, 0..LAYERS, true, &pool);
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| ids(i, 3 + 7 * i as usize)).collect();
    let mut states: Vec<State> = prompts.iter().map(|_| whole.state(CacheType::F16).unwrap()).collect();
    let inputs = prompts.iter().zip(&mut states);
    let mut parts: Vec<Part> =
        inputs.map(|(ids, state)| Part { state, input: Input::Ids(ids), wanted: Wanted::Last }).collect();
    let together = whole.forward(&mut parts, &mut Scratch::new(best), &pool).logits.to_vec();
    for ((prompt, state), together) in prompts.iter().zip(&states).zip(together.chunks(VOCABULARY)) {
        let mut alone = whole.state(CacheType::F16).unwrap();
        let expected = logits(&whole, &mut alone, &[prompt], best, &pool);
        let last = &expected[(prompt.len() - 1) * VOCABULARY..];
        assert!(together.iter().map(|logit| logit.to_bits()).eq(last.iter().copied()));
        assert!(alone.to_bytes() == state.to_bytes());
    }
}

/// Any cut, any cut of the prompt; the machine with the ends may have layers or none.
#[test]
fn stages_one_after_the_other_are_the_whole() {
    let pool = Pool::new(2);
    let best = Instructions::here()[0];
    let prompt = ids(4, 40);
    for (architecture, cache_type) in Architecture::ALL.into_iter().flat_map(|a| CacheType::ALL.map(|c| (a, c))) {
        let whole = stage(architecture, 0..LAYERS, true, &pool);
        let expected = logits(&whole, &mut whole.state(cache_type).unwrap(), &[&prompt], best, &pool);
        for cuts in [[0, 0, 3], [0, 1, 1], [0, 2, 3], [1, 1, 2], [1, 2, 3], [2, 2, 3], [3, 3, 3]] {
            let ranges = [0..cuts[0], cuts[0]..cuts[1], cuts[1]..cuts[2], cuts[2]..LAYERS];
            let stages: [Stage; 4] = std::array::from_fn(|i| stage(architecture, ranges[i].clone(), i == 0, &pool));
            let mut states = stages.each_ref().map(|stage| stage.state(cache_type).unwrap());
            let mut scratch = Scratch::new(best);
            let mut got = Vec::new();
            for chunk in [&prompt[..13], &prompt[13..14], &prompt[14..]] {
                let mut vectors = Vec::new();
                for (index, (stage, state)) in stages.iter().zip(&mut states).enumerate() {
                    let input = if index == 0 { Input::Ids(chunk) } else { Input::Vectors(&vectors) };
                    let part = Part { state, input, wanted: Wanted::All };
                    vectors = stage.forward(&mut [part], &mut scratch, &pool).vectors.to_vec();
                }
                let logits = stages[0].logits_of(&vectors, &mut scratch, &pool);
                got.extend(logits.iter().map(|logit| logit.to_bits()));
            }
            assert!(got == expected, "{architecture}, {cache_type}, cut at {cuts:?}");
        }
    }
}
