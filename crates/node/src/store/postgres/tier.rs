//! What replicas tell each other: which shared rows have changed, and messages that another one has to answer.
//!
//! A commit that touches rows which every replica has in memory notes their keys, in the same transaction, under a number
//! one above the last; so who has read up to a number has missed nothing. A notification wakes the others; who misses it
//! looks by itself after a while.

use super::super::StoreError;
use super::super::schema::Engine;
use super::{PgStore, checked, rows_of};
use crate::role::{Row, RowKey, Table, Write};
use littoral_wire::{JobId, NodeId};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

/// The number under which writers of changes come one after the other.
const CHANGES_LOCK: i64 = 0x6c69_7474_6f72_0001;
/// So many changes are kept for those who are behind.
const CHANGES_KEPT: i64 = 100_000;
/// Read at a time.
const CHANGES_MAX: i64 = 1_000;
const MAIL_MAX: i64 = 64;
/// Nobody waits longer for an answer.
const MAIL_LIFE: &str = "1 minute";
const CHANNEL: &str = "littoral";

/// Rows that other replicas have changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// As they are now; no value: gone.
    pub rows: Vec<(RowKey, Option<Vec<u8>>)>,
    /// Up to here.
    pub seq: i64,
    /// There are more.
    pub more: bool,
}

/// A message that one replica passed on to another, or the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Mail {
    pub sender: String,
    /// As the replica numbers it whose link it is.
    pub link: u64,
    pub peer: NodeId,
    /// Empty: the link is down.
    pub body: Vec<u8>,
}

/// Does every replica have rows of this kind in memory?
fn is_shared(key: &RowKey) -> bool {
    match key.table {
        Table::Node | Table::Operator | Table::Roster => key.job == JobId(0),
        Table::Job | Table::Ledger | Table::Status => true,
        _ => false,
    }
}

fn shared_key(write: &Write) -> Option<&RowKey> {
    match write {
        Write::Put { key, .. } | Write::Delete { key } => Some(key).filter(|key| is_shared(key)),
        Write::Object(_) => None,
    }
}

fn table_of(name: &str) -> Option<Table> {
    Table::ALL.into_iter().find(|table| table.name() == name)
}

