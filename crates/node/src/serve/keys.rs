//! API keys: who may ask, how much, and whose requests stay on this machine.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Bytes of a file of keys.
const FILE_BYTES_MAX: u64 = 1 << 20;
const PER_MINUTE_MAX: u64 = 1_000_000_000;

#[derive(Debug, Error)]
pub enum KeysError {
    #[error("key file {path} has mode {got:03o}: others can read it; run: chmod 600 {path}")]
    OpenToOthers { path: PathBuf, got: u32 },
    #[error("key file {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("an API key: printable characters without spaces expected, got {got}")]
    NotAKey { got: String },
    #[error("key file {path}, line {line}: {expected} expected, got `{got}`")]
    Line { path: PathBuf, line: usize, expected: &'static str, got: String },
}

/// None: everybody may ask.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Arc<Key>>);

/// A key is compared by its hash, in constant time: how long a refusal takes says nothing of how much was right.
#[derive(Debug)]
pub struct Key {
    pub hash: blake3::Hash,
    /// For policies, and for people: not the key.
    pub name: Option<String>,
    /// What it asks for stays on this machine.
    pub local_only: bool,
    requests: Option<Mutex<Allowance>>,
    tokens: Option<Mutex<Allowance>>,
}

/// So many a minute, of which a whole minute's may be used at once.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    per_minute: f64,
    /// Below 0 after an answer that was longer than what was left.
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(per_minute: u64) -> Self {
        Self { per_minute: per_minute as f64, left: per_minute as f64, at: Instant::now() }
    }

    fn take(&mut self, count: f64, now: Instant) {
        let since_s = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since_s * self.per_minute / 60.0).min(self.per_minute) - count;
        self.at = now;
    }

    /// How long until so many are left.
    fn until(&self, count: f64) -> Option<Duration> {
        let missing = count - self.left;
        (missing > 0.0).then(|| Duration::from_secs_f64(missing * 60.0 / self.per_minute))
    }
}

/// A key has had what it may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    pub what: &'static str,
    pub per_minute: u64,
    pub again_in: Duration,
}

impl Key {
    /// Counts one request, if it is allowed now.
    pub fn ask(&self) -> Result<(), Spent> {
        let now = Instant::now();
        // Tokens are counted as they are read and written; a request needs at least one left.
        for (what, allowance, count) in [("tokens", &self.tokens, 0.0), ("requests", &self.requests, 1.0)] {
            let Some(allowance) = allowance else { continue };
            let mut allowance = allowance.lock().unwrap_or_else(PoisonError::into_inner);
            allowance.take(0.0, now);
            if let Some(again_in) = allowance.until(1.0) {
                return Err(Spent { what, per_minute: allowance.per_minute as u64, again_in });
            }
            allowance.take(count, now);
        }
        Ok(())
    }

    /// Tokens were read and written for it.
    pub fn used(&self, tokens: usize) {
        if let Some(allowance) = &self.tokens {
            allowance.lock().unwrap_or_else(PoisonError::into_inner).take(tokens as f64, Instant::now());
        }
    }
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, key: &str) -> Result<(), KeysError> {
        self.0.push(Arc::new(read(key)?));
        Ok(())
    }

    /// One key on each line, and behind it what it may: `name=WORD`, `local-only`, `requests-per-minute=N`,
    /// `tokens-per-minute=N`. Empty lines and those that begin with `#` are none.
    pub fn add_file(&mut self, path: &Path) -> Result<(), KeysError> {
        let fault = |source| KeysError::File { path: path.to_owned(), source };
        let text = secret_file(path)?;
        let before = self.0.len();
        for (at, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            let Some(key) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let mut key = read(key)?;
            for word in words {
                let wrong = |expected, got: &str| {
                    let got = got.chars().take(64).collect();
                    KeysError::Line { path: path.to_owned(), line: at + 1, expected, got }
                };
                let (field, value) = word.split_once('=').unwrap_or((word, ""));
                let per_minute = || match value.parse() {
                    Ok(number @ 1..=PER_MINUTE_MAX) => Ok(Some(Mutex::new(Allowance::new(number)))),
                    _ => Err(wrong("a whole number from 1 to 1000000000", "something else")),
                };
                match field {
                    "name" if !value.is_empty() => key.name = Some(value.to_owned()),
                    "local-only" if value.is_empty() => key.local_only = true,
                    "requests-per-minute" => key.requests = per_minute()?,
                    "tokens-per-minute" => key.tokens = per_minute()?,
                    // Not the word itself, nor a value: it may be a second key.
                    _ => {
                        let expected =
                            "name=WORD, local-only, requests-per-minute=N or tokens-per-minute=N behind a key";
                        return Err(wrong(expected, "another word"));
                    }
                }
            }
            if self.0.iter().any(|other| other.hash == key.hash) {
                let (expected, got) = ("a key that does not stand before", "one that does".to_owned());
                return Err(KeysError::Line { path: path.to_owned(), line: at + 1, expected, got });
            }
            self.0.push(Arc::new(key));
        }
        if self.0.len() == before {
            return Err(fault(io::Error::other("no key in it")));
        }
        Ok(())
    }

    /// Does any of them keep what it asks for on this machine?
    pub fn any_local_only(&self) -> bool {
        self.0.iter().any(|key| key.local_only)
    }

    /// The key, if it is one of ours.
    pub fn known(&self, key: &[u8]) -> Option<Arc<Key>> {
        let hash = blake3::hash(key);
        // All are compared, and each comparison of hashes takes the same time.
        self.0.iter().fold(None, |known, other| if other.hash == hash { Some(other.clone()) } else { known })
    }
}

fn read(key: &str) -> Result<Key, KeysError> {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(KeysError::NotAKey { got: format!("{} bytes of others", key.len()) });
    }
    Ok(Key { hash: blake3::hash(key.as_bytes()), name: None, local_only: false, requests: None, tokens: None })
}

/// The text of a file that nobody else can read.
pub fn secret_file(path: &Path) -> Result<String, KeysError> {
    let fault = |source| KeysError::File { path: path.to_owned(), source };
    let data = fs::metadata(path).map_err(fault)?;
    let mode = data.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::OpenToOthers { path: path.to_owned(), got: mode });
    }
    if data.len() > FILE_BYTES_MAX {
        return Err(fault(io::Error::other(format!("{} bytes, at most {FILE_BYTES_MAX} expected", data.len()))));
    }
    fs::read_to_string(path).map_err(fault)
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

    #[test]
    fn an_allowance_comes_back_with_time() {
        let begun = Instant::now();
        let mut allowance = Allowance { at: begun, ..Allowance::new(60) };
        allowance.take(60.0, begun);
        assert_eq!(allowance.until(1.0), Some(Duration::from_secs(1)));
        allowance.take(0.0, begun + Duration::from_secs(1));
        assert_eq!(allowance.until(1.0), None);
        // An answer may be longer than what is left; it never grows beyond a minute's.
        allowance.take(31.0, begun + Duration::from_secs(1));
        assert_eq!(allowance.until(1.0), Some(Duration::from_secs(31)));
        allowance.take(0.0, begun + Duration::from_secs(3600));
        assert_eq!(allowance.left, 60.0);
    }
}
