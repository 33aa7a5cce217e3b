//! A frame of a machine that shares a model's layers. Total and canonical; and what is made of a pass fits the model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::canonical;
use littoral_infer::split::words::{Those, hear};
use littoral_wire::pipeline::{Activations, Pipeline};

const WIDTH: usize = 8;
const CONTEXT: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let Some(message) = canonical::<Pipeline>(bytes) else { return };
    let (Pipeline::Pass { pass } | Pipeline::Again { pass, .. }) = message else { return };
    for activations in [Activations::F32, Activations::F16, Activations::Int8] {
        for those in [Those::All, Those::Wanted] {
            let Ok((pass, vectors)) = hear(&pass, those, activations, WIDTH, CONTEXT) else { continue };
            let tokens = if those == Those::All { pass.tokens() } else { pass.wanted() };
            assert_eq!(vectors.len(), tokens * WIDTH);
            assert!(pass.pieces.iter().all(|piece| piece.tokens > 0 && piece.start + piece.tokens <= CONTEXT));
        }
    }
});
