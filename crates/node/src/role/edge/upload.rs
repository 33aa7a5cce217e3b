//! From a device's offer to its words in the partial.
//!
//! Small updates ride inside the offer and are absorbed at once. Bigger ones are pulled chunk by chunk into a spool on
//! disk, checked against their manifest, and added when they are whole, a few together so that a chunk of the partial
//! is in the cache while they pass over it.

use super::desk::{Batch, Desk, Seat};
use super::{Edge, Fetch};
use crate::role::{Effect, LinkId, Report};
use bytes::Bytes;
use littoral_fed::aggregate::Absorbing;
use littoral_wire::message::{Fate, Incarnation, Inline, Reason};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{Collection, Message, NodeId, ObjectId};

/// An update on its way here. Equal updates have one name, so several devices may wait for one upload.
#[derive(Debug)]
pub(super) struct Upload {
    pub fetch: Fetch,
    pub senders: Vec<(Incarnation, NodeId)>,
}

/// Chunks of updates in flight over all devices: a quarter of an update as it travels, 2 to 32. With the partial itself that keeps
/// an edge below one and a half updates.
fn window(update_bytes: u64) -> usize {
    (update_bytes as usize / CHUNK_BYTES / 4).clamp(2, 32)
}

impl Edge {
    pub(super) fn offer(
        &mut self,
        link: LinkId,
        device: NodeId,
        collection: Collection,
        update: Manifest,
        inline: Inline,
        effects: &mut Vec<Effect>,
    ) {
        // The one that still asks, if any: after a restart the cloud may ask again under another number.
        let of_it = |(i, d): &(&Incarnation, &Desk)| i.collection == collection && d.seats.contains_key(&device);
        let asks = |d: &Desk| !d.closed && matches!(d.seats.get(&device), Some(Seat::Asked { .. }));
        let found = self.desks.iter().filter(of_it).max_by_key(|(_, d)| asks(d)).map(|(incarnation, _)| *incarnation);
        let Some(incarnation) = found else { return };
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        match desk.seats.get(&device) {
            Some(Seat::Asked { .. }) if !desk.closed => {}
            Some(Seat::Absorbed | Seat::Absorbing | Seat::Ready { .. } | Seat::Unread { .. }) => {
                return effects.push(Effect::Send { link, message: Message::Absorbed { collection } });
            }
            _ => return,
        }
        if let Err(refused) = desk.admits(device, update.bytes()) {
            return self.refuse(incarnation, device, refused.to_string(), effects);
        }
        match inline {
            Some(bytes) => {
                if let Err(error) = update.check(0, &bytes) {
                    return self.refuse(incarnation, device, error.to_string(), effects);
                }
                if let Some(Err(malformed)) = desk.rules.as_ref().map(|rules| rules.check(&bytes)) {
                    return self.refuse(incarnation, device, malformed.to_string(), effects);
                }
                if desk.keeps_each() {
                    desk.keep(device, update.id(), update.bytes());
                    effects.push(Effect::Put { manifest: update, bytes: bytes.into_vec() });
                    return self.absorbed(incarnation, device, effects);
                }
                match desk.absorb(device, &bytes) {
                    Ok(()) => self.absorbed(incarnation, device, effects),
                    Err(refused) => self.refuse(incarnation, device, refused.to_string(), effects),
                }
            }
            None => {
                let object = update.id();
                match self.uploads.get_mut(&object) {
                    Some(upload) => {
                        if !upload.senders.contains(&(incarnation, device)) {
                            upload.senders.push((incarnation, device));
                        }
                        if upload.fetch.source().is_none() {
                            upload.fetch.resume(0, link, effects);
                        }
                    }
                    None => {
                        let share = window(update.bytes()) / (self.uploads.len() + 1);
                        let fetch = Fetch::begin(update, link, share.max(1), effects);
                        self.uploads.insert(object, Upload { fetch, senders: vec![(incarnation, device)] });
                    }
                }
            }
        }
    }

    pub(super) fn refuse(&mut self, incarnation: Incarnation, device: NodeId, why: String, effects: &mut Vec<Effect>) {
        let reason = Reason::new(why);
        if let Some(desk) = self.desks.get_mut(&incarnation) {
            desk.seats.insert(device, Seat::Out { fate: Fate::Refused, reason: reason.clone() });
        }
        let message = Message::Refused { collection: incarnation.collection, reason: reason.clone() };
        if let Some(guest) = self.guests.get(&device) {
            effects.push(Effect::Send { link: guest.link, message });
        }
        self.progress(incarnation, device, Fate::Refused, reason, effects);
    }

