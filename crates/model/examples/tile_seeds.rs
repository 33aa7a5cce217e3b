//! The first layers of small models as files: first inputs for the fuzz target `tile`, from those of `model`.
//!
//! `cargo run -p littoral-model --example tile_seeds -- fuzz/seeds/model fuzz/seeds/tile`

use littoral_model::lm::{self, Tile};
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = &args[..] else { return Err("usage: tile_seeds MODELS DIR".into()) };
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let bytes = fs::read(file.path())?;
        let gguf = Gguf::parse(&bytes)?;
        let stage = lm::load(&gguf, &lm::config(&gguf)?, 0..1, false, &Pool::new(1), &mut |_| ())?;
        Tile::write(&stage, 0, &mut File::create(Path::new(to).join(file.file_name()))?)?;
    }
    Ok(())
}
