//! What an edge gathers of a collection: one sum, or each update by itself.
//!
//! Where a job's rule must see every update, an edge adds nothing up. It keeps each on disk as it came, and when the
//! collection closes writes them one after another into a list ([`crate::work::Work::Bundle`]), in the order of the devices'
//! keys. In memory it has names and numbers of bytes.

use crate::role::WorkId;
use littoral_fed::aggregate::{Partial, Refused};
use littoral_fed::plan::Format;
use littoral_wire::object::Manifest;
use littoral_wire::{NodeId, ObjectId};
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
