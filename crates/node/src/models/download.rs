//! A file over HTTP, from where it was cut: what has arrived stays on the disk, and the rest is asked for.
//!
//! Whether the bytes are the right ones is not known here; that the whole has the right hash is checked by the caller.

use super::fault::{Fault, FaultKind, on_disk};
use super::web::{Answer, Ask, Login, Web, header, shown};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use reqwest::{StatusCode, Url};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections in a row that brought nothing.
const BARREN_MAX: u32 = 5;

pub(super) struct Download<'a> {
    pub(super) web: &'a Web,
    pub(super) url: &'a Url,
    pub(super) login: Option<&'a Login>,
    /// Where it is known.
    pub(super) size: Option<u64>,
    pub(super) bytes_max: u64,
}

/// A file that grows.
pub(super) struct Part {
    pub(super) path: PathBuf,
    file: File,
    len: u64,
}

impl Part {
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = opened.map_err(on_disk(path))?;
        let len = file.seek(SeekFrom::End(0)).map_err(on_disk(path))?;
        Ok(Self { path: path.to_owned(), file, len })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Goes on from here.
    pub(super) fn cut(&mut self, len: u64) -> Result<(), Fault> {
        let done = self.file.set_len(len).and_then(|()| self.file.seek(SeekFrom::Start(len)));
        self.len = done.map_err(on_disk(&self.path))?;
        Ok(())
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.file.write_all(bytes).map_err(on_disk(&self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), Fault> {
        self.file.sync_all().map_err(on_disk(&self.path))
    }
}

impl Download<'_> {
    /// Until `part` has all of it. `on_bytes` is told what has arrived, and of how much.
    pub(super) async fn run(&self, part: &mut Part, on_bytes: &mut dyn FnMut(u64, Option<u64>)) -> Result<(), Fault> {
        if self.size.is_some_and(|size| part.len() > size) {
            part.cut(0)?;
        }
        let (mut barren, mut heard) = (0, false);
        while self.size != Some(part.len()) {
            let before = part.len();
            match self.once(part, &mut heard, on_bytes).await {
                Ok(()) => return Ok(()),
                Err(Stop::For(fault)) => return Err(fault),
                // Who was never there is not asked again: this machine may be offline.
                Err(Stop::Cut(fault)) if !heard && fault.kind == FaultKind::Unreachable => return Err(fault),
                Err(Stop::Cut(fault)) => {
                    barren = if part.len() > before { 0 } else { barren + 1 };
                    if barren == BARREN_MAX {
                        return Err(fault);
                    }
                    // 0, 1, 2, 4 seconds: a server that restarts is given the time to.
                    let pause_s = if barren == 0 { 0 } else { 1 << (barren - 1) };
                    tokio::time::sleep(Duration::from_secs(pause_s)).await;
                }
            }
        }
        Ok(())
    }

    async fn once(
        &self,
        part: &mut Part,
        heard: &mut bool,
        on_bytes: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Stop> {
        let ask =
            Ask { url: self.url, login: self.login, head: false, accept: None, from: part.len(), answered_by: None };
        let Answer { mut response, url } = self.web.send(&ask).await.map_err(Stop::of)?;
        let status = response.status();
        if status == StatusCode::RANGE_NOT_SATISFIABLE && part.len() > 0 {
            // What is here is no beginning of what is there.
            part.cut(0)?;
            *heard = true;
            return Err(Stop::Cut(Fault::refused(shown(&url), "the rest of the file", status)));
        }
        if matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504) {
            return Err(Stop::Cut(Fault::refused(shown(&url), "the file", status)));
        }
        if !status.is_success() {
            return Err(Stop::For(match (Answer { response, url }).succeeded() {
                Err(fault) => fault,
                Ok(answer) => Fault::refused(shown(&answer.url), "the file", status),
            }));
        }
        *heard = true;
        if status == StatusCode::PARTIAL_CONTENT {
            let range = header(response.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
            let begins = range.strip_prefix("bytes ").and_then(|range| range.split('-').next()?.parse::<u64>().ok());
            if begins != Some(part.len()) {
                return Err(Fault::refused(shown(&url), format!("bytes from {}", part.len()), range).into());
            }
        } else if part.len() > 0 {
            // A server that knows no ranges sends all of it.
            part.cut(0)?;
        }
        let rest = header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
        let announced = rest.map(|rest| part.len().saturating_add(rest));
        if let (Some(size), Some(announced)) = (self.size, announced)
            && size != announced
        {
            return Err(Fault::refused(shown(&url), format!("{size} bytes"), format!("{announced} bytes")).into());
        }
        let total = self.size.or(announced);
        let bytes_max = total.unwrap_or(u64::MAX).min(self.bytes_max);
        if total.is_some_and(|total| total > bytes_max) {
            let got = format!("{} bytes", total.unwrap_or_default());
            return Err(Fault::refused(shown(&url), format!("at most {bytes_max} bytes"), got).into());
        }
        on_bytes(part.len(), total);
        while let Some(chunk) = response.chunk().await.map_err(|e| Stop::Cut(self.web.unreachable(&url, &e)))? {
            if part.len() + chunk.len() as u64 > bytes_max {
                return Err(Fault::refused(shown(&url), format!("at most {bytes_max} bytes"), "more").into());
            }
            part.append(&chunk)?;
            on_bytes(part.len(), total);
        }
        if total.is_some_and(|total| total != part.len()) {
            let (expected, got) = (format!("{} bytes", total.unwrap_or_default()), format!("{} bytes", part.len()));
            return Err(Stop::Cut(Fault::refused(shown(&url), expected, got)));
        }
        Ok(())
    }
}

/// Why one connection did not bring all.
enum Stop {
    /// Another may go on.
    Cut(Fault),
    For(Fault),
}

impl Stop {
    fn of(fault: Fault) -> Self {
        match fault.kind {
            FaultKind::Unreachable | FaultKind::Cut => Self::Cut(fault),
            _ => Self::For(fault),
        }
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::For(fault)
    }
}
