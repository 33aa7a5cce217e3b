//! A desk: one incarnation of a partial, and where each device of it stands.

use super::coded::{Coding, Reading};
use crate::role::LinkId;
use littoral_fed::aggregate::{Absorbing, Partial, Refused};
use littoral_fed::compress::accumulate::AbsorbError;
use littoral_fed::plan::Format;
use littoral_wire::message::{Effort, Fate, Reason, SEALING_BYTES_MAX, SealingStep};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{NodeId, ObjectId};
use std::collections::BTreeMap;

/// A device's place in a partial.
#[derive(Clone, Debug)]
pub(super) enum Seat {
    /// `counted` and `effort`: as in the cloud's request, for the device. `told`: the link over which it has heard of this.
    Asked {
        counted: u32,
        effort: Effort,
        told: Option<LinkId>,
    },
    /// Its update is whole, on disk.
    Ready {
        object: ObjectId,
        bytes: u64,
    },
    /// Its update is being added.
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
    /// As the cloud said it; for devices.
    pub commitment: Option<[u8; 32]>,
    pub seats: BTreeMap<NodeId, Seat>,
    pub closed: bool,
    /// Gone once the cloud has the sum.
    partial: Option<Partial>,
    sum: Option<Manifest>,
    /// Updates being added together, chunk by chunk.
    pub batch: Option<Batch>,
    /// How updates become words, if they are not words.
    pub coding: Option<Coding>,
    /// A coded update being read.
    pub reading: Option<Reading>,
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
    pub arrived: Vec<Option<Vec<u8>>>,
}

impl Desk {
    /// `None`: no machine could hold that.
    pub fn open(
        spec: Vec<u8>,
        (model, before): (ObjectId, Vec<ObjectId>),
        words: u64,
        bits: u8,
        commitment: Option<[u8; 32]>,
        coding: Option<Coding>,
    ) -> Option<Self> {
        let partial = Some(Partial::empty(Format::new(words, bits.into()).ok()?));
        let seats = BTreeMap::new();
        Some(Self {
            spec,
            model,
            before,
            commitment,
            seats,
            closed: false,
            partial,
            sum: None,
            batch: None,
            coding,
            reading: None,
        })
    }

    /// Does its model need this object?
    pub fn models(&self, object: ObjectId) -> bool {
        self.model == object || self.before.contains(&object)
    }

    pub fn update_bytes(&self) -> u64 {
        self.partial.as_ref().map_or(0, |partial| partial.format().bytes() as u64)
    }

    /// May this update be absorbed?
    pub fn admits(&self, device: NodeId, bytes: u64) -> Result<(), Refused> {
        let partial = self.partial_ref()?;
        match &self.coding {
            Some(coding) => coding.admits(partial, device, bytes),
            None => partial.admits(device, bytes),
        }
    }

    /// All of it, or nothing.
    pub fn absorb(&mut self, device: NodeId, update: &[u8]) -> Result<(), AbsorbError> {
        let gone = Refused::WrongLength { expected: 0, got: 0 };
        let partial = self.partial.as_mut().ok_or(gone)?;
        match &self.coding {
            Some(coding) => coding.absorb(partial, device, update),
            None => Ok(partial.absorb(device, update)?),
        }
    }

    /// No update is in the sum in part only.
    pub fn is_whole(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.bytes().is_ok())
    }

    /// The cloud has the sum; the words are gone.
    pub fn kept(&self) -> bool {
        self.partial.is_none()
    }

    fn partial_ref(&self) -> Result<&Partial, Refused> {
        self.partial.as_ref().ok_or(Refused::WrongLength { expected: 0, got: 0 })
    }

    pub fn partial_mut(&mut self) -> Result<&mut Partial, Refused> {
        self.partial.as_mut().ok_or(Refused::WrongLength { expected: 0, got: 0 })
    }

    pub fn absorbed(&self) -> Vec<NodeId> {
        self.seats.iter().filter(|(_, seat)| matches!(seat, Seat::Absorbed)).map(|(device, _)| *device).collect()
    }

    pub fn absorbing(&self) -> bool {
        let ready = || self.seats.values().any(|seat| matches!(seat, Seat::Ready { .. }));
        self.batch.is_some() || self.reading.is_some() || (self.closed && ready())
    }

    /// Objects on disk that wait to be absorbed or are being absorbed.
    pub fn spooled(&self) -> Vec<ObjectId> {
        let ready = self.seats.values().filter_map(|seat| match seat {
            Seat::Ready { object, .. } => Some(*object),
            _ => None,
        });
        let reading = self.reading.iter().map(|reading| reading.object);
        ready
            .chain(reading)
            .chain(self.batch.iter().flat_map(|b| b.devices.iter().map(|(_, object)| *object)))
            .collect()
    }

    pub fn words(&self) -> &[u8] {
        self.partial.as_ref().and_then(|partial| partial.bytes().ok()).unwrap_or_default()
    }

    /// The manifest of the partial's words; the partial must be closed.
    pub fn sum(&mut self) -> Option<Manifest> {
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

    pub fn give_away(&mut self) {
        self.partial = None;
    }
}
