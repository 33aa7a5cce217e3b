//! Who has tiles answers who asks for them, over a link that is for nothing else.

use super::standby::Standby;
use super::tiles::{Tiles, TilesError};
use crate::models::Digest;
use crate::peer::{Greeted, greet};
use crate::transport::{Address, Transport};
use crate::work::ObjectFault;
use littoral_infer::model::{Model, ModelError};
use littoral_model::lm::Config;
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_wire::message::Reason;
use littoral_wire::{Blob, Manifest, ObjectId, Pipeline, Wire};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Before a machine is dialled again; longer each time where it hangs up at once, up to the second.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_secs(1);

/// Where tiles come from. Calls block.
pub(super) trait Source: Send + Sync + 'static {
    /// The tile of a layer, which stays as long as the second is held.
    fn tile(&self, model: [u8; 32], layer: usize) -> Result<(Arc<Manifest>, Arc<()>), String>;
    fn chunk(&self, object: ObjectId, chunk: u32) -> Result<Vec<u8>, String>;
}

/// A stage has what it packed or fetched itself; which layers that is, it need not be believed.
impl Source for Standby {
    fn tile(&self, _: [u8; 32], _: usize) -> Result<(Arc<Manifest>, Arc<()>), String> {
        Err("the head alone says which tile a layer is".into())
    }

    fn chunk(&self, object: ObjectId, chunk: u32) -> Result<Vec<u8>, String> {
        self.tiles().chunk(object, chunk).map_err(|e| e.to_string())
    }
}

/// Tiles that are made of a model's file when they are asked for, in a folder that is kept to so many bytes.
pub(super) struct OwnFile {
    tiles: Tiles,
    bytes: Arc<Mapped>,
    config: Config,
    digest: [u8; 32],
    /// One layer at a time.
    packing: Mutex<()>,
}

impl OwnFile {
    /// `digest`: BLAKE3 of the file.
    pub fn open(dir: &Path, bytes_max: u64, bytes: Arc<Mapped>, digest: [u8; 32]) -> Result<Self, String> {
        let tiles = Tiles::in_folder(dir, bytes_max).map_err(|e| e.to_string())?;
        let config = Model::config(&bytes).map_err(|e| e.to_string())?;
        Ok(Self { tiles, bytes, config, digest, packing: Mutex::default() })
    }

    fn make(&self, layer: usize) -> Result<Arc<Manifest>, TilesError> {
        let _packing = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        let gguf = Gguf::parse(&self.bytes).map_err(ModelError::from);
        let gguf = gguf.expect("a file whose numbers were read");
        let model = Digest::of_hash(self.digest);
        self.tiles.make(&model, &gguf, &self.config, layer, &Pool::new(1), &mut |range| self.bytes.forget(range))
    }
}

impl Source for OwnFile {
    fn tile(&self, model: [u8; 32], layer: usize) -> Result<(Arc<Manifest>, Arc<()>), String> {
        if model != self.digest {
            return Err("another model is here".into());
        }
        let manifest = self.make(layer).map_err(|e| e.to_string())?;
        let busy = self.tiles.hold(manifest.id()).ok_or("it was made, and others took its room")?;
        Ok((manifest, busy))
    }

    fn chunk(&self, object: ObjectId, chunk: u32) -> Result<Vec<u8>, String> {
        self.tiles.chunk(object, chunk).map_err(|e| {
            if matches!(e, TilesError::Object(ObjectFault::Damaged { .. })) {
                // It goes when all of it is looked at, and is made anew when it is asked for again.
                let _ = self.tiles.open(object);
            }
            e.to_string()
        })
    }
}

/// Dials a machine, and lets it ask, until this is dropped.
pub(super) async fn supply(transport: Arc<dyn Transport>, address: Address, source: Arc<dyn Source>) {
    let (mut told, mut again) = (false, AGAIN);
    loop {
        let begun = Instant::now();
        match greet::dial_for(&*transport, &address, Pipeline::Supply {}).await {
            Ok(greeted) => {
                told = false;
                answer(greeted, &source).await;
            }
            Err(why) => {
                if !told {
                    tracing::info!("{address} cannot ask for layers: {why}");
                }
                told = true;
            }
        }
        again = if begun.elapsed() < SHORT { (again * 2).min(AGAIN_MAX) } else { AGAIN };
        tokio::time::sleep(again).await;
    }
}

/// Answers until whoever asks is gone, or asks for something else.
pub(super) async fn answer(greeted: Greeted, source: &Arc<dyn Source>) {
    let Greeted { mut sender, mut receiver, .. } = greeted;
    // Of the tile that was asked for last: until another is, its room is not taken.
    let mut _busy = None;
    while let Ok(Some(frame)) = receiver.recv().await {
        let Ok(asked) = Pipeline::from_bytes(&frame) else { return };
        let of = source.clone();
        // Disks and packing must not hold up whoever else is served here.
        let Ok(Some((said, busy))) = tokio::task::spawn_blocking(move || said(&asked, &*of)).await else { return };
        if let Pipeline::Tile { model, layer, .. } = said {
            _busy = busy;
            // While its bytes travel the next one is made.
            let of = source.clone();
            tokio::task::spawn_blocking(move || drop(of.tile(model, layer as usize + 1)));
        }
        if sender.send(said.to_bytes().into()).await.is_err() || sender.flush().await.is_err() {
            return;
        }
    }
}

fn said(asked: &Pipeline, source: &dyn Source) -> Option<(Pipeline, Option<Arc<()>>)> {
    let said = match *asked {
        Pipeline::Which { model, layer } => source
            .tile(model, layer as usize)
            .map(|(manifest, busy)| (Pipeline::Tile { model, layer, manifest: (*manifest).clone() }, Some(busy))),
        Pipeline::Want { object, chunk } => source.chunk(object, chunk).and_then(|bytes| {
            let bytes = Blob::new(bytes).map_err(|e| e.to_string())?;
            Ok((Pipeline::Chunk { object, chunk, bytes }, None))
        }),
        _ => return None,
    };
    Some(said.unwrap_or_else(|why| (Pipeline::Cannot { reason: Reason::new(why) }, None)))
}
