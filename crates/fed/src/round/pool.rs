//! Devices in flight: training comes before the sum, and versions are made of whoever is ready.
//!
//! Where updates may be old ([`Pace::staleness_max`] above 0) a device is not asked for a sum. It is *dispatched*: asked to
//! train from the version that is current then, and to keep what it learnt. When as many are ready as make a version, they
//! become the cohort of a collection like any other: asked, summed, fenced and counted in the same way, masked or not. Each
//! is told how much its update counts, by its age ([`crate::staleness`]).
//!
//! ```text
//!             dispatched at version v          ready                      in the sum of version c ≥ v
//!   willing ─────────────────────────> training ─────> ready ──────────────> member ───────────> willing
//!      ^                                  | late, declined, too old            | the attempt came to nothing
//!      └──────────────────────────────────┘                 ready <────────────┘
//! ```
//!
//! So a synchronous round is the case in which the cohort is fixed before it trains. With a pool as large as a version,
//! dispatched as a whole, both give the same versions: nobody is dispatched before the version is made that the others are in.
//!
//! Nothing is counted before a collection, so nothing here is fenced: a device that is asked twice has trained once, and
//! which devices were dispatched is recorded only to spare them training again when the cloud comes back.

use super::compass::{Arrival, Course};
use super::members::{MemberState, Members};
use super::{Effect, Millis, Record, Round};
use littoral_wire::message::{Collection, Effort, Fate, Incarnation, Work};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{NodeId, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

/// A device that trains, or has.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub name: String,
    /// At which it began.
    pub version: u64,
    /// When it was dispatched.
    pub since: Millis,
    /// When it is given up, unless it is ready.
    pub until: Millis,
    /// How many steps it was given; 0: as many as the job says.
    pub steps: u32,
    /// With whom it shall arrive.
    arrival: Arrival,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// It is away, or its edge has forgotten it.
    Adrift,
    /// Asked under this number.
    Asked(u64),
    Ready {
        since: Millis,
    },
}

/// Asked at every message of a crowd, so it counts as devices move.
#[derive(Debug, Default)]
pub(super) struct Pool {
    flights: BTreeMap<NodeId, Flight>,
    /// Those who train, by when they are given up.
    training: BTreeSet<(Millis, NodeId)>,
    desks: BTreeMap<u64, Desk>,
    /// Models that somebody began at, by version.
    models: BTreeMap<u64, Begun>,
    /// At which version each member of the current collection began.
    group: BTreeMap<NodeId, u64>,
    /// The version for which ages were last looked at.
    aged: Option<u64>,
    /// Where devices are given steps by their speed.
    course: Course,
    /// Until then fewer than [`Pace::dispatch`](super::Pace) are not dispatched: others may come.
    patience: Millis,
}

/// One edge's devices that train from one version.
#[derive(Debug)]
struct Desk {
    edge: NodeId,
    version: u64,
    /// How many are asked and have not answered.
    asked: usize,
}

#[derive(Debug)]
struct Begun {
    model: Manifest,
    /// What the model builds on.
    before: Chain,
    /// How many in flight or in the group began at it.
    count: usize,
}

impl Pool {
    pub fn get(&self, device: &NodeId) -> Option<&Flight> {
        self.flights.get(device)
    }

    pub fn flights(&self) -> impl Iterator<Item = (&NodeId, &Flight)> {
        self.flights.iter()
    }

    fn ready(&self) -> usize {
        self.flights.len() - self.training.len()
    }

    pub fn needs(&self, object: ObjectId) -> bool {
        let mut objects = self.models.values().flat_map(|begun| begun.before.iter().chain([&begun.model]));
        objects.any(|of| of.id() == object)
    }

    /// In place of what it was at before, if anything: records of a device that was let go in between do not say so.
    fn insert(&mut self, device: NodeId, flight: Flight) {
        self.remove(&device);
        if let Some(begun) = self.models.get_mut(&flight.version) {
            begun.count += 1;
        }
        self.training.insert((flight.until, device));
        self.flights.insert(device, flight);
    }

    fn remove(&mut self, device: &NodeId) -> Option<Flight> {
        if self.flights.get(device).is_some_and(|flight| !matches!(flight.place, Place::Ready { .. })) {
            self.course.left(self.flights[device].arrival);
        }
        self.place(device, Place::Adrift);
        let flight = self.flights.remove(device)?;
        self.training.remove(&(flight.until, *device));
        self.end_of(flight.version);
        Some(flight)
    }

