//! Inspection: what an edge checks of plain updates before they count, for jobs with `[robust]`, and those
//! whose cloud sees each by itself.
//!
//! A spooled update is read chunk by chunk, one update at a time, and [`littoral_fed::robust::inspect`] says whether it may
//! count; so no more than a chunk is in memory for it. What is refused is refused by name, and nothing of it is in the
//! partial.

use super::Edge;
use super::desk::Seat;
use crate::job::{JobSpec, Sketched, Task};
use crate::role::Effect;
use littoral_fed::distribution::Distribution;
use littoral_fed::drift::Sketch;
use littoral_fed::open::open_header;
use littoral_fed::robust::inspect::{Inspection, Malformed};
use littoral_wire::message::{Gather, Incarnation, Work};
use littoral_wire::object::CHUNK_BYTES;
use littoral_wire::{NodeId, ObjectId};

/// What a collection's updates must be like.
#[derive(Debug)]
pub(super) struct Rules {
    spec: JobSpec,
    work: Work,
}

/// A spooled update that is being looked into.
#[derive(Debug)]
pub(super) struct Inspecting {
    pub device: NodeId,
    pub object: ObjectId,
    /// The chunk being read.
    pub index: u32,
    bytes: u64,
    inspection: Inspection,
}

impl Rules {
    /// `Ok(None)`: their length is all that is checked. An error: this edge cannot know what the updates are.
    pub fn of(task: &[u8], work: Work, words: u64, bits: u8, gather: Gather) -> Result<Option<Self>, String> {
        let spec = match Task::is_looked_into(task) {
            true => Some(Task::decode(task).map_err(|e| e.to_string())?.spec),
            false => None,
        };
        let planned = spec.as_ref().map_or(Gather::Sum, |spec| spec.gather(work));
        if gather != planned {
            return Err(format!("the job's updates are gathered as {planned:?}, asked is for {gather:?}"));
        }
        let Some(spec) = spec.filter(|spec| spec.inspected(work)) else { return Ok(None) };
        let format = spec.plan(work).format();
        if (format.words(), format.bits()) != (words, bits.into()) {
            let (expected_words, expected_bits) = (format.words(), format.bits());
            return Err(format!(
                "the job's updates have {expected_words} words of {expected_bits} bits, asked is for {words} of {bits} bits"
            ));
        }
        Ok(Some(Self { spec, work }))
    }

    fn begin(&self) -> Inspection {
        Inspection::new(self.spec.plan(self.work), self.spec.norm_bound())
    }

    /// An update that is in memory.
    pub fn check(&self, update: &[u8]) -> Result<(), Malformed> {
        let mut inspection = self.begin();
        inspection.push(update)?;
        self.end(inspection)
    }

    /// All bytes were seen: are they such that the update may count?
    fn end(&self, inspection: Inspection) -> Result<(), Malformed> {
        let header = inspection.finish()?;
        // One that cannot be read has a weight that was refused before.
        let Ok(told) = open_header(self.spec.plan(self.work), 1, &header) else { return Ok(()) };
        let before_sketch = told.wholes.len().saturating_sub(self.spec.sketch_wholes(self.work));
        let own = before_sketch.saturating_sub(self.spec.evaluation_wholes(self.work));
        let [rows, correct, _, ref spread @ ..] = told.wholes[own..before_sketch] else { return Ok(()) };
        let counts = |what, most: i128, got: i128| match (0..=most).contains(&got) {
            true => Ok(()),
            false => Err(Malformed::Counts { what, allowed: format!("0 to {most}"), got }),
        };
        // More rows than any device has would drown what all others say.
        counts("number", ROWS_MAX, rows)?;
        counts("right answers", rows, correct)?;
        // Both were looked at: they fit.
        if !spread.is_empty() && Distribution::of(correct as u64, rows as u64).to_wholes() != *spread {
            return Err(Malformed::Told { what: "accuracy in the spread", allowed: "that of its counts" });
        }
        let sketch = &told.wholes[before_sketch..];
        if let Some(Sketched { layout, .. }) = self.spec.sketched().filter(|_| !sketch.is_empty())
            && Sketch::from_wholes(layout, sketch, 1).is_none()
        {
            return Err(Malformed::Told { what: "sketch of its rows", allowed: "parts that add up to 1" });
        }
        Ok(())
    }
}

/// Held-out rows of one device.
const ROWS_MAX: i128 = 1 << 40;

impl Edge {
    /// Begins to look into the next update that is whole, unless one is being looked into.
    pub(super) fn inspect_next(&mut self, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        let Some(rules) = desk.rules.as_ref().filter(|_| desk.inspecting.is_none()) else { return };
        let unread = desk.seats.iter().find_map(|(device, seat)| match seat {
            Seat::Unread { object, bytes } => Some((*device, *object, *bytes)),
            _ => None,
        });
        let Some((device, object, bytes)) = unread else { return self.next_batch(incarnation, effects) };
        desk.inspecting = Some(Inspecting { device, object, index: 0, bytes, inspection: rules.begin() });
        desk.seats.insert(device, Seat::Absorbing);
        effects.push(Effect::Load { object, index: 0 });
    }

    /// Is this chunk one of an update that is being looked into?
    pub(super) fn inspects(&self, incarnation: Incarnation, object: ObjectId, index: u32) -> bool {
        let inspecting = self.desks.get(&incarnation).and_then(|desk| desk.inspecting.as_ref());
        inspecting.is_some_and(|i| (i.object, i.index) == (object, index))
    }

    /// The next chunk of it. Once all were seen it counts, or is refused.
    pub(super) fn inspect_on(&mut self, incarnation: Incarnation, bytes: &[u8], effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        let (Some(mut now), Some(rules)) = (desk.inspecting.take(), &desk.rules) else { return };
        let Inspecting { device, object, bytes: whole, .. } = now;
        now.index += 1;
        let seen = now.inspection.push(bytes);
        if seen.is_ok() && u64::from(now.index) * (CHUNK_BYTES as u64) < whole {
            effects.push(Effect::Load { object, index: now.index });
            desk.inspecting = Some(now);
            return;
        }
        match seen.and_then(|()| rules.end(now.inspection)) {
            Ok(()) if desk.keeps_each() => {
                desk.keep(device, object, whole);
                self.absorbed(incarnation, device, effects);
            }
            Ok(()) => _ = desk.seats.insert(device, Seat::Ready { object, bytes: whole }),
            Err(why) => {
                self.refuse(incarnation, device, why.to_string(), effects);
                effects.push(Effect::Drop(object));
            }
        }
        self.inspect_next(incarnation, effects);
    }
}
