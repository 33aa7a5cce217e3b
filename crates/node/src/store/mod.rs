//! What survives a crash: rows in a database, objects in files.
//!
//! A [`Store`] keeps the rows of [`crate::role::Table`]; [`FileObjects`] keeps models, updates and sums. They meet in
//! [`Store::commit`]: the objects that a call names are on the disk before its rows say so. [`SqliteStore`] is the
//! embedded engine. One process owns a directory ([`DirectoryLock`]); rows of a job are written under a [`Lease`]
//! whose token is checked inside the transaction, so a process that was replaced cannot write although it believes to
//! be the owner.
//!
//! Not here: what rows mean, and when something must be durable; that is the roles' business.

mod database;
mod lock;
mod objects;
mod schema;
mod sqlite;
mod workshop;
mod writer;

pub use lock::DirectoryLock;
pub use objects::{Collected, FileObjects, KeepFault};
pub use sqlite::{DATABASE_FILE, SqliteStore};
pub use workshop::{Made, Workshop};

use crate::role::{Millis, Row, Write};
use crate::work::ObjectFault;
use littoral_wire::JobId;
use std::path::PathBuf;
use std::pin::Pin;
use thiserror::Error;

pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Durable rows. Calls may be queued; one connection serves them in order.
pub trait Store: Send + Sync {
    /// All rows, ascending by key.
    fn load(&self) -> StoreFuture<'_, Vec<Row>>;

    /// Makes all of `writes` durable, or none of them. Refused if the token of any of `leases` is no longer current.
    fn commit(&self, writes: Vec<Write>, leases: Vec<Lease>) -> StoreFuture<'_, ()>;

    /// Takes a job, with a token greater than any before. A job that another holder has leased until after `now` is
    /// refused unless `takeover` says that the other is known to be gone.
    fn acquire<'a>(
        &'a self,
        job: JobId,
        holder: &'a str,
        now: Millis,
        ttl_ms: u64,
        takeover: bool,
    ) -> StoreFuture<'a, Lease>;

    /// Prolongs a lease until `now + ttl_ms`; refused if its token is no longer current.
    fn renew<'a>(&'a self, lease: &'a Lease, now: Millis, ttl_ms: u64) -> StoreFuture<'a, Lease>;
}

/// The right to write a job's rows until somebody takes it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub job: JobId,
    /// Grows with every acquisition, and fences all before it.
    pub token: u64,
    /// Until then nobody else gets it without a takeover. A lease that ran out and was not taken is still good.
    pub until: Millis,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum StoreError {
    #[error("job {job}: this process writes under token {ours}, but the current token is {current}: another took over")]
    Fenced { job: JobId, ours: u64, current: u64 },
    #[error("job {job} is leased to {holder} until {until} ms since 1970")]
    Held { job: JobId, holder: String, until: Millis },
    #[error("{dir} is in use by process {pid}: stop it, or give this one another directory")]
    InUse { dir: PathBuf, pid: String },
    #[error("{path} has schema {got}, this release knows schemas up to {known}: install the release that wrote it")]
    Newer { path: PathBuf, known: i64, got: i64 },
    #[error("{path} is damaged and was left as it is: {why}; restore it from a backup or start in an empty directory")]
    Corrupt { path: PathBuf, why: String },
    #[error("no space left on the disk of {path}")]
    DiskFull { path: PathBuf },
    #[error("{path}: {why}")]
    Disk { path: PathBuf, why: String },
    #[error(transparent)]
    Object(#[from] ObjectFault),
    #[error("the store was closed")]
    Closed,
}

impl StoreError {
    /// May the same commit go through later, as things are?
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Disk { .. } | Self::Object(ObjectFault::Disk(_)))
    }
}
