//! Coded updates: an edge decodes them, and what it adds are words like any others.
//!
//! An edge knows nothing of jobs but words and bits; of a job whose updates are coded it reads the task that it hands out anyway.
//! A spooled update comes into memory whole, one at a time, and is decoded a block at a time, twice: once to know that all of it is
//! well formed, once to add it. So nothing of a malformed one is ever in the sum. With the partial, an update that may have two
//! fifths of the partial's bytes and a quarter of that for those on their way, an edge stays below one and a half updates.

use super::Edge;
use super::desk::Seat;
use crate::job::{JobSpec, Task, Uplink, compression};
use crate::role::{Effect, Report};
use littoral_fed::aggregate::{Partial, Refused};
use littoral_fed::compress::accumulate::{self, AbsorbError};
use littoral_fed::compress::{Codec, CompressError};
use littoral_fed::plan::Plan;
use littoral_wire::message::{Incarnation, Work};
use littoral_wire::object::CHUNK_BYTES;
use littoral_wire::{Message, NodeId, ObjectId};
use std::ops::RangeInclusive;

/// How a collection's updates become words.
#[derive(Debug)]
pub(super) struct Coding {
    spec: JobSpec,
    lengths: RangeInclusive<u64>,
}

/// A spooled update that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub device: NodeId,
    pub object: ObjectId,
    /// The chunk being read.
    pub index: u32,
    chunks: u32,
    bytes: Vec<u8>,
}

impl Coding {
    /// `Ok(None)`: updates are the words themselves. An error: this edge cannot know what they are.
    pub fn of(task: &[u8], work: Work, words: u64, bits: u8) -> Result<Option<Self>, String> {
        if work != Work::Train || !Task::compresses(task).0 {
            return Ok(None);
        }
        let spec = Task::decode(task).map_err(|e| e.to_string())?.spec;
        let Some(Uplink::Coded(codec)) = spec.uplink() else { return Ok(None) };
        let plan = spec.plan(work);
        if (plan.format().words(), plan.bits()) != (words, bits.into()) {
            let (expected, got) = (plan.format(), format!("{words} words of {bits} bits"));
            return Err(format!(
                "the job's updates have {} words of {} bits, asked is for {got}",
                expected.words(),
                expected.bits()
            ));
        }
        let most = accumulate::bytes_max(&**codec, plan).min(compression::coded_bytes_max(plan));
        let lengths = accumulate::bytes_min(plan) as u64..=most as u64;
        Ok(Some(Self { spec, lengths }))
    }

    fn plan(&self) -> &Plan {
        self.spec.plan(Work::Train)
    }

    fn codec(&self) -> Result<&dyn Codec, CompressError> {
        let none = CompressError::Shape { what: "codecs of the job", expected: 1, got: 0 };
        self.spec.codec(Work::Train).ok_or(none)
    }

    pub fn admits(&self, partial: &Partial, device: NodeId, bytes: u64) -> Result<(), Refused> {
        partial.admits_coded(device, bytes, &self.lengths)
    }

    /// All of it, or nothing.
    pub fn absorb(&self, partial: &mut Partial, device: NodeId, update: &[u8]) -> Result<(), AbsorbError> {
        accumulate::absorb(partial, device, self.codec()?, self.plan(), update)
    }
}

impl Edge {
    /// Begins to read the next coded update that is whole, unless one is being read.
    pub(super) fn read_next(&mut self, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        if desk.reading.is_some() {
            return;
        }
        let ready = desk.seats.iter().find_map(|(device, seat)| match seat {
            Seat::Ready { object, bytes } => Some((*device, *object, *bytes)),
            _ => None,
        });
        let Some((device, object, bytes)) = ready else { return self.hand_in(incarnation, effects) };
        desk.seats.insert(device, Seat::Absorbing);
        let chunks = bytes.div_ceil(CHUNK_BYTES as u64) as u32;
        desk.reading = Some(Reading { device, object, index: 0, chunks, bytes: Vec::with_capacity(bytes as usize) });
        effects.push(Effect::Load { object, index: 0 });
    }

    /// The next chunk of it. Once all are here it is added or refused.
    pub(super) fn read_on(&mut self, incarnation: Incarnation, bytes: &[u8], effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        let Some(mut reading) = desk.reading.take() else { return };
        reading.bytes.extend_from_slice(bytes);
        reading.index += 1;
        let Reading { device, object, index, .. } = reading;
        if index < reading.chunks {
            desk.reading = Some(reading);
            return effects.push(Effect::Load { object, index });
        }
        match desk.absorb(device, &reading.bytes) {
            Ok(()) => self.absorbed(incarnation, device, effects),
            Err(refused) if self.whole(incarnation) => self.refuse(incarnation, device, refused.to_string(), effects),
            Err(refused) => {
                // It was well formed when it was read for the first time: this is a fault of ours, and the sum is lost.
                effects.push(Effect::Report(Report::Warning { what: refused.to_string() }));
                self.tell(Message::NoPartial { incarnation }, effects);
                self.remember_fenced(incarnation);
                return self.drop_desk(incarnation, effects);
            }
        }
        effects.push(Effect::Drop(object));
        self.read_next(incarnation, effects);
    }

    fn whole(&self, incarnation: Incarnation) -> bool {
        self.desks.get(&incarnation).is_some_and(|desk| desk.is_whole())
    }
}
