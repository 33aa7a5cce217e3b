//! Tiles of the small made-up models, whole and damaged.

use super::*;
use crate::lm::tests::{LAYERS, ids, stage};
use crate::lm::{Architecture, CacheType, Input, Part, Rope, Scratch, Wanted, Yarn};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Memory};

fn written(stage: &Stage, index: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    Tile::write(stage, index, &mut bytes).unwrap();
    assert_eq!(bytes.len(), Tile::bytes_of(stage, index));
    bytes
}

fn read(bytes: &[u8]) -> Result<Tile, TileError> {
    let mut memory = Memory::zeroed(bytes.len()).unwrap();
    memory.copy_from_slice(bytes);
    Tile::read(&memory.into())
}

fn said(result: Result<impl std::fmt::Debug, TileError>) -> String {
    result.unwrap_err().to_string()
}

/// The logits of a prompt in chunks, by a machine with the ends and another with the layers.
fn bits(ends: &Stage, layers: &Stage, pool: &Pool, instructions: Instructions) -> Vec<u32> {
    let (mut state, mut none) = (layers.state(CacheType::F16).unwrap(), ends.state(CacheType::F16).unwrap());
    let (mut scratch, mut all) = (Scratch::new(instructions), Vec::new());
    for chunk in ids(4, 40).chunks(17) {
        let part = Part { state: &mut none, input: Input::Ids(chunk), wanted: Wanted::None };
        let vectors = ends.forward(&mut [part], &mut scratch, pool).vectors.to_vec();
        let part = Part { state: &mut state, input: Input::Vectors(&vectors), wanted: Wanted::None };
        let vectors = layers.forward(&mut [part], &mut scratch, pool).vectors.to_vec();
        all.extend(ends.logits_of(&vectors, &mut scratch, pool).iter().map(|logit| logit.to_bits()));
    }
    all
}

#[test]
fn a_stage_of_tiles_has_the_bits_of_its_origin() {
    let pool = Pool::new(2);
    for architecture in Architecture::ALL {
        let (ends, layers) = (stage(architecture, 0..0, true, &pool), stage(architecture, 0..LAYERS, false, &pool));
        let files: Vec<Vec<u8>> = (0..LAYERS).map(|index| written(&layers, index)).collect();
        let tiles = || files.iter().map(|file| read(file).unwrap());
        let mapped = Stage::from_tiles(0..LAYERS, tiles().collect()).unwrap();
        let mut arena = Arena::new(1 << 20);
        let copies = tiles().map(|tile| tile.copy_into(&mut arena).unwrap());
        let copied = Stage::from_tiles(0..LAYERS, copies.collect()).unwrap();
        for instructions in Instructions::here() {
            let expected = bits(&ends, &layers, &pool, instructions);
            assert!(expected.iter().all(|bits| f32::from_bits(*bits).is_finite()));
            for stage in [&mapped, &copied] {
                assert!(bits(&ends, stage, &pool, instructions) == expected, "{architecture}, {}", instructions.name());
            }
        }
        // One layer, one file: also from a stage that has no other, or that came from tiles.
        for (index, file) in files.iter().enumerate() {
            let tile = read(file).unwrap();
            assert_eq!((tile.index(), tile.config()), (index, layers.config()));
            let alone = Stage::from_tiles(index..index + 1, vec![tile]).unwrap();
            assert!(written(&alone, index) == *file && written(&copied, index) == *file, "{architecture}, {index}");
        }
    }
}

