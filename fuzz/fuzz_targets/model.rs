//! A whole language model in a file from a stranger: what `check` takes is loaded, and writes a few tokens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_infer::engine::{Engine, Event, Limits, Request};
use littoral_infer::model::Model;
use littoral_infer::sample::SamplingParams;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;

fuzz_target!(|bytes: &[u8]| {
    let pool = Pool::new(1);
    let checked = Model::check(bytes).map_err(one_line);
    let loaded = Model::load(bytes, &pool, &mut |range| assert!(range.end <= bytes.len())).map_err(one_line);
    assert!(loaded.is_err() || checked.is_ok(), "loaded although it was refused");
    let Ok(model) = loaded else { return };
    let last = model.stage.config().vocabulary as u32 - 1;
    let mut engine = Engine::new(model.into(), CacheType::F16, Limits::default()).expect("f16 fits any head");
    for temperature in [0.0, 1.0] {
        let request = Request {
            prompt: vec![0, last, 0],
            max_tokens: 3,
            sampling: SamplingParams { temperature, ..SamplingParams::default() },
            constraint: None,
            top_logprobs: Some(2),
            ignore_end: true,
        };
        if let Err(refused) = engine.submit(request) {
            one_line(refused);
        }
    }
    let mut steps = 0;
    while !engine.idle() {
        for event in engine.step(&pool) {
            if let Event::Token { id, .. } = event {
                assert!(id <= last);
            }
        }
        steps += 1;
        assert!(steps < 20, "an answer without end");
    }
});
