//! Rows in PostgreSQL, for replicas of a cloud that share them.
//!
//! The tables are those of the embedded store ([`super::schema`]), in a schema `littoral` of their own. Commits of one
//! process are transactions of their own on a few connections; the server groups their flushes. Transactions run at READ
//! COMMITTED: what they rely on they lock.
//!
//! | a transaction | locks the lease's row | so that |
//! |---|---|---|
//! | commits under a token | `FOR KEY SHARE` | commits of one holder run side by side, and beside renewals |
//! | renews | as an update of no key column does | it waits for no commit |
//! | takes | `FOR UPDATE` | it waits for commits under the old token; those that come later see the new one |
//!
//! So a holder that was stalled in the middle of anything writes nothing once another has the lease. `lease` has the
//! leases, `shards` those of sums that are added together, `tier` what replicas tell each other, `place` how the database is
//! reached.

mod lease;
mod place;
mod shards;
mod tier;

pub use place::PgPlace;
pub use tier::{Addressee, Changes, Mail};

use super::bucket::{Bucket, BucketObjects};
use super::database::checksum;
use super::schema::{self, Engine};
use super::{Lease, ObjectStore, Shard, ShardLease, Store, StoreError, StoreFuture};
use crate::role::{Millis, Row, RowKey, Table, Write};
use littoral_wire::message::Collection;
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, ObjectId};
use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row as _, Transaction};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Commits that are under way at a time.
const CONNECTIONS_MAX: u32 = 8;
/// For a connection, from the pool or new.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The number under which migrations exclude each other: "littoral" in letters' places.
const MIGRATION_LOCK: i64 = 0x6c69_7474_6f72_616c;
/// Whoever should have dropped an object may have died before: after so long it is looked at all the same.
const FORGOTTEN_DAYS: f64 = 30.0;
/// Objects that one sweep deletes.
const SWEPT_MAX: i64 = 256;

/// Rows in PostgreSQL, objects in a bucket. A clone is the same store.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    at: Arc<str>,
    objects: Arc<BucketObjects>,
    /// This process, among all that ever opened the database.
    replica: Arc<str>,
}

impl PgStore {
    /// Connects, and brings the database to the current schema if it has an older one or none. `dir`: a folder on this
    /// machine for objects in use; it may be empty at each start.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it cannot be reached or refuses; [`StoreError::Newer`]. Nothing is overwritten.
    pub async fn open(place: &PgPlace, bucket: Bucket, dir: &Path) -> Result<Self, StoreError> {
        let at: Arc<str> = place.at().into();
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(CONNECT_TIMEOUT);
        let pool = pool.connect_with(place.options.clone()).await.map_err(|e| fault(&at, e))?;
        let objects = Arc::new(BucketObjects::new(dir, bucket, pool.clone())?);
        let replica = Arc::from(format!("{:032x}", u128::from_le_bytes(random()?)));
        let store = Self { pool, at, objects, replica };
        store.migrate().await?;
        Ok(store)
    }

    pub fn objects(&self) -> Arc<BucketObjects> {
        self.objects.clone()
    }

