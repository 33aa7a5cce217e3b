//! The SQL: rows and leases over one SQLite connection.
//!
//! Transactions are spoken by hand. SQLite ends one by itself when the disk is full, and `sqlx`, which counts them,
//! would then refuse to begin another; here a `ROLLBACK` follows every failure, and one too many does no harm.

mod shards;

use super::{Lease, StoreError, schema};
use crate::role::{Millis, Row, RowKey, Table, Write};
use littoral_wire::JobId;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row as _, SqliteConnection};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Somebody may look at the file with a tool while we run.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Database {
    connection: SqliteConnection,
    path: PathBuf,
}

impl Database {
    /// Opens or makes the file (mode 0600), checks it, and brings it to the current schema.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |e: sqlx::Error| fault(path, e);
        // Made by us first, so that it never exists with a wider mode; the log files take over the mode.
        let mut made = OpenOptions::new();
        made.read(true).write(true).create(true).truncate(false).mode(0o600);
        made.open(path).map_err(|e| StoreError::Disk { path: path.to_owned(), why: e.to_string() })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let connection = options.connect().await.map_err(failed)?;
        let mut database = Self { connection, path: path.to_owned() };
        let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut database.connection).await;
        let verdict: String = row.and_then(|row| row.try_get(0)).map_err(failed)?;
        if verdict != "ok" {
            return Err(StoreError::Corrupt { path: path.to_owned(), why: verdict.replace('\n', " ") });
        }
        database.run("BEGIN IMMEDIATE").await?;
        let migrated = match schema::migrate(&mut database.connection, path).await {
            Ok(true) => database.sum_up().await,
            other => other.map(drop),
        };
        database.end(migrated).await?;
        Ok(database)
    }

    /// Gives rows of a schema without checksums theirs.
    async fn sum_up(&mut self) -> Result<(), StoreError> {
        for row in self.rows(false).await? {
            self.write(&[Write::Put { key: row.key, value: row.value }], &[]).await?;
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        // What is in the log stays good without a goodbye.
        let _ = self.connection.close().await;
    }

    /// # Errors
    /// [`StoreError::Corrupt`] if a row is not what was written.
    pub(super) async fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        self.rows(true).await
    }

    async fn rows(&mut self, summed: bool) -> Result<Vec<Row>, StoreError> {
        let failed = |e: sqlx::Error| fault(&self.path, e);
        let mut rows = Vec::new();
        for table in Table::ALL {
            let select = AssertSqlSafe(format!("SELECT job, version, item, value, sum FROM {}", table.name()));
            let found = sqlx::query(select).fetch_all(&mut self.connection).await.map_err(failed)?;
            for found in &found {
                let row = decode(table, found).map_err(failed)?;
                let sum: &[u8] = found.try_get(4).map_err(failed)?;
                if summed && sum != checksum(&row.key, &row.value) {
                    let (name, RowKey { job, version, .. }) = (table.name(), &row.key);
                    let why =
                        format!("a row of table {name}, job {job}, version {version}, does not have its checksum");
                    return Err(StoreError::Corrupt { path: self.path.clone(), why });
                }
                rows.push(row);
            }
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }

    /// One transaction for a group of commits, each of which is written or refused by itself. An error is the disk's:
    /// then nothing of the group is written.
    pub(super) async fn commit<'a>(
        &mut self,
        group: impl Iterator<Item = (&'a [Write], &'a [Lease])>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.run("BEGIN IMMEDIATE").await?;
        let written = self.write_group(group).await;
        self.end(written).await
    }

    async fn write_group<'a>(
        &mut self,
        group: impl Iterator<Item = (&'a [Write], &'a [Lease])>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut results = Vec::new();
        for (writes, leases) in group {
            self.run("SAVEPOINT part").await?;
            let result = self.write(writes, leases).await;
            match &result {
                Ok(()) => {}
                Err(StoreError::Fenced { .. }) => self.run("ROLLBACK TO part").await?,
                Err(e) => return Err(e.clone()),
            }
            self.run("RELEASE part").await?;
            results.push(result);
        }
        Ok(results)
    }

    async fn write(&mut self, writes: &[Write], leases: &[Lease]) -> Result<(), StoreError> {
        for lease in leases {
            self.check(lease).await?;
        }
        for write in writes {
            let (sql, key, value) = match write {
                Write::Put { key, value } => {
                    (format!("INSERT OR REPLACE INTO {} VALUES (?, ?, ?, ?, ?)", key.table.name()), key, Some(value))
                }
                Write::Delete { key } => {
                    (format!("DELETE FROM {} WHERE job = ? AND version = ? AND item = ?", key.table.name()), key, None)
                }
                Write::Object(_) => continue,
            };
            // A table's name is one of nine constants. Numbers keep their 64 bits; SQLite has no unsigned ones.
            let query = sqlx::query(AssertSqlSafe(sql));
            let mut query = query.bind(key.job.0 as i64).bind(key.version as i64).bind(key.item.as_slice());
            if let Some(value) = value {
                query = query.bind(value.as_slice()).bind(checksum(key, value).to_vec());
            }
            query.execute(&mut self.connection).await.map_err(|e| fault(&self.path, e))?;
        }
        Ok(())
    }

    pub(super) async fn acquire(
        &mut self,
        job: JobId,
        holder: &str,
        now: Millis,
        ttl_ms: u64,
        takeover: bool,
    ) -> Result<Lease, StoreError> {
        self.run("BEGIN IMMEDIATE").await?;
        let taken = self.take(job, holder, now, ttl_ms, takeover).await;
        self.end(taken).await
    }

    async fn take(
        &mut self,
        job: JobId,
        holder: &str,
        now: Millis,
        ttl_ms: u64,
        takeover: bool,
    ) -> Result<Lease, StoreError> {
        let failed = |e: sqlx::Error| fault(&self.path, e);
        let select = sqlx::query("SELECT holder, token, until_ms FROM lease WHERE job = ?").bind(job.0 as i64);
        let mut token = 1;
        if let Some(row) = select.fetch_optional(&mut self.connection).await.map_err(failed)? {
            let held_by: String = row.try_get(0).map_err(failed)?;
            let until = row.try_get::<i64, _>(2).map_err(failed)? as Millis;
            if held_by != holder && until > now && !takeover {
                return Err(StoreError::Held { job, holder: held_by, until });
            }
            token = row.try_get::<i64, _>(1).map_err(failed)? as u64 + 1;
        }
        let until = now.saturating_add(ttl_ms);
        sqlx::query("INSERT OR REPLACE INTO lease (job, holder, token, until_ms) VALUES (?, ?, ?, ?)")
            .bind(job.0 as i64)
            .bind(holder)
            .bind(token as i64)
            .bind(until as i64)
            .execute(&mut self.connection)
            .await
            .map_err(failed)?;
        Ok(Lease { job, token, until })
    }

    pub(super) async fn renew(&mut self, lease: Lease, until: Millis) -> Result<Lease, StoreError> {
        self.run("BEGIN IMMEDIATE").await?;
        let prolonged = self.prolong(lease, until).await;
        self.end(prolonged).await
    }

    async fn prolong(&mut self, lease: Lease, until: Millis) -> Result<Lease, StoreError> {
        self.check(&lease).await?;
        let update = sqlx::query("UPDATE lease SET until_ms = ? WHERE job = ?");
        let update = update.bind(until as i64).bind(lease.job.0 as i64);
        update.execute(&mut self.connection).await.map_err(|e| fault(&self.path, e))?;
        Ok(Lease { until, ..lease })
    }

    async fn check(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let failed = |e: sqlx::Error| fault(&self.path, e);
        let select = sqlx::query("SELECT token FROM lease WHERE job = ?").bind(lease.job.0 as i64);
        let row = select.fetch_optional(&mut self.connection).await.map_err(failed)?;
        let current: i64 = row.map_or(Ok(0), |row| row.try_get(0)).map_err(failed)?;
        if current as u64 != lease.token {
            return Err(StoreError::Fenced { job: lease.job, ours: lease.token, current: current as u64 });
        }
        Ok(())
    }

    async fn end<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let result = match result {
            Ok(value) => self.run("COMMIT").await.map(|()| value),
            Err(e) => Err(e),
        };
        if result.is_err() {
            // Refused if SQLite has rolled back already.
            let _ = self.run("ROLLBACK").await;
        }
        result
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::query(sql).execute(&mut self.connection).await.map(drop).map_err(|e| fault(&self.path, e))
    }
}