    pub(super) fn absorbed(&mut self, incarnation: Incarnation, device: NodeId, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        desk.seats.insert(device, Seat::Absorbed);
        self.progress(incarnation, device, Fate::Absorbed, Reason::default(), effects);
        if let Some(guest) = self.guests.get(&device) {
            let message = Message::Absorbed { collection: incarnation.collection };
            effects.push(Effect::Send { link: guest.link, message });
        }
    }

    pub(super) fn upload_chunk(
        &mut self,
        link: LinkId,
        object: ObjectId,
        index: u32,
        bytes: Bytes,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(upload) = self.uploads.get_mut(&object)
            && upload.fetch.source() == Some(link)
        {
            upload.fetch.chunk(index, bytes, effects);
        }
    }

    /// A device is back: what it was sending goes on.
    pub(super) fn resume_uploads(&mut self, device: NodeId, link: LinkId, effects: &mut Vec<Effect>) {
        for upload in self.uploads.values_mut() {
            if upload.fetch.source().is_none() && upload.senders.iter().any(|(_, sender)| *sender == device) {
                upload.fetch.resume(0, link, effects);
            }
        }
    }

    pub(super) fn upload_is_whole(&mut self, object: ObjectId, effects: &mut Vec<Effect>) {
        if !self.uploads.get(&object).is_some_and(|u| u.fetch.whole()) {
            return;
        }
        let Some(upload) = self.uploads.remove(&object) else { return };
        let bytes = upload.fetch.manifest().bytes();
        let mut incarnations = Vec::new();
        for (incarnation, device) in upload.senders {
            if let Some(desk) = self.desks.get_mut(&incarnation)
                && matches!(desk.seats.get(&device), Some(Seat::Asked { .. }))
            {
                let seat = match desk.rules {
                    Some(_) => Seat::Unread { object, bytes },
                    None => Seat::Ready { object, bytes },
                };
                desk.seats.insert(device, seat);
                incarnations.push(incarnation);
            }
        }
        incarnations.dedup();
        if incarnations.is_empty() {
            effects.push(Effect::Drop(object));
        }
        for incarnation in incarnations {
            match self.desks.get(&incarnation).is_some_and(|desk| desk.rules.is_some()) {
                true => self.inspect_next(incarnation, effects),
                false => self.next_batch(incarnation, effects),
            }
        }
    }

    /// Begins to add the updates that are ready, unless some are being added.
    pub(super) fn next_batch(&mut self, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        if desk.coding.is_some() {
            return self.read_next(incarnation, effects);
        }
        if desk.batch.is_some() {
            return;
        }
        if desk.keeps_each() {
            return self.hand_in(incarnation, effects);
        }
        let together = window(desk.update_bytes()).min(8);
        let devices: Vec<(NodeId, ObjectId)> = desk
            .seats
            .iter()
            .filter_map(|(device, seat)| match seat {
                Seat::Ready { object, .. } => Some((*device, *object)),
                _ => None,
            })
            .take(together)
            .collect();
        if devices.is_empty() {
            return self.hand_in(incarnation, effects);
        }
        let ids: Vec<NodeId> = devices.iter().map(|(device, _)| *device).collect();
        let chunks = desk.update_bytes().div_ceil(CHUNK_BYTES as u64) as u32;
        let absorbing = match desk.partial_mut().and_then(|partial| Absorbing::begin(partial, &ids)) {
            Ok(absorbing) => absorbing,
            Err(refused) => {
                effects.push(Effect::Report(Report::Warning { what: refused.to_string() }));
                return;
            }
        };
        ids.iter().for_each(|device| {
            desk.seats.insert(*device, Seat::Absorbing);
        });
        let arrived = vec![None; devices.len()];
        read(&devices, 0, effects);
        desk.batch = Some(Batch { absorbing, devices, index: 0, chunks, arrived });
    }

