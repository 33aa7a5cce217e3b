//! What an edge gathers of a collection: one sum, or each update by itself.
//!
//! Where a job's rule must see every update, an edge adds nothing up. It keeps each on disk as it came, and when the
//! collection closes writes them one after another into a list ([`crate::work::Work::Bundle`]), in the order of the devices'
//! keys. In memory it has names and numbers of bytes.

use super::Edge;
use crate::role::{Effect, Report, WorkId};
use crate::work::{Output, Work, WorkFault};
use littoral_fed::aggregate::{Partial, Refused};
use littoral_fed::plan::Format;
use littoral_wire::message::Incarnation;
use littoral_wire::object::Manifest;
use littoral_wire::{Message, NodeId, ObjectId};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) enum Gathered {
    Sum(Partial),
    Each(Each),
    /// The cloud has it.
    Given,
}

/// Updates on disk.
#[derive(Debug)]
pub(super) struct Each {
    pub format: Format,
    pub updates: BTreeMap<NodeId, (ObjectId, u64)>,
    pub list: List,
}

/// The list that is made of them when all are in.
#[derive(Debug)]
pub(super) enum List {
    Open,
    /// The work that writes it.
    Writing(WorkId),
    /// The updates by themselves are needed no more.
    Whole(Manifest),
}

impl Each {
    pub fn empty(format: Format) -> Self {
        Self { format, updates: BTreeMap::new(), list: List::Open }
    }

    /// May this device's update of so many bytes be among them?
    pub fn admits(&self, device: NodeId, update_bytes: u64) -> Result<(), Refused> {
        let (expected, got) = (self.format.bytes(), usize::try_from(update_bytes).unwrap_or(usize::MAX));
        match self.updates.contains_key(&device) {
            true => Err(Refused::Twice { device }),
            false if expected != got => Err(Refused::WrongLength { expected, got }),
            false => Ok(()),
        }
    }

    /// What of it lies on this disk.
    pub fn objects(&self) -> Vec<ObjectId> {
        match &self.list {
            List::Whole(list) => vec![list.id()],
            List::Open | List::Writing(_) => self.updates.values().map(|(object, _)| *object).collect(),
        }
    }
}

impl Edge {
    /// A closed list goes into one object, and then to the cloud.
    pub(super) fn bundle(&mut self, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        let Some(updates) = self.desks.get(&incarnation).and_then(|desk| desk.to_bundle()) else { return };
        let id = self.next_work();
        self.desks.entry(incarnation).and_modify(|desk| desk.bundling(id));
        effects.push(Effect::Work { id, work: Box::new(Work::Bundle { updates }) });
    }

    pub(super) fn worked(&mut self, id: WorkId, result: Result<Output, WorkFault>, effects: &mut Vec<Effect>) {
        let of_it = self.desks.iter().find(|(_, desk)| desk.is_bundling(id)).map(|(incarnation, _)| *incarnation);
        let Some(incarnation) = of_it else { return };
        match (result, self.desks.get_mut(&incarnation)) {
            (Ok(Output::Bundled { list }), Some(desk)) => {
                let updates = desk.bundled(list);
                effects.extend(updates.into_iter().map(Effect::Drop));
                self.hand_in(incarnation, effects);
            }
            (Ok(_), _) => {}
            // As with a sum that is lost: begin anew, devices send again.
            (Err(fault), _) => {
                let what = format!("a list of updates cannot be written; it starts anew: {fault}");
                effects.push(Effect::Report(Report::Warning { what }));
                self.tell(Message::NoPartial { incarnation }, effects);
                self.remember_fenced(incarnation);
                self.drop_desk(incarnation, effects);
            }
        }
    }
}
