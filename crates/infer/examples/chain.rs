//! How long one step of the sampler takes, the median of 200 at a vocabulary of 151 936 tokens; and a constraint's first
//! masks, over made-up words of two to eight letters after all single bytes.
//!
//! `cargo run --release -p littoral-infer --example chain`

use littoral_infer::constrain::{Constraint, Vocabulary, VocabularyIndex};
use littoral_infer::sample::{History, LogProbs, Noise, Sampler, SamplingParams, TokenMask};
use std::time::Instant;

const VOCABULARY: usize = 151_936;

fn main() {
    // Normal logits with standard deviation 2.5 and some far above: about the shape that language models give.
    let noise = Noise::new(1, 0);
    let logits: Vec<f32> = (0..VOCABULARY as u32)
        .map(|id| {
            let radius = (2.0 * noise.exponential(id)).sqrt();
            let normal = radius * (std::f64::consts::TAU * noise.uniform(id + VOCABULARY as u32)).cos();
            (2.5 * normal + if id % 5000 == 7 { 9.0 } else { 0.0 }) as f32
        })
        .collect();
    let default = SamplingParams::default();
    let history: Vec<u32> = (0..2000).map(|i| i * 71 % VOCABULARY as u32).collect();
    let history = History { prompt: &history[..1000], answer: &history[1000..] };
    let mut mask = TokenMask::none(VOCABULARY);
    (0..VOCABULARY as u32).step_by(3).for_each(|id| mask.allow(id));

    let chains = [
        ("greedy", SamplingParams::greedy()),
        ("temperature 0.8", SamplingParams { temperature: 0.8, ..default.clone() }),
        (
            "temperature 0.8, top-k 40, top-p 0.95",
            SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, ..default.clone() },
        ),
        (
            "... and min-p 0.05, penalties 1.1, 0.2, 0.2",
            SamplingParams {
                temperature: 0.8,
                top_k: 40,
                top_p: 0.95,
                min_p: 0.05,
                repetition_penalty: 1.1,
                frequency_penalty: 0.2,
                presence_penalty: 0.2,
                ..default.clone()
            },
        ),
        ("top-k 5000", SamplingParams { top_k: 5000, ..default.clone() }),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..default.clone() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..default.clone() }),
        ("typical 0.9", SamplingParams { typical_p: 0.9, ..default }),
    ];
    for (name, params) in chains {
        let mut sampler = Sampler::new(params).expect("valid");
        let kept = sampler.distribution(&logits, history, None).expect("finite").len();
        let median = time(|| sampler.pick(&logits, history, None).expect("finite"));
        println!("{median:7.3} ms  {name} ({kept} of {VOCABULARY} tokens left)");
    }
    let mut greedy = Sampler::new(SamplingParams::greedy()).expect("valid");
    println!("{:7.3} ms  greedy under a mask", time(|| greedy.pick(&logits, history, Some(&mask)).expect("finite")));
    println!("{:7.3} ms  log-probability of one token", time(|| LogProbs::of(&logits).get(7)));
    println!("{:7.3} ms  the 20 best with log-probabilities", time(|| LogProbs::of(&logits).top(20)));

    let start = Instant::now();
    let index = VocabularyIndex::new(&Words::new()).expect("a fine vocabulary");
    println!("{:7.1} ms  index of the vocabulary, once", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let mut constraint = Constraint::json_schema(&index, SCHEMA).expect("a schema");
    println!("{:7.3} ms  a JSON schema, once a request", start.elapsed().as_secs_f64() * 1e3);
    for (place, text) in [("before a key", "{"), ("within a string", "\"name\":\"a"), ("within a number", "\",\"n\":1")]
    {
        text.bytes().for_each(|byte| constraint.accept(byte.into()).expect("allowed"));
        // The first time only: the parser remembers the masks of a place in the grammar.
        let start = Instant::now();
        let count = constraint.allowed().expect("goes on").count();
        let taken = start.elapsed().as_secs_f64() * 1e3;
        println!("{taken:7.3} ms  mask {place} ({count} tokens allowed)");
    }
}

const SCHEMA: &str = r#"{"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["name", "n"], "additionalProperties": false}"#;

struct Words(Vec<Vec<u8>>);

impl Words {
    fn new() -> Self {
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        let words = (0..VOCABULARY as u64 - 257).map(|id| {
            let noise = Noise::new(2, id);
            let letter = |place| b" etaoinshrdlucmwfgypbvkEXQZJ0123\",:{"[(noise.uniform(place) * 36.0) as usize];
            (0..2 + (noise.uniform(9) * 7.0) as u32).map(letter).collect()
        });
        Self(bytes.chain(words).collect())
    }
}

impl Vocabulary for Words {
    fn size(&self) -> usize {
        VOCABULARY
    }
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.0.get(id as usize).map(Vec::as_slice)
    }
    fn ends(&self) -> &[u32] {
        &[VOCABULARY as u32 - 1]
    }
}

fn time<T>(mut step: impl FnMut() -> T) -> f64 {
    let mut all: Vec<f64> = (0..200)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(step());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