impl PgStore {
    /// This process, among all that ever opened the database.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Whose database this is; nobody's before a cloud has started.
    pub async fn cloud(&self) -> Result<Option<NodeId>, StoreError> {
        let id: Option<Vec<u8>> = sqlx::query_scalar("SELECT id FROM littoral.cloud")
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.fault(e))?;
        Ok(id.and_then(|id| Some(NodeId(id.try_into().ok()?))))
    }

    /// Makes it this cloud's if it is nobody's. Returns whose it is.
    pub async fn be_cloud(&self, id: NodeId) -> Result<NodeId, StoreError> {
        let insert = sqlx::query("INSERT INTO littoral.cloud VALUES (TRUE, $1) ON CONFLICT DO NOTHING");
        insert.bind(id.0.as_slice()).execute(&self.pool).await.map_err(|e| self.fault(e))?;
        Ok(self.cloud().await?.unwrap_or(id))
    }

    pub(super) async fn tell_changes(&self, tx: &mut PgConnection, writes: &[Write]) -> Result<(), StoreError> {
        let keys: Vec<&RowKey> = writes.iter().filter_map(shared_key).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let failed = |e| self.fault(e);
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CHANGES_LOCK).execute(&mut *tx).await.map_err(failed)?;
        for key in keys {
            let insert = "INSERT INTO littoral.change (seq, origin, name, job, version, item) \
                          SELECT coalesce(max(seq), 0) + 1, $1, $2, $3, $4, $5 FROM littoral.change";
            let insert = sqlx::query(insert).bind(&*self.replica).bind(key.table.name()).bind(key.job.0 as i64);
            let insert = insert.bind(key.version as i64).bind(key.item.as_slice());
            insert.execute(&mut *tx).await.map_err(failed)?;
        }
        let old = "DELETE FROM littoral.change WHERE seq <= (SELECT max(seq) FROM littoral.change) - $1";
        sqlx::query(old).bind(CHANGES_KEPT).execute(&mut *tx).await.map_err(failed)?;
        self.wake(tx).await
    }

    /// The others look again, once this is committed.
    pub(super) async fn wake(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let notify = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL);
        notify.execute(connection).await.map(drop).map_err(|e| self.fault(e))
    }

    /// Hears of changes and of mail. It connects again by itself, and may miss some then.
    pub async fn listen(&self) -> Result<PgListener, StoreError> {
        let mut listener = PgListener::connect_with(&self.pool).await.map_err(|e| self.fault(e))?;
        listener.ignore_pool_close_event(false);
        listener.listen(CHANNEL).await.map_err(|e| self.fault(e))?;
        Ok(listener)
    }

    /// The number of the last change. Who reads rows after it and then changes from it on misses none.
    pub async fn last_change(&self) -> Result<i64, StoreError> {
        let last = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM littoral.change");
        last.fetch_one(&self.pool).await.map_err(|e| self.fault(e))
    }

    /// What others have changed after `seq`.
    ///
    /// # Errors
    /// [`StoreError::Database`], final, if that is so long ago that it is not known any more.
    pub async fn changes(&self, seq: i64) -> Result<Changes, StoreError> {
        let failed = |e| self.fault(e);
        let select = "SELECT seq, origin = $2, name, job, version, item FROM littoral.change WHERE seq > $1 \
                      ORDER BY seq LIMIT $3";
        let select = sqlx::query(select).bind(seq).bind(&*self.replica).bind(CHANGES_MAX);
        let found = select.fetch_all(&self.pool).await.map_err(failed)?;
        let mut changes = Changes { seq, more: found.len() as i64 == CHANGES_MAX, ..Changes::default() };
        for row in found {
            let at: i64 = row.get(0);
            if changes.seq == seq && at != seq + 1 {
                let why = format!("change {} is not kept any more: this replica was away for too long", seq + 1);
                return Err(StoreError::Database { at: self.at().into(), why, passes: false });
            }
            changes.seq = at;
            // Ours are in memory, and perhaps newer ones.
            if row.get(1) {
                continue;
            }
            // A later release may have a table more.
            let Some(table) = table_of(row.get(2)) else { continue };
            let key = RowKey {
                table,
                job: JobId(row.get::<i64, _>(3) as u64),
                version: row.get::<i64, _>(4) as u64,
                item: row.get(5),
            };
            let name = Engine::Postgres.table(table.name());
            let select = format!(
                "SELECT job, version, item, value, sum FROM {name} WHERE job = $1 AND version = $2 AND item = $3"
            );
            let select = sqlx::query(AssertSqlSafe(select)).bind(key.job.0 as i64).bind(key.version as i64);
            let now = select.bind(key.item.as_slice()).fetch_optional(&self.pool).await.map_err(failed)?;
            let value = now.map(|now| checked(table, &now, self.at())).transpose()?.map(|row| row.value);
            changes.rows.push((key, value));
        }
        Ok(changes)
    }

    /// What every replica has in memory, and what else is the fleet's. As it was at one moment.
    pub async fn load_fleet(&self) -> Result<Vec<Row>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(|e| self.fault(e))?;
        let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        sqlx::query(snapshot).execute(&mut *tx).await.map_err(|e| self.fault(e))?;
        let mut rows = rows_of(&mut tx, "WHERE job = $1", Some(JobId(0)), self.at()).await?;
        for table in [Table::Job, Table::Ledger, Table::Status] {
            let name = Engine::Postgres.table(table.name());
            let select = format!("SELECT job, version, item, value, sum FROM {name} WHERE job <> 0");
            let found = sqlx::query(AssertSqlSafe(select)).fetch_all(&mut *tx).await.map_err(|e| self.fault(e))?;
            for row in &found {
                rows.push(checked(table, row, self.at())?);
            }
        }
        tx.rollback().await.map_err(|e| self.fault(e))?;
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }

    /// Puts a message into the box of whoever holds `job`'s lease, or of the replica of that name.
    pub async fn post(&self, to: &Addressee, link: u64, peer: NodeId, body: &[u8]) -> Result<(), StoreError> {
        let failed = |e| self.fault(e);
        let mut tx = self.pool.begin().await.map_err(failed)?;
        let insert = "INSERT INTO littoral.mail (addressee, sender, link, peer, body) VALUES ($1, $2, $3, $4, $5)";
        let insert = sqlx::query(insert).bind(to.name()).bind(&*self.replica).bind(link as i64);
        insert.bind(peer.0.as_slice()).bind(body).execute(&mut *tx).await.map_err(failed)?;
        self.wake(&mut tx).await?;
        tx.commit().await.map_err(failed)
    }

    /// Takes what is in these boxes, in the order in which it was put there, each with the name of its box. A message is
    /// had once.
    pub async fn take_mail(&self, boxes: &[Addressee]) -> Result<Vec<(String, Mail)>, StoreError> {
        let names: Vec<String> = boxes.iter().map(Addressee::name).collect();
        let take = format!(
            "WITH old AS (DELETE FROM littoral.mail WHERE at < clock_timestamp() - interval '{MAIL_LIFE}'), \
             mine AS (SELECT id FROM littoral.mail WHERE addressee = ANY($1) \
             AND at >= clock_timestamp() - interval '{MAIL_LIFE}' ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED), \
             taken AS (DELETE FROM littoral.mail USING mine WHERE mail.id = mine.id \
             RETURNING mail.id, addressee, sender, link, peer, body) \
             SELECT sender, link, peer, body, addressee FROM taken ORDER BY id"
        );
        let take = sqlx::query(AssertSqlSafe(take)).bind(names).bind(MAIL_MAX);
        let found = take.fetch_all(&self.pool).await.map_err(|e| self.fault(e))?;
        let mail = |row: &sqlx::postgres::PgRow| {
            let peer = NodeId(row.get::<Vec<u8>, _>(2).try_into().ok()?);
            let mail = Mail { sender: row.get(0), link: row.get::<i64, _>(1) as u64, peer, body: row.get(3) };
            Some((row.get(4), mail))
        };
        Ok(found.iter().filter_map(mail).collect())
    }
}

/// Whose box it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// Whoever holds this job's lease.
    Holder(JobId),
    Replica(String),
}

impl Addressee {
    pub fn name(&self) -> String {
        match self {
            Addressee::Holder(job) => super::lease::name(*job),
            Addressee::Replica(replica) => format!("replica/{replica}"),
        }
    }
}
