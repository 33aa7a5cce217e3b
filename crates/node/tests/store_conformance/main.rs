//! What every store does, run on the embedded one (SQLite and a folder) and on the shared one (PostgreSQL and S3).

#[path = "../host_scratch/mod.rs"]
mod host_scratch;
#[path = "../shared_store/mod.rs"]
mod shared_store;

mod crash;
mod objects;
mod rows;
mod shards;

use host_scratch::Scratch;
use littoral_node::role::{RowKey, Table, Write};
use littoral_node::store::{BucketOptions, ObjectStore, PgStore, SqliteStore, Store, StoreError};
use littoral_wire::JobId;
use shared_store::{Postgres, bucket, open, s3::S3};
use std::path::Path;
use std::sync::Arc;

/// A store of a test's own, open or closed.
pub struct Place {
    dir: Scratch,
    shared: Option<Shared>,
}

pub struct Shared {
    url: String,
    bucket: BucketOptions,
    s3: S3,
}

/// An open store. Of a shared one there may be several.
#[derive(Clone)]
pub struct Opened {
    pub rows: Arc<dyn Store>,
    pub objects: Arc<dyn ObjectStore>,
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    Sqlite(Arc<SqliteStore>),
    Postgres(PgStore),
}

impl Opened {
    pub async fn close(self) {
        match self.engine {
            Engine::Sqlite(store) => store.close().await,
            Engine::Postgres(store) => store.close().await,
        }
    }

    /// Calls about objects block, and may wait for the network.
    pub async fn blocking<T: Send + 'static>(&self, deed: impl FnOnce(&dyn ObjectStore) -> T + Send + 'static) -> T {
        let objects = self.objects.clone();
        tokio::task::spawn_blocking(move || deed(&*objects)).await.unwrap()
    }
}

pub async fn open_embedded(dir: &Path) -> Opened {
    let store = loop {
        match SqliteStore::open(dir).await {
            Ok(store) => break Arc::new(store),
            // A process that another test is starting has our lock's file too, until it becomes another program.
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    };
    Opened { rows: store.clone(), objects: store.objects(), engine: Engine::Sqlite(store) }
}

pub async fn open_shared(url: &str, bucket: &BucketOptions, dir: &Path) -> Opened {
    let store = open(url, bucket, dir).await;
    Opened { rows: Arc::new(store.clone()), objects: store.objects(), engine: Engine::Postgres(store) }
}

impl Place {
    fn embedded(name: &str) -> Self {
        Self { dir: Scratch::new(name), shared: None }
    }

    /// `None` without PostgreSQL.
    async fn shared(name: &str) -> Option<Self> {
        let url = Postgres::here().await?.database().await;
        let s3 = S3::start().await;
        let dir = Scratch::new(name);
        let bucket = bucket(Some(&s3.endpoint), "models", dir.path());
        Some(Self { dir, shared: Some(Shared { url, bucket, s3 }) })
    }

    async fn open(&self) -> Opened {
        match &self.shared {
            None => open_embedded(self.dir.path()).await,
            // Each with an empty folder, as on another machine.
            Some(shared) => {
                use std::sync::atomic::{AtomicU32, Ordering};
                static MACHINES: AtomicU32 = AtomicU32::new(0);
                let machine = self.dir.path().join(format!("machine-{}", MACHINES.fetch_add(1, Ordering::Relaxed)));
                open_shared(&shared.url, &shared.bucket, &machine).await
            }
        }
    }
}

/// Each case as a test per engine.
macro_rules! on_both {
    ($($module:ident :: $case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$module::$case(super::Place::embedded(stringify!($case))).await;
            })*
        }
        mod shared {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(place) = super::Place::shared(stringify!($case)).await {
                    super::$module::$case(place).await;
                }
            })*
        }
    };
}

on_both! {
    rows::rows_come_back_sorted_and_exact,
    rows::a_batch_that_names_an_absent_object_is_not_written,
    rows::a_fenced_commit_writes_nothing_and_spoils_nothing,
    rows::tokens_grow_over_restarts,
    rows::many_writers_lose_nothing,
    rows::a_lease_that_ran_out_may_be_taken,
    rows::big_values_come_back,
    objects::an_object_is_whole_or_absent,
    objects::what_was_synced_is_there_after_a_restart,
    objects::a_work_makes_objects_that_get_their_names_later,
    objects::dropped_is_gone,
    shards::a_shard_is_taken_by_one_and_closed_once,
    shards::shards_are_offered_by_whoever_runs_the_job,
    crash::acknowledged_commits_survive_and_none_is_half_there,
}

pub const JOB: JobId = JobId(7);

pub fn key(table: Table, version: u64, item: &[u8]) -> RowKey {
    RowKey { table, job: JOB, version, item: item.to_vec() }
}

pub fn put(table: Table, version: u64, item: &[u8], value: &[u8]) -> Write {
    Write::Put { key: key(table, version, item), value: value.to_vec() }
}
