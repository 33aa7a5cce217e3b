//! Performing effects.

use super::machine::Pending;
use super::{Happening, Parcel, Reported, World, class_of};
use crate::assignment::Place;
use crate::checkers::Seen;
use crate::network::{End, NodeIndex, Sending};
use crate::queue::Micros;
use littoral_node::job::JobSpec;
use littoral_node::role::{Effect, Event, LinkId, Peer};
use littoral_node::work::{LocalData, Rows, Watch, Work};
use littoral_wire::{Blob, Message, Wire};
use std::sync::Arc;

/// A device's rows beside its virtual watch.
pub(crate) struct Timed {
    pub data: Arc<dyn LocalData>,
    pub step_us: Micros,
}

impl LocalData for Timed {
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String> {
        self.data.rows(spec)
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(Steps { step_us: self.step_us })
    }
}

/// Goes on by steps.
struct Steps {
    step_us: Micros,
}

impl Watch for Steps {
    fn ms(&self, steps: u64) -> u64 {
        steps * self.step_us / 1_000
    }
}

/// Until the disk answers a request that syncs nothing.
const DISK_US: Micros = 50;

impl World {
    pub(super) fn perform(&mut self, node: NodeIndex, effect: Effect) {
        let now = self.now;
        let life = self.machines[node as usize].life;
        match effect {
            Effect::Dial(peer) => {
                // There and back, before the other side can know.
                let class = class_of(self.machines[node as usize].kind);
                let at = now + self.network.delay(class) + self.network.delay(class);
                self.queue.push(at, Happening::Call { node, life, peer });
            }
            Effect::Hangup { link, .. } => self.hang_up(node, link.0),
            Effect::Send { link, message } => self.send(node, link, message),
            Effect::SendChunk { link, object, index } => {
                let chunk = self.machines[node as usize].disk.chunk(object, index);
                let message = match chunk.map(Blob::new) {
                    Some(Ok(bytes)) => Message::Chunk { object, index, bytes },
                    _ => Message::NoChunk { object, index },
                };
                self.send(node, link, message);
            }
            Effect::Store(writes) => {
                let machine = &mut self.machines[node as usize];
                machine.storing = Some(writes);
                self.queue.push(now + self.settings.faults.sync_us, Happening::Synced { node, life });
            }
            Effect::Begin(manifest) => {
                let (object, missing) = self.machines[node as usize].disk.begin(manifest, &self.library);
                self.answer_soon(node, life, Event::Begun { object, missing });
            }
            Effect::Keep { object, index, bytes } => {
                let fault = self.machines[node as usize].disk.keep(object, index, &bytes).err();
                self.answer_soon(node, life, Event::Kept { object, index, fault });
            }
            Effect::Put { manifest, bytes } => {
                let (object, disk) = (manifest.id(), &mut self.machines[node as usize].disk);
                disk.put(object, manifest, bytes);
                self.library.add(object, disk);
            }
            Effect::Load { object, index } => {
                let bytes = self.machines[node as usize].disk.chunk(object, index);
                self.answer_soon(node, life, Event::Loaded { object, index, bytes });
            }
            Effect::Drop(object) => {
                let machine = &mut self.machines[node as usize];
                let relied_on = machine.pending.iter().any(|p| matches!(p, Pending::Effect(e) if e.relies_on(object)));
                if !relied_on && !machine.needs(object) {
                    machine.disk.forget(object);
                }
            }
            Effect::Work { id, work } => {
                let machine = &mut self.machines[node as usize];
                let costs = self.settings.costs;
                let (mut takes, mut data) = (machine.takes(costs.of(&work, machine.load)), Arc::clone(&machine.data));
                let mut place = Place { node, life, id, step_us: 0 };
                if let (Work::Local { .. }, time_ms @ 1..) = (&*work, machine.load.time_ms) {
                    // It makes whole steps, at least one.
                    let step_us = machine.takes(costs.step_us.max(1)).max(1);
                    let in_time = (time_ms * 1_000).div_ceil(step_us) * step_us;
                    (takes, data) = (takes.min(in_time), Arc::new(Timed { data, step_us }));
                    place.step_us = step_us;
                }
                let ticket = self.workers.order(place, work, machine.disk.shelf(), data);
                machine.works.push((id, ticket));
                self.queue.push(now + takes, Happening::WorkEnds { node, life, id });
            }
            Effect::SetTimer { timer, at } => {
                let at = now.max(at.saturating_mul(1_000));
                if let Some(at) = self.machines[node as usize].set_alarm(timer, at) {
                    self.queue.push(at, Happening::Alarm { node, life, timer });
                }
            }
            // Of replicas, which are not simulated.
            Effect::Pass { .. } => {}
            Effect::Report(report) => {
                self.show(node, Seen::Reported { report: &report });
                self.reports.push(Reported { at: self.now_ms(), node, report });
            }
        }
    }

    fn answer_soon(&mut self, node: NodeIndex, life: u32, event: Event) {
        self.queue.push(self.now + DISK_US, Happening::Answer { node, life, event });
    }

