//! Collect: what devices and edges say while updates come in.

use super::desk::{Desk, Standing};
use super::members::MemberState;
use super::presence::Attached;
use super::{Effect, Kept, Millis, Record, Round, Stage};
use littoral_wire::NodeId;
use littoral_wire::message::{Collection, Fate, Incarnation, Note, Work};
use littoral_wire::object::Manifest;
use std::collections::BTreeSet;

impl Round {
    pub(super) fn device(&mut self, device: NodeId, name: String, edge: NodeId, rows: u64, effects: &mut Vec<Effect>) {
        if rows > 0 {
            self.seen.insert(name.clone());
        }
        self.presence.came(device, Attached { name, edge, rows });
        self.say_again(device, effects);
        self.flight_attached(device, edge, effects);
        if !matches!(self.stage, Stage::Collect { .. }) {
            return;
        }
        let Some(member) = self.members.get(&device) else { return };
        match member.state {
            MemberState::Adrift => self.ask(device, edge, effects),
            // It moved: nothing may be sent to the new edge while the old one could still count it.
            MemberState::Asked(number) | MemberState::Releasing(number) => {
                let Some(desk) = self.desks.get(&number) else { return };
                if desk.edge != edge && cfg!(feature = "broken-counted-once") {
                    // The old edge was not told to let it go.
                    self.ask(device, edge, effects);
                } else if desk.edge != edge {
                    let release = Effect::Release { edge: desk.edge, incarnation: self.incarnation(number), device };
                    self.set(device, MemberState::Releasing(number));
                    effects.push(release);
                } else {
                    // The same edge again: it may have lost the request, or the device the task.
                    self.set(device, MemberState::Asked(number));
                    let incarnation = self.incarnation(number);
                    effects.push(Effect::Open { edge, incarnation, devices: vec![device] });
                }
            }
            MemberState::Expelling { .. } | MemberState::In(_) | MemberState::Out { .. } => {}
        }
    }

    /// The device's key is not let in any more: what is not in a partial yet shall not come. Until the edge has let it go
    /// it may be in one all the same, so its machine is not asked under another key before.
    pub(super) fn expelled(&mut self, device: NodeId, why: String, effects: &mut Vec<Effect>) {
        self.presence.forget(device);
        self.flight_expelled(device);
        let Some(member) = self.members.get(&device) else { return };
        match member.state {
            MemberState::Asked(number) | MemberState::Releasing(number) => {
                self.set(device, MemberState::Expelling { number, why });
                if let Some(desk) = self.desks.get(&number) {
                    effects.push(Effect::Release { edge: desk.edge, incarnation: self.incarnation(number), device });
                }
            }
            MemberState::Adrift => self.is_out(device, why, effects),
            MemberState::Expelling { .. } | MemberState::In(_) | MemberState::Out { .. } => {}
        }
    }

    fn is_out(&mut self, device: NodeId, why: String, effects: &mut Vec<Effect>) {
        self.set(device, MemberState::Out { why });
        self.top_up(effects);
    }

    /// What a device tells of itself with its update, where the job chooses by it.
    pub(super) fn hear_note(&mut self, now: Millis, of: Collection, device: NodeId, note: Option<Note>) {
        let Some(note) = note.filter(|_| self.settings.selection.needs_losses()) else { return };
        let member = self.members.get(&device).map(|member| (member.name.clone(), self.opened_at));
        let flight = self.pool.get(&device).map(|flight| (flight.name.clone(), flight.since));
        let asked = if of.work == Work::Prepare { flight } else { member.filter(|_| of == self.collection) };
        if let Some((name, since)) = asked {
            self.acquaintance.told(&name, f64::from(note.loss_ppm) / 1e6, note.rows, now.saturating_sub(since));
        }
    }

    /// It will not take part in this collection; the reason is kept for people.
    pub(super) fn refuse(&mut self, device: NodeId, reason: String, effects: &mut Vec<Effect>) {
        if self.members.get(&device).is_some() {
            self.declined(device, reason.clone(), effects);
            self.is_out(device, reason, effects);
        }
    }

    /// Keeps a reason for people.
    pub(super) fn declined(&mut self, device: NodeId, reason: String, effects: &mut Vec<Effect>) {
        if let Some(member) = self.members.get(&device) {
            self.note_decline(member.name.clone(), reason, effects);
        }
    }

    pub(super) fn note_decline(&mut self, name: String, reason: String, effects: &mut Vec<Effect>) {
        if self.declines.add(&name, self.collection, &reason) {
            effects.push(Effect::Record(Record::Declined { collection: self.collection, name, why: reason }));
        }
    }

