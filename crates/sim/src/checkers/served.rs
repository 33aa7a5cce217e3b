//! The model that the cloud hands out is one that it made durable, and the one that it announced if it did: also after
//! a restart.

use super::{Checker, Findings, Seen, rows};
use crate::world::Machine;
use littoral_fed::round::Record;
use littoral_node::role::{Millis, Report};
use littoral_node::work::{Output, Work};
use littoral_wire::{Collection, JobId, Message, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct ServedModel {
    /// The models that version 0 was found to be.
    initial: Vec<ObjectId>,
    announced: BTreeMap<(JobId, u64), ObjectId>,
    /// The last one recorded.
    recorded: BTreeMap<(JobId, u64), ObjectId>,
    /// Models that devices are given instead; whose they are is another checker's.
    given: BTreeSet<(JobId, u64, ObjectId)>,
    findings: Findings,
}

impl ServedModel {
    fn served(&mut self, collection: Collection, model: ObjectId) {
        let key = (collection.job, collection.version);
        let good = match (self.announced.get(&key), self.recorded.get(&key)) {
            (Some(announced), _) => *announced == model,
            (None, Some(recorded)) => *recorded == model,
            (None, None) => collection.version == 0 && self.initial.contains(&model),
        };
        if !good {
            self.findings.add(|| format!("{collection:?} starts from {model:?}, which is not that version's model"));
        }
    }
}

impl Checker for ServedModel {
    fn name(&self) -> &'static str {
        "served model"
    }

    fn see(&mut self, _: Millis, _: &Machine, seen: &Seen<'_>) {
        match seen {
            Seen::Worked { work: Work::Initial { .. }, result: Ok(Output::Initial { model, .. }) } => {
                self.initial.push(model.id());
                self.initial.dedup();
            }
            Seen::Stored { writes } => {
                for (job, record) in rows::records(writes) {
                    if let Record::Applied { version, model, given, .. } = record {
                        self.given.extend(given.values().map(|given| (job, version, given.id())));
                        self.recorded.insert((job, version), model.id());
                    }
                }
            }
            Seen::Reported { report: Report::Version { collection, version, model, .. } } => {
                self.announced.insert((collection.job, *version), *model);
            }
            Seen::Sent { message: Message::Announce { announcement, .. }, .. } => {
                self.announced.insert((announcement.collection.job, announcement.version), announcement.model);
            }
            Seen::Sent { message: Message::Open { incarnation, model, .. }, .. } => {
                self.served(incarnation.collection, model.id());
            }
            Seen::Sent { message: Message::Task { collection, model, .. }, .. }
                if !self.given.contains(&(collection.job, collection.version, model.id())) =>
            {
                self.served(*collection, model.id());
            }
            _ => {}
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}