    pub(super) fn loaded(&mut self, object: ObjectId, index: u32, bytes: Option<Bytes>, effects: &mut Vec<Effect>) {
        let incarnations: Vec<Incarnation> = self
            .desks
            .iter()
            .filter(|(_, d)| {
                d.batch.as_ref().is_some_and(|b| b.index == index && b.devices.iter().any(|(_, o)| *o == object))
                    || d.reading.as_ref().is_some_and(|r| (r.object, r.index) == (object, index))
                    || d.inspecting.as_ref().is_some_and(|i| (i.object, i.index) == (object, index))
            })
            .map(|(i, _)| *i)
            .collect();
        for incarnation in incarnations {
            match bytes.clone() {
                Some(bytes) if self.desks.get(&incarnation).is_some_and(|desk| desk.reading.is_some()) => {
                    self.read_on(incarnation, &bytes, effects);
                }
                Some(bytes) if self.inspects(incarnation, object, index) => {
                    self.inspect_on(incarnation, &bytes, effects);
                }
                Some(bytes) => self.add(incarnation, object, bytes, effects),
                // Part of it is in the sum already and cannot be taken out: begin anew, devices send again.
                None => {
                    let what = "a spooled update can no longer be read; the partial starts anew".to_string();
                    effects.push(Effect::Report(Report::Warning { what }));
                    self.tell(Message::NoPartial { incarnation }, effects);
                    self.remember_fenced(incarnation);
                    self.drop_desk(incarnation, effects);
                }
            }
        }
    }

    fn add(&mut self, incarnation: Incarnation, object: ObjectId, bytes: Bytes, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        let Some(mut batch) = desk.batch.take() else { return };
        let slots = batch.arrived.iter_mut().zip(&batch.devices);
        let slots = slots.filter(|(slot, (_, wanted))| *wanted == object && slot.is_none());
        slots.for_each(|(slot, _)| *slot = Some(bytes.clone()));
        if batch.arrived.iter().any(Option::is_none) {
            desk.batch = Some(batch);
            return;
        }
        let chunks: Vec<&[u8]> = batch.arrived.iter().flatten().map(|chunk| &chunk[..]).collect();
        if let Err(refused) = desk.partial_mut().and_then(|partial| batch.absorbing.chunk(partial, &chunks)) {
            // Lengths were checked before: this is a fault of ours, and the partial cannot be trusted.
            effects.push(Effect::Report(Report::Warning { what: refused.to_string() }));
            self.tell(Message::NoPartial { incarnation }, effects);
            self.remember_fenced(incarnation);
            return self.drop_desk(incarnation, effects);
        }
        batch.index += 1;
        if batch.index < batch.chunks {
            batch.arrived.iter_mut().for_each(|slot| *slot = None);
            read(&batch.devices, batch.index, effects);
            desk.batch = Some(batch);
            return;
        }
        let finished = desk.partial_mut().and_then(|partial| batch.absorbing.finish(partial));
        if let Err(refused) = finished {
            effects.push(Effect::Report(Report::Warning { what: refused.to_string() }));
            self.tell(Message::NoPartial { incarnation }, effects);
            self.remember_fenced(incarnation);
            return self.drop_desk(incarnation, effects);
        }
        for (device, object) in batch.devices {
            self.absorbed(incarnation, device, effects);
            effects.push(Effect::Drop(object));
        }
        self.next_batch(incarnation, effects);
    }

    /// No more uploads for this partial.
    pub(super) fn stop_uploads(&mut self, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        self.drop_senders(|sender| sender.0 == incarnation, effects);
    }

    pub(super) fn stop_upload(&mut self, incarnation: Incarnation, device: NodeId, effects: &mut Vec<Effect>) {
        self.drop_senders(|sender| *sender == (incarnation, device), effects);
    }

    fn drop_senders(&mut self, which: impl Fn(&(Incarnation, NodeId)) -> bool, effects: &mut Vec<Effect>) {
        self.uploads.values_mut().for_each(|upload| upload.senders.retain(|sender| !which(sender)));
        let idle: Vec<ObjectId> = self.uploads.iter().filter(|(_, u)| u.senders.is_empty()).map(|(o, _)| *o).collect();
        for object in idle {
            self.uploads.remove(&object);
            effects.push(Effect::Drop(object));
        }
    }
}

fn read(devices: &[(NodeId, ObjectId)], index: u32, effects: &mut Vec<Effect>) {
    let mut objects: Vec<ObjectId> = devices.iter().map(|(_, object)| *object).collect();
    objects.sort_unstable();
    objects.dedup();
    effects.extend(objects.into_iter().map(|object| Effect::Load { object, index }));
}
