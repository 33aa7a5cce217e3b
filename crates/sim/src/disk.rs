//! A machine's disk: rows and objects, and what of them a crash takes.
//!
//! Rows are here only once they are durable: a [`Disk::commit`] happens whole or not at all. Objects are written
//! before they are synced; a crash leaves of an unsynced object any of its chunks, some torn, and whoever begins to
//! receive it again finds the good ones by their hashes. What was synced stays, unless the simulation damages it: then
//! a read says so, as the real store does, which checks hashes.

use crate::stream::Stream;
use bytes::Bytes;
use littoral_node::role::{Row, RowKey, Table, Write};
use littoral_node::work::{ObjectFault, ObjectWriter, Objects};
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, ObjectId};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A whole object.
#[derive(Debug)]
pub struct Content {
    pub manifest: Manifest,
    /// As they were written.
    pub bytes: Bytes,
    /// Bits have flipped since: whoever reads finds that a hash does not fit. Nobody but checkers sees `bytes` then.
    damaged: bool,
}

impl Content {
    pub fn new(manifest: Manifest, bytes: impl Into<Bytes>) -> Self {
        Self { manifest, bytes: bytes.into(), damaged: false }
    }
}

impl Content {
    /// Are these bytes this sound object's chunk, in one place in memory?
    pub fn has(&self, index: u32, bytes: &[u8]) -> bool {
        let place = (index < self.manifest.chunks()).then(|| range(&self.manifest, index));
        let own = place.and_then(|place| self.bytes.get(place));
        !self.damaged && own.is_some_and(|own| std::ptr::eq(own, bytes))
    }
}

#[derive(Clone, Debug)]
struct Whole {
    content: Arc<Content>,
    synced: bool,
}

/// An object of which chunks are missing, or may be.
#[derive(Debug)]
struct Spool {
    manifest: Manifest,
    body: Body,
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
enum Body {
    /// Another machine has it whole: what arrives is compared with that, and takes no room of its own.
    Known(Arc<Content>),
    Own(Vec<u8>),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Known(content) => &content.bytes,
            Self::Own(bytes) => bytes,
        }
    }

    fn slice(&self, range: Range<usize>) -> Bytes {
        match self {
            Self::Known(content) => content.bytes.slice(range),
            Self::Own(bytes) => Bytes::copy_from_slice(&bytes[range]),
        }
    }
}

/// Are these the same bytes? Of one place in memory that is plain.
fn same(a: &[u8], b: &[u8]) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// The whole objects of all machines, so that a model which a thousand devices have is in memory once.
#[derive(Debug, Default)]
pub struct Library {
    contents: HashMap<ObjectId, Weak<Content>>,
    /// Entries when those of objects that are gone were last taken out.
    swept: usize,
}

impl Library {
    fn find(&self, object: ObjectId) -> Option<Arc<Content>> {
        self.contents.get(&object)?.upgrade().filter(|content| !content.damaged)
    }

