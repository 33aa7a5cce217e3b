//! A folder of tiles: layers as files, named by their content, made here or fetched, and mapped in.
//!
//! ```text
//! DIR/lock            one process at a time
//! DIR/objects/ID      a whole tile; DIR/objects/ID.manifest: the hashes of its chunks
//! DIR/arriving/ID     what has arrived of one so far
//! DIR/models/         which tiles a model's file becomes (packed.rs)
//! ```
//! Files are kept by [`FileObjects`]: each chunk that arrives is checked, a whole file appears by a rename, and what a crash
//! left is hashed, which finds what is there and needs no journal that could promise more than the disk has.
//!
//! **When is a tile believed?** Never by its name alone: a name says what the bytes were. The first [`Tiles::open`] in a process
//! maps the file and hashes all of it, some milliseconds for a layer; so a standby opens its tiles when it is told of them,
//! long before they are needed. The mapping is kept. Each further [`Tiles::open`] gives that mapping, if the file under the
//! name is still the one that was checked (device, inode, size, time of writing), and costs microseconds. What this does not
//! find is a disk that goes bad under a page that was checked, left memory and comes back wrong while this process runs.
//!
//! **The folder is bounded.** Who needs room takes it from the tiles that were opened longest ago; that order survives a
//! restart as the files' times of access. A tile that somebody has open, or that is arriving, stays: then room is refused.

use super::arrival::Arrival;
use super::packed::{Packed, Stamp};
use super::shelf::{Checked, Shelf};
use crate::models::{Digest, Fault};
use crate::store::{DirectoryLock, FileObjects, KeepFault, StoreError};
use crate::work::{ObjectFault, ObjectWriter, Objects};
use littoral_model::lm::{self, Config, LoadError, Stage, Tile, TileError};
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Arena, Shared};
use littoral_wire::ObjectId;
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use std::fs::{self, File, FileTimes};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use thiserror::Error;

