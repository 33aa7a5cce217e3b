//! Content-addressed objects as files: bodies that arrive in pieces, are checked, and appear when they are whole.
//!
//! ```text
//! DIR/arriving/ID            a sparse file with chunks at their offsets; which are there is found by hashing
//! DIR/arriving/ID.left       as ID, but nobody has asked for it in this run; swept at the next start
//! DIR/arriving/new-N         an object that is being written here, or a damaged one; swept at the next start
//! DIR/objects/ID             a whole body
//! DIR/objects/ID.manifest    its manifest, which hashes to ID
//! ```
//!
//! A manifest is in place before its body, and a body comes to its final name by a rename: what is under a final name
//! was whole. It is **durable** only after [`FileObjects::sync`]; what an earlier run left is hashed before
//! [`FileObjects::begin`] calls it whole, so a torn or rotten file is fetched again and never used. A manifest that a
//! power cut took is made again from its body.
//!
//! Manifests, objects that are whole in memory and renames go through `object_store`. It has no writes at an offset:
//! bodies that arrive chunk by chunk are written with `pwrite`. Its `LocalFileSystem` (0.14) can sync what it puts, at
//! once and one by one; it can neither sync a file that it did not write nor sync later. Bodies and their folder are
//! synced here, together, when a commit names them: a flush of the disk costs milliseconds.
//!
//! Calls block. No file stays open between calls and no body is ever in memory as a whole, but for one that is put.

use super::ObjectStore;
use super::writer::FileWriter;
use crate::work::{ObjectFault, ObjectWriter, Objects};
use littoral_wire::object::{CHUNK_BYTES, ChunkError, Manifest, chunk_hash};
use littoral_wire::{ObjectId, Wire};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStoreExt, PutPayload};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use thiserror::Error;

/// Chunk hashes in cached manifests: 2 MB.
const CACHED_HASHES_MAX: usize = 65_536;
/// Bodies that are synced at a time.
const SYNCS_MAX: usize = 8;

/// Objects in a folder of ours.
#[derive(Debug)]
pub struct FileObjects {
    dir: PathBuf,
    files: LocalFileSystem,
    arriving: Mutex<HashMap<ObjectId, Arc<Arriving>>>,
    /// Whole, and checked in this run.
    checked: Mutex<HashSet<ObjectId>>,
    manifests: Mutex<HashMap<ObjectId, Arc<Manifest>>>,
    news: AtomicU64,
}

#[derive(Debug)]
struct Arriving {
    manifest: Manifest,
    missing: Mutex<BTreeSet<u32>>,
}

/// What a start found that nobody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// Objects that are gone.
    pub dropped: usize,
    /// Partly arrived ones that stay for this run.
    pub left: usize,
}

/// Why a chunk was not kept.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum KeepFault {
    #[error("object {0}: nobody began to receive it")]
    NotBegun(ObjectId),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Disk(#[from] ObjectFault),
}

