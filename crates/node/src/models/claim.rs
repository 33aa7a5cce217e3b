//! One process at a time fetches one file. Others wait, and then find it there. The operating system holds the claim, so
//! any death gives it back; what had arrived stays in the folder for the next who claims it.

use super::digest::Digest;
use super::fault::{Fault, on_disk};
use super::store::{Store, sync_folder_of};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The folder of a file's parts is ours while this lives.
#[derive(Debug)]
pub(super) struct Claim {
    dir: PathBuf,
    _lock: File,
}

impl Claim {
    /// Waits for whoever has it, after a word to the caller.
    pub(super) fn take(store: &Store, digest: &Digest, on_wait: &mut dyn FnMut()) -> Result<Self, Fault> {
        let dir = store.partial(digest);
        let path = dir.join("lock");
        loop {
            fs::create_dir_all(&dir).map_err(on_disk(&dir))?;
            let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            let lock = match opened {
                Ok(lock) => lock,
                // Its owner has just ended, and took the folder along.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Fault::disk(&path, &e)),
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    on_wait();
                    lock.lock().map_err(on_disk(&path))?;
                }
                Err(TryLockError::Error(e)) => return Err(Fault::disk(&path, &e)),
            }
            // A lock on a file that its last owner removed keeps nobody out.
            let ours = lock.metadata().map_err(on_disk(&path))?;
            if fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Self { dir, _lock: lock });
            }
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The whole, checked file gets its name.
    pub(super) fn publish(&self, part: &Path, blob: &Path) -> Result<(), Fault> {
        File::open(part).and_then(|file| file.sync_all()).map_err(on_disk(part))?;
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder).map_err(on_disk(folder))?;
        }
        fs::rename(part, blob).and_then(|()| sync_folder_of(blob)).map_err(on_disk(blob))
    }

    /// Nothing of what has arrived is needed any more.
    pub(super) fn clear(&self) -> Result<(), Fault> {
        self.others().try_for_each(|path| fs::remove_file(&path).map_err(on_disk(&path)))
    }

    /// The files beside the lock.
    fn others(&self) -> impl Iterator<Item = PathBuf> {
        let paths = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|file| file.path());
        paths.filter(|path| path.file_name().is_some_and(|name| name != "lock"))
    }
}

impl Drop for Claim {
    /// A folder in which nothing has arrived goes, its lock last: until then nobody else begins here.
    fn drop(&mut self) {
        for path in self.others() {
            if fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
                let _ = fs::remove_file(&path);
            }
        }
        if self.others().next().is_none() {
            let _ = fs::remove_file(self.dir.join("lock"));
            // Not empty where the next one has claimed it already.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}