    /// Where it is, without user and password.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// Returns when all connections are closed. The store, and each clone, is of no use afterwards.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    fn fault(&self, error: sqlx::Error) -> StoreError {
        fault(&self.at, error)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await.map_err(|e| self.fault(e))?;
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK);
        lock.execute(&mut *tx).await.map_err(|e| self.fault(e))?;
        // Asked first: who may only use the tables may not make them.
        let there: bool = sqlx::query_scalar("SELECT to_regclass('littoral.schema') IS NOT NULL")
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| self.fault(e))?;
        if !there {
            for statement in
                ["CREATE SCHEMA IF NOT EXISTS littoral", "CREATE TABLE littoral.schema (version BIGINT NOT NULL)"]
            {
                sqlx::query(statement).execute(&mut *tx).await.map_err(|e| self.fault(e))?;
            }
        }
        let got: Option<i64> = sqlx::query_scalar("SELECT version FROM littoral.schema")
            .fetch_optional(&mut *tx)
            .await
            .map_err(|e| self.fault(e))?;
        let got = got.unwrap_or(0);
        let statements = schema::statements(Engine::Postgres, got, &PathBuf::from(&*self.at))?;
        if statements.is_empty() {
            return Ok(());
        }
        for statement in statements {
            // Built from constants and table names only.
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *tx).await.map_err(|e| self.fault(e))?;
        }
        sqlx::query("DELETE FROM littoral.schema").execute(&mut *tx).await.map_err(|e| self.fault(e))?;
        let insert = sqlx::query("INSERT INTO littoral.schema VALUES ($1)").bind(schema::KNOWN);
        insert.execute(&mut *tx).await.map_err(|e| self.fault(e))?;
        tx.commit().await.map_err(|e| self.fault(e))
    }

    /// Rows of one job, ascending by key; of job 0, the fleet's. As they were at one moment.
    pub async fn load_job(&self, job: JobId) -> Result<Vec<Row>, StoreError> {
        self.load_where("WHERE job = $1", Some(job)).await
    }

    async fn load_where(&self, which: &str, job: Option<JobId>) -> Result<Vec<Row>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(|e| self.fault(e))?;
        let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        sqlx::query(snapshot).execute(&mut *tx).await.map_err(|e| self.fault(e))?;
        let rows = rows_of(&mut tx, which, job, &self.at).await?;
        tx.rollback().await.map_err(|e| self.fault(e))?;
        Ok(rows)
    }

    async fn write(&self, writes: &[Write], mut leases: Vec<Lease>) -> Result<(), StoreError> {
        let mut named: Vec<ObjectId> = writes
            .iter()
            .filter_map(|write| if let Write::Object(object) = write { Some(*object) } else { None })
            .collect();
        // In order, so that of two commits none waits for the other in a circle.
        named.sort_unstable();
        named.dedup();
        leases.sort_by_key(|lease| lease.job);
        if !named.is_empty() {
            let (objects, all) = (self.objects.clone(), named.clone());
            let synced = tokio::task::spawn_blocking(move || objects.sync(&all)).await;
            // Only a runtime that is going down loses the task.
            synced.map_err(|_| StoreError::Closed)??;
        }
        let mut tx = self.pool.begin().await.map_err(|e| self.fault(e))?;
        for lease in &leases {
            self.check(&mut tx, lease).await?;
        }
        for object in named {
            self.name(&mut tx, object).await?;
        }
        self.tell_changes(&mut tx, writes).await?;
        for write in writes {
            put(&mut tx, write).await.map_err(|e| self.fault(e))?;
            if let Write::Put { key: RowKey { table: Table::Job, job, .. }, .. } = write {
                self.offer(&mut tx, *job).await?;
            }
        }
        tx.commit().await.map_err(|e| self.fault(e))
    }

    /// The object is needed from now on. From here to the end of the transaction no sweep takes it.
    async fn name(&self, tx: &mut Transaction<'_, Postgres>, object: ObjectId) -> Result<(), StoreError> {
        let known = sqlx::query_scalar("SELECT NOT dropped FROM littoral.object WHERE id = $1 FOR UPDATE");
        let known: Option<bool> =
            known.bind(object.0.as_slice()).fetch_optional(&mut **tx).await.map_err(|e| self.fault(e))?;
        if known == Some(true) {
            return Ok(());
        }
        let insert = sqlx::query(
            "INSERT INTO littoral.object (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET dropped = FALSE, since = clock_timestamp()",
        );
        insert.bind(object.0.as_slice()).execute(&mut **tx).await.map_err(|e| self.fault(e))?;
        // It may have been swept since it was found there.
        Ok(self.objects.ensure(object).await?)
    }

    /// Deletes objects from the bucket that were dropped at least `grace` ago, or forgotten, and that no row needs. `needs` is handed all
    /// rows, and says which objects they refer to. Returns how many are gone.
    pub async fn sweep<N: Fn(ObjectId) -> bool>(
        &self,
        grace: Duration,
        needs: impl FnOnce(Vec<Row>) -> N,
    ) -> Result<usize, StoreError> {
        let mut tx = self.pool.begin().await.map_err(|e| self.fault(e))?;
        let select = "SELECT id FROM littoral.object WHERE dropped AND since <= clock_timestamp() - $1 * interval '1 millisecond' \
                      OR NOT dropped AND since <= clock_timestamp() - $3 * interval '1 day' \
                      ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED";
        let select = sqlx::query_scalar(select).bind(grace.as_millis() as f64).bind(SWEPT_MAX).bind(FORGOTTEN_DAYS);
        let found: Vec<Vec<u8>> = select.fetch_all(&mut *tx).await.map_err(|e| self.fault(e))?;
        let found: Vec<ObjectId> = found.into_iter().filter_map(|id| Some(ObjectId(id.try_into().ok()?))).collect();
        if found.is_empty() {
            return Ok(0);
        }
        // Read behind the locks: who comes to need one of them waits for us, and then looks whether it is still there.
        let needs = needs(rows_of(&mut tx, "", None, &self.at).await?);
        let mut gone = 0;
        for object in found {
            let statement = match needs(object) {
                true => "UPDATE littoral.object SET dropped = FALSE, since = clock_timestamp() WHERE id = $1",
                false => {
                    self.objects.bucket().delete(object).await?;
                    gone += 1;
                    "DELETE FROM littoral.object WHERE id = $1"
                }
            };
            let statement = sqlx::query(statement).bind(object.0.as_slice());
            statement.execute(&mut *tx).await.map_err(|e| self.fault(e))?;
        }
        tx.commit().await.map_err(|e| self.fault(e))?;
        Ok(gone)
    }
}

