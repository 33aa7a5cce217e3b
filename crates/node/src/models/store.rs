//! What is on this disk.
//!
//! ```text
//! blobs/sha256-<hex>          whole files, checked before they got their name
//! names/<name>.toml           which file a name means, and what is known of it
//! partial/sha256-<hex>/       what has arrived of a file so far
//! catalogue.toml              written by people: models of their own
//! ```
//! Asking makes nothing; folders are made when something is put into them.

use super::claim::Claim;
use super::digest::Digest;
use super::fault::{Fault, FaultKind, on_disk};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const RECORD_BYTES_MAX: u64 = 16 << 10;
const NAME_FILE_BYTES_MAX: usize = 240;
/// What may stand in a file's name as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'@');

#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// What a name means here.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub name: String,
    pub sha256: Digest,
    pub size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Where it came from, for people.
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Here(PathBuf),
    /// So many bytes have arrived.
    Partly(u64),
    Absent,
}

/// What went away with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// 0 where another name still means the same file.
    pub bytes: u64,
}

impl Store {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A machine's own catalogue.
    pub fn catalogue(&self) -> PathBuf {
        self.dir.join("catalogue.toml")
    }

    /// Where a whole file lies.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(format!("sha256-{digest}"))
    }

    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.dir.join("partial").join(format!("sha256-{digest}"))
    }

    /// # Errors
    /// [`FaultKind::Disk`] where the folder cannot be read.
    pub fn state(&self, digest: &Digest) -> Result<State, Fault> {
        let blob = self.blob(digest);
        if blob.try_exists().map_err(on_disk(&blob))? {
            return Ok(State::Here(blob));
        }
        match bytes_under(&self.partial(digest)) {
            0 => Ok(State::Absent),
            bytes => Ok(State::Partly(bytes)),
        }
    }

    /// # Errors
    /// [`FaultKind::Disk`]; [`FaultKind::Text`] where the record is damaged.
    pub fn record(&self, name: &str) -> Result<Option<Record>, Fault> {
        let path = self.name_file(name)?;
        read_record(&path)
    }

    /// All names, in their order.
    ///
    /// # Errors
    /// As of [`Self::record`].
    pub fn records(&self) -> Result<Vec<Record>, Fault> {
        let folder = self.dir.join("names");
        let files = match fs::read_dir(&folder) {
            Ok(files) => files,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Fault::disk(&folder, &e)),
        };
        let mut records = Vec::new();
        for file in files {
            let path = file.map_err(on_disk(&folder))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                records.extend(read_record(&path)?);
            }
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The name means this file from now on, also after a crash.
    pub(super) fn name(&self, record: &Record) -> Result<(), Fault> {
        let path = self.name_file(&record.name)?;
        let text = toml::to_string(record).map_err(|e| Fault::refused(path.display().to_string(), "a record", e))?;
        let folder = self.dir.join("names");
        fs::create_dir_all(&folder).map_err(on_disk(&folder))?;
        write_whole(&path, text.as_bytes())
    }

    /// Takes a name away, what has arrived under it, and the file if no other name means it.
    ///
    /// # Errors
    /// [`FaultKind::Unknown`] if nothing is here under the name; [`FaultKind::Disk`].
    pub fn remove(&self, name: &str, known: Option<Digest>, on_wait: &mut dyn FnMut()) -> Result<Removed, Fault> {
        let record = self.record(name)?;
        let digest = record.as_ref().map(|record| record.sha256).or(known);
        let unknown = || Fault::new(FaultKind::Unknown, name, "a model that is here", "none of that name");
        let digest = digest.ok_or_else(unknown)?;
        if record.is_none() && self.state(&digest)? == State::Absent {
            return Err(unknown());
        }
        if record.is_some() {
            let path = self.name_file(name)?;
            fs::remove_file(&path).map_err(on_disk(&path))?;
        }
        self.collect(&digest, on_wait)
    }

    /// The file goes if no name means it.
    pub(super) fn collect(&self, digest: &Digest, on_wait: &mut dyn FnMut()) -> Result<Removed, Fault> {
        // Whoever fetches it now is about to give it a name.
        let claim = Claim::take(self, digest, on_wait)?;
        if self.records()?.iter().any(|record| record.sha256 == *digest) {
            return Ok(Removed { bytes: 0 });
        }
        let blob = self.blob(digest);
        let mut bytes = bytes_under(claim.dir());
        match fs::metadata(&blob) {
            Ok(found) => {
                bytes += found.len();
                fs::remove_file(&blob).map_err(on_disk(&blob))?;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Fault::disk(&blob, &e)),
        }
        claim.clear()?;
        Ok(Removed { bytes })
    }

    fn name_file(&self, name: &str) -> Result<PathBuf, Fault> {
        let file = format!("{}.toml", utf8_percent_encode(name, ESCAPED));
        if file.len() > NAME_FILE_BYTES_MAX {
            let expected = format!("one that fits into a file's name of {NAME_FILE_BYTES_MAX} bytes");
            return Err(Fault::new(FaultKind::Unknown, "the model's name", expected, format!("{} bytes", file.len())));
        }
        Ok(self.dir.join("names").join(file))
    }
}

