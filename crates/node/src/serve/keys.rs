//! API keys: who may ask.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Bytes of a file of keys.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Error)]
pub enum KeysError {
    #[error("key file {path} has mode {got:03o}: others can read it; run: chmod 600 {path}")]
    OpenToOthers { path: PathBuf, got: u32 },
    #[error("key file {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("an API key: printable characters without spaces expected, got {got}")]
    NotAKey { got: String },
}

/// Hashes of the keys; none: everybody may ask.
///
/// A key is compared by its hash, in constant time: how long a refusal takes says nothing of how much was right.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<blake3::Hash>);

impl Keys {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, key: &str) -> Result<(), KeysError> {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeysError::NotAKey { got: format!("{} bytes of others", key.len()) });
        }
        self.0.push(blake3::hash(key.as_bytes()));
        Ok(())
    }

    /// One key on each line; empty lines and those that begin with `#` are none.
    pub fn add_file(&mut self, path: &Path) -> Result<(), KeysError> {
        let fault = |source| KeysError::File { path: path.to_owned(), source };
        let data = fs::metadata(path).map_err(fault)?;
        let mode = data.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeysError::OpenToOthers { path: path.to_owned(), got: mode });
        }
        if data.len() > FILE_BYTES_MAX {
            return Err(fault(io::Error::other(format!("{} bytes, at most {FILE_BYTES_MAX} expected", data.len()))));
        }
        let text = fs::read_to_string(path).map_err(fault)?;
        let before = self.0.len();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            self.add(line)?;
        }
        if self.0.len() == before {
            return Err(fault(io::Error::other("no key in it")));
        }
        Ok(())
    }

    /// The hash of the key, if it is one of ours.
    pub fn known(&self, key: &[u8]) -> Option<blake3::Hash> {
        let hash = blake3::hash(key);
        // All are compared, and each comparison of hashes takes the same time.
        let known = self.0.iter().fold(false, |known, other| known | (*other == hash));
        known.then_some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys_are_known() {
        let mut keys = Keys::default();
        keys.add("sk-one").unwrap();
        keys.add("sk-two").unwrap();
        assert!(keys.known(b"sk-one").is_some() && keys.known(b"sk-two").is_some());
        assert!([&b"sk-on"[..], b"sk-one ", b"", b"sk-three"].iter().all(|key| keys.known(key).is_none()));
        assert!(["", "a b", "a\n", "é"].iter().all(|key| keys.add(key).is_err()));
    }
}
