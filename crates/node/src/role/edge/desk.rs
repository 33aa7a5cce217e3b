//! A desk: one incarnation of a partial, and where each device of it stands.

use crate::role::LinkId;
use littoral_fed::aggregate::{Absorbing, Partial, Refused};
use littoral_fed::plan::Format;
use littoral_wire::message::{Fate, Reason};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{NodeId, ObjectId};
use std::collections::BTreeMap;

/// A device's place in a partial.
#[derive(Clone, Debug)]
pub(super) enum Seat {
    /// `counted`: as in the cloud's request, for the device. `told`: the link over which it has heard of this.
    Asked {
        counted: u32,
        told: Option<LinkId>,
    },
    /// Its update is whole, on disk.
    Ready(ObjectId),
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
    /// As the cloud said it; for devices.
    pub commitment: Option<[u8; 32]>,
    pub seats: BTreeMap<NodeId, Seat>,
    pub closed: bool,
    /// Gone once the cloud has the sum.
    partial: Option<Partial>,
    sum: Option<Manifest>,
    /// Updates being added together, chunk by chunk.
    pub batch: Option<Batch>,
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
    pub fn open(spec: Vec<u8>, model: ObjectId, words: u64, bits: u8, commitment: Option<[u8; 32]>) -> Option<Self> {
        let partial = Some(Partial::empty(Format::new(words, bits.into()).ok()?));
        Some(Self { spec, model, commitment, seats: BTreeMap::new(), closed: false, partial, sum: None, batch: None })
    }

    pub fn update_bytes(&self) -> u64 {
        self.partial.as_ref().map_or(0, |partial| partial.format().bytes() as u64)
    }

    /// May this update be absorbed?
    pub fn admits(&self, device: NodeId, bytes: u64) -> Result<(), Refused> {
        self.partial_ref()?.admits(device, bytes)
    }

    pub fn absorb(&mut self, device: NodeId, update: &[u8]) -> Result<(), Refused> {
        self.partial_mut()?.absorb(device, update)
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
        self.batch.is_some() || (self.closed && self.seats.values().any(|s| matches!(s, Seat::Ready(_))))
    }

    /// Objects on disk that wait to be absorbed or are being absorbed.
    pub fn spooled(&self) -> Vec<ObjectId> {
        let ready = self.seats.values().filter_map(|seat| match seat {
            Seat::Ready(object) => Some(*object),
            _ => None,
        });
        ready.chain(self.batch.iter().flat_map(|b| b.devices.iter().map(|(_, object)| *object))).collect()
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
