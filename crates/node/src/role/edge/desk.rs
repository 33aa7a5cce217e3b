//! A desk: one incarnation of a partial, and where each device of it stands.

use super::coded::{Coding, Reading};
use super::each::{Each, Gathered, List};
use super::inspect::{Inspecting, Rules};
use crate::role::{LinkId, WorkId};
use bytes::Bytes;
use littoral_fed::aggregate::{Absorbing, Partial, Refused};
use littoral_fed::compress::accumulate::AbsorbError;
use littoral_fed::plan::Format;
use littoral_wire::message::{Effort, Fate, Gather, Note, Reason, SEALING_BYTES_MAX, SealingStep};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{NodeId, ObjectId};
use std::collections::BTreeMap;

/// Whatever was gathered, it is here no more.
const GONE: Refused = Refused::WrongLength { expected: 0, got: 0 };

/// A device's place in a partial.
#[derive(Clone, Debug)]
pub(super) enum Seat {
    /// `counted` and `effort`: as in the cloud's request, for the device. `told`: the link over which it has heard of this.
    Asked {
        counted: u32,
        effort: Effort,
        told: Option<LinkId>,
    },
    /// Its update is whole, on disk, and waits to be looked into.
    Unread {
        object: ObjectId,
        bytes: u64,
    },
    /// Its update is whole, on disk, and good.
    Ready {
        object: ObjectId,
        bytes: u64,
    },
    /// Its update is being looked into, or added.
    Absorbing,
    Absorbed,
    /// Nothing of it will be in this partial.
    Out {
        fate: Fate,
        reason: Reason,
    },
}

#[derive(Debug)]
pub(super) struct Desk {
    pub spec: Vec<u8>,
    pub model: ObjectId,
    /// What the model builds on.
    pub before: Vec<ObjectId>,
    /// Of devices that are given a model of their own instead, which.
    pub given: BTreeMap<NodeId, ObjectId>,
    /// As the cloud said it; for devices.
    pub commitment: Option<[u8; 32]>,
    pub seats: BTreeMap<NodeId, Seat>,
    /// What devices told of themselves.
    pub notes: BTreeMap<NodeId, Note>,
    pub closed: bool,
    gathered: Gathered,
    sum: Option<Manifest>,
    /// Updates being added together, chunk by chunk.
    pub batch: Option<Batch>,
    /// How updates become words, if they are not words.
    pub coding: Option<Coding>,
    /// A coded update being read.
    pub reading: Option<Reading>,
    /// What an update must be like to count, if it is looked into.
    pub rules: Option<Rules>,
    /// An update being looked into.
    pub inspecting: Option<Inspecting>,
}

/// How many steps an edge passes on for a device between two ticks, and how many bytes of them. Of a masked sum a device says
/// one at each tick and one at each answer, of which a whole sum has five; a few jobs may run side by side.
const STEPS_PER_TICK: usize = 32;
const BYTES_PER_TICK: usize = 2 * SEALING_BYTES_MAX;
/// Of a step that says nothing of neighbours: keys with a signature are the longest.
const STEP_BYTES_MAX: usize = 1024;

/// Steps of secure aggregation on their way to the cloud: an edge cannot read them, but it counts and measures them, so
/// that no device floods the cloud through it.
#[derive(Debug, Default)]
pub(super) struct Relay(BTreeMap<NodeId, (usize, usize)>);

impl Relay {
    /// May this step pass?
    pub fn passes(&mut self, device: NodeId, step: SealingStep, bytes: usize) -> bool {
        let fits = match step {
            SealingStep::Keys | SealingStep::Nonce | SealingStep::Agree => bytes <= STEP_BYTES_MAX,
            // One share for each neighbour; bounded as a message is.
            SealingStep::Shares | SealingStep::Reveal => true,
            // These go the other way.
            _ => false,
        };
        if !fits {
            return false;
        }
        let (steps, sum) = self.0.entry(device).or_default();
        if *steps >= STEPS_PER_TICK || *sum + bytes > BYTES_PER_TICK {
            return false;
        }
        (*steps, *sum) = (*steps + 1, *sum + bytes);
        true
    }

