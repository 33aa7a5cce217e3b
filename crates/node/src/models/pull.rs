//! A model's file, from the first source that has it.

use super::catalogue::{Entry, Piece, Source};
use super::claim::Claim;
use super::digest::Digest;
use super::download::{Download, Part};
use super::fault::{Fault, FaultKind, on_disk};
use super::hub::Hub;
use super::index::Index;
use super::reference::HubFile;
use super::store::{Record, State, Store};
use super::web::{Login, Web, shown};
use super::wheel::Wheels;
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use reqwest::Url;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// No model file is bigger.
const FILE_BYTES_MAX: u64 = 4 << 40;

/// Where this machine gets models from.
pub struct Settings {
    pub hub: Hub,
    /// Asked in order.
    pub indexes: Vec<Index>,
}

/// A file that is to be here under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub name: String,
    pub sha256: Digest,
    pub size_bytes: Option<u64>,
    /// Where they are not known, the file's own words count.
    pub architecture: Option<String>,
    pub licence: Option<String>,
    pub sources: Vec<Source>,
}

/// What is going on, for who waits.
#[derive(Debug)]
pub enum Report<'a> {
    /// Another process fetches the same file.
    Waiting,
    /// The file that is here already is read.
    Checking,
    /// It is not what it was; it is fetched again.
    Damaged,
    /// The next source is asked.
    Source(&'a str),
    Bytes {
        done: u64,
        total: Option<u64>,
    },
    /// What had arrived before does not belong to the file: from the beginning.
    Anew,
    /// This source does not give it.
    Failed(&'a Fault),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    pub record: Record,
    pub path: PathBuf,
    /// It was here, whole.
    pub already: bool,
}

impl From<&Entry> for Wanted {
    fn from(entry: &Entry) -> Self {
        Self {
            name: entry.name.clone(),
            sha256: entry.sha256,
            size_bytes: Some(entry.size_bytes),
            architecture: Some(entry.architecture.clone()),
            licence: Some(entry.licence.clone()),
            sources: entry.sources.clone(),
        }
    }
}

/// A hub's file, with the hash that the hub declares now.
///
/// # Errors
/// Where the hub does not answer, does not have it, or declares no SHA-256.
pub async fn wanted_of_hub(web: &Web, hub: &Hub, file: &HubFile) -> Result<Wanted, Fault> {
    let declared = hub.declared(web, file).await?;
    Ok(Wanted {
        name: file.to_string(),
        sha256: declared.sha256,
        size_bytes: declared.size,
        architecture: None,
        licence: None,
        sources: vec![Source::Hub(file.clone())],
    })
}

/// The file is here when this returns, checked, under its name.
///
/// # Errors
/// The fault of the only source, or one that tells those of all; those of the disk. What has arrived stays, and is gone on
/// with the next time; bytes that are not the file's are never left under its name.
pub async fn pull(
    store: &Store,
    web: &Web,
    settings: &Settings,
    wanted: &Wanted,
    report: &mut dyn FnMut(Report<'_>),
) -> Result<Pulled, Fault> {
    let claim = Claim::take(store, &wanted.sha256, &mut || report(Report::Waiting))?;
    let path = store.blob(&wanted.sha256);
    let (mut already, mut source) = (false, None);
    if let State::Here(_) = store.state(&wanted.sha256)? {
        report(Report::Checking);
        already = Digest::of_file(&path).map_err(on_disk(&path))? == wanted.sha256;
        if !already {
            report(Report::Damaged);
            discard(&path)?;
        }
    }
    if !already {
        let fetching = Fetching { store, web, settings, wanted, claim: &claim };
        source = Some(fetching.try_all(report).await?);
    }
    let before = store.record(&wanted.name)?;
    let record = record(wanted, &path, source.or_else(|| Some(before.as_ref()?.source.clone())))?;
    store.name(&record)?;
    claim.clear()?;
    drop(claim);
    if let Some(before) = before.filter(|before| before.sha256 != record.sha256) {
        store.collect(&before.sha256, &mut || report(Report::Waiting))?;
    }
    Ok(Pulled { record, path, already })
}

struct Fetching<'a> {
    store: &'a Store,
    web: &'a Web,
    settings: &'a Settings,
    wanted: &'a Wanted,
    claim: &'a Claim,
}

impl Fetching<'_> {
    /// The words for the source that had it.
    async fn try_all(&self, report: &mut dyn FnMut(Report<'_>)) -> Result<String, Fault> {
        let mut faults = Vec::new();
        for source in &self.wanted.sources {
            let words = self.words(source);
            report(Report::Source(&words));
            match self.try_one(source, report).await {
                Ok(()) => return Ok(words),
                Err(fault) if matches!(fault.kind, FaultKind::Disk | FaultKind::DiskFull) => return Err(fault),
                Err(fault) => {
                    report(Report::Failed(&fault));
                    faults.push(fault);
                }
            }
        }
        Err(together(&self.wanted.name, faults))
    }

    async fn try_one(&self, source: &Source, report: &mut dyn FnMut(Report<'_>)) -> Result<(), Fault> {
        // Twice at most: what had arrived before this run may be of another file.
        loop {
            let before = self.store.state(&self.wanted.sha256)?;
            let resumed = matches!(before, State::Partly(_)) && !matches!(source, Source::Path(_));
            let part = self.bring(source, report).await?;
            let got = Digest::of_file(&part).map_err(on_disk(&part))?;
            if got == self.wanted.sha256 {
                return self.claim.publish(&part, &self.store.blob(&self.wanted.sha256));
            }
            if let Source::Path(_) = source {
                // What has arrived from elsewhere is not to blame.
                discard(&part)?;
            } else {
                self.claim.clear()?;
            }
            if !resumed {
                let expected = format!("SHA-256 {}", self.wanted.sha256);
                return Err(Fault::new(FaultKind::WrongBytes, self.words(source), expected, got));
            }
            report(Report::Anew);
        }
    }

    /// A whole file among the claimed ones, unchecked.
    async fn bring(&self, source: &Source, report: &mut dyn FnMut(Report<'_>)) -> Result<PathBuf, Fault> {
        match source {
            Source::Hub(file) => {
                let hub = &self.settings.hub;
                let declared = hub.declared(self.web, file).await?;
                if declared.sha256 != self.wanted.sha256 {
                    let (expected, got) = (format!("SHA-256 {}", self.wanted.sha256), declared.sha256);
                    return Err(Fault::new(FaultKind::WrongBytes, file.to_string(), expected, got));
                }
                self.download(&hub.url(file), hub.login(), declared.size, report).await
            }
            Source::Url(url) => {
                let mut url = url_of(url)?;
                let login = Login::out_of(&mut url);
                self.download(&url, login.as_ref(), None, report).await
            }
            Source::Path(path) => self.copy(path, report),
            Source::Wheels(pieces) => {
                let (web, indexes, claim) = (self.web, &self.settings.indexes[..], self.claim);
                let size = self.wanted.size_bytes.unwrap_or(FILE_BYTES_MAX);
                Wheels { web, indexes, pieces, claim, size }.fetch(report).await
            }
        }
    }

    async fn download(
        &self,
        url: &Url,
        login: Option<&Login>,
        declared: Option<u64>,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<PathBuf, Fault> {
        let path = self.claim.dir().join("file.part");
        let size = self.wanted.size_bytes.or(declared);
        let download = Download { web: self.web, url, login, size, bytes_max: FILE_BYTES_MAX };
        let mut arrived = |done, total| report(Report::Bytes { done, total });
        download.run(&mut Part::open(&path)?, &mut arrived).await?;
        Ok(path)
    }

    fn copy(&self, from: &Path, report: &mut dyn FnMut(Report<'_>)) -> Result<PathBuf, Fault> {
        let refused = |e: std::io::Error| Fault::refused(from.display().to_string(), "a file that can be read", e);
        // Opening a pipe would wait for somebody who writes to it.
        let found = fs::metadata(from).map_err(refused)?;
        if !found.is_file() {
            return Err(refused(std::io::Error::other("something that is no file")));
        }
        if let Some(size) = self.wanted.size_bytes.filter(|size| *size != found.len()) {
            let (expected, got) = (format!("{size} bytes"), format!("{} bytes", found.len()));
            return Err(Fault::new(FaultKind::WrongBytes, from.display().to_string(), expected, got));
        }
        let path = self.claim.dir().join("copy.part");
        let (mut file, mut part) = (File::open(from).map_err(refused)?, Part::open(&path)?);
        part.cut(0)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(refused)? {
                0 => return Ok(path),
                bytes => part.append(&buffer[..bytes])?,
            }
            report(Report::Bytes { done: part.len(), total: Some(found.len()) });
        }
    }

    /// A source, for people.
    fn words(&self, source: &Source) -> String {
        match source {
            Source::Hub(file) => file.to_string(),
            Source::Url(url) => url_of(url).map_or_else(|_| "a URL".into(), |url| shown(&url)),
            Source::Path(path) => path.display().to_string(),
            Source::Wheels(pieces) => {
                let hosts: Vec<&str> = self.settings.indexes.iter().map(Index::host).collect();
                format!("{} on {}", wheels_in_words(pieces), hosts.join(", "))
            }
        }
    }
}

fn wheels_in_words(pieces: &[Piece]) -> String {
    match pieces {
        [piece] => format!("the wheel {} {}", piece.package, piece.version),
        [first, .., last] => format!("{} wheels, {} to {}", pieces.len(), first.package, last.package),
        [] => "no wheel".into(),
    }
}

fn url_of(text: &str) -> Result<Url, Fault> {
    // The text may hold a password, the reason does not.
    Url::parse(text).map_err(|e| Fault::refused("a source of the model", "a URL", e))
}

/// One is told as it is; several in one line.
fn together(name: &str, mut faults: Vec<Fault>) -> Fault {
    if faults.len() == 1 {
        return faults.remove(0);
    }
    let kind = match faults.first() {
        Some(first) if faults.iter().all(|fault| fault.kind == first.kind) => first.kind,
        _ => FaultKind::Refused,
    };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Fault::new(kind, name, format!("one of {} sources", told.len()), told.join("; "))
}

/// What is known of the file, from who asked for it or from itself.
fn record(wanted: &Wanted, path: &Path, source: Option<String>) -> Result<Record, Fault> {
    let file = File::open(path).map_err(on_disk(path))?;
    let size_bytes = file.metadata().map_err(on_disk(path))?.len();
    let (mut architecture, mut licence) = (wanted.architecture.clone(), wanted.licence.clone());
    if architecture.is_none() || licence.is_none() {
        let bytes = Mapped::new(&file).map_err(on_disk(path))?;
        // A file that is no GGUF is kept: it is what was asked for. Who loads it says what is wrong with it.
        if let Ok(header) = Gguf::parse(&bytes) {
            let word = |key: &str| header.metadata().str(key).ok().map(|text| text.chars().take(64).collect());
            architecture = architecture.or_else(|| word("general.architecture"));
            licence = licence.or_else(|| word("general.license"));
        }
    }
    let source = source.unwrap_or_else(|| "a file that was here".into());
    Ok(Record { name: wanted.name.clone(), sha256: wanted.sha256, size_bytes, architecture, licence, source })
}

/// Takes a file away that may not be there.
pub(super) fn discard(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Fault::disk(path, &e)),
        _ => Ok(()),
    }
}
