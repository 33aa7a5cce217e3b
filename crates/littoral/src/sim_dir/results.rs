//! What came of devices' works, in one file that only grows, written by the process that has the folder.
//!
//! ```text
//! file    = magic (24 bytes), run (32), record*
//! record  = length u64, key (32), digest (32), check (8), result (length bytes)
//! ```
//!
//! `digest` is BLAKE3 of key and result, `check` the first bytes of that of what stands before it. Nothing is synced: what a crash
//! tore off the end is cut off, and a record that a power cut spoiled does not have its digest. Both are computed again.

use crate::output::{Failure, talk};
use littoral_sim::assignment::{Key, RunId};
use littoral_sim::workers::Results;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAGIC: &[u8; 24] = b"littoral sim results 1\n\0";
const START: u64 = 24 + 32;
const HEAD: usize = 8 + 32 + 32 + 8;
/// A device's update and state.
const RESULT_BYTES_MAX: u64 = 16 << 30;

pub struct ResultsFile {
    file: File,
    place: String,
    inner: Mutex<Inner>,
    /// Of the result that was seen last, for who reckons how many to carry at a time.
    typical_bytes: AtomicU64,
}

struct Inner {
    /// Where results begin, and how long they are.
    index: HashMap<Key, (u64, u64)>,
    end: u64,
    /// Nothing more can be written.
    full: bool,
}

struct Head {
    len: u64,
    key: Key,
    digest: [u8; 32],
}

impl Head {
    fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..40].copy_from_slice(&self.key.0);
        bytes[40..72].copy_from_slice(&self.digest);
        let check = blake3::hash(&bytes[..72]);
        bytes[72..].copy_from_slice(&check.as_bytes()[..8]);
        bytes
    }

    fn read(bytes: &[u8; HEAD]) -> Option<Self> {
        let (mut len, mut key, mut digest) = ([0; 8], [0; 32], [0; 32]);
        len.copy_from_slice(&bytes[..8]);
        key.copy_from_slice(&bytes[8..40]);
        digest.copy_from_slice(&bytes[40..72]);
        let head = Self { len: u64::from_le_bytes(len), key: Key(key), digest };
        (head.bytes() == *bytes && head.len <= RESULT_BYTES_MAX).then_some(head)
    }
}

fn digest(key: &Key, result: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&key.0).update(result).finalize().as_bytes()
}

impl ResultsFile {
    /// Opens or makes the file, and cuts off what a crash left of its last record.
    ///
    /// # Errors
    /// It is another simulation's, or no such file.
    pub fn open(path: &Path, run: RunId) -> Result<Self, Failure> {
        let place = path.display().to_string();
        let refused = |e: io::Error| Failure::new("results cannot be kept", &place, "a file to read and write", e);
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(refused)?;
        let size = file.metadata().map_err(refused)?.len();
        let start = [&MAGIC[..], &run.0].concat();
        let mut found = vec![0; (START.min(size)) as usize];
        file.read_exact_at(&mut found, 0).map_err(refused)?;
        if found != start[..found.len()] {
            return Err(Failure::new("results cannot be kept", &place, "results of this simulation", "others")
                .hint("give another --dir, or remove the file"));
        }
        file.write_all_at(&start, 0).map_err(refused)?;
        let (mut index, mut at, mut head) = (HashMap::new(), START, [0; HEAD]);
        while at + HEAD as u64 <= size {
            file.read_exact_at(&mut head, at).map_err(refused)?;
            let Some(Head { len, key, .. }) = Head::read(&head) else { break };
            let begin = at + HEAD as u64;
            if begin + len > size {
                break;
            }
            index.insert(key, (begin, len));
            at = begin + len;
        }
        if at < size {
            file.set_len(at).map_err(refused)?;
        }
        let typical_bytes = AtomicU64::new(index.values().next().map_or(0, |(_, len)| *len));
        let inner = Mutex::new(Inner { index, end: at, full: false });
        Ok(Self { file, place, inner, typical_bytes })
    }

    pub fn typical_bytes(&self) -> u64 {
        self.typical_bytes.load(Ordering::Relaxed)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, at: u64, head: &Head, result: &[u8]) -> io::Result<()> {
        self.file.write_all_at(&head.bytes(), at)?;
        self.file.write_all_at(result, at + HEAD as u64)
    }
}

impl Results for ResultsFile {
    fn find(&self, key: &Key) -> Option<Vec<u8>> {
        let (begin, len) = *self.inner().index.get(key)?;
        let mut head = [0; HEAD];
        self.file.read_exact_at(&mut head, begin - HEAD as u64).ok()?;
        let head = Head::read(&head).filter(|head| head.key == *key && head.len == len)?;
        // No longer than the file, as it was opened or grew.
        let mut result = vec![0; len as usize];
        self.file.read_exact_at(&mut result, begin).ok()?;
        (digest(key, &result) == head.digest).then_some(result)
    }

    fn has(&self, key: &Key) -> bool {
        self.inner().index.contains_key(key)
    }

    fn keep(&self, key: &Key, result: &[u8]) {
        let head = Head { len: result.len() as u64, key: *key, digest: digest(key, result) };
        self.typical_bytes.store(head.len, Ordering::Relaxed);
        let mut inner = self.inner();
        if inner.full {
            return;
        }
        let at = inner.end;
        match self.write(at, &head, result) {
            Ok(()) => {
                inner.index.insert(*key, (at + HEAD as u64, head.len));
                inner.end = at + HEAD as u64 + head.len;
            }
            Err(e) => {
                inner.full = true;
                // What is torn is cut off at the next start, if it cannot be now.
                let _ = self.file.set_len(at);
                talk(&format!("{}: {e}: the simulation goes on, but from here on nothing more is kept", self.place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId([7; 32]);

    #[test]
    fn what_is_whole_is_found_wherever_the_file_ends() {
        let path = std::env::temp_dir().join(format!("littoral-results-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let keys = [1, 2, 3].map(|n| Key([n; 32]));
        let results = [vec![5; 40], Vec::new(), vec![9; 7]];
        let file = ResultsFile::open(&path, RUN).unwrap();
        let mut ends = Vec::new();
        for (key, result) in keys.iter().zip(&results) {
            file.keep(key, result);
            ends.push(file.inner().end);
        }
        assert!(file.has(&keys[1]) && file.find(&Key([4; 32])).is_none());
        drop(file);
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let file = ResultsFile::open(&path, RUN).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut as u64).count();
            for (n, (key, result)) in keys.iter().zip(&results).enumerate() {
                assert_eq!(file.find(key), (n < whole).then(|| result.clone()), "cut at {cut}");
            }
            // It goes on from there.
            file.keep(&keys[2], &results[2]);
            assert_eq!(ResultsFile::open(&path, RUN).unwrap().find(&keys[2]).as_ref(), Some(&results[2]));
        }
        // A flipped bit of a result is noticed; of a head, it ends the file.
        for at in [START as usize + HEAD + 3, START as usize + 9] {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 1;
            std::fs::write(&path, &spoilt).unwrap();
            assert_eq!(ResultsFile::open(&path, RUN).unwrap().find(&keys[0]), None);
        }
        std::fs::write(&path, &bytes).unwrap();
        assert!(ResultsFile::open(&path, RunId([8; 32])).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
