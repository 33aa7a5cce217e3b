//! Durable writes of a role, one set after the other, under leases.
//!
//! The directory's lock is ours, so a lease that is found belongs to a process that has gone: it is taken over at
//! once, with the next token. From then on the old process, should it live after all, is refused by the store.

use super::tier::Held;
use super::{Clock, OnReport};
use crate::role::{Report, Write};
use crate::store::{Lease, Store, StoreError};
use littoral_wire::JobId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(15);

pub(super) struct Journal {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) on_report: OnReport,
    pub(super) holder: Option<String>,
    pub(super) lease_ttl_ms: u64,
    pub(super) leases: BTreeMap<JobId, Lease>,
    /// Where there are other replicas, what is leased is leased before the role knows of it.
    pub(super) held: Option<Held>,
}

impl Journal {
    /// Returns when `writes` are durable. While the disk is full this waits and says so; any other fault is final.
    pub(super) async fn commit(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.try_commit(&writes).await {
                Err(e) if e.may_pass() => {
                    let what = format!("not stored, and everything waits for it: {e}; next try in {pause:?}");
                    (self.on_report)(Report::Warning { what });
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LAST);
                }
                result => return result,
            }
        }
    }

    async fn try_commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let mut leases = Vec::new();
        match &self.held {
            Some(held) => leases = held.leases_for(writes)?,
            None => {
                for job in jobs(writes) {
                    leases.extend(self.lease(job).await?);
                }
            }
        }
        self.store.commit(writes.to_vec(), leases).await
    }

    /// Under which leases a job's rows may be written.
    pub(super) async fn leases_of(&mut self, job: JobId) -> Result<Vec<Lease>, StoreError> {
        match &self.held {
            Some(held) => held.lease_of(job).map(|lease| vec![lease]),
            None => Ok(self.lease(job).await?.into_iter().collect()),
        }
    }

    async fn lease(&mut self, job: JobId) -> Result<Option<Lease>, StoreError> {
        let Some(holder) = &self.holder else { return Ok(None) };
        let (now, ttl_ms) = (self.clock.now(), self.lease_ttl_ms);
        let lease = match self.leases.get(&job) {
            Some(lease) if lease.until >= now + ttl_ms / 2 => return Ok(Some(lease.clone())),
            Some(lease) => self.store.renew(lease, now, ttl_ms).await?,
            None => self.store.acquire(job, holder, now, ttl_ms, true).await?,
        };
        self.leases.insert(job, lease.clone());
        Ok(Some(lease))
    }
}

/// Job 0 is the fleet, which nobody leases.
fn jobs(writes: &[Write]) -> BTreeSet<JobId> {
    let job = |write: &Write| match write {
        Write::Put { key, .. } | Write::Delete { key } => Some(key.job),
        Write::Object(_) => None,
    };
    writes.iter().filter_map(job).filter(|job| *job != JobId(0)).collect()
}
