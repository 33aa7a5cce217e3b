//! A device's keys in a masked sum serve once: at most one vector leaves under them, at most one set of survivors is signed,
//! at most one share of each neighbour is revealed. Two vectors would give their difference away, and both shares of a
//! neighbour its plain update.
//!
//! Read from what devices send: offers and chunks, the answers to "these survive", and the shares revealed, which are one
//! for each neighbour and so of one kind each as long as the same are said again and again.

use super::{Checker, Findings, Seen};
use crate::faults::Kind;
use crate::world::Machine;
use littoral_node::role::Millis;
use littoral_privacy::secagg::message::{Reveal, Shares};
use littoral_wire::message::SealingStep;
use littoral_wire::object::chunk_hash;
use littoral_wire::{Collection, Message, NodeId, ObjectId};
use std::collections::BTreeMap;

/// What a device has sent of one collection.
#[derive(Debug, Default)]
struct Said {
    offered: Option<ObjectId>,
    /// Neighbours that it shared its secrets with, as it said last.
    neighbours: usize,
    agreed: Option<Vec<u8>>,
    revealed: Option<Vec<u8>>,
}

#[derive(Default)]
pub struct OneVectorPerKey {
    said: BTreeMap<(NodeId, Collection), Said>,
    /// The bytes of each chunk that devices served, by hash.
    served: BTreeMap<(NodeId, ObjectId, u32), [u8; 32]>,
    findings: Findings,
}

impl OneVectorPerKey {
    fn sealing(&mut self, device: &Machine, collection: Collection, step: SealingStep, body: &[u8]) {
        let Self { said, findings, .. } = self;
        let said = said.entry((device.id, collection)).or_default();
        let name = &device.name;
        let before = match step {
            // A device that has sealed has keys that are in use: new ones would be for a second vector.
            SealingStep::Keys | SealingStep::Nonce if said.offered.is_some() => {
                return findings.add(|| format!("{name} sealed for {collection:?} and joins it once more"));
            }
            SealingStep::Shares => {
                said.neighbours = Shares::decode(body).map_or(0, |shares| shares.sealed.len());
                return;
            }
            SealingStep::Agree => &mut said.agreed,
            SealingStep::Reveal => {
                match Reveal::decode(body) {
                    Ok(reveal) if reveal.shares.len() <= said.neighbours => {}
                    Ok(reveal) => {
                        let (got, expected) = (reveal.shares.len(), said.neighbours);
                        findings.add(|| format!("{name} revealed {got} shares of {expected} neighbours"));
                    }
                    Err(why) => findings.add(|| format!("{name} revealed what cannot be read: {why}")),
                }
                &mut said.revealed
            }
            _ => return,
        };
        if before.get_or_insert_with(|| body.to_vec()) != body {
            findings.add(|| format!("{name} said {step:?} of {collection:?} in two ways"));
        }
    }

    fn offered(&mut self, device: &Machine, collection: Collection, update: ObjectId) {
        let said = self.said.entry((device.id, collection)).or_default();
        let before = *said.offered.get_or_insert(update);
        if before != update {
            let name = &device.name;
            self.findings.add(|| format!("{name} offered two updates for {collection:?}: {before:?} and {update:?}"));
        }
    }

    fn served(&mut self, device: &Machine, object: ObjectId, index: u32, bytes: &[u8]) {
        let name = &device.name;
        let offered = self.said.range((device.id, FIRST)..).take_while(|((id, _), _)| *id == device.id);
        if !offered.into_iter().any(|(_, said)| said.offered == Some(object)) {
            self.findings.add(|| format!("{name} served a chunk of {object:?}, which it has not offered"));
        }
        // Most are bytes of a whole object, whose hash is known.
        let of_disk = device.disk.content(object).filter(|content| content.has(index, bytes));
        let known = of_disk.and_then(|content| content.manifest.chunk_hash(index));
        let hash = known.unwrap_or_else(|| chunk_hash(bytes));
        if *self.served.entry((device.id, object, index)).or_insert(hash) != hash {
            self.findings.add(|| format!("{name} served chunk {index} of {object:?} with two contents"));
        }
    }
}

/// No collection is before it.
const FIRST: Collection =
    Collection { job: littoral_wire::JobId(0), version: 0, work: littoral_wire::message::Work::Statistics, attempt: 0 };

impl Checker for OneVectorPerKey {
    fn name(&self) -> &'static str {
        "one vector per key"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        if machine.kind != Kind::Device {
            return;
        }
        match seen {
            Seen::Sent { message: Message::Sealing { collection, step, body }, .. } => {
                self.sealing(machine, *collection, *step, body);
            }
            Seen::Sent { message: Message::Offer { collection, update, .. }, .. } => {
                self.offered(machine, *collection, update.id());
            }
            Seen::Sent { message: Message::Chunk { object, index, bytes }, .. } => {
                self.served(machine, *object, *index, bytes);
            }
            // With an empty folder it is another device, with other keys in every sum.
            Seen::Lost => self.said.retain(|(device, _), _| *device != machine.id),
            _ => {}
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}