    /// One fewer began at this version.
    fn end_of(&mut self, version: u64) {
        if let Some(begun) = self.models.get_mut(&version) {
            begun.count = begun.count.saturating_sub(1);
        }
    }

    fn place(&mut self, device: &NodeId, place: Place) {
        let Some(flight) = self.flights.get_mut(device) else { return };
        let before = std::mem::replace(&mut flight.place, place);
        for (place, more) in [(before, false), (place, true)] {
            match place {
                Place::Asked(number) => {
                    if let Some(desk) = self.desks.get_mut(&number) {
                        desk.asked = if more { desk.asked + 1 } else { desk.asked.saturating_sub(1) };
                    }
                }
                Place::Ready { .. } if more => drop(self.training.remove(&(flight.until, *device))),
                Place::Ready { .. } => drop(self.training.insert((flight.until, *device))),
                Place::Adrift => {}
            }
        }
    }

    /// Those of a group whose collection came to nothing, or came too late, are ready as before; the others are free.
    fn put_back(&mut self, members: &Members, since: Millis, until: Millis) {
        for (device, version) in std::mem::take(&mut self.group) {
            if let Some(member) = members.get(&device)
                && !matches!(member.state, MemberState::In(_) | MemberState::Out { .. })
            {
                let name = member.name.clone();
                let flight = Flight { name, version, since, until, steps: 0, arrival: 0, place: Place::Adrift };
                self.insert(device, flight);
            }
            self.end_of(version);
        }
    }
}

/// What is gathered of those who train at a version: nothing.
fn prepare(collection: Collection, version: u64) -> Collection {
    Collection { version, work: Work::Prepare, attempt: 0, ..collection }
}

impl Round {
    /// Devices train before it is known for which collection.
    pub(super) fn asynchronous(&self) -> bool {
        self.settings.pace.staleness_max > 0 && self.collection.work == Work::Train
    }

    /// Lets go whoever takes too long or is too old by now, and dispatches others in their place.
    pub(super) fn fill_pool(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.settings.pace.staleness_max == 0 {
            return;
        }
        while let Some((_, device)) = self.pool.training.first().copied().filter(|(until, _)| *until <= now) {
            self.pool.remove(&device);
            // It may be stuck: others first.
            self.presence.rest(now + self.settings.deadline_ms, device);
        }
        let (version, over) = (self.collection.version, !self.asynchronous());
        if over || self.pool.aged != Some(version) {
            self.pool.aged = Some(version);
            self.pool.patience = now + self.settings.wait_ms;
            let oldest = version.saturating_sub(self.settings.pace.staleness_max.into());
            let old = |flight: &Flight| over || flight.version < oldest;
            let old: Vec<NodeId> = self.pool.flights().filter(|(_, f)| old(f)).map(|(device, _)| *device).collect();
            old.iter().for_each(|device| drop(self.pool.remove(device)));
        }
        if !over {
            self.ask_pool(effects);
            self.dispatch(now, effects);
        }
        self.tidy_pool(effects);
    }

    fn dispatch(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.presence.wake(now);
        let pace = &self.settings.pace;
        // Who is in a group keeps its place until the version is made.
        let taken = self.pool.flights.len() + self.pool.group.len();
        let free = (pace.pool as usize).saturating_sub(taken);
        if free < pace.dispatch as usize {
            return;
        }
        let names: BTreeSet<&str> = self.pool.flights.values().map(|flight| flight.name.as_str()).collect();
        let in_group = self.members.names();
        let cohort = self.draw(free, |device, name| {
            let busy = names.contains(name) || in_group.contains(name) || self.pool.group.contains_key(device);
            !busy && self.may_be_drawn(name)
        });
        if cohort.is_empty() {
            return;
        }
        if cohort.len() < pace.dispatch as usize && now < self.pool.patience {
            return effects.push(Effect::Wake { at: self.pool.patience });
        }
        self.pool.patience = now + self.settings.wait_ms;
        let (version, until) = (self.collection.version, now + self.settings.deadline_ms);
        self.population = self.population.max(self.seen.len() as u64);
        let collection = prepare(self.collection, version);
        let compass = self.settings.pace.compass.as_ref();
        let mut plot = |name: &str| compass.map_or((0, 0), |compass| self.pool.course.plot(compass, now, name));
        let plotted: Vec<(u32, Arrival)> = cohort.iter().map(|(_, name)| plot(name)).collect();
        let steps = plotted.iter().map(|(steps, _)| u64::from(*steps));
        let cohort: Vec<_> =
            cohort.into_iter().zip(steps).map(|((device, name), steps)| (device, name, steps)).collect();
        effects.push(Effect::Record(Record::Dispatched { collection, cohort: cohort.clone() }));
        let devices: Vec<NodeId> = cohort.iter().map(|(device, _, _)| *device).collect();
        self.take_off(version, now, cohort);
        for (device, (_, arrival)) in devices.iter().zip(plotted) {
            if let Some(flight) = self.pool.flights.get_mut(device) {
                flight.arrival = arrival;
            }
        }
        effects.push(Effect::Wake { at: until });
        self.ask_pool(effects);
    }