    pub(super) fn edge(
        &mut self,
        now: Millis,
        edge: NodeId,
        holds: Vec<(Incarnation, Vec<NodeId>)>,
        effects: &mut Vec<Effect>,
    ) {
        let collecting = matches!(self.stage, Stage::Collect { .. } | Stage::Close { .. });
        let (prepared, holds): (Vec<_>, Vec<_>) =
            holds.into_iter().partition(|(incarnation, _)| incarnation.collection.work == Work::Prepare);
        let prepared: Vec<Incarnation> = prepared.into_iter().map(|(incarnation, _)| incarnation).collect();
        self.edge_holds(edge, &prepared, effects);
        let mut held = BTreeSet::new();
        for (incarnation, absorbed) in holds {
            let number = incarnation.number;
            // Numbers are given here; one that never was is a lie.
            let known = number < self.next_number && !self.fenced.contains(&number);
            if !collecting || incarnation.collection != self.collection || !known {
                effects.push(Effect::Fence { edge, incarnation });
                continue;
            }
            held.insert(number);
            // Unknown after a restart of the cloud: taken over, unless one of its devices is counted elsewhere.
            if !self.desks.contains_key(&number) {
                let taken = absorbed.iter().any(|d| match self.members.get(d) {
                    Some(m) => m.state != MemberState::Adrift,
                    None => true,
                });
                if taken {
                    self.desks.insert(number, Desk::new(edge));
                    self.fence(number, effects);
                    continue;
                }
                self.desks.insert(number, Desk::new(edge));
            }
            for device in absorbed {
                self.progress(now, number, device, Fate::Absorbed, String::new(), effects);
            }
        }
        // What it should have and has not, it has lost.
        let mut lost = self.live(|desk| desk.edge == edge);
        lost.retain(|number| !held.contains(number));
        lost.into_iter().for_each(|number| self.fence(number, effects));
        // Ask again for what it has not answered.
        for number in held {
            let Some(desk) = self.desks.get(&number) else { continue };
            match desk.standing {
                Standing::Open => {
                    let devices = self.asked_of(number);
                    if !devices.is_empty() {
                        effects.push(Effect::Open { edge, incarnation: self.incarnation(number), devices });
                    }
                }
                Standing::Closing => effects.push(Effect::Close { edge, incarnation: self.incarnation(number) }),
                Standing::Kept => {}
            }
        }
    }

    pub(super) fn progress(
        &mut self,
        now: Millis,
        number: u64,
        device: NodeId,
        fate: Fate,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        let Some(member) = self.members.get(&device) else { return };
        let here = match &member.state {
            // After a restart of the cloud the edges tell where devices are.
            MemberState::Adrift => self.desks.contains_key(&number),
            // Counted: what else is said of it was said before.
            MemberState::In(_) => false,
            state => state.number() == Some(number),
        };
        if !here {
            return;
        }
        match fate {
            Fate::Absorbed => self.set(device, MemberState::In(number)),
            Fate::Declined | Fate::Refused => {
                self.presence.rest(now + self.settings.deadline_ms, device);
                self.refuse(device, reason, effects);
            }
            // Said to a request too, by an edge that let the device go or closed before: it will never absorb it
            // under this number.
            Fate::Released => {
                if let Some(desk) = self.desks.get_mut(&number) {
                    desk.released.insert(device);
                }
                if let MemberState::Out { why } = member.state.let_go() {
                    return self.is_out(device, why, effects);
                }
                self.set(device, MemberState::Adrift);
                let edge = self.presence.get(&device).map(|attached| attached.edge);
                if let (Stage::Collect { .. }, Some(edge)) = (&self.stage, edge) {
                    self.ask(device, edge, effects);
                }
            }
            // It may come back to the same edge; until it shows elsewhere nothing changes.
            Fate::Detached | Fate::Ready => {}
        }
    }

    pub(super) fn partial(
        &mut self,
        incarnation: Incarnation,
        mut devices: Vec<NodeId>,
        sum: Manifest,
        effects: &mut Vec<Effect>,
    ) {
        if !self.expects(incarnation) {
            return;
        }
        devices.sort_unstable();
        devices.dedup();
        let number = incarnation.number;
        let edge = self.desks[&number].edge;
        // Each device must be a member and counted nowhere else; a partial that says otherwise is of no use.
        let foreign = devices.iter().any(|d| match self.members.get(d).map(|m| &m.state) {
            Some(MemberState::Adrift) => false,
            Some(state) => state.number() != Some(number),
            None => true,
        });
        if (foreign && !cfg!(feature = "broken-counted-once")) || devices.is_empty() {
            self.fence(number, effects);
            return;
        }
        let kept = Kept { incarnation, edge, devices, sum };
        effects.push(Effect::Record(Record::Kept(kept.clone())));
        self.seat(kept);
    }

    pub(super) fn seat(&mut self, kept: Kept) {
        let number = kept.incarnation.number;
        self.next_number = self.next_number.max(number + 1);
        for device in &kept.devices {
            self.set(*device, MemberState::In(number));
        }
        // Whoever was asked through this incarnation and is not in it was too late.
        self.let_go(number, |state| !matches!(state, MemberState::In(_)));
        let desk = self.desks.entry(number).or_insert_with(|| Desk::new(kept.edge));
        desk.standing = Standing::Kept;
        desk.kept = Some(kept);
    }
}
