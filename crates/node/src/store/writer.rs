//! Writes a new object from front to back, hashing as it goes.

use super::objects::{FileObjects, disk};
use crate::work::{ObjectFault, ObjectWriter};
use littoral_wire::object::{CHUNK_BYTES, Manifest, chunk_hash};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Holds one chunk; the rest is in a file without a final name, which goes away with the writer.
pub(super) struct FileWriter<'a> {
    objects: &'a FileObjects,
    path: PathBuf,
    file: File,
    chunk: Vec<u8>,
    bytes: u64,
    hashes: Vec<[u8; 32]>,
}

impl<'a> FileWriter<'a> {
    pub(super) fn create(objects: &'a FileObjects) -> Result<Self, ObjectFault> {
        let path = objects.new_path();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(|e| disk(&path, &e))?;
        Ok(Self { objects, path, file, chunk: Vec::with_capacity(CHUNK_BYTES), bytes: 0, hashes: Vec::new() })
    }

    /// All is written; nothing may follow.
    pub(super) fn close(&mut self) -> Result<Manifest, ObjectFault> {
        if !self.chunk.is_empty() {
            self.flush_chunk()?;
        }
        let hashes = std::mem::take(&mut self.hashes);
        Manifest::from_hashes(self.bytes, hashes).map_err(|e| ObjectFault::Disk(e.to_string()))
    }

    /// The file, which the caller looks after from now on.
    pub(super) fn keep(&mut self) -> PathBuf {
        std::mem::take(&mut self.path)
    }

    fn flush_chunk(&mut self) -> Result<(), ObjectFault> {
        self.hashes.push(chunk_hash(&self.chunk));
        self.file.write_all(&self.chunk).map_err(|e| disk(&self.path, &e))?;
        self.bytes += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }
}

impl ObjectWriter for FileWriter<'_> {
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), ObjectFault> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            if self.chunk.len() == CHUNK_BYTES {
                self.flush_chunk()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Manifest, ObjectFault> {
        let manifest = self.close()?;
        self.objects.publish(&manifest, &self.path)?;
        Ok(manifest)
    }
}

impl Drop for FileWriter<'_> {
    fn drop(&mut self) {
        // Nothing is there after `finish` and `keep`.
        let _ = fs::remove_file(&self.path);
    }
}
