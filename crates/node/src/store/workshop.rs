//! Objects as a work sees them. What it makes has no name yet, and only that work can read it: it gets one when its host says so,
//! in the order of all else that happens to that object. Else a drop that was ordered earlier, for another job's equal bytes, could take it.

use super::ObjectStore;
use super::objects::{FileObjects, disk, read_exact_at};
use super::writer::FileWriter;
use crate::work::{ObjectFault, ObjectWriter, Objects};
use littoral_wire::ObjectId;
use littoral_wire::object::Manifest;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// For one work.
pub struct Workshop<'a> {
    objects: &'a dyn ObjectStore,
    made: Mutex<Vec<Made>>,
}

/// A whole object in a file without a final name, which goes away with this.
#[derive(Debug)]
pub struct Made {
    pub manifest: Manifest,
    path: PathBuf,
}

impl<'a> Workshop<'a> {
    pub fn new(objects: &'a dyn ObjectStore) -> Self {
        Self { objects, made: Mutex::default() }
    }

    /// What was made and finished, in order.
    pub fn into_made(self) -> Vec<Made> {
        self.made.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileObjects {
    /// The object is here from now on, under its manifest's id.
    pub fn publish_made(&self, made: &Made) -> Result<(), ObjectFault> {
        self.publish(&made.manifest, &made.path)
    }
}

impl Objects for Workshop<'_> {
    fn read(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), ObjectFault> {
        {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(made) = made.iter().find(|made| made.manifest.id() == object) {
                let file = File::open(&made.path).map_err(|e| disk(&made.path, &e))?;
                return read_exact_at(&file, &made.path, object, offset, out);
            }
        }
        self.objects.read(object, offset, out)
    }

    fn create(&self) -> Result<Box<dyn ObjectWriter + '_>, ObjectFault> {
        Ok(Box::new(Making { file: FileWriter::create(self.objects.folder())?, made: &self.made }))
    }
}

struct Making<'a> {
    file: FileWriter<'a>,
    made: &'a Mutex<Vec<Made>>,
}

impl ObjectWriter for Making<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectFault> {
        self.file.append(bytes)
    }

    fn finish(mut self: Box<Self>) -> Result<Manifest, ObjectFault> {
        let manifest = self.file.close()?;
        let made = Made { manifest: manifest.clone(), path: self.file.keep() };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
        Ok(manifest)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Nothing is there once it has its name.
        let _ = fs::remove_file(&self.path);
    }
}
