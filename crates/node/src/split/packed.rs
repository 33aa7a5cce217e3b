//! Which tiles a model's file becomes: a note per model, so that a file of gigabytes is hashed and packed once only.
//!
//! ```text
//! DIR/models/DIGEST.toml
//! ```
//! Notes are believed as far as they go: a tile that they name is checked as any other when it is opened, and a note that is
//! damaged, or of other kernels, is made anew.

use crate::models::{Digest, Fault, write_whole};
use littoral_tensor::quant::KERNELS;
use littoral_wire::ObjectId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A thousand layers have 70 kB.
const NOTE_BYTES_MAX: u64 = 256 << 10;
/// Files that are known to be one model; the last ones stay.
const FILES_MAX: usize = 16;

/// A file's identity and when it was last written to: as long as it is this, it is taken to have the same bytes. A text, since
/// numbers in TOML end at 63 bits, and those of files do not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Stamp(String);

impl Stamp {
    pub(super) fn of(file: &Metadata) -> Self {
        let (written_s, written_ns) = (file.mtime(), file.mtime_nsec());
        Self(format!("{}-{}-{}-{written_s}.{written_ns:09}", file.dev(), file.ino(), file.len()))
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Note {
    kernels: String,
    /// By layer; empty: not packed yet.
    tiles: Vec<String>,
    #[serde(default)]
    files: Vec<Stamp>,
}

#[derive(Debug)]
pub(super) struct Packed {
    dir: PathBuf,
    /// Who changes a note has it.
    writing: Mutex<()>,
}

impl Packed {
    pub(super) fn open(dir: PathBuf) -> Result<Self, Fault> {
        fs::create_dir_all(&dir).map_err(|e| Fault::disk(&dir, &e))?;
        Ok(Self { dir, writing: Mutex::default() })
    }

    /// The tiles of a model as far as they are known, by layer.
    pub(super) fn tiles(&self, model: &Digest) -> Vec<Option<ObjectId>> {
        self.note(model).tiles.iter().map(|id| id.parse().ok()).collect()
    }

    pub(super) fn put_tile(&self, model: &Digest, layer: usize, layers: usize, object: ObjectId) -> Result<(), Fault> {
        self.change(model, |note| {
            note.tiles.resize(layers, String::new());
            note.tiles[layer] = object.to_string();
        })
    }

    /// The SHA-256 of a model's file, read at most once as long as nobody writes to it.
    pub(super) fn digest_of(&self, path: &Path) -> Result<Digest, Fault> {
        let on_disk = |e: io::Error| Fault::disk(path, &e);
        let stamp = |path| Ok(Stamp::of(&fs::metadata(path).map_err(on_disk)?));
        let before = stamp(path)?;
        for name in
            fs::read_dir(&self.dir).map_err(|e| Fault::disk(&self.dir, &e))?.flatten().map(|file| file.file_name())
        {
            let model = name.to_str().and_then(|name| name.strip_suffix(".toml")).and_then(|name| name.parse().ok());
            if let Some(model) = model
                && self.note(&model).files.contains(&before)
            {
                return Ok(model);
            }
        }
        let model = Digest::of_file(path).map_err(on_disk)?;
        // What was written to while it was read is not noted.
        if stamp(path)? == before {
            self.change(&model, |note| {
                note.files.push(before);
                note.files.drain(..note.files.len().saturating_sub(FILES_MAX));
            })?;
        }
        Ok(model)
    }

    /// An empty one where there is none of this release's kernels.
    fn note(&self, model: &Digest) -> Note {
        let read = || -> Option<Note> {
            let path = self.path(model);
            let file = File::open(&path).ok()?;
            let text = (file.metadata().ok()?.len() <= NOTE_BYTES_MAX).then(|| io::read_to_string(file).ok())??;
            toml::from_str(&text).ok()
        };
        let mut note = read().unwrap_or_default();
        if note.kernels != KERNELS {
            note.tiles.clear();
            note.kernels = KERNELS.into();
        }
        note
    }

    fn change(&self, model: &Digest, change: impl FnOnce(&mut Note)) -> Result<(), Fault> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut note = self.note(model);
        change(&mut note);
        let path = self.path(model);
        let text = toml::to_string(&note).map_err(|e| Fault::disk(&path, &io::Error::other(e)))?;
        write_whole(&path, text.as_bytes())
    }

    fn path(&self, model: &Digest) -> PathBuf {
        self.dir.join(format!("{model}.toml"))
    }
}