impl FileObjects {
    /// Makes the folders (mode 0700) and sweeps what a crash left half-written. The caller owns `dir`.
    pub fn open(dir: &Path) -> Result<Self, ObjectFault> {
        for name in ["arriving", "objects"] {
            let folder = dir.join(name);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|e| disk(&folder, &e))?;
        }
        let dir = dir.canonicalize().map_err(|e| disk(dir, &e))?;
        sync_path(&dir)?;
        let objects = Self {
            files: LocalFileSystem::new_with_prefix(&dir).map_err(|e| disk(&dir, &e))?,
            arriving: Mutex::default(),
            checked: Mutex::default(),
            manifests: Mutex::default(),
            news: AtomicU64::new(0),
            dir,
        };
        objects.sweep()?;
        Ok(objects)
    }

    /// Prepares to receive an object. Returns the chunks that are not here, ascending; none: it is whole.
    pub fn begin(&self, manifest: &Manifest) -> Result<Vec<u32>, ObjectFault> {
        let object = manifest.id();
        if lock(&self.checked).contains(&object) {
            return Ok(Vec::new());
        }
        if let Some(arriving) = lock(&self.arriving).get(&object) {
            return Ok(lock(&arriving.missing).iter().copied().collect());
        }
        if let Some(body) = self.open_body(object)? {
            if missing_chunks(&body, manifest).is_empty() {
                self.publish_manifest(manifest)?;
                lock(&self.checked).insert(object);
                return Ok(Vec::new());
            }
            let (from, to) = (self.body_path(object), self.arriving_path(object));
            fs::rename(&from, &to).map_err(|e| disk(&from, &e))?;
        }
        let (path, left) = (self.arriving_path(object), self.left_path(object));
        if !path.exists() && left.exists() {
            fs::rename(&left, &path).map_err(|e| disk(&left, &e))?;
        }
        let fresh = !path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(|e| disk(&path, &e))?;
        file.set_len(manifest.bytes()).map_err(|e| disk(&path, &e))?;
        let missing = if fresh { (0..manifest.chunks()).collect() } else { missing_chunks(&file, manifest) };
        if missing.is_empty() {
            self.publish(manifest, &path)?;
        } else {
            let arriving =
                Arriving { manifest: manifest.clone(), missing: Mutex::new(missing.iter().copied().collect()) };
            lock(&self.arriving).insert(object, Arc::new(arriving));
        }
        Ok(missing)
    }

    /// Checks a chunk and keeps it; with the last one the object is whole.
    pub fn keep(&self, object: ObjectId, index: u32, bytes: &[u8]) -> Result<(), KeepFault> {
        let Some(arriving) = lock(&self.arriving).get(&object).cloned() else {
            // A chunk that came twice, the second time after the last one.
            let whole = lock(&self.checked).contains(&object);
            return if whole { Ok(()) } else { Err(KeepFault::NotBegun(object)) };
        };
        arriving.manifest.check(index, bytes)?;
        let path = self.arriving_path(object);
        let file = OpenOptions::new().write(true).open(&path).map_err(|e| disk(&path, &e))?;
        file.write_all_at(bytes, u64::from(index) * CHUNK_BYTES as u64).map_err(|e| disk(&path, &e))?;
        let mut missing = lock(&arriving.missing);
        if missing.remove(&index) && missing.is_empty() {
            if let Err(e) = self.publish(&arriving.manifest, &path) {
                missing.insert(index);
                return Err(e.into());
            }
            lock(&self.arriving).remove(&object);
        }
        Ok(())
    }

    /// Keeps a whole object. The bytes must be what the manifest says.
    pub fn put(&self, manifest: &Manifest, bytes: Vec<u8>) -> Result<(), ObjectFault> {
        let object = manifest.id();
        if lock(&self.checked).contains(&object) {
            return Ok(());
        }
        let damaged = |why: String| ObjectFault::Damaged { object, why };
        if bytes.len() as u64 != manifest.bytes() {
            return Err(damaged(format!("{} bytes expected, got {}", manifest.bytes(), bytes.len())));
        }
        for (index, chunk) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
            manifest.check(index, chunk).map_err(|e| damaged(e.to_string()))?;
        }
        self.publish_manifest(manifest)?;
        let name = format!("objects/{object}").into();
        wait(self.files.put(&name, PutPayload::from(bytes))).map_err(|e| disk(&self.body_path(object), &e))?;
        lock(&self.checked).insert(object);
        lock(&self.arriving).remove(&object);
        Ok(())
    }

    /// One chunk of a whole object, checked against its manifest.
    pub fn chunk(&self, object: ObjectId, index: u32) -> Result<Vec<u8>, ObjectFault> {
        let manifest = self.manifest(object)?;
        let mut body = self.open_body(object)?.ok_or(ObjectFault::Missing(object))?;
        let (offset, count) = (u64::from(index) * CHUNK_BYTES as u64, manifest.chunk_bytes(index));
        let mut bytes = Vec::with_capacity(count);
        let read = body.seek(SeekFrom::Start(offset)).and_then(|_| body.take(count as u64).read_to_end(&mut bytes));
        read.map_err(|e| disk(&self.body_path(object), &e))?;
        manifest.check(index, &bytes).map_err(|e| ObjectFault::Damaged { object, why: e.to_string() })?;
        Ok(bytes)
    }

    /// Is the whole body what its manifest says? Hashed once in a run.
    fn check(&self, object: ObjectId) -> Result<(), ObjectFault> {
        if lock(&self.checked).contains(&object) {
            return Ok(());
        }
        let manifest = self.manifest(object)?;
        let body = self.open_body(object)?.ok_or(ObjectFault::Missing(object))?;
        match missing_chunks(&body, &manifest).as_slice() {
            [] => {
                lock(&self.checked).insert(object);
                Ok(())
            }
            [first, ..] => {
                Err(ObjectFault::Damaged { object, why: format!("chunk {first} of its file does not have its hash") })
            }
        }
    }

    /// The manifest of a whole object.
    pub fn manifest(&self, object: ObjectId) -> Result<Arc<Manifest>, ObjectFault> {
        if let Some(known) = lock(&self.manifests).get(&object) {
            return Ok(known.clone());
        }
        let path = self.manifest_path(object);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(disk(&path, &e)),
        };
        let read = Manifest::from_bytes(&bytes).ok().filter(|manifest| manifest.id() == object);
        let manifest = Arc::new(read.map_or_else(|| self.manifest_of_body(object), Ok)?);
        let mut cached = lock(&self.manifests);
        let hashes: usize = cached.values().map(|manifest| manifest.chunks() as usize).sum();
        if hashes + manifest.chunks() as usize > CACHED_HASHES_MAX || cached.len() >= CACHED_HASHES_MAX / 16 {
            cached.clear();
        }
        cached.insert(object, manifest.clone());
        Ok(manifest)
    }

    /// Makes whole objects durable: their bodies, and the folder that names them.
    pub fn sync(&self, objects: &[ObjectId]) -> Result<(), ObjectFault> {
        let sync_body = |object: ObjectId| match self.open_body(object)? {
            Some(body) => body.sync_all().map_err(|e| disk(&self.body_path(object), &e)),
            None => Err(ObjectFault::Missing(object)),
        };
        // Side by side: flushes at the same time share the disk's work.
        for some in objects.chunks(SYNCS_MAX) {
            thread::scope(|scope| {
                let (first, others) = some.split_first().expect("chunks are not empty");
                let others: Vec<_> = others.iter().map(|object| scope.spawn(|| sync_body(*object))).collect();
                let first = sync_body(*first);
                let join = |other: thread::ScopedJoinHandle<'_, Result<(), ObjectFault>>| match other.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                others.into_iter().map(join).fold(first, Result::and)
            })?;
        }
        if objects.is_empty() { Ok(()) } else { sync_path(&self.dir.join("objects")) }
    }

    /// Forgets an object, whole or in part.
    pub fn remove(&self, object: ObjectId) -> Result<(), ObjectFault> {
        lock(&self.arriving).remove(&object);
        lock(&self.checked).remove(&object);
        lock(&self.manifests).remove(&object);
        // The body first: a manifest without one says nothing.
        let arriving = [self.arriving_path(object), self.left_path(object)];
        for path in [self.body_path(object), self.manifest_path(object)].into_iter().chain(arriving) {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(disk(&path, &e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// At a start: removes what the last run left and nobody needs. What had partly arrived may be asked for again by
    /// somebody who does not know it yet, so it stays for this run; the next start removes it if nobody did.
    pub fn collect(&self, needed: impl Fn(ObjectId) -> bool) -> Result<Collected, ObjectFault> {
        let (mut unneeded, mut partial) = (BTreeSet::new(), BTreeSet::new());
        for name in self.names("objects")? {
            unneeded.extend(name.strip_suffix(".manifest").unwrap_or(&name).parse::<ObjectId>().ok());
        }
        for name in self.names("arriving")? {
            match name.strip_suffix(".left") {
                Some(left) => unneeded.extend(left.parse::<ObjectId>().ok()),
                None => partial.extend(name.parse::<ObjectId>().ok()),
            }
        }
        unneeded.retain(|object| !partial.contains(object) && !needed(*object));
        partial.retain(|object| !needed(*object));
        for object in &unneeded {
            self.remove(*object)?;
        }
        for object in &partial {
            let from = self.arriving_path(*object);
            fs::rename(&from, self.left_path(*object)).map_err(|e| disk(&from, &e))?;
        }
        Ok(Collected { dropped: unneeded.len(), left: partial.len() })
    }

    pub(super) fn new_path(&self) -> PathBuf {
        self.dir.join(format!("arriving/new-{}", self.news.fetch_add(1, Ordering::Relaxed)))
    }

    /// Gives a whole and checked body its final name.
    pub(super) fn publish(&self, manifest: &Manifest, from: &Path) -> Result<(), ObjectFault> {
        let object = manifest.id();
        self.publish_manifest(manifest)?;
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let (source, target) = (format!("arriving/{name}").into(), format!("objects/{object}").into());
        wait(self.files.rename(&source, &target)).map_err(|e| disk(from, &e))?;
        lock(&self.checked).insert(object);
        Ok(())
    }

    fn publish_manifest(&self, manifest: &Manifest) -> Result<(), ObjectFault> {
        let object = manifest.id();
        let name = format!("objects/{object}.manifest").into();
        wait(self.files.put(&name, PutPayload::from(manifest.to_bytes())))
            .map_err(|e| disk(&self.manifest_path(object), &e))?;
        Ok(())
    }

    /// The manifest that a body has, if it is the object's.
    fn manifest_of_body(&self, object: ObjectId) -> Result<Manifest, ObjectFault> {
        let mut body = self.open_body(object)?.ok_or(ObjectFault::Missing(object))?;
        let (mut chunk, mut bytes, mut hashes) = (Vec::with_capacity(CHUNK_BYTES), 0, Vec::new());
        loop {
            chunk.clear();
            let read = body.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
            match read.map_err(|e| disk(&self.body_path(object), &e))? {
                0 => break,
                count => bytes += count as u64,
            }
            hashes.push(chunk_hash(&chunk));
        }
        let manifest = Manifest::from_hashes(bytes, hashes).ok().filter(|manifest| manifest.id() == object);
        let why = || "neither its manifest nor its bytes hash to its id".to_owned();
        let manifest = manifest.ok_or_else(|| ObjectFault::Damaged { object, why: why() })?;
        self.publish_manifest(&manifest)?;
        Ok(manifest)
    }

    fn open_body(&self, object: ObjectId) -> Result<Option<File>, ObjectFault> {
        let path = self.body_path(object);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(disk(&path, &e)),
        }
    }

    fn sweep(&self) -> Result<(), ObjectFault> {
        let half_written = |name: &String| name.starts_with("new-") || name.contains('#');
        for folder in ["objects", "arriving"] {
            for name in self.names(folder)?.into_iter().filter(half_written) {
                let path = self.dir.join(folder).join(name);
                fs::remove_file(&path).map_err(|e| disk(&path, &e))?;
            }
        }
        Ok(())
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, ObjectFault> {
        let folder = self.dir.join(folder);
        let name =
            |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        fs::read_dir(&folder).and_then(|entries| entries.map(name).collect()).map_err(|e| disk(&folder, &e))
    }

    /// Where a whole body lies.
    pub(crate) fn body_path(&self, object: ObjectId) -> PathBuf {
        self.dir.join(format!("objects/{object}"))
    }

    fn manifest_path(&self, object: ObjectId) -> PathBuf {
        self.dir.join(format!("objects/{object}.manifest"))
    }

    fn left_path(&self, object: ObjectId) -> PathBuf {
        self.dir.join(format!("arriving/{object}.left"))
    }

    fn arriving_path(&self, object: ObjectId) -> PathBuf {
        self.dir.join(format!("arriving/{object}"))
    }
}

impl Objects for FileObjects {
    /// What an earlier run left is hashed before the first byte of it is used.
    fn read(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), ObjectFault> {
        self.check(object)?;
        let body = self.open_body(object)?.ok_or(ObjectFault::Missing(object))?;
        read_exact_at(&body, &self.body_path(object), object, offset, out)
    }

    fn create(&self) -> Result<Box<dyn ObjectWriter + '_>, ObjectFault> {
        Ok(Box::new(FileWriter::create(self)?))
    }
}

impl ObjectStore for FileObjects {
    fn folder(&self) -> &FileObjects {
        self
    }

    fn begin(&self, manifest: &Manifest) -> Result<Vec<u32>, ObjectFault> {
        self.begin(manifest)
    }

    fn chunk(&self, object: ObjectId, index: u32) -> Result<Vec<u8>, ObjectFault> {
        self.chunk(object, index)
    }

    fn sync(&self, objects: &[ObjectId]) -> Result<(), ObjectFault> {
        self.sync(objects)
    }

    fn remove(&self, object: ObjectId) -> Result<(), ObjectFault> {
        self.remove(object)
    }
}

fn sync_path(path: &Path) -> Result<(), ObjectFault> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| disk(path, &e))
}

