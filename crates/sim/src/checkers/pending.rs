//! What a device keeps becomes current exactly if its update was included.
//!
//! A device that gives up a sealed update with pending state either makes that very state current in the same write —
//! and then the collection's version lists it — or forgets it, and then the version does not. It does so once: nothing is
//! sealed for a collection whose end the device has known. For SCAFFOLD the integers tell it all again: what is
//! committed moves by what was sent, and at the end the cloud's sum is the sum over devices. What a device has of its own in a
//! job goes the same way in rows of its own; of its content nothing is known but that it does not change while it waits.

use super::exact::words;
use super::{Checker, Findings, Seen, rows};
use crate::faults::Kind;
use crate::world::Machine;
use bytes::Bytes;
use littoral_fed::round::Record;
use littoral_node::job::JobSpec;
use littoral_node::role::{Millis, Report, Table};
use littoral_node::work::Work;
use littoral_wire::object::Manifest;
use littoral_wire::{Collection, JobId, NodeId, ObjectId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A sealed update with a state that waits for its verdict. The bytes are those that were made durable.
struct Pending {
    state: Manifest,
    state_bytes: Bytes,
    update_bytes: Bytes,
}

#[derive(Default)]
pub struct PendingState {
    pending: BTreeMap<(NodeId, Collection), Pending>,
    /// What is to be a device's own, that waits with a sealed update.
    own: BTreeMap<(NodeId, Collection), Manifest>,
    /// What is a device's own.
    own_committed: BTreeMap<(JobId, NodeId), Manifest>,
    /// What was masked, as it was before.
    plain: BTreeMap<(NodeId, Collection), Bytes>,
    /// What waited for its verdict when the device's store was lost.
    lost: Vec<(NodeId, Collection, Pending)>,
    /// The last collection of each job that a device gave up or committed.
    settled: BTreeMap<(NodeId, JobId), Collection>,
    /// Devices of the partials kept, by collection.
    counted: BTreeMap<Collection, BTreeSet<NodeId>>,
    /// Collections that made a version.
    applied: BTreeSet<Collection>,
    /// The bytes of each device's current state, as they were when it was committed.
    committed: BTreeMap<(JobId, NodeId), Bytes>,
    jobs: BTreeMap<JobId, Arc<JobSpec>>,
    latest: BTreeMap<JobId, ObjectId>,
    /// Jobs that came to their end: only then is every verdict owed.
    finished: BTreeSet<JobId>,
    findings: Findings,
}

impl PendingState {
    fn device_stored(&mut self, device: &Machine, writes: &[littoral_node::role::Write]) {
        let bytes =
            |manifest: &Manifest| device.disk.content(manifest.id()).map_or_else(Bytes::new, |c| c.bytes.clone());
        for sealed in rows::sealed(writes) {
            let settled = self.settled.get(&(device.id, sealed.collection.job));
            if settled.is_some_and(|settled| sealed.collection <= *settled) {
                let (name, collection) = (&device.name, sealed.collection);
                self.findings.add(|| format!("{name} sealed for {collection:?} after it knew how that ended"));
            }
            if let Some(state) = sealed.pending {
                let plain = self.plain.get(&(device.id, sealed.collection)).cloned();
                let (state_bytes, update_bytes) = (bytes(&state), plain.unwrap_or_else(|| bytes(&sealed.update)));
                let pending = Pending { state, state_bytes, update_bytes };
                self.pending.insert((device.id, sealed.collection), pending);
            }
        }
        let states: BTreeMap<JobId, Manifest> = rows::states(writes).collect();
        let (waiting, own): (Vec<_>, Vec<_>) =
            rows::personal(writes).partition(|(_, collection, _)| collection.is_some());
        for (_, collection, own) in waiting {
            self.own.extend(collection.map(|collection| ((device.id, collection), own)));
        }
        for collection in rows::unsealed(writes) {
            let own = own.iter().find(|(job, ..)| *job == collection.job).map(|(.., own)| own);
            self.own_settled(device, collection, own);
            self.plain.remove(&(device.id, collection));
            let settled = self.settled.entry((device.id, collection.job)).or_insert(collection);
            *settled = collection.max(*settled);
            let Some(pending) = self.pending.remove(&(device.id, collection)) else { continue };
            let included = self.included(device.id, collection);
            let current = states.get(&collection.job);
            let name = &device.name;
            match (included, current) {
                (true, None) => self.findings.add(|| format!("{name} is in {collection:?} and forgot its state")),
                (true, Some(state)) if *state != pending.state => {
                    self.findings.add(|| format!("{name} committed another state than it sealed with {collection:?}"));
                }
                (false, Some(_)) => {
                    self.findings.add(|| format!("{name} is not in {collection:?} and made its state current"));
                }
                (true, Some(_)) => self.committed(device, collection, pending),
                (false, None) => {}
            }
        }
    }

    /// What waited with an update that is settled is current if and only if that is included.
    fn own_settled(&mut self, device: &Machine, collection: Collection, current: Option<&Manifest>) {
        let (waited, name) = (self.own.remove(&(device.id, collection)), &device.name);
        match (waited, self.included(device.id, collection), current) {
            (Some(waited), true, Some(own)) if waited == *own => {
                self.own_committed.insert((collection.job, device.id), waited);
            }
            (None, _, None) | (Some(_), false, None) => {}
            (_, included, current) => {
                let what = if current.is_some() { "made another its own" } else { "forgot what is its own" };
                self.findings.add(|| format!("{name} {what} with {collection:?}, included: {included}"));
            }
        }
    }

    /// A device begins from what became current last, or, where that was lost, from nothing.
    fn own_begins(&mut self, device: &Machine, collection: Collection, from: Option<&Manifest>) {
        let current = self.own_committed.get(&(collection.job, device.id));
        if from != current {
            let name = &device.name;
            self.findings.add(|| format!("{name} began {collection:?} from another own part than its current one"));
        }
    }

    fn included(&self, device: NodeId, collection: Collection) -> bool {
        self.applied.contains(&collection)
            && self.counted.get(&collection).is_some_and(|counted| counted.contains(&device))
    }

    /// A state became current: for SCAFFOLD it is the one before plus the integers that were sent.
    fn committed(&mut self, device: &Machine, collection: Collection, pending: Pending) {
        let Pending { state_bytes, update_bytes, .. } = pending;
        let before = self.committed.insert((collection.job, device.id), state_bytes);
        let Some(spec) = self.jobs.get(&collection.job).filter(|spec| spec.algorithm().name() == "scaffold") else {
            return;
        };
        let plan = spec.plan(collection.work);
        let sent = &update_bytes[plan.section_bytes(CONTROL, 0..plan.sections()[CONTROL].len)];
        let before = before.unwrap_or_else(|| vec![0; 4 * spec.version().params].into());
        let after = &self.committed[&(collection.job, device.id)];
        let moved = integers(after).zip(integers(&before)).map(|(after, before)| i64::from(after) - i64::from(before));
        // Differences modulo 2^bits, as words are.
        let mask = u64::MAX >> (64 - plan.bits());
        if let Some(at) = moved.zip(words(sent, plan.bits())).position(|(moved, sent)| moved as u64 & mask != sent) {
            let name = &device.name;
            self.findings.add(|| format!("{name} committed at {at} another change than it sent with {collection:?}"));
        }
    }

    fn cloud_stored(&mut self, writes: &[littoral_node::role::Write]) {
        for (job, record) in rows::records(writes) {
            match record {
                Record::Kept(kept) => {
                    self.counted.entry(kept.incarnation.collection).or_default().extend(kept.devices);
                }
                Record::Applied { collection, model, .. } => {
                    self.applied.insert(collection);
                    self.latest.insert(job, model.id());
                }
                _ => {}
            }
        }
    }

    /// A device's store is gone. What is counted of it stays counted, like that of a device that left.
    fn device_lost(&mut self, device: NodeId) {
        let (gone, rest) = std::mem::take(&mut self.pending).into_iter().partition(|((of, _), _)| *of == device);
        self.pending = rest;
        let gone: BTreeMap<(NodeId, Collection), Pending> = gone;
        self.lost.extend(gone.into_iter().map(|((device, collection), pending)| (device, collection, pending)));
        self.settled.retain(|(of, _), _| *of != device);
        self.own.retain(|(of, _), _| *of != device);
        self.own_committed.retain(|(_, of), _| *of != device);
    }

    /// The cloud's integers against the devices'.
    fn sums(&mut self, job: JobId, cloud: &Machine) {
        let Some(spec) = self.jobs.get(&job).filter(|spec| spec.algorithm().name() == "scaffold") else { return };
        let Some(model) = self.latest.get(&job).and_then(|model| cloud.disk.content(*model)) else { return };
        let layout = spec.version();
        let mut expected = vec![0i64; layout.params];
        for ((_, device), state) in self.committed.range((job, NodeId([0; 32]))..=(job, NodeId([255; 32]))) {
            if state.len() != 4 * layout.params {
                let (params, got) = (layout.params, state.len());
                self.findings.add(|| format!("{device:?} committed {got} bytes, expected 4 for each of {params}"));
                return;
            }
            expected.iter_mut().zip(integers(state)).for_each(|(sum, c)| *sum += i64::from(c));
        }
        let wrong = layout.blocks().find_map(|block| {
            let got = integers(&model.bytes[layout.at(&block, 1, 1 + layout.broadcast)]);
            block.clone().zip(got).find(|(at, got)| expected[*at] != i64::from(*got))
        });
        if let Some((at, got)) = wrong {
            let sum = expected[at];
            self.findings
                .add(|| format!("job {job}: devices' control variates sum to {sum} at {at}, the cloud has {got}"));
        }
    }
}

/// The section of SCAFFOLD's update that moves control variates.
const CONTROL: usize = 1;

fn integers(bytes: &[u8]) -> impl Iterator<Item = i32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|four| i32::from_le_bytes(*four))
}

