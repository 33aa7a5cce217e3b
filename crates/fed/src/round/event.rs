//! What a round is told, and what it decides.

use super::{Given, Kept, Millis, Record};
use crate::masks::SealingStep;
use crate::masks::cloud::{Known, Opening};
use crate::roster::Register;
use littoral_wire::message::{Collection, Fate, Incarnation, Note};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{NodeId, ObjectId};
use std::sync::Arc;

/// What the sums of a collection said, for stopping rules and people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Fraction of held-out rows answered right by the version that the collection started from; `None` if none were.
    pub accuracy: Option<f64>,
}

/// One device's update among partials that are lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The partial, by its number among those that are applied.
    pub partial: u32,
    /// The device's own number among the partial's devices.
    pub row: u32,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A device is attached at an edge. `rows`: of the job's data set that it offers; 0: it does not offer it.
    Device {
        device: NodeId,
        name: String,
        edge: NodeId,
        rows: u64,
    },
    DeviceLeft {
        device: NodeId,
    },
    /// The device's key is not let in any more.
    Expelled {
        device: NodeId,
        why: String,
    },
    /// An edge (re)attached, holding these incarnations of this job's current collection with these devices absorbed.
    Edge {
        edge: NodeId,
        holds: Vec<(Incarnation, Vec<NodeId>)>,
    },
    /// An edge has been away for so long that it is given up.
    EdgeLost {
        edge: NodeId,
    },
    Progress {
        incarnation: Incarnation,
        device: NodeId,
        fate: Fate,
        reason: String,
        note: Option<Note>,
    },
    /// An edge says that it has no such incarnation.
    NoPartial {
        incarnation: Incarnation,
    },
    /// A partial is here, whole and checked.
    Partial {
        incarnation: Incarnation,
        devices: Vec<NodeId>,
        sum: Manifest,
    },
    Applied {
        model: Manifest,
        /// What the model builds on.
        before: Chain,
        state: Option<Manifest>,
        /// Of an algorithm that makes a model for each device.
        given: Given,
        outcome: Outcome,
        line: Vec<u8>,
    },
    ApplyFailed {
        why: String,
    },
    /// A device's step of secure aggregation.
    Sealing {
        device: NodeId,
        step: SealingStep,
        body: Vec<u8>,
    },
    /// Which devices there are, from now on.
    Roster(Option<Arc<Register>>),
    /// The time given by [`Effect::Wake`] has come, or may have.
    Tick,
    Stop {
        why: String,
    },
    /// The job cannot go on, however often one tries.
    Fail {
        why: String,
    },
}

/// Where an update began that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub version: u64,
    /// How much it counts, in 256ths.
    pub times: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make durable before performing anything behind it.
    Record(Record),
    /// Ask these devices for their work, through this edge. Said again, it adds devices.
    Open {
        edge: NodeId,
        incarnation: Incarnation,
        devices: Vec<NodeId>,
    },
    /// Ask the edge to forget the device unless it is absorbed already.
    Release {
        edge: NodeId,
        incarnation: Incarnation,
        device: NodeId,
    },
    /// Send the partial, absorb no more.
    Close {
        edge: NodeId,
        incarnation: Incarnation,
    },
    Fence {
        edge: NodeId,
        incarnation: Incarnation,
    },
    /// Tell these devices, wherever they are, a step of secure aggregation.
    Sealing {
        devices: Vec<NodeId>,
        step: SealingStep,
        body: Arc<[u8]>,
    },
    /// Keys are fixed: so the sum of this collection is masked. For people.
    Keyed {
        collection: Collection,
        sessions: Vec<Known>,
    },
    /// Merge these partials, take the masks away if there are any, and take the algorithm's cloud half.
    Apply {
        collection: Collection,
        partials: Vec<Kept>,
        /// Where each device's update is, if the partials are lists: in the order of the devices' names.
        order: Vec<Place>,
        /// These devices' names, in that order.
        names: Vec<String>,
        opening: Option<Opening>,
        /// Where updates may be old: where the first of them began; of a sum of one, all of it.
        base: Option<Base>,
    },
    /// A version is current. `included` is sorted.
    Announce {
        collection: Collection,
        version: u64,
        model: ObjectId,
        included: Vec<NodeId>,
    },
    /// These objects are needed no more.
    Discard {
        objects: Vec<ObjectId>,
    },
    /// An attempt was given up.
    Aborted {
        collection: Collection,
        why: String,
    },
    Wake {
        at: Millis,
    },
    Finished {
        why: String,
    },
}
