//! A round of many sums, added up by all replicas: whoever applies it cuts the sums into shards, everybody takes some.
//!
//! The role knows nothing of it. It orders [`Work::Apply`] over all sums; here they become fewer before the work begins, by
//! additions that are part of it anyhow, so the bits are the same. A replica that dies has a lease on one shard, which runs
//! out; one that applies and dies leaves shards, which the next one finds done or not. Whatever goes wrong with shards, the
//! work is done without them.

use super::disk::{Disk, Op};
use super::journal::Journal;
use super::machine::Input;
use super::pool::Pool;
use super::{Clock, OnReport};
use crate::role::Report;
use crate::store::{Made, ObjectStore, Shard, ShardLease, Store, StoreError, Workshop};
use crate::work::{self, LocalData, Output, Work, WorkFault};
use littoral_wire::ObjectId;
use littoral_wire::message::Collection;
use littoral_wire::object::Manifest;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::time::{sleep, timeout};

/// Without a notification it is looked after this long.
const POLL: Duration = Duration::from_millis(500);
/// Who waits for shards that others have misses no notification for long.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Leases are renewed so often in their life.
const RENEWALS: u64 = 4;

/// Adds up shards, its own job's and others'.
#[derive(Clone)]
pub(super) struct Adder {
    pub(super) store: Arc<dyn Store>,
    pub(super) objects: Arc<dyn ObjectStore>,
    /// A sum needs none; works are handed some.
    pub(super) data: Arc<dyn LocalData>,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    pub(super) holder: String,
    pub(super) lease_ms: u64,
    /// A round with more sums is cut into shards of at most so many.
    pub(super) sums_max: usize,
    /// There may be shards to take.
    pub(super) woken: Arc<Notify>,
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) on_report: OnReport,
}

impl Adder {
    /// Would the sums of this work be cut?
    pub(super) fn cuts(&self, work: &Work) -> bool {
        let Work::Apply { spec, collection, partials, .. } = work else { return false };
        partials.len() > self.sums_max && !spec.unmerged(collection.work)
    }

    /// Has the work run over fewer sums; over all of them if they could not be added up before.
    pub(super) async fn work(
        self,
        mut work: Box<Work>,
        journal: Arc<Mutex<Journal>>,
        works: Pool,
        run: impl FnOnce(&Work) + Send + 'static,
    ) {
        let Work::Apply { spec, collection, partials, .. } = &mut *work else { return };
        let (collection, format) = (*collection, spec.plan(collection.work).format());
        let (bits, bytes) = (format.bits(), format.bytes() as u64);
        let ids: Vec<ObjectId> = partials.iter().map(Manifest::id).collect();
        let shard = |(number, sums): (u32, &[ObjectId])| Shard {
            collection,
            number,
            bits,
            bytes,
            sums: sums.to_vec(),
            made: None,
        };
        let shards: Vec<Shard> = (0..).zip(ids.chunks(self.sums_max)).map(shard).collect();
        // What is wrong with one of them is for the work to say.
        let whole = partials.iter().all(|partial| partial.bytes() == bytes);
        let mut made = Vec::new();
        if whole {
            match self.add_up(collection, &shards, &journal).await {
                Ok(sums) => {
                    made.extend(sums.iter().map(Manifest::id));
                    *partials = sums;
                }
                Err(e) => {
                    let what = format!("job {}: its sums are added up here, not in shards: {e}", collection.job);
                    (self.on_report)(Report::Warning { what });
                }
            }
        }
        // The run that ordered it may have ended.
        if self.inputs.is_closed() {
            return;
        }
        let _ = works.ask(move || run(&work)).await;
        if !made.is_empty() {
            let _ = self.inputs.send(Input::Unneeded(made));
            // A work that failed is ordered again, and adds up anew: what came out may be what was wrong.
            let leases = journal.lock().await.leases_of(collection.job).await;
            if let Ok(leases) = leases {
                // What stays is replaced by the next round's.
                let _ = self.store.forget_shards(collection.job, leases).await;
            }
        }
    }