impl Checker for PendingState {
    fn name(&self) -> &'static str {
        "pending state"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        match seen {
            Seen::Stored { writes } if machine.kind == Kind::Device => self.device_stored(machine, writes),
            Seen::Stored { writes } if machine.kind == Kind::Cloud => self.cloud_stored(writes),
            Seen::Lost if machine.kind == Kind::Device => self.device_lost(machine.id),
            Seen::Worked { work: Work::Local { collection, personal, .. }, .. } => {
                self.own_begins(machine, *collection, personal.as_ref());
            }
            Seen::Worked { work: Work::Mask { collection, plain, .. }, result: Ok(_) } => {
                if let Some(content) = machine.disk.content(plain.id()) {
                    self.plain.insert((machine.id, *collection), content.bytes.clone());
                }
            }
            Seen::Worked { work: Work::Apply { spec, collection, .. }, .. } => {
                self.jobs.entry(collection.job).or_insert_with(|| Arc::clone(spec));
            }
            Seen::Reported { report: Report::Finished { job, .. } } => {
                self.finished.insert(*job);
            }
            _ => {}
        }
    }

    fn finish(&mut self, machines: &[Machine]) {
        let owed = |job: &JobId| self.finished.contains(job);
        let waits = |machine: &&Machine| machine.disk.jobs_in(Table::Sealed).any(|job| owed(&job));
        let waiting: Vec<&str> = machines.iter().filter(waits).map(|m| m.name.as_str()).collect();
        if !waiting.is_empty() {
            let (count, first) = (waiting.len(), waiting[0]);
            self.findings
                .add(|| format!("{count} devices still wait for a verdict after all has healed, {first} is one"));
            return;
        }
        for (device, collection, pending) in std::mem::take(&mut self.lost) {
            if self.included(device, collection) {
                self.committed.insert((collection.job, device), pending.state_bytes);
            }
        }
        if let Some(cloud) = machines.iter().find(|m| m.kind == Kind::Cloud) {
            let jobs: Vec<JobId> = self.finished.iter().copied().collect();
            jobs.into_iter().for_each(|job| self.sums(job, cloud));
        }
    }

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}
