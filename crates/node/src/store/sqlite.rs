//! Rows in SQLite: write-ahead log, `synchronous = FULL`, so a commit that returned survives a power cut.
//!
//! One task owns the connection. Commits that queued up while it was busy share one transaction (and one flush); one
//! that is refused takes none of its neighbours with it.

use super::database::Database;
use super::{DirectoryLock, FileObjects, Lease, Shard, ShardLease, Store, StoreError, StoreFuture};
use crate::role::{Millis, Row, Write};
use littoral_wire::message::Collection;
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, ObjectId};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The database in its directory.
pub const DATABASE_FILE: &str = "littoral.sqlite";
/// Commits that share one transaction at most.
const GROUP_MAX: usize = 256;
/// Commands that wait; more make their callers wait.
const QUEUE_MAX: usize = 1024;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Command {
    Load(Answer<Vec<Row>>),
    Commit(Commit),
    Acquire { job: JobId, holder: String, now: Millis, ttl_ms: u64, takeover: bool, answer: Answer<Lease> },
    Renew { lease: Lease, until: Millis, answer: Answer<Lease> },
    Shard(ShardCommand),
    Close(Answer<()>),
}

enum ShardCommand {
    Offer { shards: Vec<Shard>, leases: Vec<Lease>, answer: Answer<()> },
    Take { holder: String, now: Millis, ttl_ms: u64, answer: Answer<Option<ShardLease>> },
    Renew { lease: ShardLease, until: Millis, answer: Answer<ShardLease> },
    Close { lease: ShardLease, made: Manifest, answer: Answer<()> },
    All { collection: Collection, answer: Answer<Vec<Shard>> },
    Forget { job: JobId, leases: Vec<Lease>, answer: Answer<()> },
}

struct Commit {
    writes: Vec<Write>,
    leases: Vec<Lease>,
    answer: Answer<()>,
}

/// Rows in `DIR/littoral.sqlite`, objects in `DIR/objects`. The directory is locked until [`SqliteStore::close`], or
/// until shortly after the store is dropped.
pub struct SqliteStore {
    commands: mpsc::Sender<Command>,
    objects: Arc<FileObjects>,
}

impl SqliteStore {
    /// Opens or makes the store in `dir`, inside a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Corrupt`], [`StoreError::Newer`], or the disk's. Nothing is overwritten.
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_locked(dir, DirectoryLock::take(dir)?).await
    }

    /// As [`Self::open`], for who has taken the directory already.
    pub async fn open_locked(dir: &Path, lock: DirectoryLock) -> Result<Self, StoreError> {
        Self::of(dir, Some(lock)).await
    }

    /// Beside the process that has the directory, for rows alone: objects have one owner. What both write, they write under leases.
    pub async fn open_beside(dir: &Path) -> Result<Self, StoreError> {
        Self::of(dir, None).await
    }

    async fn of(dir: &Path, lock: Option<DirectoryLock>) -> Result<Self, StoreError> {
        let objects = Arc::new(FileObjects::open(dir)?);
        let database = Database::open(&dir.join(DATABASE_FILE)).await?;
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let desk = Desk { database, objects: objects.clone(), lock };
        tokio::spawn(desk.serve(queue));
        Ok(Self { commands, objects })
    }

    pub fn objects(&self) -> Arc<FileObjects> {
        self.objects.clone()
    }

    /// Returns when what was queued is durable and the directory is free. The store is of no use afterwards.
    pub async fn close(&self) {
        // Closed already is closed, too.
        let _ = self.ask(Command::Close).await;
    }

    fn ask<T: Send + 'static>(&self, command: impl FnOnce(Answer<T>) -> Command + Send) -> StoreFuture<'_, T> {
        let (answer, answered) = oneshot::channel();
        let command = command(answer);
        Box::pin(async move {
            self.commands.send(command).await.map_err(|_| StoreError::Closed)?;
            answered.await.map_err(|_| StoreError::Closed)?
        })
    }
}

impl Store for SqliteStore {
    fn load(&self) -> StoreFuture<'_, Vec<Row>> {
        self.ask(Command::Load)
    }

    fn commit(&self, writes: Vec<Write>, leases: Vec<Lease>) -> StoreFuture<'_, ()> {
        self.ask(|answer| Command::Commit(Commit { writes, leases, answer }))
    }

    fn acquire<'a>(
        &'a self,
        job: JobId,
        holder: &'a str,
        now: Millis,
        ttl_ms: u64,
        takeover: bool,
    ) -> StoreFuture<'a, Lease> {
        let holder = holder.to_owned();
        self.ask(|answer| Command::Acquire { job, holder, now, ttl_ms, takeover, answer })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, now: Millis, ttl_ms: u64) -> StoreFuture<'a, Lease> {
        let lease = lease.clone();
        self.ask(|answer| Command::Renew { lease, until: now.saturating_add(ttl_ms), answer })
    }

    fn offer_shards(&self, shards: Vec<Shard>, leases: Vec<Lease>) -> StoreFuture<'_, ()> {
        self.ask(|answer| Command::Shard(ShardCommand::Offer { shards, leases, answer }))
    }

    fn take_shard<'a>(&'a self, holder: &'a str, now: Millis, ttl_ms: u64) -> StoreFuture<'a, Option<ShardLease>> {
        let holder = holder.to_owned();
        self.ask(move |answer| Command::Shard(ShardCommand::Take { holder, now, ttl_ms, answer }))
    }

    fn renew_shard<'a>(&'a self, lease: &'a ShardLease, now: Millis, ttl_ms: u64) -> StoreFuture<'a, ShardLease> {
        let (lease, until) = (lease.clone(), now.saturating_add(ttl_ms));
        self.ask(move |answer| Command::Shard(ShardCommand::Renew { lease, until, answer }))
    }

    fn close_shard<'a>(&'a self, lease: &'a ShardLease, made: Manifest) -> StoreFuture<'a, ()> {
        let lease = lease.clone();
        self.ask(move |answer| Command::Shard(ShardCommand::Close { lease, made, answer }))
    }

    fn shards(&self, collection: Collection) -> StoreFuture<'_, Vec<Shard>> {
        self.ask(move |answer| Command::Shard(ShardCommand::All { collection, answer }))
    }

    fn forget_shards(&self, job: JobId, leases: Vec<Lease>) -> StoreFuture<'_, ()> {
        self.ask(move |answer| Command::Shard(ShardCommand::Forget { job, leases, answer }))
    }
}