    /// Returns when all shards are done, by whomever.
    async fn add_up(
        &self,
        collection: Collection,
        shards: &[Shard],
        journal: &Mutex<Journal>,
    ) -> Result<Vec<Manifest>, StoreError> {
        let leases = journal.lock().await.leases_of(collection.job).await?;
        self.store.offer_shards(shards.to_vec(), leases).await?;
        loop {
            if let Some(lease) = self.take().await? {
                let ours = lease.shard.collection == collection;
                self.add(lease, ours).await?;
                continue;
            }
            let found = self.store.shards(collection).await?;
            let fits = |(shard, found): (&Shard, &Shard)| {
                Shard { made: None, ..found.clone() } == *shard
                    && found.made.as_ref().is_none_or(|made| made.bytes() == shard.bytes)
            };
            if found.len() != shards.len() || !shards.iter().zip(&found).all(fits) {
                let why = "its shards are others than were offered".into();
                return Err(StoreError::Corrupt { path: "shard".into(), why });
            }
            let made: Option<Vec<Manifest>> = found.into_iter().map(|shard| shard.made).collect();
            if let Some(made) = made {
                return Ok(made);
            }
            if self.inputs.is_closed() {
                return Err(StoreError::Closed);
            }
            // Whoever has the rest tells, or loses it.
            let _ = timeout(LOOK_AGAIN, self.woken.notified()).await;
        }
    }

    /// Adds up what others offer, for as long as this runs.
    pub(super) async fn serve(self) {
        loop {
            let added = match self.take().await {
                Ok(Some(lease)) => self.add(lease, false).await.map(|()| true),
                Ok(None) => Ok(false),
                Err(e) => Err(e),
            };
            match added {
                Ok(true) => continue,
                Ok(false) => {}
                Err(StoreError::Closed) => return,
                // The offer stands: who can takes it.
                Err(e) => (self.on_report)(Report::Warning { what: format!("a shard was not added up here: {e}") }),
            }
            let _ = timeout(POLL, self.woken.notified()).await;
        }
    }

    async fn take(&self) -> Result<Option<ShardLease>, StoreError> {
        self.store.take_shard(&self.holder, self.clock.now(), self.lease_ms).await
    }

    /// One that somebody else got in the meantime is theirs. `keeps`: what comes out is read here next.
    async fn add(&self, mut lease: ShardLease, keeps: bool) -> Result<(), StoreError> {
        let (shard, objects, data) = (lease.shard.clone(), self.objects.clone(), self.data.clone());
        let mut adding = tokio::task::spawn_blocking(move || add(&shard, &*objects, &*data));
        let made = loop {
            let renew_in = Duration::from_millis((self.lease_ms / RENEWALS).max(1));
            tokio::select! {
                made = &mut adding => break made.map_err(|_| StoreError::Closed)?,
                () = sleep(renew_in) => match self.store.renew_shard(&lease, self.clock.now(), self.lease_ms).await {
                    Ok(renewed) => lease = renewed,
                    Err(StoreError::Fenced { .. }) => return Ok(()),
                    // Perhaps the next time; else somebody else takes it.
                    Err(_) => {}
                },
            }
        };
        let failed = |e: WorkFault| StoreError::Disk { path: "shard".into(), why: e.to_string() };
        let (manifest, made) = made.map_err(failed)?;
        let object = manifest.id();
        made.into_iter().for_each(|made| self.disk.order(Op::Publish(made)));
        let _ = self.disk.fence(object).await;
        let done = self.store.close_shard(&lease, manifest).await;
        if !keeps && done.is_ok() {
            let Shard { collection, number, sums, .. } = &lease.shard;
            let what = format!(
                "{} sums of job {} are added up, as shard {number} of {collection:?}",
                sums.len(),
                collection.job
            );
            (self.on_report)(Report::Note { what });
        }
        // Of what was fetched or made for it nothing is needed here any more, unless the role says so.
        let mut unneeded = lease.shard.sums.clone();
        unneeded.extend((!keeps).then_some(object));
        let _ = self.inputs.send(Input::Unneeded(unneeded));
        match done {
            Err(StoreError::Fenced { .. }) => Ok(()),
            done => done,
        }
    }
}

fn add(shard: &Shard, objects: &dyn ObjectStore, data: &dyn LocalData) -> Result<(Manifest, Vec<Made>), WorkFault> {
    let workshop = Workshop::new(objects);
    let work = Work::Merge { bits: shard.bits, bytes: shard.bytes, sums: shard.sums.clone() };
    match work::run(&work, &workshop, data)? {
        Output::Merged { sum } => Ok((sum, workshop.into_made())),
        other => Err(WorkFault::Failed(format!("a sum expected, got {other:?}"))),
    }
}
