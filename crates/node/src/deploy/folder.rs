//! A state folder is whole or new. It is made under a marker: a crash on the way leaves the marker, and the next start
//! goes on. Without it a folder has its key *and* its database, or nothing. Who lost one of the two is told so: with a
//! new key a machine is a stranger, and with an empty database it breaks what it promised.

use super::cloud::OPERATOR_KEY_FILE;
use super::enrol::ENROLMENT_FILE;
use super::listen::write_atomically;
use super::{DeployError, KEY_FILE};
use crate::host::keys;
use crate::store::{DATABASE_FILE, DirectoryLock, SqliteStore};
use littoral_wire::SecretKey;
use std::fs::{self, File};
use std::path::Path;

/// Is here while a new folder gets its database and its key.
const UNFINISHED_FILE: &str = "unfinished";

/// Takes the folder, and makes what a new one needs. One that is not whole is left as it is.
pub(super) async fn open(dir: &Path) -> Result<(SqliteStore, SecretKey), DeployError> {
    let lock = DirectoryLock::take(dir)?;
    let unfinished = dir.join(UNFINISHED_FILE);
    if !here(&unfinished)? && is_new(dir)? {
        write_atomically(&unfinished, "This folder is being made. The next start goes on.\n", 0o600)?;
    }
    let store = SqliteStore::open_locked(dir, lock).await?;
    let key = keys::load_or_create(&dir.join(KEY_FILE))?;
    if here(&unfinished)? {
        let removed = fs::remove_file(&unfinished).and_then(|()| File::open(dir)?.sync_all());
        removed.map_err(|e| unusable(&unfinished, &e))?;
    }
    Ok((store, key))
}

/// Nothing of a machine is here; or all that it needs is.
fn is_new(dir: &Path) -> Result<bool, DeployError> {
    let key = here(&dir.join(KEY_FILE))?;
    let path = dir.join(DATABASE_FILE);
    // An empty file is a database without a row, which none of ours ever is.
    let database = here(&path)? && fs::metadata(&path).map_err(|e| unusable(&path, &e))?.len() > 0;
    let mut beside = [(key, KEY_FILE), (database, DATABASE_FILE)].into_iter().find(|(here, _)| *here);
    for name in [ENROLMENT_FILE, OPERATOR_KEY_FILE, "objects"] {
        beside = beside.or(here(&dir.join(name))?.then_some((true, name)));
    }
    let missing = match (key, database, beside) {
        (true, true, _) => return Ok(false),
        (false, false, None) => return Ok(true),
        (true, false, _) => DATABASE_FILE.to_owned(),
        (false, true, _) => KEY_FILE.to_owned(),
        (false, false, Some(_)) => format!("{KEY_FILE} and {DATABASE_FILE}"),
    };
    let beside = beside.map_or("", |(_, name)| name);
    Err(DeployError::NotWhole { dir: dir.to_owned(), missing, beside })
}

fn here(path: &Path) -> Result<bool, DeployError> {
    path.try_exists().map_err(|e| unusable(path, &e))
}

fn unusable(path: &Path, error: &std::io::Error) -> DeployError {
    let expected = "a file that can be used".into();
    DeployError::File { path: path.to_owned(), expected, got: error.to_string() }
}

/// For what needs a machine that was let in before: nothing is made.
pub(super) fn check_whole(dir: &Path) -> Result<(), DeployError> {
    match here(&dir.join(UNFINISHED_FILE))? || is_new(dir)? {
        true => Err(DeployError::NotEnrolled { dir: dir.to_owned() }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("littoral-folder-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn made(dir: &Path) -> [u8; 32] {
        let (store, key) = open(dir).await.unwrap();
        store.close().await;
        key.to_bytes()
    }

    /// All files but the lock, which says who looked last.
    fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let read = |path: &Path| if path.is_dir() { b"folder".to_vec() } else { fs::read(path).unwrap() };
        let all = entries.map(|e| (e.file_name().into_string().unwrap(), read(&e.path())));
        all.filter(|(name, _)| name != "lock").collect()
    }

    #[tokio::test]
    async fn what_was_lost_is_named_and_nothing_is_put_in_its_place() {
        for (lost, cut_to) in [(KEY_FILE, None), (DATABASE_FILE, None), (DATABASE_FILE, Some(0))] {
            let dir = Scratch::new(lost);
            let key = made(&dir.0).await;
            assert_eq!(made(&dir.0).await, key, "a whole folder starts");
            let (path, bytes) = (dir.0.join(lost), fs::read(dir.0.join(lost)).unwrap());
            match cut_to {
                Some(len) => fs::write(&path, &bytes[..len]).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let before = files(&dir.0);
            let refused = open(&dir.0).await.err().expect("it is not whole");
            assert!(matches!(&refused, DeployError::NotWhole { missing, .. } if missing == lost), "{refused}");
            assert!(refused.to_string().contains("restore the folder from a copy"), "{refused}");
            assert_eq!(files(&dir.0), before);
            assert!(check_whole(&dir.0).is_err());
        }
        for relic in [ENROLMENT_FILE, OPERATOR_KEY_FILE, "objects/x"] {
            let dir = Scratch::new("relic");
            fs::create_dir_all(dir.0.join(relic).parent().unwrap()).unwrap();
            fs::write(dir.0.join(relic), "").unwrap();
            let before = files(&dir.0);
            let refused = open(&dir.0).await.err().expect("something was here");
            assert!(refused.to_string().contains("key and littoral.sqlite expected"), "{refused}");
            assert_eq!(files(&dir.0), before);
        }
    }

    #[tokio::test]
    async fn a_crash_while_a_folder_is_made_does_not_spoil_it() {
        let dir = Scratch::new("crash");
        made(&dir.0).await;
        let whole = files(&dir.0);
        assert!(!whole.contains_key(UNFINISHED_FILE));
        for left in [&[][..], &[DATABASE_FILE], &[KEY_FILE], &[DATABASE_FILE, KEY_FILE]] {
            let _ = fs::remove_dir_all(&dir.0);
            fs::create_dir(&dir.0).unwrap();
            for name in [&[UNFINISHED_FILE], left].concat() {
                fs::write(dir.0.join(name), whole.get(name).map_or(&b""[..], Vec::as_slice)).unwrap();
            }
            if left.contains(&KEY_FILE) {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(dir.0.join(KEY_FILE), fs::Permissions::from_mode(0o600)).unwrap();
            }
            let key = made(&dir.0).await;
            assert_eq!(made(&dir.0).await, key, "after {left:?}");
            assert!(!files(&dir.0).contains_key(UNFINISHED_FILE));
        }
    }
}