/// Chunks of `file` that are not what the manifest says. A chunk that cannot be read is one that is missing.
fn missing_chunks(file: &File, manifest: &Manifest) -> Vec<u32> {
    let mut bytes = vec![0; CHUNK_BYTES];
    let mut here = |index: u32| {
        let bytes = &mut bytes[..manifest.chunk_bytes(index)];
        file.read_exact_at(bytes, u64::from(index) * CHUNK_BYTES as u64).is_ok() && manifest.check(index, bytes).is_ok()
    };
    (0..manifest.chunks()).filter(|index| !here(*index)).collect()
}

/// Fills `out` from an object's bytes, which are those of this file.
pub(super) fn read_exact_at(
    file: &File,
    path: &Path,
    object: ObjectId,
    offset: u64,
    out: &mut [u8],
) -> Result<(), ObjectFault> {
    file.read_exact_at(out, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            let got = file.metadata().map_or(0, |data| data.len());
            let why = format!("bytes {offset} to {} were asked for, it has {got}", offset + out.len() as u64);
            ObjectFault::Damaged { object, why }
        }
        _ => disk(path, &e),
    })
}

/// One line: the file, and the operating system's own words if it has any.
pub(super) fn disk(path: &Path, error: &(dyn Error + 'static)) -> ObjectFault {
    let mut cause = Some(error);
    while let Some(at) = cause {
        if let Some(e) = at.downcast_ref::<io::Error>()
            && e.raw_os_error().is_some()
        {
            return ObjectFault::Disk(format!("{}: {e}", path.display()));
        }
        cause = at.source();
    }
    ObjectFault::Disk(format!("{}: {}", path.display(), error.to_string().replace('\n', " ")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks until a future of `object_store` is done. Outside of a runtime its local files are ready at the first poll;
/// inside, it hands them to a blocking thread and the future must not share the task's budget: when that is used up,
/// tokio wakes nobody before the task yields, and this never does.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}
