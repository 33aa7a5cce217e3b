//! A folder of tiles: layers made from a model's file and fetched from others, restarts, damage, and the bound.

mod host_scratch;
#[path = "../../littoral/tests/serve/tiny.rs"]
mod tiny;

use host_scratch::Scratch;
use littoral_model::lm::{self, Config, Tile};
use littoral_node::models::Digest;
use littoral_node::split::{Tiles, TilesError};
use littoral_node::work::ObjectFault;
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_wire::ObjectId;
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes that differ from chunk to chunk and by `seed`.
fn object(chunks: usize, tail: usize, seed: usize) -> (Manifest, Vec<u8>) {
    let bytes: Vec<u8> = (0..chunks * CHUNK_BYTES + tail).map(|i| (i / 251 + i + seed) as u8).collect();
    (Manifest::of(&bytes).unwrap(), bytes)
}

fn chunk(bytes: &[u8], index: u32) -> &[u8] {
    bytes.chunks(CHUNK_BYTES).nth(index as usize).unwrap()
}

/// All of it arrives.
fn receive(tiles: &Tiles, (manifest, bytes): &(Manifest, Vec<u8>)) -> Result<ObjectId, TilesError> {
    let arrival = tiles.begin(manifest)?;
    for index in arrival.missing()? {
        arrival.keep(index, chunk(bytes, index))?;
    }
    assert_eq!(arrival.missing(), Ok(vec![]));
    Ok(manifest.id())
}

/// Puts a file with one bit changed in the place of another.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    let beside = path.with_extension("flipped");
    fs::write(&beside, bytes).unwrap();
    fs::rename(beside, path).unwrap();
}

struct Source {
    path: PathBuf,
    bytes: Vec<u8>,
    pool: Pool,
}

impl Source {
    fn tiny(dir: &Path) -> Self {
        let (path, bytes) = (dir.join("tiny.gguf"), tiny::gguf(true));
        fs::write(&path, &bytes).unwrap();
        Self { path, bytes, pool: Pool::new(1) }
    }

    fn config(&self) -> Config {
        lm::config(&Gguf::parse(&self.bytes).unwrap()).unwrap()
    }

    /// The tile of a layer, and whether it was packed now.
    fn make(&self, tiles: &Tiles, layer: usize) -> Result<(ObjectId, bool), TilesError> {
        let (gguf, model) = (Gguf::parse(&self.bytes).unwrap(), tiles.digest_of(&self.path).unwrap());
        let mut packed = false;
        let mut done = |_| packed = true;
        let manifest = tiles.make(&model, &gguf, &self.config(), layer, &self.pool, &mut done)?;
        Ok((manifest.id(), packed))
    }
}

#[test]
fn a_model_is_packed_once() {
    let dir = Scratch::new("packed");
    let source = Source::tiny(dir.path());
    let folder = dir.path().join("tiles");
    let tiles = Tiles::in_folder(&folder, 1 << 20).unwrap();
    let model = tiles.digest_of(&source.path).unwrap();
    assert_eq!(tiles.of_model(&model), []);
    let (second, packed) = source.make(&tiles, 1).unwrap();
    assert_eq!((packed, tiles.of_model(&model)), (true, vec![None, Some(second)]));
    let (first, _) = source.make(&tiles, 0).unwrap();
    assert_eq!(source.make(&tiles, 1), Ok((second, false)));
    assert_eq!(source.make(&tiles, 2), Err(TilesError::Layer { layer: 2, layers: 2 }));

    let file = fs::read(tiles.path(first)).unwrap();
    assert_eq!(Manifest::of(&file).unwrap().id(), first, "named by its content");
    for stage in [tiles.mapped(0..2, &[first, second]), tiles.loaded(0..2, &[first, second])] {
        let mut again = Vec::new();
        Tile::write(&stage.unwrap(), 0, &mut again).unwrap();
        assert!(again == file);
    }
    let error = tiles.mapped(0..2, &[second, first]).unwrap_err().to_string();
    assert_eq!(error, "tile, stage of layers 0 to 2: layer 0 expected, got layer 1");
    drop(tiles);

    let tiles = Tiles::in_folder(&folder, 1 << 20).unwrap();
    assert_eq!(source.make(&tiles, 0), Ok((first, false)), "after a restart, too");
    fs::remove_file(tiles.path(first)).unwrap();
    assert_eq!(source.make(&tiles, 0), Ok((first, true)));
    // Notes are no truth: without them the same comes out.
    fs::write(folder.join(format!("models/{model}.toml")), "damaged").unwrap();
    assert_eq!(source.make(&tiles, 1), Ok((second, true)));
    assert!(matches!(Tiles::in_folder(&folder, 1), Err(TilesError::Folder(_))), "one process at a time");
}