    pub fn add(&mut self, object: ObjectId, disk: &Disk) {
        if let Some(content) = disk.content(object).filter(|content| !content.damaged) {
            self.contents.insert(object, Arc::downgrade(content));
        }
        if self.contents.len() > 2 * self.swept + 1_000 {
            self.contents.retain(|_, content| content.strong_count() > 0);
            self.swept = self.contents.len();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Missing,
    Kept,
    /// Written before a crash: only its hash can tell.
    Suspect,
}

#[derive(Debug, Default)]
pub struct Disk {
    rows: BTreeMap<RowKey, Vec<u8>>,
    whole: BTreeMap<ObjectId, Whole>,
    spools: BTreeMap<ObjectId, Spool>,
    /// Nothing can be written at present.
    full: bool,
}

impl Disk {
    // ---- rows ----

    pub fn rows(&self) -> Vec<Row> {
        self.rows.iter().map(|(key, value)| Row { key: key.clone(), value: value.clone() }).collect()
    }

    pub fn row(&self, key: &RowKey) -> Option<&[u8]> {
        self.rows.get(key).map(Vec::as_slice)
    }

    /// Is there any row in this table?
    pub fn holds(&self, table: Table) -> bool {
        self.jobs_in(table).next().is_some()
    }

    /// The job of each row in this table.
    pub fn jobs_in(&self, table: Table) -> impl Iterator<Item = JobId> + '_ {
        self.rows.keys().filter(move |key| key.table == table).map(|key| key.job)
    }

    /// Before the first start: what an installation leaves.
    pub fn install(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| (row.key, row.value)));
    }

    /// All of the writes, durably. Returns objects that should have been made durable and are not here.
    pub fn commit(&mut self, writes: &[Write]) -> Vec<ObjectId> {
        let mut absent = Vec::new();
        for write in writes {
            match write {
                Write::Put { key, value } => {
                    self.rows.insert(key.clone(), value.clone());
                }
                Write::Delete { key } => {
                    self.rows.remove(key);
                }
                Write::Object(object) => match self.whole.get_mut(object) {
                    Some(whole) => whole.synced = true,
                    None => absent.push(*object),
                },
            }
        }
        absent
    }

    // ---- objects ----

    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    pub fn objects(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.whole.keys().copied()
    }

    /// A whole object, damaged or not.
    pub fn content(&self, object: ObjectId) -> Option<&Arc<Content>> {
        self.whole.get(&object).map(|whole| &whole.content)
    }

    /// Chunks that are missing, ascending; none if the object is whole.
    pub fn begin(&mut self, manifest: Manifest, library: &Library) -> (ObjectId, Vec<u32>) {
        let object = manifest.id();
        if let Some(whole) = self.whole.get(&object) {
            if !whole.content.damaged {
                return (object, Vec::new());
            }
            self.whole.remove(&object);
        }
        let chunks = manifest.chunks();
        let spool = self.spools.entry(object).or_insert_with(|| Spool {
            body: library.find(object).map_or_else(|| Body::Own(vec![0; manifest.bytes() as usize]), Body::Known),
            chunks: vec![Chunk::Missing; chunks as usize],
            manifest,
        });
        for index in 0..chunks {
            if spool.chunks[index as usize] == Chunk::Suspect {
                let good = spool.manifest.check(index, &spool.body.bytes()[range(&spool.manifest, index)]).is_ok();
                spool.chunks[index as usize] = if good { Chunk::Kept } else { Chunk::Missing };
            }
        }
        let missing = (0..chunks).filter(|&i| spool.chunks[i as usize] != Chunk::Kept).collect::<Vec<_>>();
        if missing.is_empty() {
            self.complete(object);
        }
        (object, missing)
    }

    /// Why not, if not.
    pub fn keep(&mut self, object: ObjectId, index: u32, bytes: &[u8]) -> Result<(), String> {
        if self.full {
            return Err("the disk is full".into());
        }
        if self.whole.contains_key(&object) {
            return Ok(());
        }
        let Some(spool) = self.spools.get_mut(&object) else {
            return Err(format!("object {object} was not begun"));
        };
        let place = range(&spool.manifest, index);
        match &mut spool.body {
            Body::Known(content)
                if !bytes.is_empty() && content.bytes.get(place.clone()).is_some_and(|known| same(known, bytes)) => {}
            // Wrong ones are told so.
            Body::Known(_) => spool.manifest.check(index, bytes).map_err(|e| e.to_string())?,
            Body::Own(own) => {
                spool.manifest.check(index, bytes).map_err(|e| e.to_string())?;
                own[place].copy_from_slice(bytes);
            }
        }
        spool.chunks[index as usize] = Chunk::Kept;
        if spool.chunks.iter().all(|chunk| *chunk == Chunk::Kept) {
            self.complete(object);
        }
        Ok(())
    }

    fn complete(&mut self, object: ObjectId) {
        match self.spools.remove(&object) {
            Some(Spool { body: Body::Known(content), .. }) => self.place(object, content),
            Some(Spool { manifest, body: Body::Own(bytes), .. }) => self.put(object, manifest, bytes),
            None => {}
        }
    }

    pub fn put(&mut self, object: ObjectId, manifest: Manifest, bytes: Vec<u8>) {
        self.place(object, Arc::new(Content::new(manifest, bytes)));
    }

    fn place(&mut self, object: ObjectId, content: Arc<Content>) {
        self.spools.remove(&object);
        let synced = self.whole.get(&object).is_some_and(|whole| whole.synced && !whole.content.damaged);
        self.whole.insert(object, Whole { content, synced });
    }

    pub fn forget(&mut self, object: ObjectId) {
        self.whole.remove(&object);
        self.spools.remove(&object);
    }

    /// A chunk of an object that is whole and sound, or of which this chunk is here.
    pub fn chunk(&self, object: ObjectId, index: u32) -> Option<Bytes> {
        if let Some(whole) = self.whole.get(&object) {
            let content = &whole.content;
            let here = index < content.manifest.chunks() && !content.damaged;
            return here.then(|| content.bytes.slice(range(&content.manifest, index)));
        }
        let spool = self.spools.get(&object)?;
        (spool.chunks.get(index as usize) == Some(&Chunk::Kept))
            .then(|| spool.body.slice(range(&spool.manifest, index)))
    }

    /// What works may read, as it is now.
    pub fn shelf(&self) -> Shelf {
        Shelf {
            objects: self.whole.iter().map(|(id, whole)| (*id, Arc::clone(&whole.content))).collect(),
            full: self.full,
            made: Mutex::new(Vec::new()),
        }
    }

    // ---- misfortunes ----

    /// The machine stops. Unsynced chunks are there, torn, or gone.
    pub fn crash(&mut self, chance: &mut Stream) {
        let unsynced: Vec<ObjectId> = self.whole.iter().filter(|(_, w)| !w.synced).map(|(id, _)| *id).collect();
        for object in unsynced {
            if let Some(whole) = self.whole.remove(&object) {
                let Content { manifest, bytes, damaged } = Arc::try_unwrap(whole.content).unwrap_or_else(|shared| {
                    Content { manifest: shared.manifest.clone(), bytes: shared.bytes.clone(), damaged: shared.damaged }
                });
                let chunk = if damaged { Chunk::Missing } else { Chunk::Kept };
                let chunks = vec![chunk; manifest.chunks() as usize];
                self.spools.insert(object, Spool { manifest, body: Body::Own(bytes.into()), chunks });
            }
        }
        for spool in self.spools.values_mut() {
            for index in 0..spool.manifest.chunks() {
                let place = range(&spool.manifest, index);
                let chunk = &mut spool.chunks[index as usize];
                if *chunk == Chunk::Missing {
                    continue;
                }
                *chunk = Chunk::Suspect;
                match chance.below(4) {
                    0 => *chunk = Chunk::Missing,
                    1 => {
                        // Torn: the front was written, the rest was not.
                        let written = chance.below(place.len() as u64) as usize;
                        if let Body::Known(content) = &spool.body {
                            spool.body = Body::Own(content.bytes.to_vec());
                        }
                        if let Body::Own(own) = &mut spool.body {
                            own[place][written..].fill(0);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Flips bits of a whole object. Returns false if there is none to flip.
    pub fn damage(&mut self, chance: &mut Stream) -> bool {
        let candidates: Vec<ObjectId> =
            self.whole.iter().filter(|(_, w)| !w.content.bytes.is_empty()).map(|(id, _)| *id).collect();
        if candidates.is_empty() {
            return false;
        }
        let object = candidates[chance.below(candidates.len() as u64) as usize];
        let Some(whole) = self.whole.get_mut(&object) else { return false };
        let Content { manifest, bytes, .. } = &*whole.content;
        whole.content = Arc::new(Content { manifest: manifest.clone(), bytes: bytes.clone(), damaged: true });
        true
    }

    /// Rows and objects, for comparing two runs.
    pub fn digest(&self, hash: &mut blake3::Hasher) {
        for (key, value) in &self.rows {
            hash.update(key.table.name().as_bytes());
            hash.update(&key.job.0.to_le_bytes());
            hash.update(&key.version.to_le_bytes());
            hash.update(&(key.item.len() as u64).to_le_bytes());
            hash.update(&key.item);
            hash.update(&(value.len() as u64).to_le_bytes());
            hash.update(value);
        }
        for (object, whole) in &self.whole {
            hash.update(&object.0);
            hash.update(&[u8::from(whole.synced), u8::from(whole.content.damaged)]);
        }
    }
}

/// Where chunk `index` lies. An index past the end gives an empty range.
fn range(manifest: &Manifest, index: u32) -> std::ops::Range<usize> {
    let start = (index as usize * littoral_wire::object::CHUNK_BYTES).min(manifest.bytes() as usize);
    start..start + manifest.chunk_bytes(index)
}

/// The objects of a disk at one moment, and those that a work makes. Works run on other threads while virtual time
/// goes on; what they see is what was there when they were ordered, whatever happens meanwhile.
#[derive(Debug)]
pub struct Shelf {
    objects: BTreeMap<ObjectId, Arc<Content>>,
    full: bool,
    made: Mutex<Vec<(Manifest, Vec<u8>)>>,
}

impl Shelf {
    /// With these on it, and room for more.
    pub fn of(objects: impl Iterator<Item = Arc<Content>>) -> Self {
        let objects = objects.map(|content| (content.manifest.id(), content)).collect();
        Self { objects, full: false, made: Mutex::default() }
    }

    /// An object, as it was written.
    pub fn sound(&self, object: ObjectId) -> Option<Arc<Content>> {
        self.objects.get(&object).filter(|content| !content.damaged).cloned()
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    /// What the work made, in order.
    pub fn into_made(self) -> Vec<(Manifest, Vec<u8>)> {
        self.made.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects for Shelf {
    fn read(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), ObjectFault> {
        let copy = |bytes: &[u8], out: &mut [u8]| {
            let start = usize::try_from(offset).ok();
            let part = start.and_then(|start| bytes.get(start..start.checked_add(out.len())?));
            let why = || format!("bytes {offset} to {} of {} were asked for", offset + out.len() as u64, bytes.len());
            let part = part.ok_or_else(|| ObjectFault::Damaged { object, why: why() })?;
            out.copy_from_slice(part);
            Ok(())
        };
        if let Some(content) = self.objects.get(&object) {
            if content.damaged {
                return Err(ObjectFault::Damaged { object, why: "a chunk does not have its hash".into() });
            }
            return copy(&content.bytes, out);
        }
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match made.iter().find(|(manifest, _)| manifest.id() == object) {
            Some((_, bytes)) => copy(bytes, out),
            None => Err(ObjectFault::Missing(object)),
        }
    }

    fn create(&self) -> Result<Box<dyn ObjectWriter + '_>, ObjectFault> {
        if self.full {
            return Err(ObjectFault::Disk("the disk is full".into()));
        }
        // What is made is mostly as big as what is read: room for it at once, so that it is not moved as it grows.
        let room = self.objects.values().map(|content| content.bytes.len()).max().unwrap_or(0);
        Ok(Box::new(ShelfWriter { shelf: self, bytes: Vec::with_capacity(room + room / 16) }))
    }
}

struct ShelfWriter<'a> {
    shelf: &'a Shelf,
    bytes: Vec<u8>,
}

impl ObjectWriter for ShelfWriter<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectFault> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Manifest, ObjectFault> {
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
        let manifest = Manifest::of(&self.bytes).map_err(|e| ObjectFault::Disk(e.to_string()))?;
        let mut made = self.shelf.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push((manifest.clone(), self.bytes));
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_wire::object::CHUNK_BYTES;

    fn object(chunks: usize) -> (Manifest, Vec<u8>) {
        let bytes: Vec<u8> = (0..chunks * CHUNK_BYTES - 7).map(|i| (i % 251) as u8).collect();
        (Manifest::of(&bytes).unwrap(), bytes)
    }

    #[test]
    fn a_crash_takes_what_was_not_synced_and_nothing_else() {
        let mut chance = Stream::new(3, "disk");
        let (manifest, bytes) = object(16);
        let id = manifest.id();
        let mut disk = Disk::default();
        disk.put(id, manifest.clone(), bytes.clone());
        assert!(disk.commit(&[Write::Object(id)]).is_empty());
        disk.crash(&mut chance);
        assert_eq!(disk.content(id).unwrap().bytes, bytes);

        let mut disk = Disk::default();
        disk.put(id, manifest.clone(), bytes.clone());
        disk.crash(&mut chance);
        assert!(disk.content(id).is_none() && disk.chunk(id, 0).is_none());
        assert_eq!(disk.commit(&[Write::Object(id)]), [id], "it cannot be made durable any more");
        let (_, missing) = disk.begin(manifest.clone(), &Library::default());
        assert!((1..16).contains(&missing.len()), "some chunks survived, torn ones are known: {missing:?}");
        for index in missing {
            assert!(disk.keep(id, index, b"something else").is_err());
            disk.keep(id, index, &bytes[range(&manifest, index)]).unwrap();
        }
        assert_eq!(disk.content(id).unwrap().bytes, bytes);
    }

    #[test]
    fn damage_is_noticed_and_mended_by_receiving_again() {
        let (manifest, bytes) = object(1);
        let id = manifest.id();
        let mut disk = Disk::default();
        disk.put(id, manifest.clone(), bytes.clone());
        assert!(disk.damage(&mut Stream::new(1, "damage")));
        assert_eq!(disk.chunk(id, 0), None);
        assert!(matches!(disk.shelf().read(id, 0, &mut [0; 4]), Err(ObjectFault::Damaged { .. })));
        assert_eq!(disk.begin(manifest, &Library::default()).1, [0]);
        disk.keep(id, 0, &bytes).unwrap();
        assert_eq!(disk.chunk(id, 0), Some(bytes.clone().into()));
    }

    #[test]
    fn a_full_disk_refuses_and_a_shelf_stays_as_it_was() {
        let (manifest, bytes) = object(1);
        let id = manifest.id();
        let mut disk = Disk::default();
        disk.begin(manifest, &Library::default());
        disk.set_full(true);
        assert!(disk.keep(id, 0, &bytes).is_err() && disk.shelf().create().is_err());
        disk.set_full(false);
        disk.keep(id, 0, &bytes).unwrap();
        let shelf = disk.shelf();
        disk.forget(id);
        let mut out = [0; 3];
        shelf.read(id, 5, &mut out).unwrap();
        assert_eq!(out, bytes[5..8]);
        assert!(shelf.read(id, bytes.len() as u64 - 2, &mut out).is_err(), "past the end");
        let mut writer = shelf.create().unwrap();
        writer.append(b"new").unwrap();
        let made = writer.finish().unwrap();
        shelf.read(made.id(), 0, &mut out).unwrap();
        assert_eq!(&out, b"new");
        assert_eq!(shelf.into_made().len(), 1);
    }
}
