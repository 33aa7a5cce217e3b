//! No job with differential privacy releases more than was accounted for before: not more models, not more of one device, and not
//! one device twice within versions whose noise is correlated.
//!
//! Read from what is durable: the cloud's line of the ledger, which must be there before anything is asked of a device; the
//! versions that it records; and the updates that devices seal, each attempt by itself.

use super::rows::{records, sealed};
use super::{Checker, Findings, Seen};
use crate::faults::Kind;
use crate::world::Machine;
use littoral_fed::round::Record;
use littoral_node::role::{Millis, Table, Write};
use littoral_wire::message::Work;
use littoral_wire::{Collection, JobId, Message, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// What the ledger says of a job.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    models: u64,
    participations: u64,
    /// A device is part of one of so many versions in a row at most.
    spacing: u64,
    settled: bool,
}

#[derive(Default)]
pub struct WithinBudget {
    /// Jobs with a line; `None`: without differential privacy.
    lines: BTreeMap<JobId, Option<Reserved>>,
    /// Versions of training, and attempts at them.
    versions: BTreeMap<JobId, BTreeSet<u64>>,
    attempts: BTreeMap<JobId, BTreeSet<Collection>>,
    sealed: BTreeMap<(NodeId, JobId), BTreeSet<Collection>>,
    /// Devices in the sums of a collection, and the last version that each is part of.
    summed: BTreeMap<Collection, BTreeSet<NodeId>>,
    part_of: BTreeMap<(NodeId, JobId), u64>,
    findings: Findings,
}

impl WithinBudget {
    fn line(&mut self, job: JobId, value: &[u8]) {
        let Ok(line) = serde_json::from_slice::<serde_json::Value>(value) else {
            return self.findings.add(|| format!("the ledger's line of {job:?} cannot be read"));
        };
        let number = |field: &str| line["terms"][field].as_u64();
        let settled = line["settled"].as_bool().unwrap_or(false);
        let now = number("models").zip(number("participations"));
        let spacing = line["terms"]["dp"]["bands"].as_u64().unwrap_or(1);
        let now = now.map(|(models, participations)| Reserved { models, participations, spacing, settled });
        if let (Some(Some(before)), Some(now)) = (self.lines.get(&job), now)
            && (before.settled || now.models > before.models || now.participations > before.participations)
        {
            self.findings.add(|| format!("the ledger's line of {job:?} grew: {before:?}, then {now:?}"));
        }
        self.lines.insert(job, now);
        self.check(job);
    }

    /// Were all devices of this version in none of the last ones?
    fn spaced(&mut self, collection: Collection) {
        let Some(Some(reserved)) = self.lines.get(&collection.job).copied() else { return };
        for device in self.summed.remove(&collection).unwrap_or_default() {
            let before = self.part_of.insert((device, collection.job), collection.version);
            if let Some(before) = before.filter(|before| before + reserved.spacing > collection.version) {
                self.findings.add(|| {
                    format!(
                        "{device:?} is part of version {before} and of version {}; {reserved:?}",
                        collection.version
                    )
                });
            }
        }
    }

    /// Is what was released still within what is reserved, or said to be spent?
    fn check(&mut self, job: JobId) {
        let Some(Some(reserved)) = self.lines.get(&job).copied() else { return };
        let count = |set: Option<usize>| set.unwrap_or(0) as u64;
        let models = count(self.versions.get(&job).map(BTreeSet::len));
        let attempts = count(self.attempts.get(&job).map(BTreeSet::len));
        let most = self.sealed.iter().filter(|((_, of), _)| *of == job).map(|(_, set)| set.len()).max();
        let most = count(most);
        if models > reserved.models || most > reserved.participations || (reserved.settled && most > attempts) {
            self.findings.add(|| {
                format!("{job:?} released {models} models and {most} updates of one device, in {attempts} attempts; {reserved:?}")
            });
        }
    }
}

impl Checker for WithinBudget {
    fn name(&self) -> &'static str {
        "within budget"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        match (machine.kind, seen) {
            (Kind::Cloud, Seen::Stored { writes }) => {
                for write in *writes {
                    if let Write::Put { key, value } = write
                        && key.table == Table::Ledger
                        && key.job != JobId(0)
                    {
                        self.line(key.job, value);
                    }
                }
                for (job, record) in records(writes) {
                    match record {
                        Record::Opened { collection, .. } if collection.work == Work::Train => {
                            self.attempts.entry(job).or_default().insert(collection);
                        }
                        Record::Kept(kept) if kept.incarnation.collection.work == Work::Train => {
                            self.summed.entry(kept.incarnation.collection).or_default().extend(kept.devices);
                        }
                        Record::Applied { collection, version, .. } if collection.work == Work::Train => {
                            self.versions.entry(job).or_default().insert(version);
                            self.spaced(collection);
                        }
                        _ => continue,
                    }
                    self.check(job);
                }
            }
            (Kind::Cloud, Seen::Sent { message: Message::Open { incarnation, .. }, .. }) => {
                let job = incarnation.collection.job;
                if !self.lines.contains_key(&job) {
                    self.findings.add(|| format!("{job:?} asked devices before it had a line in the ledger"));
                }
            }
            (Kind::Device, Seen::Stored { writes }) => {
                for kept in sealed(writes).filter(|kept| kept.collection.work == Work::Train) {
                    let job = kept.collection.job;
                    self.sealed.entry((machine.id, job)).or_default().insert(kept.collection);
                    self.check(job);
                }
            }
            // What it has sealed it cannot know any more; its operator was told to enrol it anew.
            (Kind::Device, Seen::Lost) => self.sealed.retain(|(device, _), _| *device != machine.id),
            _ => {}
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}
