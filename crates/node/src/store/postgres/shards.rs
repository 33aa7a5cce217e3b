//! Shards of sums ([`Shard`]): offered by whoever runs the job, added up by any replica.

use super::super::{Lease, Shard, ShardLease, StoreError};
use super::PgStore;
use crate::role::Millis;
use littoral_wire::codec::Wire;
use littoral_wire::message::Collection;
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, ObjectId};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

impl PgStore {
    pub(super) async fn offer_all(&self, shards: &[Shard], leases: &[Lease]) -> Result<(), StoreError> {
        let failed = |e| self.fault(e);
        let mut tx = self.pool.begin().await.map_err(failed)?;
        for lease in leases {
            self.check(&mut tx, lease).await?;
        }
        for shard in shards {
            let (round, job) = (shard.collection.to_bytes(), shard.collection.job.0 as i64);
            if shard.number == 0 {
                let older = sqlx::query("DELETE FROM littoral.shard WHERE job = $1 AND round <> $2");
                older.bind(job).bind(&round).execute(&mut *tx).await.map_err(failed)?;
            }
            let insert = "INSERT INTO littoral.shard (round, number, job, body) VALUES ($1, $2, $3, $4) \
                          ON CONFLICT (round, number) DO NOTHING";
            let insert = sqlx::query(insert).bind(&round).bind(i64::from(shard.number)).bind(job).bind(shard.body());
            insert.execute(&mut *tx).await.map_err(failed)?;
        }
        self.wake(&mut tx).await?;
        tx.commit().await.map_err(failed)
    }

    pub(super) async fn take_free_shard(
        &self,
        holder: &str,
        now: Millis,
        ttl_ms: u64,
    ) -> Result<Option<ShardLease>, StoreError> {
        let take = "WITH free AS (SELECT round, number FROM littoral.shard \
                    WHERE made = '' AND until <= clock_timestamp() ORDER BY until, round, number \
                    LIMIT 1 FOR UPDATE SKIP LOCKED) \
                    UPDATE littoral.shard SET holder = $1, token = token + 1, \
                    until = clock_timestamp() + $2 * interval '1 millisecond' FROM free \
                    WHERE shard.round = free.round AND shard.number = free.number \
                    RETURNING shard.round, shard.number, shard.body, shard.made, shard.token";
        let taken = sqlx::query(take).bind(holder).bind(ttl_ms as f64).fetch_optional(&self.pool).await;
        let Some(row) = taken.map_err(|e| self.fault(e))? else { return Ok(None) };
        let shard = self.shard(&row)?;
        Ok(Some(ShardLease { shard, token: row.get::<i64, _>(4) as u64, until: now.saturating_add(ttl_ms) }))
    }

    pub(super) async fn prolong_shard(
        &self,
        lease: &ShardLease,
        now: Millis,
        ttl_ms: u64,
    ) -> Result<ShardLease, StoreError> {
        let update = "UPDATE littoral.shard SET until = clock_timestamp() + $4 * interval '1 millisecond' \
                      WHERE round = $1 AND number = $2 AND token = $3";
        let Shard { collection, number, .. } = &lease.shard;
        let update = sqlx::query(update).bind(collection.to_bytes()).bind(i64::from(*number));
        let update = update.bind(lease.token as i64).bind(ttl_ms as f64);
        let done = update.execute(&self.pool).await.map_err(|e| self.fault(e))?;
        match done.rows_affected() {
            0 => Err(self.shard_lost(lease).await?),
            _ => Ok(ShardLease { until: now.saturating_add(ttl_ms), ..lease.clone() }),
        }
    }

    /// `made` comes into the bucket first. No job's row names it: it is held as something dropped, which a sweep takes later.
    pub(super) async fn finish_shard(&self, lease: &ShardLease, made: &Manifest) -> Result<(), StoreError> {
        let (objects, object) = (self.objects.clone(), made.id());
        let synced = tokio::task::spawn_blocking(move || super::super::ObjectStore::sync(&*objects, &[object])).await;
        synced.map_err(|_| StoreError::Closed)??;
        let failed = |e| self.fault(e);
        let mut tx = self.pool.begin().await.map_err(failed)?;
        let Shard { collection, number, .. } = &lease.shard;
        let update = "UPDATE littoral.shard SET made = $4 WHERE round = $1 AND number = $2 AND token = $3";
        let update = sqlx::query(update).bind(collection.to_bytes()).bind(i64::from(*number)).bind(lease.token as i64);
        let update = update.bind(Shard::made_body(collection, *number, made));
        if update.execute(&mut *tx).await.map_err(failed)?.rows_affected() == 0 {
            drop(tx);
            return Err(self.shard_lost(lease).await?);
        }
        self.note_dropped(&mut tx, object).await?;
        self.wake(&mut tx).await?;
        tx.commit().await.map_err(failed)
    }

    /// An object in the bucket that no row names stays for as long as one that was dropped now.
    async fn note_dropped(&self, tx: &mut sqlx::PgConnection, object: ObjectId) -> Result<(), StoreError> {
        let note = "INSERT INTO littoral.object (id, dropped) VALUES ($1, TRUE) \
                    ON CONFLICT (id) DO UPDATE SET since = clock_timestamp()";
        sqlx::query(note).bind(object.0.as_slice()).execute(tx).await.map_err(|e| self.fault(e))?;
        // It may have been swept since it was found there.
        Ok(self.objects.ensure(object).await?)
    }

    pub(super) async fn shards_of(&self, collection: Collection) -> Result<Vec<Shard>, StoreError> {
        let select = "SELECT round, number, body, made FROM littoral.shard WHERE round = $1 ORDER BY number";
        let found = sqlx::query(select).bind(collection.to_bytes()).fetch_all(&self.pool).await;
        found.map_err(|e| self.fault(e))?.iter().map(|row| self.shard(row)).collect()
    }

    pub(super) async fn forget_shards_of(&self, job: JobId, leases: &[Lease]) -> Result<(), StoreError> {
        let failed = |e| self.fault(e);
        let mut tx = self.pool.begin().await.map_err(failed)?;
        for lease in leases {
            self.check(&mut tx, lease).await?;
        }
        let delete = sqlx::query("DELETE FROM littoral.shard WHERE job = $1").bind(job.0 as i64);
        delete.execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    fn shard(&self, row: &PgRow) -> Result<Shard, StoreError> {
        let (round, body, made): (&[u8], &[u8], &[u8]) = (row.get(0), row.get(2), row.get(3));
        Shard::read(round, row.get(1), body, made).ok_or_else(|| {
            let why = "a row of table shard does not have its checksum".into();
            StoreError::Corrupt { path: self.at().into(), why }
        })
    }

    /// Who has it now.
    async fn shard_lost(&self, lease: &ShardLease) -> Result<StoreError, StoreError> {
        let Shard { collection, number, .. } = &lease.shard;
        let select = sqlx::query_scalar("SELECT token FROM littoral.shard WHERE round = $1 AND number = $2");
        let current = select.bind(collection.to_bytes()).bind(i64::from(*number)).fetch_optional(&self.pool).await;
        let current: Option<i64> = current.map_err(|e| self.fault(e))?;
        let current = current.unwrap_or(0) as u64;
        Ok(StoreError::Fenced { job: collection.job, ours: lease.token, current })
    }
}
