//! A machine's secret key, in a file that only its owner can read: 64 hexadecimal digits and a line feed.

use littoral_wire::{NodeId, SecretKey};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum KeyError {
    #[error("key file {path} has mode {got:03o}: others can read or write it; run: chmod 600 {path}")]
    OpenToOthers { path: PathBuf, got: u32 },
    #[error("key file {path}: 64 hexadecimal digits expected, got {got} bytes of something else")]
    NotAKey { path: PathBuf, got: u64 },
    #[error("key file {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the operating system gives no random bytes for a key: {0}")]
    Random(getrandom::Error),
}

/// Reads the key, or makes one if there is no file. A key that is there is never overwritten.
pub fn load_or_create(path: &Path) -> Result<SecretKey, KeyError> {
    match load(path) {
        Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => create(path),
        loaded => loaded,
    }
}

/// Reads a key that must be there.
pub fn load(path: &Path) -> Result<SecretKey, KeyError> {
    let fault = |source| KeyError::File { path: path.to_owned(), source };
    let data = fs::metadata(path).map_err(fault)?;
    let (mode, got) = (data.mode() & 0o777, data.len());
    if mode & 0o077 != 0 {
        return Err(KeyError::OpenToOthers { path: path.to_owned(), got: mode });
    }
    let not_a_key = || KeyError::NotAKey { path: path.to_owned(), got };
    if got > 80 {
        return Err(not_a_key());
    }
    // A node id has the same spelling as a key.
    let text = fs::read(path).map_err(fault)?;
    let text = std::str::from_utf8(&text).map_err(|_| not_a_key())?;
    let digits: NodeId = text.trim().parse().map_err(|_| not_a_key())?;
    Ok(SecretKey::from_bytes(digits.0))
}

/// Random bytes of the operating system, for secrets.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
    Ok(bytes)
}

/// Written under another name, synced and linked into place: a crash leaves a whole key or none.
fn create(path: &Path) -> Result<SecretKey, KeyError> {
    let fault = |source| KeyError::File { path: path.to_owned(), source };
    let bytes: [u8; 32] = random()?;
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&unfinished);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&unfinished).map_err(fault)?;
    let written = writeln!(file, "{}", NodeId(bytes)).and_then(|()| file.sync_all());
    // A link does not replace what is there, unlike a rename.
    let placed = written.and_then(|()| fs::hard_link(&unfinished, path));
    let _ = fs::remove_file(&unfinished);
    match placed {
        Ok(()) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)?;
            Ok(SecretKey::from_bytes(bytes))
        }
        // Another process made one in the meantime: that one counts.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => load_or_create(path),
        Err(e) => Err(fault(e)),
    }
}