impl Store for PgStore {
    fn load(&self) -> StoreFuture<'_, Vec<Row>> {
        Box::pin(self.load_where("", None))
    }

    fn commit(&self, writes: Vec<Write>, leases: Vec<Lease>) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.write(&writes, leases).await })
    }

    fn acquire<'a>(
        &'a self,
        job: JobId,
        holder: &'a str,
        now: Millis,
        ttl_ms: u64,
        takeover: bool,
    ) -> StoreFuture<'a, Lease> {
        Box::pin(self.take(job, holder, now, ttl_ms, takeover))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, now: Millis, ttl_ms: u64) -> StoreFuture<'a, Lease> {
        Box::pin(self.prolong(lease, now, ttl_ms))
    }

    fn offer_shards(&self, shards: Vec<Shard>, leases: Vec<Lease>) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.offer_all(&shards, &leases).await })
    }

    fn take_shard<'a>(&'a self, holder: &'a str, now: Millis, ttl_ms: u64) -> StoreFuture<'a, Option<ShardLease>> {
        Box::pin(self.take_free_shard(holder, now, ttl_ms))
    }

    fn renew_shard<'a>(&'a self, lease: &'a ShardLease, now: Millis, ttl_ms: u64) -> StoreFuture<'a, ShardLease> {
        Box::pin(self.prolong_shard(lease, now, ttl_ms))
    }

    fn close_shard<'a>(&'a self, lease: &'a ShardLease, made: Manifest) -> StoreFuture<'a, ()> {
        Box::pin(async move { self.finish_shard(lease, &made).await })
    }

    fn shards(&self, collection: Collection) -> StoreFuture<'_, Vec<Shard>> {
        Box::pin(self.shards_of(collection))
    }

    fn forget_shards(&self, job: JobId, leases: Vec<Lease>) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.forget_shards_of(job, &leases).await })
    }
}