#[test]
fn a_file_that_was_written_to_is_another_model() {
    let dir = Scratch::new("written");
    let source = Source::tiny(dir.path());
    let tiles = Tiles::in_folder(&dir.path().join("tiles"), 1 << 20).unwrap();
    let model = tiles.digest_of(&source.path).unwrap();
    assert_eq!(tiles.digest_of(&source.path), Ok(model));
    flip(&source.path, 9_000);
    let other = tiles.digest_of(&source.path).unwrap();
    assert_eq!(other, Digest::of_file(&source.path).unwrap());
    assert_ne!(other, model);
}

#[test]
fn what_had_arrived_before_a_crash_is_not_sent_again() {
    let dir = Scratch::new("arrivals");
    let (manifest, bytes) = object(5, 17, 0);
    let id = manifest.id();
    let tiles = Tiles::in_folder(dir.path(), 1 << 20).unwrap();
    let arrival = tiles.begin(&manifest).unwrap();
    for index in [0, 2, 3, 5] {
        arrival.keep(index, chunk(&bytes, index)).unwrap();
    }
    assert!(matches!(arrival.keep(1, chunk(&bytes, 4)), Err(TilesError::Chunk(_))));
    assert_eq!((arrival.missing(), tiles.has(id)), (Ok(vec![1, 4]), false));
    assert_eq!(tiles.open(id).unwrap_err(), ObjectFault::Missing(id).into());
    drop(arrival);
    drop(tiles);
    // The machine stopped in the middle of writing chunk 2.
    let mut torn = fs::read(dir.path().join(format!("arriving/{id}"))).unwrap();
    torn[3 * CHUNK_BYTES - 100..3 * CHUNK_BYTES].fill(0);
    fs::write(dir.path().join(format!("arriving/{id}")), torn).unwrap();

    let tiles = Tiles::in_folder(dir.path(), 1 << 20).unwrap();
    assert_eq!(tiles.bytes(), manifest.bytes());
    let arrival = tiles.begin(&manifest).unwrap();
    assert_eq!(arrival.missing(), Ok(vec![1, 2, 4]));
    assert_eq!(receive(&tiles, &(manifest, bytes.clone())), Ok(id));
    assert!(tiles.open(id).unwrap()[..] == bytes[..]);
    assert_eq!(tiles.chunk(id, 5).unwrap(), chunk(&bytes, 5), "and on to the next machine");
    let error = tiles.tile(id).unwrap_err().to_string();
    assert!(error.starts_with(&format!("object {id}: tile, magic: LIT-TILE expected, got ")), "{error}");
}

#[test]
fn a_bit_that_flipped_on_the_disk_is_found_before_it_is_used() {
    let dir = Scratch::new("flip");
    let source = Source::tiny(dir.path());
    let folder = dir.path().join("tiles");
    let id = source.make(&Tiles::in_folder(&folder, 1 << 20).unwrap(), 0).unwrap().0;
    // While nobody had it open, and behind the back of a process that had checked it.
    for checked in [false, true] {
        let tiles = Tiles::in_folder(&folder, 1 << 20).unwrap();
        if checked {
            tiles.tile(id).unwrap();
        }
        flip(&tiles.path(id), 20_000);
        let damaged = tiles.tile(id).unwrap_err();
        assert!(matches!(damaged, TilesError::Object(ObjectFault::Damaged { .. })), "{damaged}");
        assert_eq!((tiles.has(id), tiles.bytes()), (false, 0));
        assert_eq!(source.make(&tiles, 0), Ok((id, true)));
        tiles.tile(id).unwrap();
    }
}

