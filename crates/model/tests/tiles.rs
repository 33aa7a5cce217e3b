//! Layers of real models as tiles: the bits of the model's file. Files are looked for in `$LITTORAL_MODELS`; where one is
//! absent the test says so and passes.

use littoral_model::lm::{self, CacheType, Input, Part, Scratch, Stage, Tile, Wanted};
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Memory};
use std::path::{Path, PathBuf};

#[test]
fn llama() {
    compare("smollm2-135m-instruct-q4_1.gguf");
}

#[test]
fn gemma3() {
    compare("gemma-3-270m-q4_k_m.gguf");
}

#[test]
fn qwen2() {
    compare("qwen2.5-coder-0.5b.gguf");
}

fn compare(name: &str) {
    let folder = std::env::var_os("LITTORAL_MODELS").map_or_else(PathBuf::new, PathBuf::from);
    let path = Path::new(&folder).join(name);
    let Ok(file) = std::fs::File::open(&path) else {
        println!("{} is absent: nothing is compared", path.display());
        return;
    };
    let (bytes, pool) = (Mapped::new(&file).unwrap(), Pool::new(2));
    let gguf = Gguf::parse(&bytes).unwrap();
    let config = lm::config(&gguf).unwrap();
    let range = 1..config.layers;
    let loaded = lm::load(&gguf, &config, range.clone(), false, &pool, &mut |_| ()).unwrap();
    let tile = |layer| {
        let mut written = Vec::new();
        Tile::write(&loaded, layer, &mut written).unwrap();
        let mut memory = Memory::zeroed(written.len()).unwrap();
        memory.copy_from_slice(&written);
        Tile::read(&memory.into()).unwrap()
    };
    let again = Stage::from_tiles(range.clone(), range.map(tile).collect()).unwrap();
    // Small numbers of either sign, as a first layer gives them.
    let vectors: Vec<f32> = (0..5 * config.width).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let bits = |stage: &Stage| {
        let (mut state, mut scratch) = (stage.state(CacheType::F16).unwrap(), Scratch::new(Instructions::here()[0]));
        let part = Part { state: &mut state, input: Input::Vectors(&vectors), wanted: Wanted::None };
        let out = stage.forward(&mut [part], &mut scratch, &pool).vectors.iter().map(|x| x.to_bits()).collect();
        (out, state.to_bytes())
    };
    let expected: (Vec<u32>, Vec<u8>) = bits(&loaded);
    assert!(expected.0.iter().all(|bits| f32::from_bits(*bits).is_finite()));
    assert!(bits(&again) == expected, "{name}");
}
