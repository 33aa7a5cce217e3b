//! What survives a crash: rows in a database, objects in files.
//!
//! A [`Store`] keeps the rows of [`crate::role::Table`]; an [`ObjectStore`] keeps models, updates and sums. They meet in
//! [`Store::commit`]: the objects that a call names are durable before its rows say so. There are two of each:
//!
//! | | rows | objects | for |
//! |---|---|---|---|
//! | embedded | [`SqliteStore`] | [`FileObjects`] | one process, which owns a directory ([`DirectoryLock`]) |
//! | shared | [`PgStore`] | [`BucketObjects`] | replicas of a cloud, on as many machines as one likes |
//!
//! Rows of a job are written under a [`Lease`] whose token is checked inside the transaction, so a process that was
//! replaced cannot write although it believes to be the owner. `tests/store_conformance` says what both must do.
//!
//! Not here: what rows mean, and when something must be durable; that is the roles' business.

mod bucket;
mod database;
mod lock;
mod objects;
mod postgres;
mod schema;
mod shard;
mod sqlite;
mod workshop;
mod writer;

pub use bucket::{Bucket, BucketObjects, BucketOptions};
pub use lock::DirectoryLock;
pub use objects::{Collected, FileObjects, KeepFault};
pub use postgres::{Addressee, Changes, Mail, PgPlace, PgStore};
pub use shard::{Shard, ShardLease};
pub use sqlite::{DATABASE_FILE, SqliteStore};
pub use workshop::{Made, Workshop};

use crate::role::{Millis, Row, Write};
use crate::work::{ObjectFault, Objects};
use littoral_wire::message::Collection;
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, ObjectId};
use std::path::PathBuf;
use std::pin::Pin;
use thiserror::Error;

pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Durable rows. Calls may be queued; who waits for one before the next has them in that order.
pub trait Store: Send + Sync {
    /// All rows, ascending by key.
    fn load(&self) -> StoreFuture<'_, Vec<Row>>;

    /// Makes all of `writes` durable, or none of them. Refused if the token of any of `leases` is no longer current.
    fn commit(&self, writes: Vec<Write>, leases: Vec<Lease>) -> StoreFuture<'_, ()>;

    /// Takes a job, with a token greater than any before. A job that another holder has leased until after `now` is
    /// refused unless `takeover` says that the other is known to be gone.
    ///
    /// `now` is the caller's clock, and so is the answer's `until`. Where several machines share a store, who holds what is
    /// decided by the store's own clock.
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

    /// Offers the shards of one round to whoever takes them, in place of those of the job's other rounds. One that is there
    /// stays as it is. Refused as [`Store::commit`] is.
    fn offer_shards(&self, shards: Vec<Shard>, leases: Vec<Lease>) -> StoreFuture<'_, ()>;

    /// Takes a shard that nobody has added up and that nobody has taken until after `now`; `None`: there is none.
    fn take_shard<'a>(&'a self, holder: &'a str, now: Millis, ttl_ms: u64) -> StoreFuture<'a, Option<ShardLease>>;

    /// Prolongs it until `now + ttl_ms`; [`StoreError::Fenced`] if somebody else took it, or it is not there any more.
    fn renew_shard<'a>(&'a self, lease: &'a ShardLease, now: Millis, ttl_ms: u64) -> StoreFuture<'a, ShardLease>;

    /// `made` is what came out, and durable from now on. Refused as [`Store::renew_shard`] is.
    fn close_shard<'a>(&'a self, lease: &'a ShardLease, made: Manifest) -> StoreFuture<'a, ()>;

    /// All shards of a round, by number.
    fn shards(&self, collection: Collection) -> StoreFuture<'_, Vec<Shard>>;

    /// The job's shards are needed no more. Refused as [`Store::commit`] is.
    fn forget_shards(&self, job: JobId, leases: Vec<Lease>) -> StoreFuture<'_, ()>;
}

/// Objects of a host. They arrive and are made in a folder; what was synced is where it survives. Calls block.
pub trait ObjectStore: Objects {
    /// Where objects arrive chunk by chunk, and where new ones are made.
    fn folder(&self) -> &FileObjects;

    /// Prepares to receive an object. Returns the chunks that are not here, ascending; none: it is whole.
    fn begin(&self, manifest: &Manifest) -> Result<Vec<u32>, ObjectFault>;

    /// One chunk of a whole object, checked against its manifest.
    fn chunk(&self, object: ObjectId, index: u32) -> Result<Vec<u8>, ObjectFault>;

    /// Makes whole objects durable.
    fn sync(&self, objects: &[ObjectId]) -> Result<(), ObjectFault>;

    /// Forgets an object, whole or in part.
    fn remove(&self, object: ObjectId) -> Result<(), ObjectFault>;
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
    #[error("job {job}: this process has no lease of it")]
    NotLeased { job: JobId },
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
    /// A database on another machine. `passes`: the same may go well later.
    #[error("{at}: {why}")]
    Database { at: String, why: String, passes: bool },
    #[error(transparent)]
    Object(#[from] ObjectFault),
    #[error("the store was closed")]
    Closed,
}

impl StoreError {
    /// May the same commit go through later, as things are?
    pub fn may_pass(&self) -> bool {
        match self {
            Self::DiskFull { .. } | Self::Disk { .. } | Self::Object(ObjectFault::Disk(_)) => true,
            Self::Database { passes, .. } => *passes,
            _ => false,
        }
    }
}