    /// These are in flight from now on.
    pub(super) fn take_off(&mut self, version: u64, since: Millis, cohort: Vec<(NodeId, String, u64)>) {
        let until = since + self.settings.deadline_ms;
        let (model, before) = (&self.model, &self.before);
        let begun = || Begun { model: model.clone(), before: before.clone(), count: 0 };
        self.pool.models.entry(version).or_insert_with(begun);
        for (device, name, steps) in cohort {
            self.adrift = true;
            let steps = u32::try_from(steps).unwrap_or(u32::MAX);
            let flight = Flight { name, version, since, until, steps, arrival: 0, place: Place::Adrift };
            self.pool.insert(device, flight);
        }
    }

    /// Asks everybody in flight who is here and whom nobody asks.
    fn ask_pool(&mut self, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.adrift) {
            return;
        }
        let adrift: Vec<(NodeId, NodeId, u64)> = self
            .pool
            .flights()
            .filter(|(_, flight)| flight.place == Place::Adrift)
            .filter_map(|(device, flight)| Some((*device, self.presence.get(device)?.edge, flight.version)))
            .collect();
        let mut by_desk: BTreeMap<u64, Vec<NodeId>> = BTreeMap::new();
        for (device, edge, version) in adrift {
            let of_it = |(_, desk): &(&u64, &Desk)| (desk.edge, desk.version) == (edge, version);
            let number = self.pool.desks.iter().find(of_it).map(|(number, _)| *number).unwrap_or_else(|| {
                let number = self.next_number;
                self.next_number += 1;
                self.pool.desks.insert(number, Desk { edge, version, asked: 0 });
                number
            });
            self.pool.place(&device, Place::Asked(number));
            by_desk.entry(number).or_default().push(device);
        }
        for (number, devices) in by_desk {
            self.open_desk(number, devices, effects);
        }
    }

    fn open_desk(&self, number: u64, devices: Vec<NodeId>, effects: &mut Vec<Effect>) {
        if let Some(Desk { edge, version, .. }) = self.pool.desks.get(&number) {
            let incarnation = Incarnation { collection: prepare(self.collection, *version), number };
            effects.push(Effect::Open { edge: *edge, incarnation, devices });
        }
    }

    /// Says again what has not been answered.
    pub(super) fn repeat_pool(&self, effects: &mut Vec<Effect>) {
        for (number, _) in self.pool.desks.iter().filter(|(_, desk)| desk.asked > 0) {
            let asked = self.asked_of_pool(*number);
            if !asked.is_empty() {
                self.open_desk(*number, asked, effects);
            }
        }
    }

    fn asked_of_pool(&self, number: u64) -> Vec<NodeId> {
        self.pool.flights().filter(|(_, f)| f.place == Place::Asked(number)).map(|(d, _)| *d).collect()
    }

    /// A device in flight is attached, here or elsewhere.
    pub(super) fn flight_attached(&mut self, device: NodeId, edge: NodeId, effects: &mut Vec<Effect>) {
        match self.pool.get(&device).map(|flight| flight.place) {
            Some(Place::Asked(number)) if self.pool.desks.get(&number).is_some_and(|desk| desk.edge == edge) => {
                self.open_desk(number, vec![device], effects);
            }
            Some(Place::Asked(_) | Place::Adrift) => self.set_adrift(&[device], effects),
            Some(Place::Ready { .. }) | None => {}
        }
    }

    /// A device that is ready left with what it has learnt: its place is kept for as long as for one that trains.
    pub(super) fn flight_left(&mut self, now: Millis, device: NodeId, effects: &mut Vec<Effect>) {
        if let Some(flight) = self.pool.flights.get_mut(&device)
            && matches!(flight.place, Place::Ready { .. })
        {
            flight.until = now + self.settings.deadline_ms;
            effects.push(Effect::Wake { at: flight.until });
            self.pool.place(&device, Place::Adrift);
        }
    }

    fn set_adrift(&mut self, devices: &[NodeId], effects: &mut Vec<Effect>) {
        for device in devices {
            self.pool.place(device, Place::Adrift);
            self.adrift = true;
        }
        self.ask_pool(effects);
    }

    /// What an edge says of a device that is asked to prepare.
    pub(super) fn flight_progress(
        &mut self,
        now: Millis,
        incarnation: Incarnation,
        device: NodeId,
        fate: Fate,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.pool.get(&device) else { return };
        if flight.place != Place::Asked(incarnation.number) || flight.version != incarnation.collection.version {
            return;
        }
        match fate {
            Fate::Ready => {
                let Flight { name, since, steps, arrival, .. } = flight.clone();
                self.pool.place(&device, Place::Ready { since: now });
                if steps > 0 {
                    self.pool.course.arrived(arrival, &name, steps, now.saturating_sub(since));
                }
            }
            Fate::Declined | Fate::Refused => {
                let name = flight.name.clone();
                self.pool.remove(&device);
                self.presence.rest(now + self.settings.deadline_ms, device);
                self.note_decline(name, reason, effects);
            }
            Fate::Released => self.set_adrift(&[device], effects),
            Fate::Absorbed | Fate::Detached => {}
        }
    }

    /// An edge has nothing under this number, or is gone.
    pub(super) fn desk_lost(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let asked = self.asked_of_pool(number);
        self.pool.desks.remove(&number);
        self.set_adrift(&asked, effects);
    }

    /// An edge (re)attached that holds these numbers of ours; what it should hold and does not is asked for anew.
    pub(super) fn edge_holds(&mut self, edge: NodeId, holds: &[Incarnation], effects: &mut Vec<Effect>) {
        for incarnation in holds {
            let (number, version) = (incarnation.number, incarnation.collection.version);
            if self.pool.desks.get(&number).is_none_or(|desk| (desk.edge, desk.version) != (edge, version)) {
                effects.push(Effect::Fence { edge, incarnation: *incarnation });
            }
        }
        for number in self.desks_of(edge) {
            match holds.iter().any(|held| held.number == number) {
                true => {
                    let asked = self.asked_of_pool(number);
                    if !asked.is_empty() {
                        self.open_desk(number, asked, effects);
                    }
                }
                false => self.desk_lost(number, effects),
            }
        }
    }

    pub(super) fn desks_of(&self, edge: NodeId) -> Vec<u64> {
        self.pool.desks.iter().filter(|(_, desk)| desk.edge == edge).map(|(number, _)| *number).collect()
    }

    pub(super) fn flight_expelled(&mut self, device: NodeId) {
        self.pool.remove(&device);
    }

    /// The job is over.
    pub(super) fn end_pool(&mut self, effects: &mut Vec<Effect>) {
        self.pool.group.clear();
        self.pool.flights.clear();
        self.pool.desks.values_mut().for_each(|desk| desk.asked = 0);
        self.pool.models.values_mut().for_each(|begun| begun.count = 0);
        self.tidy_pool(effects);
    }

    /// Desks that nobody is asked through and nobody will be go, and models that nobody began at.
    fn tidy_pool(&mut self, effects: &mut Vec<Effect>) {
        let current = self.asynchronous().then_some(self.collection.version);
        let over = |desk: &Desk| desk.asked == 0 && Some(desk.version) != current;
        let over: Vec<u64> = self.pool.desks.iter().filter(|(_, desk)| over(desk)).map(|(number, _)| *number).collect();
        for number in over {
            if let Some(Desk { edge, version, .. }) = self.pool.desks.remove(&number) {
                let incarnation = Incarnation { collection: prepare(self.collection, version), number };
                effects.push(Effect::Fence { edge, incarnation });
            }
        }
        let unused: Vec<u64> =
            self.pool.models.iter().filter(|(_, begun)| begun.count == 0).map(|(version, _)| *version).collect();
        let mut objects = Vec::new();
        for version in unused {
            if let Some(Begun { model, before, .. }) = self.pool.models.remove(&version) {
                objects.extend(before.iter().chain([&model]).map(Manifest::id));
            }
        }
        objects.retain(|object| !self.needs(*object));
        if !objects.is_empty() {
            effects.push(Effect::Discard { objects });
        }
    }

    /// Opens a collection if as many are ready as make a version, or as few as may when the time is up.
    pub(super) fn try_group(&mut self, now: Millis, since: Millis, effects: &mut Vec<Effect>) {
        let (target, min) = (self.settings.cohort.target as usize, self.settings.cohort.min as usize);
        let until = since + self.settings.deadline_ms;
        let here = |device: &NodeId| self.presence.get(device).is_some();
        let mut ready: Vec<(Millis, &str, NodeId)> = match self.pool.ready() >= min {
            true => self
                .pool
                .flights()
                .filter_map(|(device, flight)| match flight.place {
                    Place::Ready { since } if here(device) => Some((since, flight.name.as_str(), *device)),
                    _ => None,
                })
                .collect(),
            false => Vec::new(),
        };
        let (enough, until) = match self.settings.pace.compass {
            None => (ready.len() >= target, Some(until)),
            // Whom a cloud expected that is back it does not know any more: then all of them.
            Some(_) if self.pool.training.is_empty() => (ready.len() >= min, Some(until)),
            Some(_) => match self.pool.course.complete(now) {
                Ok(()) => (ready.len() >= min, Some(until)),
                Err(latest) => (ready.len() >= target, latest.map(|latest| latest.min(until)).or(Some(until))),
            },
        };
        let late = since + self.settings.deadline_ms <= now;
        if !enough && (!late || ready.len() < min) {
            effects.extend(until.filter(|until| now < *until).map(|at| Effect::Wake { at }));
            return;
        }
        // Who was ready first; of those of one moment the order is by name.
        ready.sort_unstable();
        ready.truncate(target);
        let mut cohort: Vec<(NodeId, String, u64)> = ready
            .into_iter()
            .filter_map(|(_, name, device)| Some((device, name.to_owned(), self.pool.get(&device)?.version)))
            .collect();
        cohort.sort_unstable();
        effects.push(Effect::Record(Record::Grouped {
            collection: self.collection,
            population: self.population,
            cohort: cohort.clone(),
        }));
        self.group(cohort);
        self.pool.course.departed(now);
        self.collect(now, effects);
    }

    /// Those who are ready become the cohort.
    pub(super) fn group(&mut self, cohort: Vec<(NodeId, String, u64)>) {
        self.clear();
        for (device, _, version) in &cohort {
            // Of the two counts of its version one is the group's.
            if let Some(begun) = self.pool.models.get_mut(version) {
                begun.count += 1;
            }
            self.pool.remove(device);
            self.pool.group.insert(*device, *version);
        }
        self.members = Members::new(cohort.into_iter().map(|(device, name, _)| (device, name)));
    }

    /// The collection is over: who is not in its sum is ready as before.
    pub(super) fn ungroup(&mut self, now: Millis) {
        self.adrift = true;
        self.pool.put_back(&self.members, now, now + self.settings.deadline_ms);
    }

    /// The model of a version that somebody in flight began at, and what it builds on.
    pub fn model_of(&self, version: u64) -> Option<(&Manifest, &Chain)> {
        if version == self.collection.version {
            return Some((&self.model, &self.before));
        }
        self.pool.models.get(&version).map(|begun| (&begun.model, &begun.before))
    }

    /// How a device comes to the update that is asked for.
    pub fn effort(&self, collection: Collection, device: NodeId) -> Effort {
        let flight = self.pool.get(&device).filter(|flight| collection == prepare(self.collection, flight.version));
        match (self.pool.group.get(&device).filter(|_| collection == self.collection), flight) {
            (Some(version), _) => Effort::Kept { version: *version, times: self.times(*version) },
            (None, Some(flight)) if flight.steps > 0 => Effort::Steps(flight.steps),
            _ => Effort::Job,
        }
    }

    fn times(&self, version: u64) -> u16 {
        self.settings.pace.staleness.times(self.collection.version.saturating_sub(version))
    }

    /// How many versions old the updates of the current collection are: of each device in this order.
    pub fn ages(&self, devices: &[NodeId]) -> Vec<u64> {
        let age =
            |device: &NodeId| self.pool.group.get(device).map_or(0, |v| self.collection.version.saturating_sub(*v));
        devices.iter().map(age).collect()
    }

    /// At which version the one update of a collection began, and how much it counts.
    pub(super) fn alone(&self) -> Option<(u64, u16)> {
        let (_, version) = self.pool.group.first_key_value()?;
        Some((*version, self.times(*version)))
    }

    /// Devices that train, and devices that are ready.
    pub fn in_flight(&self) -> (usize, usize) {
        let ready = self.pool.ready();
        (self.pool.flights.len() - ready, ready)
    }
}