    pub fn tick(&mut self) {
        self.0.clear();
    }
}

/// Spooled updates that are added at the same time.
#[derive(Debug)]
pub(super) struct Batch {
    pub absorbing: Absorbing,
    pub devices: Vec<(NodeId, ObjectId)>,
    /// The chunk being read, and what has come of it, in the order of `devices`.
    pub index: u32,
    pub chunks: u32,
    pub arrived: Vec<Option<Bytes>>,
}

impl Desk {
    #[allow(clippy::too_many_arguments)] // What one message says, and what follows from it.
    pub fn open(
        spec: Vec<u8>,
        (model, before): (ObjectId, Vec<ObjectId>),
        format: Format,
        gather: Gather,
        commitment: Option<[u8; 32]>,
        coding: Option<Coding>,
        rules: Option<Rules>,
    ) -> Self {
        let gathered = match gather {
            Gather::Sum => Gathered::Sum(Partial::empty(format)),
            Gather::Each => Gathered::Each(Each::empty(format)),
        };
        let seats = BTreeMap::new();
        Self {
            spec,
            model,
            before,
            given: BTreeMap::new(),
            commitment,
            seats,
            notes: BTreeMap::new(),
            closed: false,
            gathered,
            sum: None,
            batch: None,
            coding,
            reading: None,
            rules,
            inspecting: None,
        }
    }

    /// Does the model that it has for all need this object?
    pub fn shares(&self, object: ObjectId) -> bool {
        self.model == object || self.before.contains(&object)
    }

    /// Does a model that it has for devices need this object?
    pub fn models(&self, object: ObjectId) -> bool {
        self.shares(object) || self.given.values().any(|given| *given == object)
    }

    pub fn update_bytes(&self) -> u64 {
        match &self.gathered {
            Gathered::Sum(partial) => partial.format().bytes() as u64,
            Gathered::Each(each) => each.format.bytes() as u64,
            Gathered::Given => 0,
        }
    }

    /// May this update be absorbed?
    pub fn admits(&self, device: NodeId, bytes: u64) -> Result<(), Refused> {
        let partial = match &self.gathered {
            Gathered::Sum(partial) => partial,
            Gathered::Each(each) => return each.admits(device, bytes),
            Gathered::Given => return Err(GONE),
        };
        match &self.coding {
            Some(coding) => coding.admits(partial, device, bytes),
            None => partial.admits(device, bytes),
        }
    }

    /// All of it, or nothing. For sums.
    pub fn absorb(&mut self, device: NodeId, update: &[u8]) -> Result<(), AbsorbError> {
        let Gathered::Sum(partial) = &mut self.gathered else { return Err(GONE.into()) };
        match &self.coding {
            Some(coding) => coding.absorb(partial, device, update),
            None => Ok(partial.absorb(device, update)?),
        }
    }

    /// No update is in the sum in part only.
    pub fn is_whole(&self) -> bool {
        matches!(&self.gathered, Gathered::Sum(partial) if partial.bytes().is_ok())
    }

    /// The cloud has what was gathered; here it is gone.
    pub fn kept(&self) -> bool {
        matches!(self.gathered, Gathered::Given)
    }

    pub fn partial_mut(&mut self) -> Result<&mut Partial, Refused> {
        match &mut self.gathered {
            Gathered::Sum(partial) => Ok(partial),
            _ => Err(GONE),
        }
    }

    /// Are updates not added up?
    pub fn keeps_each(&self) -> bool {
        matches!(self.gathered, Gathered::Each(_))
    }

    /// An update that lies on disk, whole and good, is one of the list.
    pub fn keep(&mut self, device: NodeId, object: ObjectId, bytes: u64) {
        if let Gathered::Each(each) = &mut self.gathered {
            each.updates.insert(device, (object, bytes));
        }
    }

