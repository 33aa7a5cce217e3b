//! What layers as files cost: `cargo run --release -p littoral-model --example tiles FILE.gguf FOLDER [THREADS]`.
//! Writes each layer into the folder as a tile, maps them, and says how long that takes, and a token through all layers as
//! they are packed from the model's file, mapped, mapped and populated, and copied into memory.

use littoral_model::lm::{self, CacheType, Input, Part, Scratch, Stage, State, StateError, Tile, Wanted};
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Arena, Instructions, Shared};
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const TOKENS: usize = 80;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, folder, threads @ ..] = &args[..] else { return Err("usage: tiles FILE.gguf FOLDER [THREADS]".into()) };
    let pool = Pool::new(threads.first().map_or(Ok(2), |n| n.parse())?);
    let bytes = Mapped::new(&File::open(file)?)?;
    let gguf = Gguf::parse(&bytes)?;
    let config = lm::config(&gguf)?;
    let all = 0..config.layers;
    let ends = lm::load(&gguf, &config, 0..0, true, &pool, &mut |_| ())?;
    let start = Instant::now();
    let loaded = lm::load(&gguf, &config, all.clone(), false, &pool, &mut |_| ())?;
    println!("{} layers, {} MB, packed in {}", config.layers, loaded.bytes() / 1_000_000, said(start));

    let start = Instant::now();
    let paths: Vec<PathBuf> = all.clone().map(|layer| Path::new(folder).join(format!("tile-{layer}"))).collect();
    for (layer, path) in paths.iter().enumerate() {
        Tile::write(&loaded, layer, &mut std::io::BufWriter::new(File::create(path)?))?;
    }
    println!("written in {}", said(start));

    let few = &paths[..paths.len().min(9)];
    let start = Instant::now();
    let standby = stage(few, |map| Ok(Tile::read(&map.into())?))?;
    println!("{} layers mapped in {}", few.len(), said(start));
    let mut run = Run::new(&ends, &standby)?;
    for pass in ["first", "second", "third"] {
        let start = Instant::now();
        run.step(&pool);
        println!("  {pass} pass {}", said(start));
    }
    let start = Instant::now();
    drop(standby);
    println!("  given back in {}", said(start));
    let start = Instant::now();
    drop(stage(few, |map| {
        map.populate();
        Ok(Tile::read(&map.into())?)
    })?);
    println!("{} layers mapped, populated and given back in {}", few.len(), said(start));
    let start = Instant::now();
    let mut arena = Arena::new(300 << 20);
    let copied = stage(few, |map| Ok(Tile::read(&map.into())?.copy_into(&mut arena)?))?;
    println!("{} layers copied in {}", few.len(), said(start));
    drop(copied);

    let mapped = stage(&paths, |map| Ok(Tile::read(&map.into())?))?;
    let populated = stage(&paths, |map| {
        map.populate();
        Ok(Tile::read(&map.into())?)
    })?;
    let mut arena = Arena::new(bytes.len() / 16 * 17);
    let copied = stage(&paths, |map| Ok(Tile::read(&Shared::from(map))?.copy_into(&mut arena)?))?;
    let names = ["packed", "mapped", "populated", "copied"];
    let mut runs = Vec::new();
    for stage in [&loaded, &mapped, &populated, &copied] {
        runs.push((Run::new(&ends, stage)?, Vec::new()));
    }
    // Token by token in turns, so that whatever else the machine does disturbs all alike.
    for _ in 0..TOKENS {
        for (run, seconds) in &mut runs {
            let start = Instant::now();
            run.step(&pool);
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    assert!(runs.windows(2).all(|two| two[0].0.text == two[1].0.text), "all stages write the same text");
    for (name, (_, mut seconds)) in names.iter().zip(runs) {
        seconds.sort_by(f64::total_cmp);
        let [least, tenth, median] = [0, TOKENS / 10, TOKENS / 2].map(|at| seconds[at] * 1e3);
        println!("{name}: a token in {least:.2} ms at best, {tenth:.2} at a tenth, {median:.2} in the median");
    }
    Ok(())
}

fn said(start: Instant) -> String {
    format!("{:.2} ms", start.elapsed().as_secs_f64() * 1e3)
}

fn stage(
    paths: &[PathBuf],
    mut tile: impl FnMut(Arc<Mapped>) -> Result<Tile, Box<dyn Error>>,
) -> Result<Stage, Box<dyn Error>> {
    let map = |path: &PathBuf| Ok::<_, Box<dyn Error>>(Arc::new(Mapped::new(&File::open(path)?)?));
    let tiles: Result<Vec<Tile>, _> = paths.iter().map(|path| tile(map(path)?)).collect();
    Ok(Stage::from_tiles(0..paths.len(), tiles?)?)
}

/// A text that is written greedily.
struct Run<'a> {
    ends: &'a Stage,
    layers: &'a Stage,
    none: State,
    state: State,
    scratch: Scratch,
    text: Vec<u32>,
}

impl<'a> Run<'a> {
    fn new(ends: &'a Stage, layers: &'a Stage) -> Result<Self, StateError> {
        let (none, state) = (ends.state(CacheType::F16)?, layers.state(CacheType::F16)?);
        Ok(Self { ends, layers, none, state, scratch: Scratch::new(Instructions::here()[0]), text: vec![1_000] })
    }

    fn step(&mut self, pool: &Pool) {
        let ids = &self.text[self.text.len() - 1..];
        let part = Part { state: &mut self.none, input: Input::Ids(ids), wanted: Wanted::None };
        let vectors = self.ends.forward(&mut [part], &mut self.scratch, pool).vectors.to_vec();
        let part = Part { state: &mut self.state, input: Input::Vectors(&vectors), wanted: Wanted::None };
        let vectors = self.layers.forward(&mut [part], &mut self.scratch, pool).vectors.to_vec();
        let logits = self.ends.logits_of(&vectors, &mut self.scratch, pool);
        self.text.push((0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32);
    }
}
