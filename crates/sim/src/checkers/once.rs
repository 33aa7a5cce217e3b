//! Each device counts once per collection, and who is announced is who was counted.
//!
//! Read from the cloud's records: the partials that it kept of a collection have disjoint devices, none of them was
//! fenced before, and the announced set is their union.

use super::{Checker, Findings, Seen, rows};
use crate::world::Machine;
use littoral_fed::round::Record;
use littoral_node::role::{Millis, Report};
use littoral_wire::message::Incarnation;
use littoral_wire::{Collection, Message, NodeId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct CountedOnce {
    /// Who is counted, and by which incarnation, in collections that are under way.
    counted: BTreeMap<Collection, BTreeMap<NodeId, Incarnation>>,
    fenced: BTreeSet<Incarnation>,
    findings: Findings,
}

impl CountedOnce {
    fn record(&mut self, record: Record) {
        match record {
            Record::Fenced { incarnation, .. } => {
                self.fenced.insert(incarnation);
            }
            Record::Kept(kept) => {
                let incarnation = kept.incarnation;
                if self.fenced.contains(&incarnation) {
                    self.findings.add(|| format!("{incarnation:?} was fenced, and its partial was kept after that"));
                }
                let counted = self.counted.entry(incarnation.collection).or_default();
                for device in kept.devices {
                    if let Some(other) = counted.insert(device, incarnation) {
                        self.findings.add(|| format!("device {device:?} is in {other:?} and in {incarnation:?}"));
                    }
                }
            }
            _ => {}
        }
    }

    fn announced(&mut self, collection: Collection, included: &[NodeId]) {
        let counted = self.counted.get(&collection);
        let (expected, got) = (counted.map_or(0, BTreeMap::len), included.len());
        let same = expected == got && counted.is_some_and(|c| c.keys().zip(included).all(|(a, b)| a == b));
        if !same {
            self.findings.add(|| {
                format!("{collection:?} counted {expected} devices, and {got} were announced: they are not the same")
            });
        }
    }
}

impl Checker for CountedOnce {
    fn name(&self) -> &'static str {
        "counted once"
    }

    fn see(&mut self, _: Millis, _: &Machine, seen: &Seen<'_>) {
        match seen {
            Seen::Stored { writes } => rows::records(writes).for_each(|(_, record)| self.record(record)),
            Seen::Reported { report: Report::Version { collection, included, .. } } => {
                self.announced(*collection, included);
            }
            Seen::Sent { message: Message::Announce { announcement, included }, .. } => {
                self.announced(announcement.collection, included);
            }
            _ => {}
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}