fn read_record(path: &Path) -> Result<Option<Record>, Fault> {
    let damaged = |got: String| {
        Fault::new(FaultKind::Text, path.display().to_string(), "a record as `littoral pull` writes it", got)
    };
    match fs::metadata(path) {
        Ok(found) if found.len() > RECORD_BYTES_MAX => return Err(damaged(format!("{} bytes", found.len()))),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Fault::disk(path, &e)),
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        // Another process has just taken the name away.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Fault::disk(path, &e)),
    };
    toml::from_str(&text).map(Some).map_err(|e| damaged(e.message().to_owned()))
}

/// Old or new, never half: a second file that takes the place of the first.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let written = File::create(&beside).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    let placed = written.and_then(|()| fs::rename(&beside, path)).and_then(|()| sync_folder_of(path));
    placed.map_err(|e| {
        let _ = fs::remove_file(&beside);
        Fault::disk(path, &e)
    })
}

/// A name in a folder is durable once the folder is.
pub(super) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Of the files in one folder; 0 where there is none.
fn bytes_under(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(|file| file.is_file()).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_as_long_as_a_name_means_it() {
        let dir = std::env::temp_dir().join(format!("littoral-models-store-{}", std::process::id()));
        let store = Store::new(dir.clone());
        let digest: Digest = "ab".repeat(32).parse().unwrap();
        assert_eq!(store.records(), Ok(Vec::new()));
        assert_eq!(store.remove("a", Some(digest), &mut || ()).map_err(|e| e.kind), Err(FaultKind::Unknown));
        let record = |name: &str| Record {
            name: name.to_owned(),
            sha256: digest,
            size_bytes: 3,
            architecture: None,
            licence: None,
            source: "a test".into(),
        };
        fs::create_dir_all(dir.join("blobs")).unwrap();
        fs::write(store.blob(&digest), "abc").unwrap();
        for name in ["a", "hf:o/r@main/ä f.gguf"] {
            store.name(&record(name)).unwrap();
            assert_eq!(store.record(name), Ok(Some(record(name))));
        }
        assert_eq!(store.remove("a", None, &mut || ()), Ok(Removed { bytes: 0 }));
        assert_eq!(store.state(&digest), Ok(State::Here(store.blob(&digest))));
        assert_eq!(store.remove("hf:o/r@main/ä f.gguf", None, &mut || ()), Ok(Removed { bytes: 3 }));
        assert_eq!((store.state(&digest), store.records()), (Ok(State::Absent), Ok(Vec::new())));
        assert!(fs::read_dir(dir.join("partial")).unwrap().next().is_none(), "claims leave nothing");
        fs::remove_dir_all(&dir).unwrap();
    }
}
