//! A layer as a file, from another machine or a disk. What is taken is its layer's only encoding, and computes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_model::lm::{CacheType, Input, Part, Scratch, Stage, Tile, Wanted};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Memory};

fuzz_target!(|bytes: &[u8]| {
    let mut memory = Memory::zeroed(bytes.len()).expect("as much as the input");
    memory.copy_from_slice(bytes);
    let tile = match Tile::read(&memory.into()) {
        Ok(tile) => tile,
        Err(error) => return one_line(error),
    };
    let index = tile.index();
    let stage = Stage::from_tiles(index..index + 1, vec![tile]).expect("one layer follows itself");
    let mut again = Vec::new();
    Tile::write(&stage, index, &mut again).expect("memory to write to");
    assert!(again == bytes, "two encodings of one layer");

    let mut state = stage.state(CacheType::F16).expect("f16 fits any head");
    let vectors = vec![0.5; 2 * stage.config().width];
    let part = Part { state: &mut state, input: Input::Vectors(&vectors), wanted: Wanted::None };
    let (mut scratch, pool) = (Scratch::new(Instructions::here()[0]), Pool::new(1));
    assert_eq!(stage.forward(&mut [part], &mut scratch, &pool).vectors.len(), vectors.len());
});
