//! A file that a command will write at its end: that it can is known at the beginning, and it appears whole or not at
//! all.

use crate::output::Failure;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub struct Pending {
    file: PathBuf,
    unfinished: PathBuf,
}

impl Pending {
    /// Makes an empty file beside `file`, which is not touched yet. What is no plain file (a pipe, `/dev/null`) is
    /// written as it is.
    pub fn at(file: &Path) -> Result<Self, Failure> {
        Self::with_mode(file, 0o666)
    }

    /// One that only its owner can read.
    pub fn private(file: &Path) -> Result<Self, Failure> {
        Self::with_mode(file, 0o600)
    }

    /// `mode`: less what the process leaves out of all (umask).
    fn with_mode(file: &Path, mode: u32) -> Result<Self, Failure> {
        let mut unfinished = file.to_owned();
        if file.is_file() || !file.exists() {
            let mut name = file.file_name().unwrap_or_default().to_owned();
            name.push(format!(".unfinished-{}", std::process::id()));
            unfinished.set_file_name(name);
        }
        let opened = File::options().write(true).create(true).truncate(false).mode(mode).open(&unfinished);
        opened.map_err(|e| refused(file, e))?;
        Ok(Self { file: file.to_owned(), unfinished })
    }

    pub fn write(self, content: impl AsRef<[u8]>) -> Result<(), Failure> {
        let mut written = fs::write(&self.unfinished, content);
        if self.unfinished != self.file {
            written = written.and_then(|()| fs::rename(&self.unfinished, &self.file));
        }
        written.map_err(|e| refused(&self.file, e))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.unfinished != self.file {
            // After `write` there is none.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

fn refused(file: &Path, got: impl ToString) -> Failure {
    Failure::new("the file is not written", file.display().to_string(), "a file that can be written", got)
}
