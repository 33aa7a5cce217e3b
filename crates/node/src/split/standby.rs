//! Layers that this machine does not have now and may be given: packed beforehand, on its disk, and mapped in at once.
//!
//! A thread of its own makes a tile of every layer of a model, from the machine's own copy of the file, while the machine computes
//! others. It rests as long as it works, so that passes keep at least half of a processor that it shares with them.

use super::tiles::{Tiles, TilesError};
use crate::models::Digest;
use littoral_infer::model::{Model, ModelError};
use littoral_model::lm::Stage;
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_wire::ObjectId;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum StandbyError {
    #[error(transparent)]
    Tiles(#[from] TilesError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{0}")]
    File(String),
}

/// Tiles of the layers of models, as far as they are made and checked, by the path of the model's file.
pub struct Standby {
    tiles: Tiles,
    bytes_max: u64,
    ready: Mutex<BTreeMap<PathBuf, Vec<Option<ObjectId>>>>,
}

impl Standby {
    /// `dir` is this process's alone and is kept to `bytes_max`.
    pub fn in_folder(dir: &Path, bytes_max: u64) -> Result<Arc<Self>, StandbyError> {
        Ok(Arc::new(Self { tiles: Tiles::in_folder(dir, bytes_max)?, bytes_max, ready: Mutex::default() }))
    }

    /// That its tiles take on the disk.
    pub fn bytes(&self) -> u64 {
        self.tiles.bytes()
    }

    pub fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// Begins to make tiles of a model, if nobody has. Those of layers outside of `own` come first.
    pub fn prepare(self: &Arc<Self>, path: &Path, own: Range<usize>) {
        if self.ready().contains_key(path) {
            return;
        }
        self.ready().insert(path.to_owned(), Vec::new());
        let (standby, path) = (self.clone(), path.to_owned());
        let worked = std::thread::Builder::new().name("standby".into()).spawn(move || {
            match standby.pack(&path, &own) {
                Ok((made, layers)) => {
                    tracing::info!("{made} of {layers} layers of {} can be mapped in", path.display());
                }
                Err(why) => {
                    // Layers are packed when they are wanted; the next who is given some tries again.
                    tracing::warn!("{} is not packed beforehand: {why}", path.display());
                    standby.ready().remove(&path);
                }
            }
        });
        if let Err(why) = worked {
            tracing::warn!("nothing is packed beforehand: {why}");
        }
    }

    /// How many of the model's layers are ready.
    fn pack(&self, path: &Path, own: &Range<usize>) -> Result<(usize, usize), StandbyError> {
        let on_disk = |e: std::io::Error| StandbyError::File(format!("{}: {e}", path.display()));
        let model: Digest = self.tiles.digest_of(path)?;
        let bytes = Mapped::new(&std::fs::File::open(path).map_err(on_disk)?).map_err(on_disk)?;
        let gguf = Gguf::parse(&bytes).map_err(ModelError::from)?;
        let config = Model::config(&bytes)?;
        let (others, mine): (Vec<usize>, Vec<usize>) = (0..config.layers).partition(|layer| !own.contains(layer));
        let pool = Pool::new(1);
        let (known, mut made, mut bytes_each) = (self.tiles.of_model(&model), 0, 0);
        for layer in others.into_iter().chain(mine) {
            let begun = Instant::now();
            let here = known.get(layer).copied().flatten().is_some_and(|object| self.tiles.has(object));
            if !here && self.tiles.bytes() + bytes_each > self.bytes_max {
                // Another would take the place of one that is ready.
                continue;
            }
            let manifest = self.tiles.make(&model, &gguf, &config, layer, &pool, &mut |range| bytes.forget(range))?;
            // All of its bytes are hashed now, and not when it is wanted.
            self.tiles.open(manifest.id())?;
            let mut ready = self.ready();
            let ready = ready.entry(path.to_owned()).or_default();
            ready.resize(config.layers, None);
            ready[layer] = Some(manifest.id());
            (made, bytes_each) = (made + 1, manifest.bytes());
            std::thread::sleep(begun.elapsed());
        }
        Ok((made, config.layers))
    }

    /// These layers where their tiles lie; `None` if one of them is not ready.
    pub fn mapped(&self, path: &Path, range: &Range<usize>) -> Option<Result<Stage, StandbyError>> {
        let objects: Vec<ObjectId> = {
            let ready = self.ready();
            let ready = ready.get(path)?;
            range.clone().map(|layer| ready.get(layer).copied().flatten()).collect::<Option<_>>()?
        };
        let mapped = self.tiles.mapped(range.clone(), &objects);
        if mapped.is_err() {
            // What was ready is not any more.
            self.ready().remove(path);
        }
        Some(mapped.map_err(StandbyError::from))
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Vec<Option<ObjectId>>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
