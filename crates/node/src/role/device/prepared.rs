//! What was learnt before it is known for which collection: it waits on the disk, and nobody is served it.
//!
//! A collection that asks for it gets it sealed for itself, and counted by its age. Until an update made of it is in a version the
//! device keeps it: should the attempt come to nothing, it need not train again. One at a time for each job: a request to prepare
//! for another version takes its place when that is trained.

use super::{Device, TaskStage};
use crate::role::{Effect, RowKey, Table, WorkId, Write};
use crate::work::Work;
use littoral_wire::codec::{Reader, Wire};
use littoral_wire::message::{Note, Work as Kind};
use littoral_wire::{Collection, JobId, Manifest, Message};

// Where a version is made in several steps, of which each tells something else of the same update, that update waits here too
// after the first step, and is only there to save work: from the same version a device learns the same.

/// Jobs of which something is kept.
const JOBS_MAX: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// Of [`Prepare`](littoral_wire::message::Work::Prepare): with the version at which training began. Of `Train`: it waits for the
    /// steps that follow on this version.
    pub collection: Collection,
    pub learnt: Manifest,
}

impl Prepared {
    /// `None`: not what this release stores.
    pub fn from_bytes(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let (collection, learnt) = (Wire::take(&mut reader).ok()?, Wire::take(&mut reader).ok()?);
        Some(Self { collection, learnt })
    }

    /// What steps on a version tell of, and that version.
    pub fn for_steps(&self) -> Option<(u64, Manifest)> {
        (self.collection.work == Kind::Train).then(|| (self.collection.version, self.learnt.clone()))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut value = self.collection.to_bytes();
        self.learnt.put(&mut value);
        value
    }
}

/// The item of the row.
pub(super) const PREPARED: &[u8] = b"prepared";

fn key(job: JobId) -> RowKey {
    RowKey { table: Table::DeviceState, job, version: 0, item: PREPARED.to_vec() }
}

impl Device {
    /// Has it trained for this already?
    pub(super) fn is_prepared(&self, collection: Collection) -> bool {
        self.prepared.get(&collection.job).is_some_and(|prepared| prepared.collection == collection)
    }

    pub(super) fn say_ready(&self, collection: Collection, note: Option<Note>, effects: &mut Vec<Effect>) {
        if let Some(link) = self.edge {
            effects.push(Effect::Send { link, message: Message::Ready { collection, note } });
        }
    }

    /// It has trained. That is durable before it is said.
    pub(super) fn prepared(
        &mut self,
        collection: Collection,
        learnt: Manifest,
        note: Option<Note>,
        effects: &mut Vec<Effect>,
    ) {
        self.keep_learnt(collection, learnt, effects);
        self.say_ready(collection, note, effects);
    }

    /// In place of what was kept of the job before.
    pub(super) fn keep_learnt(&mut self, collection: Collection, learnt: Manifest, effects: &mut Vec<Effect>) {
        let prepared = Prepared { collection, learnt };
        let mut writes = vec![Write::Object(prepared.learnt.id())];
        writes.push(Write::Put { key: key(collection.job), value: prepared.to_bytes() });
        let mut old = Vec::from_iter(self.prepared.insert(collection.job, prepared));
        // Nobody says when a job has ended.
        while self.prepared.len() > JOBS_MAX
            && let Some(first) = self.prepared.keys().copied().find(|of| *of != collection.job)
        {
            old.extend(self.prepared.remove(&first));
            writes.push(Write::Delete { key: key(first) });
        }
        let new = self.prepared.get(&collection.job).map(|kept| kept.learnt.id());
        effects.push(Effect::Store(writes));
        let old = old.into_iter().map(|old| old.learnt.id()).filter(|old| Some(*old) != new);
        effects.extend(old.map(Effect::Drop));
    }

    /// A collection asks for what began at this version.
    pub(super) fn seal_prepared(
        &mut self,
        collection: Collection,
        version: u64,
        times: u16,
        effects: &mut Vec<Effect>,
    ) {
        let fits =
            |prepared: &&Prepared| prepared.collection.version == version && prepared.collection.work == Kind::Prepare;
        let Some(Prepared { learnt, .. }) = self.prepared.get(&collection.job).filter(fits) else {
            self.tasks.remove(&collection);
            let why = format!("what this device had learnt from version {version} is not here any more");
            return self.decline(collection, why, effects);
        };
        let learnt = learnt.clone();
        let id = WorkId(self.next_work);
        self.next_work += 1;
        let Some(task) = self.tasks.get_mut(&collection) else { return };
        task.stage = TaskStage::Working(id);
        let entropy = self.identity.entropy.of_work(&collection, id);
        let (task, name) = (task.spec.clone(), self.identity.name.clone());
        let work = Work::Seal { collection, task, learnt, times, name, entropy };
        effects.push(Effect::Work { id, work: Box::new(work) });
    }

    /// A version has it, or the job does not want it any more.
    pub(super) fn forget_prepared(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        // Another step may need it.
        if self.prepared.get(&job).and_then(Prepared::for_steps).is_some() {
            return;
        }
        if let Some(prepared) = self.prepared.remove(&job) {
            effects.push(Effect::Store(vec![Write::Delete { key: key(job) }]));
            effects.push(Effect::Drop(prepared.learnt.id()));
        }
    }
}
