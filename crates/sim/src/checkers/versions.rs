//! Versions only go forward, one model each; and what a device sealed for a collection never changes.

use super::{Checker, Findings, Seen};
use crate::world::Machine;
use littoral_node::role::{Millis, Report};
use littoral_wire::message::{Announcement, Work};
use littoral_wire::{Collection, JobId, Message, NodeId, ObjectId};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct OneModelPerVersion {
    models: BTreeMap<(JobId, u64), ObjectId>,
    latest: BTreeMap<JobId, u64>,
    /// The last offers of each device and job.
    offered: BTreeMap<(NodeId, JobId), BTreeMap<Collection, ObjectId>>,
    findings: Findings,
}

/// Offers remembered for a device: it has no more than this in hand.
const OFFERS: usize = 8;

impl OneModelPerVersion {
    fn announced(&mut self, announcement: &Announcement) {
        self.is(announcement.collection.job, announcement.version, announcement.model);
    }

    fn is(&mut self, job: JobId, version: u64, model: ObjectId) {
        let known = *self.models.entry((job, version)).or_insert(model);
        if known != model {
            self.findings.add(|| format!("version {version} of job {job} was {known:?}, and later {model:?}"));
        }
    }

    fn offered(&mut self, device: NodeId, collection: Collection, update: ObjectId) {
        let offers = self.offered.entry((device, collection.job)).or_default();
        let known = *offers.entry(collection).or_insert(update);
        if offers.len() > OFFERS {
            offers.pop_first();
        }
        if known != update {
            self.findings.add(|| format!("{device:?} offered two different updates of {collection:?}"));
        }
    }
}

impl Checker for OneModelPerVersion {
    fn name(&self) -> &'static str {
        "one model per version"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        match seen {
            Seen::Reported { report: Report::Version { collection, version, model, .. } } => {
                self.is(collection.job, *version, *model);
                // Evaluation finds out about a version and makes none.
                let step = u64::from(collection.work != Work::Evaluate);
                if let Some(latest) = self.latest.insert(collection.job, *version)
                    && *version < latest + step
                {
                    let job = collection.job;
                    self.findings.add(|| format!("job {job} announced version {version} after version {latest}"));
                }
            }
            Seen::Sent { message: Message::Announce { announcement, .. }, .. } => self.announced(announcement),
            Seen::Sent { message: Message::Tell { verdict, .. } | Message::Told { verdict }, .. } => {
                if let Some(announcement) = &verdict.announcement {
                    self.announced(announcement);
                }
            }
            Seen::Sent { message: Message::Offer { collection, update, .. }, .. } => {
                self.offered(machine.id, *collection, update.id());
            }
            _ => {}
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}