    /// What the list is to be made of, in order, if it is to be made now.
    pub fn to_bundle(&self) -> Option<Vec<(ObjectId, u64)>> {
        match &self.gathered {
            Gathered::Each(each) if matches!(each.list, List::Open) => Some(each.updates.values().copied().collect()),
            _ => None,
        }
    }

    pub fn bundling(&mut self, work: WorkId) {
        if let Gathered::Each(each) = &mut self.gathered {
            each.list = List::Writing(work);
        }
    }

    pub fn is_bundling(&self, work: WorkId) -> bool {
        matches!(&self.gathered, Gathered::Each(Each { list: List::Writing(id), .. }) if *id == work)
    }

    /// The list is written. Returns the updates, which are needed no more.
    pub fn bundled(&mut self, list: Manifest) -> Vec<ObjectId> {
        let Gathered::Each(each) = &mut self.gathered else { return Vec::new() };
        let updates = each.objects();
        each.list = List::Whole(list);
        updates
    }

    /// Is this object the list, on this disk?
    pub fn lists(&self, object: ObjectId) -> bool {
        matches!(&self.gathered, Gathered::Each(Each { list: List::Whole(list), .. }) if list.id() == object)
    }

    pub fn absorbed(&self) -> Vec<NodeId> {
        self.seats.iter().filter(|(_, seat)| matches!(seat, Seat::Absorbed)).map(|(device, _)| *device).collect()
    }

    pub fn absorbing(&self) -> bool {
        let ready = || self.seats.values().any(|seat| matches!(seat, Seat::Ready { .. } | Seat::Unread { .. }));
        self.batch.is_some() || self.reading.is_some() || self.inspecting.is_some() || (self.closed && ready())
    }

    /// Objects on disk that wait to be absorbed or are being absorbed, or that are gathered.
    pub fn spooled(&self) -> Vec<ObjectId> {
        let ready = self.seats.values().filter_map(|seat| match seat {
            Seat::Unread { object, .. } | Seat::Ready { object, .. } => Some(*object),
            _ => None,
        });
        let reading = self.reading.iter().map(|reading| reading.object);
        let inspecting = self.inspecting.iter().map(|inspecting| inspecting.object);
        let each = match &self.gathered {
            Gathered::Each(each) => each.objects(),
            _ => Vec::new(),
        };
        ready
            .chain(reading)
            .chain(inspecting)
            .chain(each)
            .chain(self.batch.iter().flat_map(|b| b.devices.iter().map(|(_, object)| *object)))
            .collect()
    }

    pub fn words(&self) -> &[u8] {
        match &self.gathered {
            Gathered::Sum(partial) => partial.bytes().unwrap_or_default(),
            _ => &[],
        }
    }

    /// The manifest of the partial's words, or of the list; the partial must be closed.
    pub fn sum(&mut self) -> Option<Manifest> {
        if let Gathered::Each(each) = &self.gathered {
            return match &each.list {
                List::Whole(list) => Some(list.clone()),
                List::Open | List::Writing(_) => None,
            };
        }
        if self.sum.is_none() {
            self.sum = Manifest::of(self.words()).ok();
        }
        self.sum.clone()
    }

    pub fn chunk_of_sum(&self, object: ObjectId, index: u32) -> Option<&[u8]> {
        let sum = self.sum.as_ref().filter(|sum| sum.id() == object && index < sum.chunks())?;
        let start = index as usize * CHUNK_BYTES;
        self.words().get(start..start + sum.chunk_bytes(index))
    }

    /// The cloud has it. Returns what of it lies on this disk.
    pub fn give_away(&mut self) -> Vec<ObjectId> {
        match std::mem::replace(&mut self.gathered, Gathered::Given) {
            Gathered::Each(each) => each.objects(),
            _ => Vec::new(),
        }
    }
}
