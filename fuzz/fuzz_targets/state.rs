//! A sequence's keys and values, from a machine that began it. The first five bytes choose shape, type and positions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_model::lm::{CacheType, State};
use littoral_tensor::attention::BLOCK;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[layers, heads, width, cache_type, positions], bytes)) = bytes.split_first_chunk() else { return };
    let (layers, heads, width) = (usize::from(layers % 4), usize::from(heads % 4), usize::from(width) % 160);
    let cache_type = CacheType::ALL[usize::from(cache_type) % CacheType::ALL.len()];
    let empty = match State::empty(layers, heads, width, cache_type) {
        Ok(empty) => empty,
        Err(error) => return one_line(error),
    };
    // Few, or more than there are bytes for in any machine.
    let positions = if positions < 192 { usize::from(positions) } else { usize::MAX >> (positions - 192) };
    let mut state = match empty.clone().read(positions, bytes) {
        Ok(state) => state,
        Err(error) => return one_line(error),
    };
    assert_eq!((state.positions(), state.layers(), state.cache_type()), (positions, layers, cache_type));
    assert_eq!(state.to_bytes(), bytes, "two encodings of one state");
    // As many as there are, rounded up to whole blocks, and to four of them.
    assert!(state.bytes() <= bytes.len() + layers * heads * 2 * 4 * BLOCK * cache_type.row_bytes(width));
    state.truncate(positions / 2);
    assert_eq!(empty.read(positions / 2, &state.to_bytes()).map(|half| half.to_bytes()), Ok(state.to_bytes()));
});
