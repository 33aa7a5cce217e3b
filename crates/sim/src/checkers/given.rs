//! What the cloud gives one device goes to no other: neither its name nor a byte of it.
//!
//! Where an algorithm makes a model for each device, the cloud's record of a version says which object is whose. A device is asked
//! for work with its own one, and edges send chunks of it to nobody else. (An object that is the version too is everybody's; one that
//! two devices were given is both's.)

use super::{Checker, Findings, Seen, rows};
use crate::faults::Kind;
use crate::world::Machine;
use littoral_fed::round::Record;
use littoral_node::role::Millis;
use littoral_wire::{JobId, Message, NodeId, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct GivenModels {
    names: BTreeMap<NodeId, String>,
    /// By version: each device's object, by its name.
    given: BTreeMap<(JobId, u64), BTreeMap<String, ObjectId>>,
    whose: BTreeMap<ObjectId, BTreeSet<String>>,
    everybodys: BTreeSet<ObjectId>,
    findings: Findings,
}

impl GivenModels {
    fn sent(&mut self, from: &Machine, to: NodeId, object: ObjectId) {
        let Some(whose) = self.whose.get(&object).filter(|_| !self.everybodys.contains(&object)) else { return };
        let Some(name) = self.names.get(&to) else { return };
        if !whose.contains(name) {
            self.findings.add(|| format!("{} sent {name} what was given to {whose:?}", from.name));
        }
    }
}

impl Checker for GivenModels {
    fn name(&self) -> &'static str {
        "given models"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        match seen {
            Seen::Started if machine.kind == Kind::Device => {
                self.names.insert(machine.id, machine.name.clone());
            }
            Seen::Stored { writes } if machine.kind == Kind::Cloud => {
                for (job, record) in rows::records(writes) {
                    let Record::Applied { version, model, given, .. } = record else { continue };
                    self.everybodys.insert(model.id());
                    let given: BTreeMap<_, _> = given.into_iter().map(|(name, model)| (name, model.id())).collect();
                    for (name, object) in &given {
                        self.whose.entry(*object).or_default().insert(name.clone());
                    }
                    self.given.insert((job, version), given);
                }
            }
            Seen::Sent { to, message: Message::Task { collection, model, .. } } => {
                self.sent(machine, *to, model.id());
                let given = self.given.get(&(collection.job, collection.version));
                let own = given.zip(self.names.get(to)).and_then(|(given, name)| given.get(name));
                if own.is_some_and(|own| *own != model.id()) {
                    let name = &self.names[to];
                    self.findings.add(|| format!("{name} begins {collection:?} at another model than it was given"));
                }
            }
            Seen::Sent { to, message: Message::Chunk { object, .. } } if machine.kind == Kind::Edge => {
                self.sent(machine, *to, *object);
            }
            _ => {}
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}