    /// The call has reached the other side, if it is there.
    pub(super) fn call(&mut self, node: NodeIndex, life: u32, peer: Peer) {
        let now = self.now;
        let caller = &self.machines[node as usize];
        if caller.life != life {
            return;
        }
        let class = class_of(caller.kind);
        let Some(&called) = self.by_id.get(&peer.id) else {
            return self.queue.push(now, Happening::CallFails { node, life, peer, reason: "nobody has this key" });
        };
        let cut = self.network.cut_until(now, node, called).max(self.network.cut_until(now, called, node));
        if cut > now {
            self.injected.count("call into partition");
            let at = now + self.network.timeout_us();
            return self.queue.push(at, Happening::CallFails { node, life, peer, reason: "no answer" });
        }
        if !self.machines[called as usize].is_up() {
            return self.queue.push(now, Happening::CallFails { node, life, peer, reason: "connection refused" });
        }
        if self.network.refuses() {
            self.injected.count("connection refused");
            return self.queue.push(now, Happening::CallFails { node, life, peer, reason: "connection refused" });
        }
        let ready_at = now + self.network.delay(class);
        let link = self.network.connect(node, called, class, ready_at);
        self.machines[node as usize].links.push(link);
        self.machines[called as usize].links.push(link);
        self.queue.push(now, Happening::Connected { node: called, link, end: 1 });
        self.queue.push(ready_at, Happening::Connected { node, link, end: 0 });
    }

    fn send(&mut self, node: NodeIndex, link: LinkId, message: Message) {
        let now = self.now;
        let Some(open) = self.network.link(link.0) else { return };
        let Some(end) = (0..2).find(|&end| open.ends[end] == node && open.open[end]) else { return };
        let to = open.ends[1 - end];
        if !self.checkers.is_empty() {
            let to = self.machines[to as usize].id;
            self.show(node, Seen::Sent { to, message: &message });
        }
        let (parcel, bytes) = if self.settings.faults.encode {
            let bytes = message.to_bytes();
            let count = bytes.len();
            (Parcel::Bytes(bytes), count)
        } else {
            let count = size_hint(&message);
            (Parcel::Message(message), count)
        };
        match self.network.send(now, link.0, end, bytes, &mut self.injected) {
            None => {}
            Some(Sending::Arrives { at, again_at }) => {
                let end = 1 - end;
                if let Some(again_at) = again_at {
                    self.queue.push(again_at, Happening::Arrival { link: link.0, end, parcel: parcel.clone() });
                }
                self.queue.push(at, Happening::Arrival { link: link.0, end, parcel });
            }
            Some(Sending::Dies { at, sender_at }) => {
                self.close_at(at, link.0, 1 - end, "the connection was lost");
                self.close_at(sender_at, link.0, end, "the connection was lost");
            }
        }
    }

    fn hang_up(&mut self, node: NodeIndex, link: u64) {
        let Some(open) = self.network.link(link) else { return };
        let Some(end) = (0..2).find(|&end| open.ends[end] == node && open.open[end]) else { return };
        let at = self.network.end_of_stream(self.now, link, end).unwrap_or(self.now);
        self.close_at(self.now, link, end, "hung up");
        self.close_at(at, link, 1 - end, "the other side hung up");
    }

    pub(super) fn close_at(&mut self, at: Micros, link: u64, end: End, reason: &'static str) {
        self.queue.push(at, Happening::Closed { link, end, reason });
    }
}

/// About how many bytes a message has, without encoding it: for bandwidth only.
fn size_hint(message: &Message) -> usize {
    const SMALL: usize = 96;
    let inline = |bytes: &littoral_wire::message::Inline| bytes.as_ref().map_or(0, |b| b.len());
    SMALL
        + match message {
            Message::Chunk { bytes, .. } => bytes.len(),
            Message::Offer { inline: bytes, update, .. } => inline(bytes) + 32 * update.chunks() as usize,
            Message::Task { spec, inline: bytes, model, before, .. } => {
                let chunks = before.iter().chain([model]).map(|object| object.chunks() as usize).sum::<usize>();
                spec.len() + inline(bytes) + 32 * chunks + 12 * before.len()
            }
            Message::Open { spec, inline: bytes, devices, given, .. } => {
                let given = given.iter().map(|given| 44 + 32 * given.model.chunks() as usize).sum::<usize>();
                spec.len() + inline(bytes) + 36 * devices.len() + given
            }
            Message::Partial { inline: bytes, devices, .. } => inline(bytes) + 32 * devices.len(),
            Message::Sealing { body, .. } | Message::SealingFrom { body, .. } => body.len(),
            Message::SealingTo { body, devices, .. } => body.len() + 32 * devices.len(),
            Message::Announce { included, .. } => 200 + 32 * included.len(),
            Message::Told { verdict } | Message::Tell { verdict, .. } => {
                200 + verdict.proof.as_ref().map_or(0, |proof| 32 * proof.path.len())
            }
            _ => 0,
        }
}