/// Of all that a row says, 16 bytes of BLAKE3: chance damage is found, forgery is not its business.
pub(super) fn checksum(key: &RowKey, value: &[u8]) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    hash.update(key.table.name().as_bytes());
    hash.update(&[0]);
    hash.update(&key.job.0.to_le_bytes());
    hash.update(&key.version.to_le_bytes());
    hash.update(&(key.item.len() as u64).to_le_bytes());
    hash.update(&key.item);
    hash.update(value);
    let mut sum = [0; 16];
    sum.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    sum
}

fn decode(table: Table, row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let key = RowKey {
        table,
        job: JobId(row.try_get::<i64, _>(0)? as u64),
        version: row.try_get::<i64, _>(1)? as u64,
        item: row.try_get(2)?,
    };
    Ok(Row { key, value: row.try_get(3)? })
}

/// SQLite's complaint in our words.
pub(super) fn fault(path: &Path, error: sqlx::Error) -> StoreError {
    let path = path.to_owned();
    let (code, why) = match &error {
        sqlx::Error::Database(e) => (e.code().and_then(|code| code.parse::<u32>().ok()), e.message().to_owned()),
        other => (None, other.to_string()),
    };
    let why = why.replace('\n', " ");
    // The low byte of an extended code is the code; see sqlite.org/rescode.html.
    match code.map(|code| code & 0xff) {
        Some(13) => StoreError::DiskFull { path },
        Some(11 | 26) => StoreError::Corrupt { path, why },
        _ => StoreError::Disk { path, why },
    }
}
