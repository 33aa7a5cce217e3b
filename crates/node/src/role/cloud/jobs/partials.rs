//! Partials on their way from edges.

use super::super::fleet::Fleet;
use super::super::{Effect, LinkId, Millis};
use super::{Job, Jobs, State, send};
use crate::role::fetch::{self, Fetch};
use bytes::Bytes;
use littoral_fed::round::{self, Record};
use littoral_wire::message::{Incarnation, Inline};
use littoral_wire::object::Manifest;
use littoral_wire::{Message, NodeId, ObjectId};

/// Chunks of a partial in flight from an edge.
const FETCH_WINDOW: usize = 32;

/// A partial on its way here.
pub(super) struct Incoming {
    pub(super) incarnation: Incarnation,
    devices: Vec<NodeId>,
    pub(super) fetch: Fetch,
}

impl Jobs {
    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(in crate::role::cloud) fn partial(
        &mut self,
        now: Millis,
        link: LinkId,
        edge: NodeId,
        incarnation: Incarnation,
        devices: Vec<NodeId>,
        sum: Manifest,
        inline: Inline,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let id = incarnation.collection.job;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &job.state else { return };
        if round.kept(incarnation) {
            return effects.push(Effect::Send { link, message: Message::PartialKept { incarnation } });
        }
        let plan = job.spec.plan(incarnation.collection.work);
        // A list has its updates in the order of its devices.
        let (rows, sorted) = match job.spec.unmerged(incarnation.collection.work) {
            true => (devices.len() as u64, devices.is_sorted_by(|a, b| a < b)),
            false => (1, true),
        };
        if !round.expects(incarnation) || !sorted || sum.bytes() != rows * plan.format().bytes() as u64 {
            return effects.push(Effect::Send { link, message: Message::Fence { incarnation } });
        }
        match inline {
            Some(bytes) if sum.check(0, &bytes).is_ok() => {
                effects.push(Effect::Put { manifest: sum.clone(), bytes: bytes.into_vec() });
                self.partial_is_here(now, edge, incarnation, devices, sum, fleet, effects);
            }
            Some(_) => effects.push(Effect::Send { link, message: Message::Fence { incarnation } }),
            None => match job.incoming.iter_mut().find(|incoming| incoming.incarnation == incarnation) {
                Some(incoming) => incoming.fetch.resume(now, link, effects),
                None => {
                    let fetch = Fetch::begin(sum, link, FETCH_WINDOW, effects);
                    job.incoming.push(Incoming { incarnation, devices, fetch });
                }
            },
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    fn partial_is_here(
        &mut self,
        now: Millis,
        edge: NodeId,
        incarnation: Incarnation,
        devices: Vec<NodeId>,
        sum: Manifest,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let id = incarnation.collection.job;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &mut job.state else { return };
        let mut decided = Vec::new();
        round.step(now, round::Event::Partial { incarnation, devices, sum }, &mut decided);
        // First the row, then the word that it is kept, then what follows from it.
        let after =
            decided.iter().position(|d| matches!(d, round::Effect::Record(Record::Kept(_)))).map_or(0, |i| i + 1);
        let rest = decided.split_off(after);
        self.perform(now, id, decided, fleet, effects);
        if after > 0 {
            send(fleet, edge, Message::PartialKept { incarnation }, effects);
        }
        self.perform(now, id, rest, fleet, effects);
    }

    pub(in crate::role::cloud) fn chunk(
        &mut self,
        link: LinkId,
        object: ObjectId,
        index: u32,
        bytes: Bytes,
        effects: &mut Vec<Effect>,
    ) {
        let fetches = self.jobs.values_mut().flat_map(|job| &mut job.incoming).map(|incoming| &mut incoming.fetch);
        let waiting = fetches.filter(|fetch| fetch.object() == object && fetch.source() == Some(link));
        fetch::hand_out(waiting, index, bytes, effects);
    }

    pub(in crate::role::cloud) fn begun(
        &mut self,
        now: Millis,
        object: ObjectId,
        missing: Vec<u32>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        if !missing.is_empty() {
            self.halt(object, effects);
        }
        for incoming in self.jobs.values_mut().flat_map(|job| &mut job.incoming) {
            if incoming.fetch.object() == object {
                incoming.fetch.begun(now, missing.clone(), effects);
            }
        }
        self.collect_whole(now, fleet, effects);
    }

    pub(in crate::role::cloud) fn kept(
        &mut self,
        now: Millis,
        object: ObjectId,
        index: u32,
        good: bool,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        for incoming in self.jobs.values_mut().flat_map(|job| &mut job.incoming) {
            if incoming.fetch.object() == object {
                incoming.fetch.kept(now, index, good, effects);
            }
        }
        self.collect_whole(now, fleet, effects);
    }

    fn collect_whole(&mut self, now: Millis, fleet: &Fleet, effects: &mut Vec<Effect>) {
        let mut whole = Vec::new();
        for job in self.jobs.values_mut() {
            let (done, rest) = std::mem::take(&mut job.incoming).into_iter().partition(|i: &Incoming| i.fetch.whole());
            job.incoming = rest;
            whole.extend::<Vec<Incoming>>(done);
        }
        for Incoming { incarnation, devices, fetch } in whole {
            let edge = self
                .jobs
                .get(&incarnation.collection.job)
                .and_then(Job::round)
                .and_then(|round| round.edge_of(incarnation));
            if let Some(edge) = edge {
                let sum = fetch.manifest().clone();
                self.partial_is_here(now, edge, incarnation, devices, sum, fleet, effects);
            }
        }
    }

    pub(in crate::role::cloud) fn link_lost(&mut self, link: LinkId) {
        self.jobs.values_mut().flat_map(|job| &mut job.incoming).for_each(|incoming| incoming.fetch.lost(link));
    }
}
