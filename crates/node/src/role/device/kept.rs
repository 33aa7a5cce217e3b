//! What a device's store has of its jobs beside objects: sealed updates that wait for their verdict, what is settled, which model is
//! here. Keys of rows, and their values.

use super::sealing::Said as Step;
use crate::role::{RowKey, Table};
use littoral_fed::masks::device::Masked;
use littoral_wire::codec::Wire;
use littoral_wire::message::Note;
use littoral_wire::object::{CHAIN_MAX, Manifest};
use littoral_wire::{Collection, JobId, List, ObjectId};

/// A sealed update waiting for its verdict.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub update: Manifest,
    /// The device's state if the update is included.
    pub pending: Option<Manifest>,
    /// What the device has of its own if the update is included; stored in a row beside ([`personal`]).
    pub personal: Option<Manifest>,
    /// The edge has it; no need to offer it again.
    pub absorbed: bool,
    /// What is left of a masked sum's session.
    pub masks: Option<Masked>,
    /// What was said last towards opening the sum.
    pub said: Option<Step>,
    /// What the device tells of itself with it, if the job chooses devices by that. A restart tells nothing.
    pub note: Option<Note>,
}

impl Sealed {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut value = self.update.to_bytes();
        self.pending.put(&mut value);
        value.extend(self.masks.iter().flat_map(Masked::to_bytes));
        value
    }

    /// `None`: not what this release stores.
    pub(super) fn from_bytes(value: &[u8]) -> Option<Self> {
        let mut reader = littoral_wire::codec::Reader::new(value);
        let update = <Manifest as Wire>::take(&mut reader).ok()?;
        let pending = <Option<Manifest> as Wire>::take(&mut reader).ok()?;
        let masks = match &value[reader.offset()..] {
            [] => None,
            masks => Some(Masked::from_bytes(masks)?),
        };
        Some(Self { update, pending, personal: None, absorbed: false, masks, said: None, note: None })
    }
}

/// What is known of a job's past; stored with what is kept of the job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// The last collection whose end is known: requests for it, or for older ones, come too late.
    pub last: Collection,
    /// The last version of training that counts this device; 0: none.
    pub counted: u32,
}

impl Settled {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.last.to_bytes();
        self.counted.put(&mut bytes);
        bytes
    }
}

pub(super) fn sealed_key(collection: Collection) -> RowKey {
    RowKey { table: Table::Sealed, job: collection.job, version: collection.version, item: collection.to_bytes() }
}

pub(super) fn state_key(job: JobId) -> RowKey {
    RowKey { table: Table::DeviceState, job, version: 0, item: Vec::new() }
}

/// The item of the row that holds [`Settled`].
pub(super) const SETTLED: &[u8] = b"settled";

pub(super) fn settled_key(job: JobId) -> RowKey {
    RowKey { table: Table::DeviceState, job, version: 0, item: SETTLED.to_vec() }
}

/// The item of the row that holds the objects of the model that is here.
pub(super) const MODEL: &[u8] = b"model";
pub(super) type ModelObjects = List<ObjectId, { CHAIN_MAX + 1 }>;

pub(super) fn model_key(job: JobId) -> RowKey {
    RowKey { table: Table::DeviceState, job, version: 0, item: MODEL.to_vec() }
}