/// Why a tile is not here.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TilesError {
    #[error("layer {layer} of the model: one of {layers} expected")]
    Layer { layer: usize, layers: usize },
    #[error("a tile of {bytes} bytes: it does not fit into {dir}, which may have {bytes_max} and has {in_use} in use")]
    Full { dir: PathBuf, bytes: u64, bytes_max: u64, in_use: u64 },
    #[error("object {object}: {error}")]
    Tile { object: ObjectId, error: TileError },
    #[error("{0}")]
    Stage(TileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Object(#[from] ObjectFault),
    #[error(transparent)]
    Chunk(#[from] KeepFault),
    #[error(transparent)]
    Folder(#[from] StoreError),
    #[error(transparent)]
    Packed(#[from] Fault),
}

/// Layers as files. Calls block.
#[derive(Debug)]
pub struct Tiles {
    dir: PathBuf,
    bytes_max: u64,
    pub(super) objects: FileObjects,
    packed: Packed,
    shelf: Mutex<Shelf>,
    _lock: DirectoryLock,
}

impl Tiles {
    /// The folder, which is made if it is missing; it is this process's alone. Where it has more than `bytes_max`, tiles go.
    pub fn in_folder(dir: &Path, bytes_max: u64) -> Result<Self, TilesError> {
        let lock = DirectoryLock::take(dir)?;
        let objects = FileObjects::open(dir)?;
        let packed = Packed::open(dir.join("models"))?;
        let mut found = Vec::new();
        for folder in ["objects", "arriving"] {
            let folder = dir.join(folder);
            for file in fs::read_dir(&folder).map_err(|e| disk(&folder, &e))?.flatten() {
                let object = file.file_name().to_str().and_then(|name| name.parse::<ObjectId>().ok());
                if let (Some(object), Ok(file)) = (object, file.metadata()) {
                    found.push((file.accessed().unwrap_or(SystemTime::UNIX_EPOCH), object, file.len()));
                }
            }
        }
        found.sort();
        let mut shelf = Shelf::default();
        for (_, object, bytes) in found {
            shelf.put(object, bytes);
        }
        let tiles = Self { dir: dir.to_owned(), bytes_max, objects, packed, shelf: Mutex::new(shelf), _lock: lock };
        tiles.make_room(&mut tiles.shelf(), 0)?;
        Ok(tiles)
    }

    /// Where a whole tile lies.
    pub fn path(&self, object: ObjectId) -> PathBuf {
        self.objects.body_path(object)
    }

    /// Is there a whole file of that name? Its bytes are checked when it is opened.
    pub fn has(&self, object: ObjectId) -> bool {
        self.path(object).exists()
    }

    /// Bytes of all tiles, those that are arriving as if they were whole.
    pub fn bytes(&self) -> u64 {
        self.shelf().bytes()
    }

    /// The tiles of a model as far as they are known, by layer, wherever they are; empty: nothing is known.
    pub fn of_model(&self, model: &Digest) -> Vec<Option<ObjectId>> {
        self.packed.tiles(model)
    }

    /// The name of a model's file, which is read once; after that only if somebody wrote to it.
    pub fn digest_of(&self, path: &Path) -> Result<Digest, TilesError> {
        Ok(self.packed.digest_of(path)?)
    }

    /// The tile of one layer, made from the model's file if it is not here. Durable when this returns.
    ///
    /// `model` is the file's digest; `done` hears of what was copied from the file, as of [`lm::load`].
    pub fn make(
        &self,
        model: &Digest,
        gguf: &Gguf<'_>,
        config: &Config,
        layer: usize,
        pool: &Pool,
        done: &mut dyn FnMut(Range<usize>),
    ) -> Result<Arc<Manifest>, TilesError> {
        let layers = config.layers;
        if layer >= layers {
            return Err(TilesError::Layer { layer, layers });
        }
        let known = self.packed.tiles(model).get(layer).copied().flatten();
        if let Some((object, _busy)) = known.and_then(|object| Some((object, self.hold(object)?))) {
            return self.manifest(object);
        }
        let stage = lm::load(gguf, config, layer..layer + 1, false, pool, done)?;
        let bytes = Tile::bytes_of(&stage, layer) as u64;
        {
            let mut shelf = self.shelf();
            self.make_room(&mut shelf, bytes)?;
            shelf.reserved += bytes;
        }
        let written = self.write(&stage, layer);
        let mut shelf = self.shelf();
        shelf.reserved -= bytes;
        let manifest = written?;
        let object = manifest.id();
        // Else whoever makes room could take it before it is noted.
        let _busy = shelf.put(object, bytes).busy.clone();
        drop(shelf);
        self.objects.sync(&[object])?;
        self.packed.put_tile(model, layer, layers, object)?;
        Ok(Arc::new(manifest))
    }

    /// A whole tile, used now; it stays while this is held. `None`: it is not here.
    pub(super) fn hold(&self, object: ObjectId) -> Option<Arc<()>> {
        // Under the lock, so that it does not go in between.
        let mut shelf = self.shelf();
        let bytes = fs::metadata(self.path(object)).ok()?.len();
        Some(shelf.put(object, bytes).busy.clone())
    }

    fn write(&self, stage: &Stage, layer: usize) -> Result<Manifest, ObjectFault> {
        let mut body = Body(self.objects.create()?);
        Tile::write(stage, layer, &mut body)
            .map_err(|e| e.downcast().unwrap_or_else(|e| ObjectFault::Disk(e.to_string())))?;
        body.0.finish()
    }

    /// Room for a tile that somebody sends, and what of it is here.
    pub fn begin(&self, manifest: &Manifest) -> Result<Arrival<'_>, TilesError> {
        let object = manifest.id();
        let arrival = {
            let mut shelf = self.shelf();
            if !shelf.tiles.contains_key(&object) {
                self.make_room(&mut shelf, manifest.bytes())?;
            }
            let arriving = shelf.put(object, manifest.bytes()).busy.clone();
            Arrival { tiles: self, manifest: manifest.clone(), object, _arriving: arriving }
        };
        arrival.missing()?;
        Ok(arrival)
    }

    /// Notes that a whole tile is this layer of a model of so many.
    pub(super) fn note(&self, model: &Digest, layer: usize, layers: usize, object: ObjectId) -> Result<(), TilesError> {
        Ok(self.packed.put_tile(model, layer, layers, object)?)
    }

    /// The hashes of a whole tile's chunks, for whoever wants it from here.
    pub fn manifest(&self, object: ObjectId) -> Result<Arc<Manifest>, TilesError> {
        Ok(self.objects.manifest(object)?)
    }

    /// One chunk of a whole tile, checked.
    pub fn chunk(&self, object: ObjectId, index: u32) -> Result<Vec<u8>, TilesError> {
        Ok(self.objects.chunk(object, index)?)
    }

    /// A tile's bytes, which are those of its name. The first time in a process all of them are hashed; a file with others is
    /// removed.
    pub fn open(&self, object: ObjectId) -> Result<Arc<Mapped>, TilesError> {
        let path = self.path(object);
        let file = File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ObjectFault::Missing(object),
            _ => disk(&path, &e),
        })?;
        let metadata = file.metadata().map_err(|e| disk(&path, &e))?;
        let stamp = Stamp::of(&metadata);
        // For the order after a restart; where it cannot be set, that order is another one.
        let _ = file.set_times(FileTimes::new().set_accessed(SystemTime::now()));
        let _busy = {
            let mut shelf = self.shelf();
            let kept = shelf.put(object, metadata.len());
            if let Some(checked) = kept.checked.as_ref().filter(|checked| checked.stamp == stamp) {
                return Ok(checked.map.clone());
            }
            kept.busy.clone()
        };
        let map = Arc::new(Mapped::new(&file).map_err(|e| disk(&path, &e))?);
        if let Err(damaged) = self.manifest(object).and_then(|manifest| Ok(check(&manifest, &map)?)) {
            if let TilesError::Object(ObjectFault::Damaged { .. }) = damaged {
                self.shelf().tiles.remove(&object);
                self.objects.remove(object)?;
            }
            return Err(damaged);
        }
        Ok(self.shelf().put(object, map.len() as u64).share(Checked { map, stamp }))
    }

    /// The layer in a tile, where it lies.
    pub fn tile(&self, object: ObjectId) -> Result<Tile, TilesError> {
        let bytes = Shared::from(self.open(object)?);
        Tile::read(&bytes).map_err(|error| TilesError::Tile { object, error })
    }

    /// A stage whose layers lie where their tiles are, for a standby: nothing is copied, and it may compute at once. A token
    /// takes longer than with weights in memory of our own, for lack of huge pages.
    pub fn mapped(&self, range: Range<usize>, objects: &[ObjectId]) -> Result<Stage, TilesError> {
        let tiles = objects.iter().map(|object| self.tile(*object)).collect::<Result<_, _>>()?;
        Stage::from_tiles(range, tiles).map_err(TilesError::Stage)
    }

    /// The same in memory of its own, for layers that compute all the time. It may take the place of a mapped one between any
    /// two passes: both have the same bits, and what a sequence leaves behind is not in them.
    pub fn loaded(&self, range: Range<usize>, objects: &[ObjectId]) -> Result<Stage, TilesError> {
        let bytes = |object: &ObjectId| Ok(self.manifest(*object)?.bytes() as usize);
        let bytes: usize = objects.iter().map(bytes).sum::<Result<_, TilesError>>()?;
        let mut arena = Arena::new(bytes);
        let copied = |object: &ObjectId| {
            let copied = self.tile(*object)?.copy_into(&mut arena);
            copied.map_err(|error| TilesError::Tile { object: *object, error })
        };
        let tiles = objects.iter().map(copied).collect::<Result<_, _>>()?;
        Stage::from_tiles(range, tiles).map_err(TilesError::Stage)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes more fit; nothing goes if they do not.
    fn make_room(&self, shelf: &mut Shelf, bytes: u64) -> Result<(), TilesError> {
        let in_use = shelf.in_use();
        if bytes > 0 && in_use.saturating_add(bytes) > self.bytes_max {
            return Err(TilesError::Full { dir: self.dir.clone(), bytes, bytes_max: self.bytes_max, in_use });
        }
        while shelf.bytes().saturating_add(bytes) > self.bytes_max {
            let Some(object) = shelf.idle() else { break };
            self.objects.remove(object)?;
            shelf.tiles.remove(&object);
        }
        Ok(())
    }
}

/// For what writes bytes.
struct Body<'a>(Box<dyn ObjectWriter + 'a>);

impl io::Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Are these the bytes of the manifest?
fn check(manifest: &Manifest, bytes: &[u8]) -> Result<(), ObjectFault> {
    let damaged = |why: String| ObjectFault::Damaged { object: manifest.id(), why };
    if bytes.len() as u64 != manifest.bytes() {
        return Err(damaged(format!("{} bytes expected, got {}", manifest.bytes(), bytes.len())));
    }
    let mut chunks = (0..).zip(bytes.chunks(CHUNK_BYTES));
    chunks.try_for_each(|(index, chunk)| manifest.check(index, chunk)).map_err(|e| damaged(e.to_string()))
}

fn disk(path: &Path, error: &io::Error) -> ObjectFault {
    ObjectFault::Disk(format!("{}: {error}", path.display()))
}