/// Where bytes still are a tile, they are that tile's only encoding.
#[test]
fn any_bytes_are_one_tile_or_refused_in_one_line() {
    let pool = Pool::new(1);
    let mut stage = stage(Architecture::Gemma3, 1..2, false, &pool);
    let rope = Rope { factors: vec![1.5; 16], yarn: None, ..stage.config.rope.clone() };
    let yarn = Yarn { factor: 4.0, original_context: 32, fast_turns: 32.0, slow_turns: 1.0, length: 1.1 };
    stage.config.rope = Rope { yarn: Some(yarn), ..rope.clone() };
    stage.config.rope_window = rope;
    let file = written(&stage, 1);
    assert_eq!(read(&file).unwrap().config, stage.config);

    let refused = |bytes: &[u8]| {
        let error = said(read(bytes));
        assert!(error.starts_with("tile") && !error.contains(char::is_control), "{error:?}");
    };
    let header = file.len() - stage.bytes();
    (0..header + 100).for_each(|len| refused(&file[..len]));
    refused(&file[..file.len() - 1]);
    refused(&[&file[..], &[0]].concat());
    let (mut bytes, mut scratch) = (file.clone(), Scratch::new(Instructions::here()[0]));
    for at in 0..header {
        for change in [1, 0x80, 0xff, file[at]] {
            bytes[at] ^= change;
            match read(&bytes) {
                Ok(tile) => {
                    let index = tile.index;
                    let again = Stage::from_tiles(index..index + 1, vec![tile]).unwrap();
                    let mut state = again.state(CacheType::F16).unwrap();
                    let vectors = vec![0.5; 2 * again.config.width];
                    let part = Part { state: &mut state, input: Input::Vectors(&vectors), wanted: Wanted::None };
                    again.forward(&mut [part], &mut scratch, &pool);
                    assert!(written(&again, index) == bytes, "byte {at} xor {change} changes nothing");
                }
                Err(_) => refused(&bytes),
            }
            bytes[at] = file[at];
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let pool = Pool::new(1);
    let stage = stage(Architecture::Llama, 0..1, false, &pool);
    let file = written(&stage, 0);
    let with = |at: usize, new: &[u8]| {
        let mut bytes = file.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        said(read(&bytes))
    };
    let nan = f32::NAN.to_le_bytes();
    // 12 bytes, "littoral-kernels-1", "llama", ten counts, epsilon.
    let (kernels, counts) = (16, 16 + 18 + 4 + 5);
    assert_eq!(said(read(b"")), "tile: at least 8 bytes expected, got 0");
    assert_eq!(with(0, b"GGUF\n"), r"tile, magic: LIT-TILE expected, got GGUF\nILE");
    assert_eq!(with(8, &[2]), "tile, version: 1 expected, got 2");
    assert_eq!(with(kernels + 17, b"2"), "tile, kernels: littoral-kernels-1 expected, got littoral-kernels-2");
    assert_eq!(
        with(kernels + 22, b"lemma"),
        "tile, architecture: one of llama, qwen2, qwen3, gemma3 expected, got lemma"
    );
    assert_eq!(with(counts, &[0]), "tile, block_count: 1 to 1024 expected, got 0");
    assert_eq!(with(counts + 12, &[3]), "tile, attention.head_count_kv: a divisor of 4 heads expected, got 3");
    assert_eq!(with(counts + 40, &nan), "tile, attention.layer_norm_rms_epsilon: a number above 0 expected, got NaN");
    // The header ends there, behind it the table; the first vector is at 448.
    let table = counts + 40 + 20 + 4 + 2 * 24 + 4;
    assert_eq!(with(table, &[63]), "tile, attn_norm: 64 elements expected, got 63");
    assert_eq!(with(table + 12, &[1]), "tile, attn_q bias: 128 elements, or none expected, got 1");
    assert_eq!(with(table + 4, &[128]), format!("tile, header: 192 at byte {} expected, got 128", table + 4));
    let matrices = table + 9 * 12;
    assert_eq!(with(matrices, &[77]), "tile, attn_q: a kind of weights expected, got 77");
    assert_eq!(with(matrices, &[12]), "tile, attn_q: a row of 64 weights in Q4_K: a multiple of 256 expected");
    assert_eq!(with(447, &[1]), "tile, padding: 0 at byte 447 expected, got 1");
    let more = [&file[..], &[0]].concat();
    assert_eq!(said(read(&more)), format!("tile, file: {} bytes expected, got {}", file.len(), more.len()));
}

#[test]
fn a_stage_is_of_layers_that_follow_one_another() {
    let pool = Pool::new(1);
    let of = |architecture, index| {
        let stage = stage(architecture, 0..LAYERS, false, &pool);
        read(&written(&stage, index)).unwrap()
    };
    let llama = |index| of(Architecture::Llama, index);
    let from = |range, tiles| said(Stage::from_tiles(range, tiles));
    assert_eq!(from(1..1, vec![]), "tile, stage of layers 1 to 1: 0 tiles, at least 1 expected, got 0");
    assert_eq!(from(0..2, vec![llama(0)]), "tile, stage of layers 0 to 2: 2 tiles, at least 1 expected, got 1");
    assert_eq!(from(0..2, vec![llama(0), llama(2)]), "tile, stage of layers 0 to 2: layer 1 expected, got layer 2");
    assert_eq!(
        from(1..3, vec![llama(1), of(Architecture::Qwen2, 2)]),
        "tile, stage of layers 1 to 3: numbers of the model as in layer 1 expected, got others in layer 2"
    );
    assert_eq!(Stage::from_tiles(1..3, vec![llama(1), llama(2)]).unwrap().layers(), 1..3);
}
