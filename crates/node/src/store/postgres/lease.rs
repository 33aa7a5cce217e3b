//! Leases: who may write a job's rows, until when, and under which number.
//!
//! Time is the database's. A holder reckons with its own clock from the moment *before* it asked, so it gives up no later
//! than the database does, whatever the two clocks show.

use super::super::{Lease, StoreError};
use super::PgStore;
use crate::role::Millis;
use littoral_wire::JobId;
use sqlx::{PgConnection, Row};

/// A job's lease is named after it; job 0 is the fleet.
pub(super) fn name(job: JobId) -> String {
    format!("job/{}", job.0)
}

fn job_of(name: &str) -> Option<JobId> {
    name.strip_prefix("job/")?.parse().ok().map(JobId)
}

/// A lease that nobody has had yet, so that there is a row to lock.
const MADE: &str = "INSERT INTO littoral.lease (name, holder, token, until) VALUES ($1, '', 0, '-infinity') \
                    ON CONFLICT (name) DO NOTHING";
const TAKEN: &str = "UPDATE littoral.lease SET holder = $2, token = token + 1, \
                     until = clock_timestamp() + $3 * interval '1 millisecond' WHERE name = $1 RETURNING token";

impl PgStore {
    pub(super) async fn take(
        &self,
        job: JobId,
        holder: &str,
        now: Millis,
        ttl_ms: u64,
        takeover: bool,
    ) -> Result<Lease, StoreError> {
        let name = name(job);
        let mut tx = self.pool.begin().await.map_err(|e| self.fault(e))?;
        sqlx::query(MADE).bind(&name).execute(&mut *tx).await.map_err(|e| self.fault(e))?;
        // Infinity has no milliseconds.
        let select = "SELECT holder, until > clock_timestamp(), \
                      CASE WHEN isfinite(until) THEN (extract(epoch FROM until) * 1000)::BIGINT ELSE 0 END \
                      FROM littoral.lease WHERE name = $1 FOR UPDATE";
        let row = sqlx::query(select).bind(&name).fetch_one(&mut *tx).await.map_err(|e| self.fault(e))?;
        let (held_by, live): (String, bool) = (row.get(0), row.get(1));
        if live && held_by != holder && !takeover {
            return Err(StoreError::Held { job, holder: held_by, until: row.get::<i64, _>(2) as Millis });
        }
        let token: i64 = sqlx::query_scalar(TAKEN)
            .bind(&name)
            .bind(holder)
            .bind(ttl_ms as f64)
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| self.fault(e))?;
        tx.commit().await.map_err(|e| self.fault(e))?;
        Ok(Lease { job, token: token as u64, until: now.saturating_add(ttl_ms) })
    }

    /// The fleet may be leased from now on.
    pub async fn offer_fleet(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|e| self.fault(e))?;
        self.offer(&mut connection, JobId(0)).await
    }

    /// A job that is new may be leased from now on.
    pub(super) async fn offer(&self, connection: &mut PgConnection, job: JobId) -> Result<(), StoreError> {
        sqlx::query(MADE).bind(name(job)).execute(connection).await.map(drop).map_err(|e| self.fault(e))
    }

    /// Takes up to `most` leases that nobody holds, those that are free the longest first. Who asks at the same time gets
    /// others, and waits for nobody.
    pub async fn claim(&self, holder: &str, now: Millis, ttl_ms: u64, most: u32) -> Result<Vec<Lease>, StoreError> {
        let claim = "WITH free AS (SELECT name FROM littoral.lease WHERE until <= clock_timestamp() \
                     ORDER BY until LIMIT $3 FOR UPDATE SKIP LOCKED) \
                     UPDATE littoral.lease SET holder = $1, token = token + 1, \
                     until = clock_timestamp() + $2 * interval '1 millisecond' \
                     FROM free WHERE lease.name = free.name RETURNING lease.name, lease.token";
        let rows = sqlx::query(claim)
            .bind(holder)
            .bind(ttl_ms as f64)
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.fault(e))?;
        let until = now.saturating_add(ttl_ms);
        let lease = |row: &sqlx::postgres::PgRow| {
            let job = job_of(row.get(0))?;
            Some(Lease { job, token: row.get::<i64, _>(1) as u64, until })
        };
        Ok(rows.iter().filter_map(lease).collect())
    }

    pub(super) async fn prolong(&self, lease: &Lease, now: Millis, ttl_ms: u64) -> Result<Lease, StoreError> {
        let update = "UPDATE littoral.lease SET until = clock_timestamp() + $3 * interval '1 millisecond' \
                      WHERE name = $1 AND token = $2";
        let update = sqlx::query(update).bind(name(lease.job)).bind(lease.token as i64).bind(ttl_ms as f64);
        let done = update.execute(&self.pool).await.map_err(|e| self.fault(e))?;
        if done.rows_affected() == 0 {
            let current = sqlx::query_scalar("SELECT token FROM littoral.lease WHERE name = $1").bind(name(lease.job));
            let current: Option<i64> = current.fetch_optional(&self.pool).await.map_err(|e| self.fault(e))?;
            let current = current.unwrap_or(0) as u64;
            return Err(StoreError::Fenced { job: lease.job, ours: lease.token, current });
        }
        Ok(Lease { until: now.saturating_add(ttl_ms), ..lease.clone() })
    }

    /// Prolongs several leases at once, until `now + ttl_ms`.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if one of them is lost; the others may have been prolonged.
    pub async fn renew_all(&self, leases: &[Lease], now: Millis, ttl_ms: u64) -> Result<Vec<Lease>, StoreError> {
        let names: Vec<String> = leases.iter().map(|lease| name(lease.job)).collect();
        let tokens: Vec<i64> = leases.iter().map(|lease| lease.token as i64).collect();
        let update = "UPDATE littoral.lease SET until = clock_timestamp() + $3 * interval '1 millisecond' \
                      FROM unnest($1::TEXT[], $2::BIGINT[]) AS mine (name, token) \
                      WHERE lease.name = mine.name AND lease.token = mine.token RETURNING lease.name";
        let update = sqlx::query_scalar(update).bind(names).bind(tokens).bind(ttl_ms as f64);
        let renewed: Vec<String> = update.fetch_all(&self.pool).await.map_err(|e| self.fault(e))?;
        let lost = leases.iter().find(|lease| !renewed.contains(&name(lease.job)));
        match lost {
            // To be told the current token.
            Some(lost) => self.prolong(lost, now, ttl_ms).await.map(|lease| vec![lease]),
            None => {
                Ok(leases.iter().map(|lease| Lease { until: now.saturating_add(ttl_ms), ..lease.clone() }).collect())
            }
        }
    }

    /// Gives a lease back, so that nobody has to wait until it runs out. One that was lost already is.
    pub async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let update = "UPDATE littoral.lease SET until = '-infinity' WHERE name = $1 AND token = $2";
        let update = sqlx::query(update).bind(name(lease.job)).bind(lease.token as i64);
        update.execute(&self.pool).await.map(drop).map_err(|e| self.fault(e))
    }

    /// Inside a commit: is this token the current one? From here to the end of the transaction nobody takes the lease.
    pub(super) async fn check(&self, connection: &mut PgConnection, lease: &Lease) -> Result<(), StoreError> {
        let select = "SELECT token FROM littoral.lease WHERE name = $1 FOR KEY SHARE";
        let current: Option<i64> = sqlx::query_scalar(select)
            .bind(name(lease.job))
            .fetch_optional(connection)
            .await
            .map_err(|e| self.fault(e))?;
        match current.unwrap_or(0) as u64 {
            current if current == lease.token => Ok(()),
            current => Err(StoreError::Fenced { job: lease.job, ours: lease.token, current }),
        }
    }
}