#[test]
fn what_was_opened_longest_ago_makes_room_and_what_is_open_stays() {
    let dir = Scratch::new("bound");
    let objects: Vec<(Manifest, Vec<u8>)> = (0..5).map(|seed| object(1, 0, seed)).collect();
    let one = CHUNK_BYTES as u64;
    let tiles = Tiles::in_folder(dir.path(), 3 * one).unwrap();
    let ids: Vec<ObjectId> = objects.iter().map(|(manifest, _)| manifest.id()).collect();
    let here = |tiles: &Tiles| ids.iter().map(|id| u8::from(tiles.has(*id))).collect::<Vec<u8>>();
    for index in [0, 1, 2] {
        receive(&tiles, &objects[index]).unwrap();
    }
    let opened = tiles.open(ids[0]).unwrap();
    receive(&tiles, &objects[3]).unwrap();
    assert_eq!(here(&tiles), [1, 0, 1, 1, 0]);
    // 0 is the oldest by now, and open.
    tiles.open(ids[2]).unwrap();
    tiles.open(ids[3]).unwrap();
    let arriving = tiles.begin(&objects[4].0).unwrap();
    assert_eq!((here(&tiles), tiles.bytes()), (vec![1, 0, 0, 1, 0], 3 * one));
    let third = tiles.open(ids[3]).unwrap();
    let refused = tiles.begin(&objects[1].0).unwrap_err();
    let dir_of = dir.path().to_owned();
    assert_eq!(refused, TilesError::Full { dir: dir_of, bytes: one, bytes_max: 3 * one, in_use: 3 * one });
    assert_eq!(here(&tiles), [1, 0, 0, 1, 0], "nothing went for what found no room");
    drop((arriving, third));
    // What had begun to arrive goes like all else, when its turn comes.
    receive(&tiles, &objects[1]).unwrap();
    assert_eq!((here(&tiles), opened[7]), (vec![1, 1, 0, 1, 0], objects[0].1[7]));

    // 3 was opened after 1 came, so it stays when the next start allows less.
    tiles.open(ids[1]).unwrap();
    tiles.open(ids[3]).unwrap();
    drop((opened, tiles));
    let tiles = Tiles::in_folder(dir.path(), one).unwrap();
    assert_eq!((here(&tiles), tiles.bytes()), (vec![0, 0, 0, 1, 0], one));
}

/// Figures of a real model: `LITTORAL_MODELS=… cargo test -p littoral-node --test tiles -- --ignored --nocapture`.
#[test]
#[ignore = "writes as many bytes as the model has"]
fn what_a_real_model_costs() {
    let path = PathBuf::from(std::env::var_os("LITTORAL_MODELS").unwrap()).join("qwen2.5-coder-1.5b.gguf");
    let dir = Scratch::new("real");
    let bytes = Mapped::new(&File::open(&path).unwrap()).unwrap();
    let (gguf, pool) = (Gguf::parse(&bytes).unwrap(), Pool::new(2));
    let config = lm::config(&gguf).unwrap();
    let timed = |what: &str, run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        println!("{what}: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    };
    let tiles = Tiles::in_folder(dir.path(), 4 << 30).unwrap();
    timed("digest of the file", &mut || drop(tiles.digest_of(&path)));
    let model = tiles.digest_of(&path).unwrap();
    let mut done = |range| bytes.forget(range);
    timed("all layers made", &mut || {
        for layer in 0..config.layers {
            let start = Instant::now();
            let manifest = tiles.make(&model, &gguf, &config, layer, &pool, &mut done).unwrap();
            let ms = start.elapsed().as_secs_f64() * 1e3;
            println!("  layer {layer}: {} kB, {ms:.1} ms", manifest.bytes() / 1_000);
        }
    });
    drop(tiles);
    let tiles = Tiles::in_folder(dir.path(), 4 << 30).unwrap();
    timed("digest again", &mut || assert_eq!(tiles.digest_of(&path), Ok(model)));
    let ids: Vec<ObjectId> = tiles.of_model(&model).into_iter().flatten().collect();
    let some = &ids[10..19];
    timed("9 layers opened and hashed", &mut || drop(tiles.mapped(10..19, some).unwrap()));
    timed("9 layers opened again", &mut || drop(tiles.mapped(10..19, some).unwrap()));
    timed("9 layers copied", &mut || drop(tiles.loaded(10..19, some).unwrap()));
    timed("9 layers copied again", &mut || drop(tiles.loaded(10..19, some).unwrap()));
}
