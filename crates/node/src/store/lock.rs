//! One process per directory, held by the operating system and so given back by any death.

use super::StoreError;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The directory is ours while this lives.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Makes the directory if it is missing (mode 0700) and takes it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with the number of the process that has it; [`StoreError::Disk`].
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let disk = |e: std::io::Error| StoreError::Disk { path: dir.to_owned(), why: e.to_string() };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(disk)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(dir.join("lock")).map_err(disk)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // What the owner wrote: for the message only.
                let _ = file.take(20).read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "(unknown)".to_owned() } else { pid.trim().to_owned() };
                return Err(StoreError::InUse { dir: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(e)) => return Err(disk(e)),
        }
        file.set_len(0).map_err(disk)?;
        file.rewind().map_err(disk)?;
        file.write_all(std::process::id().to_string().as_bytes()).map_err(disk)?;
        Ok(Self { _file: file })
    }
}
