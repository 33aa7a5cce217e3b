//! Shards of sums ([`Shard`]), as the shared store has them. One process does them all.

use super::super::{Lease, Shard, ShardLease, StoreError};
use super::{Database, fault};
use crate::role::Millis;
use littoral_wire::JobId;
use littoral_wire::codec::Wire;
use littoral_wire::message::Collection;
use littoral_wire::object::Manifest;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

impl Database {
    pub(in crate::store) async fn offer_shards(
        &mut self,
        shards: &[Shard],
        leases: &[Lease],
    ) -> Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE").await?;
        let offered = self.offer(shards, leases).await;
        self.end(offered).await
    }

    async fn offer(&mut self, shards: &[Shard], leases: &[Lease]) -> Result<(), StoreError> {
        for lease in leases {
            self.check(lease).await?;
        }
        for shard in shards {
            let (round, job) = (shard.collection.to_bytes(), shard.collection.job.0 as i64);
            if shard.number == 0 {
                let older = sqlx::query("DELETE FROM shard WHERE job = ? AND round <> ?").bind(job).bind(&round);
                older.execute(&mut self.connection).await.map_err(|e| fault(&self.path, e))?;
            }
            let insert = "INSERT INTO shard (round, number, job, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
            let insert = sqlx::query(insert).bind(&round).bind(i64::from(shard.number)).bind(job).bind(shard.body());
            insert.execute(&mut self.connection).await.map_err(|e| fault(&self.path, e))?;
        }
        Ok(())
    }

    pub(in crate::store) async fn take_shard(
        &mut self,
        holder: &str,
        now: Millis,
        ttl_ms: u64,
    ) -> Result<Option<ShardLease>, StoreError> {
        let until = now.saturating_add(ttl_ms);
        // One statement is a transaction.
        let take = "UPDATE shard SET holder = ?1, token = token + 1, until_ms = ?2 WHERE (round, number) = \
                    (SELECT round, number FROM shard WHERE made = x'' AND until_ms <= ?3 \
                    ORDER BY until_ms, round, number LIMIT 1) RETURNING round, number, body, made, token";
        let take = sqlx::query(take).bind(holder).bind(until as i64).bind(now as i64);
        let taken = take.fetch_optional(&mut self.connection).await.map_err(|e| fault(&self.path, e))?;
        let lease =
            |row: SqliteRow| Ok(ShardLease { shard: self.shard(&row)?, token: row.get::<i64, _>(4) as u64, until });
        taken.map(lease).transpose()
    }

    pub(in crate::store) async fn renew_shard(
        &mut self,
        lease: ShardLease,
        until: Millis,
    ) -> Result<ShardLease, StoreError> {
        let update = "UPDATE shard SET until_ms = ? WHERE round = ? AND number = ? AND token = ?";
        let update = sqlx::query(update).bind(until as i64).bind(lease.shard.collection.to_bytes());
        let update = update.bind(i64::from(lease.shard.number)).bind(lease.token as i64);
        match update.execute(&mut self.connection).await.map_err(|e| fault(&self.path, e))?.rows_affected() {
            0 => Err(self.shard_lost(&lease).await?),
            _ => Ok(ShardLease { until, ..lease }),
        }
    }

    /// `made` is on the disk already.
    pub(in crate::store) async fn close_shard(
        &mut self,
        lease: &ShardLease,
        made: &Manifest,
    ) -> Result<(), StoreError> {
        let Shard { collection, number, .. } = &lease.shard;
        let update = sqlx::query("UPDATE shard SET made = ? WHERE round = ? AND number = ? AND token = ?");
        let update = update.bind(Shard::made_body(collection, *number, made)).bind(collection.to_bytes());
        let update = update.bind(i64::from(*number)).bind(lease.token as i64);
        match update.execute(&mut self.connection).await.map_err(|e| fault(&self.path, e))?.rows_affected() {
            0 => Err(self.shard_lost(lease).await?),
            _ => Ok(()),
        }
    }

    pub(in crate::store) async fn shards(&mut self, collection: Collection) -> Result<Vec<Shard>, StoreError> {
        let select = sqlx::query("SELECT round, number, body, made FROM shard WHERE round = ? ORDER BY number");
        let found = select.bind(collection.to_bytes()).fetch_all(&mut self.connection).await;
        found.map_err(|e| fault(&self.path, e))?.iter().map(|row| self.shard(row)).collect()
    }

    pub(in crate::store) async fn forget_shards(&mut self, job: JobId, leases: &[Lease]) -> Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE").await?;
        let forgotten = self.forget(job, leases).await;
        self.end(forgotten).await
    }

    async fn forget(&mut self, job: JobId, leases: &[Lease]) -> Result<(), StoreError> {
        for lease in leases {
            self.check(lease).await?;
        }
        let delete = sqlx::query("DELETE FROM shard WHERE job = ?").bind(job.0 as i64);
        delete.execute(&mut self.connection).await.map(drop).map_err(|e| fault(&self.path, e))
    }

    fn shard(&self, row: &SqliteRow) -> Result<Shard, StoreError> {
        let (round, body, made): (&[u8], &[u8], &[u8]) = (row.get(0), row.get(2), row.get(3));
        Shard::read(round, row.get(1), body, made).ok_or_else(|| {
            let why = "a row of table shard does not have its checksum".into();
            StoreError::Corrupt { path: self.path.clone(), why }
        })
    }

    async fn shard_lost(&mut self, lease: &ShardLease) -> Result<StoreError, StoreError> {
        let Shard { collection, number, .. } = &lease.shard;
        let select = sqlx::query_scalar("SELECT token FROM shard WHERE round = ? AND number = ?");
        let select = select.bind(collection.to_bytes()).bind(i64::from(*number));
        let current: Option<i64> =
            select.fetch_optional(&mut self.connection).await.map_err(|e| fault(&self.path, e))?;
        let current = current.unwrap_or(0) as u64;
        Ok(StoreError::Fenced { job: collection.job, ours: lease.token, current })
    }
}