fn random() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    let failed =
        |e: getrandom::Error| StoreError::Database { at: "this machine".into(), why: e.to_string(), passes: false };
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// All rows, or those of a job, ascending by key.
async fn rows_of(
    connection: &mut PgConnection,
    which: &str,
    job: Option<JobId>,
    at: &str,
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    for table in Table::ALL {
        let name = Engine::Postgres.table(table.name());
        let select = AssertSqlSafe(format!("SELECT job, version, item, value, sum FROM {name} {which}"));
        let select = match job {
            Some(job) => sqlx::query(select).bind(job.0 as i64),
            None => sqlx::query(select),
        };
        for found in select.fetch_all(&mut *connection).await.map_err(|e| fault(at, e))? {
            rows.push(checked(table, &found, at)?);
        }
    }
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(rows)
}

async fn put(tx: &mut Transaction<'_, Postgres>, write: &Write) -> Result<(), sqlx::Error> {
    let (key, value) = match write {
        Write::Put { key, value } => (key, Some(value)),
        Write::Delete { key } => (key, None),
        Write::Object(_) => return Ok(()),
    };
    let name = Engine::Postgres.table(key.table.name());
    let sql = match value {
        Some(_) => format!(
            "INSERT INTO {name} (job, version, item, value, sum) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (job, version, item) DO UPDATE SET value = $4, sum = $5"
        ),
        None => format!("DELETE FROM {name} WHERE job = $1 AND version = $2 AND item = $3"),
    };
    // A table's name is one of a few constants. Numbers keep their 64 bits; there are no unsigned ones.
    let query = sqlx::query(AssertSqlSafe(sql));
    let mut query = query.bind(key.job.0 as i64).bind(key.version as i64).bind(key.item.as_slice());
    if let Some(value) = value {
        query = query.bind(value.as_slice()).bind(checksum(key, value).to_vec());
    }
    query.execute(&mut **tx).await.map(drop)
}

fn decode(table: Table, row: &PgRow) -> Result<(Row, Vec<u8>), sqlx::Error> {
    let key = RowKey {
        table,
        job: JobId(row.try_get::<i64, _>(0)? as u64),
        version: row.try_get::<i64, _>(1)? as u64,
        item: row.try_get(2)?,
    };
    Ok((Row { key, value: row.try_get(3)? }, row.try_get(4)?))
}

fn checked(table: Table, found: &PgRow, at: &str) -> Result<Row, StoreError> {
    let (row, sum) = decode(table, found).map_err(|e| fault(at, e))?;
    if sum != checksum(&row.key, &row.value) {
        let (name, RowKey { job, version, .. }) = (table.name(), &row.key);
        let why = format!("a row of table {name}, job {job}, version {version}, does not have its checksum");
        return Err(StoreError::Corrupt { path: at.into(), why });
    }
    Ok(row)
}

/// PostgreSQL's complaint in our words.
fn fault(at: &str, error: sqlx::Error) -> StoreError {
    let one_line = |text: &str| text.replace('\n', " ");
    match &error {
        sqlx::Error::Database(e) => {
            let code = e.code().unwrap_or_default().into_owned();
            let why = one_line(e.message());
            match code.get(..2).unwrap_or_default() {
                "53" if code == "53100" => StoreError::DiskFull { path: at.into() },
                "XX" => StoreError::Corrupt { path: at.into(), why },
                // Connections, rollbacks by the server (circles of waiting), resources, operators, the system.
                class => {
                    let passes = matches!(class, "08" | "25" | "40" | "53" | "55" | "57" | "58");
                    StoreError::Database { at: at.into(), why: format!("{why} ({code})"), passes }
                }
            }
        }
        sqlx::Error::PoolClosed => StoreError::Closed,
        sqlx::Error::PoolTimedOut => {
            let why = format!("no connection within {CONNECT_TIMEOUT:?}");
            StoreError::Database { at: at.into(), why, passes: true }
        }
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => {
            StoreError::Database { at: at.into(), why: one_line(&error.to_string()), passes: true }
        }
        other => StoreError::Database { at: at.into(), why: one_line(&other.to_string()), passes: false },
    }
}

impl std::fmt::Debug for PgStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PgStore {{ at: {:?} }}", self.at)
    }
}