/// Owns the database.
struct Desk {
    database: Database,
    objects: Arc<FileObjects>,
    /// None: another process has the directory.
    lock: Option<DirectoryLock>,
}

impl Desk {
    async fn serve(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut next = None;
        let mut closed = None;
        while closed.is_none() {
            let Some(command) = (match next.take() {
                Some(command) => Some(command),
                None => queue.recv().await,
            }) else {
                break;
            };
            // A caller that has gone does not need its answer.
            match command {
                Command::Load(answer) => drop(answer.send(self.database.load().await)),
                Command::Commit(first) => {
                    let mut group = vec![first];
                    while group.len() < GROUP_MAX && next.is_none() {
                        match queue.try_recv() {
                            Ok(Command::Commit(more)) => group.push(more),
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    self.commit(group).await;
                }
                Command::Acquire { job, holder, now, ttl_ms, takeover, answer } => {
                    drop(answer.send(self.database.acquire(job, &holder, now, ttl_ms, takeover).await));
                }
                Command::Renew { lease, until, answer } => drop(answer.send(self.database.renew(lease, until).await)),
                Command::Shard(command) => self.shard(command).await,
                Command::Close(answer) => closed = Some(answer),
            }
        }
        self.database.close().await;
        drop((self.lock, queue));
        closed.map(|answer| answer.send(Ok(())));
    }

    async fn shard(&mut self, command: ShardCommand) {
        let database = &mut self.database;
        match command {
            ShardCommand::Offer { shards, leases, answer } => {
                drop(answer.send(database.offer_shards(&shards, &leases).await));
            }
            ShardCommand::Take { holder, now, ttl_ms, answer } => {
                drop(answer.send(database.take_shard(&holder, now, ttl_ms).await));
            }
            ShardCommand::Renew { lease, until, answer } => drop(answer.send(database.renew_shard(lease, until).await)),
            ShardCommand::Close { lease, made, answer } => {
                let (objects, object) = (self.objects.clone(), made.id());
                let synced = tokio::task::spawn_blocking(move || objects.sync(&[object])).await;
                let closed = match synced {
                    Ok(Ok(())) => self.database.close_shard(&lease, &made).await,
                    Ok(Err(e)) => Err(e.into()),
                    Err(_) => Err(StoreError::Closed),
                };
                drop(answer.send(closed));
            }
            ShardCommand::All { collection, answer } => drop(answer.send(database.shards(collection).await)),
            ShardCommand::Forget { job, leases, answer } => {
                drop(answer.send(database.forget_shards(job, &leases).await));
            }
        }
    }

    async fn commit(&mut self, group: Vec<Commit>) {
        let group = self.sync_objects(group).await;
        let parts = group.iter().map(|commit| (&*commit.writes, &*commit.leases));
        let results = self.database.commit(parts).await;
        let results = results.unwrap_or_else(|e| vec![Err(e); group.len()]);
        for (commit, result) in group.into_iter().zip(results) {
            let _ = commit.answer.send(result);
        }
    }

    /// Objects first: a row may name one only when it is on the disk. Returns the commits whose objects are.
    async fn sync_objects(&self, group: Vec<Commit>) -> Vec<Commit> {
        let objects = self.objects.clone();
        let named = |commit: &Commit| {
            let object = |write: &Write| if let Write::Object(object) = write { Some(*object) } else { None };
            commit.writes.iter().filter_map(object).collect::<Vec<_>>()
        };
        let all: Vec<ObjectId> = group.iter().flat_map(named).collect();
        if all.is_empty() {
            return group;
        }
        let sync = move || {
            if objects.sync(&all).is_ok() {
                return group;
            }
            // One by one, to find out whose it was.
            let mut good = Vec::new();
            for commit in group {
                match objects.sync(&named(&commit)) {
                    Ok(()) => good.push(commit),
                    Err(e) => drop(commit.answer.send(Err(e.into()))),
                }
            }
            good
        };
        // Only a runtime that is going down loses the task; then the answers are gone too.
        tokio::task::spawn_blocking(sync).await.unwrap_or_default()
    }
}
