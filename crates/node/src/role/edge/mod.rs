//! The edge: hands tasks to the devices around it, sums what they send, and passes one partial on.
//!
//! An edge keeps nothing over a restart but its key: a restarted edge has empty partials, the cloud fences the old
//! ones, and devices send again what they keep. In memory it holds one partial per open collection (exactly the bytes
//! of one sealed update) and a bounded number of chunks, whatever the number of devices. An update that comes in
//! chunks is spooled to disk until it is whole and checked; only whole updates are absorbed, so that a device that
//! vanishes in the middle leaves no trace in the sum. Coded updates are decoded into words first: [`coded`]. Where a job says
//! something about devices that lie, updates are looked into first: [`inspect`]; and where its rule must see each, nothing is
//! summed: [`each`]. Where devices have models of their own: [`given`].

mod check_in;
mod clouds;
mod coded;
mod desk;
mod each;
mod given;
mod inspect;
mod upload;

use super::fetch::Fetch;
use super::links::{Links, TICK_MS};
use super::{Effect, Event, LinkId, Millis, Peer, Report, Role, Timer, WorkId};
use crate::job::Task;
use check_in::Steering;
use clouds::Clouds;
use coded::Coding;
use desk::{Desk, Relay, Seat};
use inspect::Rules;
use littoral_fed::included::Tree;
use littoral_fed::plan::Format;
use littoral_wire::given::Given;
use littoral_wire::message::{
    Announcement, Asked, COHORT_MAX, DataOffer, Fate, Gather, Incarnation, Inline, Name, Note, OFFERS_MAX, OpenState,
    Reason, SocketName, UPSTREAMS_MAX, Upstream, Verdict, Work,
};
use littoral_wire::object::{Chain, INLINE_BYTES_MAX, Manifest};
use littoral_wire::{Blob, Collection, JobId, List, Message, NodeId, ObjectId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use upload::Upload;

/// Fenced incarnations that are remembered, so that a late message does not revive one.
const FENCED_MAX: usize = 1024;
/// Chunks of a model in flight from the cloud.
const FETCH_WINDOW: usize = 16;
/// Jobs of which the model stays between rounds because the next one builds on it.
const CHAINS_MAX: usize = 8;
/// An edge's works are numbered from here on, so that one inside a cloud knows its own.
pub(super) const FIRST_WORK: u64 = 1 << 63;

/// What devices are told by an edge that may not work.
const CUT_OFF: &str = "this edge was cut off by its cloud";

/// What an edge is, from its configuration.
#[derive(Clone, Debug)]
pub struct EdgeIdentity {
    pub id: NodeId,
    pub name: String,
    pub cloud: Peer,
    /// Other addresses of the cloud, where it is several replicas.
    pub replicas: Vec<Peer>,
    /// `host:port` at which devices reach this edge.
    pub listen: String,
}

#[derive(Debug)]
struct Guest {
    link: LinkId,
    name: Name,
    data: List<DataOffer, OFFERS_MAX>,
    held: List<Collection, OFFERS_MAX>,
    /// The cloud knows the key.
    admitted: bool,
}

impl Guest {
    fn announced(&self, device: NodeId) -> Message {
        let (name, data, held) = (self.name.clone(), self.data.clone(), self.held.clone());
        Message::DeviceAttached { device, name, data, held }
    }
}

/// An object of a model version on its way to devices.
#[derive(Debug)]
struct Model {
    manifest: Manifest,
    inline: Inline,
    /// On disk, and not in memory only.
    stored: bool,
    /// Until it is whole here.
    fetch: Option<Fetch>,
}

pub struct Edge {
    identity: EdgeIdentity,
    links: Links,
    clouds: Clouds,
    /// The cloud does not let this edge in.
    cut_off: bool,
    guests: BTreeMap<NodeId, Guest>,
    /// Open and closed partials.
    desks: BTreeMap<Incarnation, Desk>,
    fenced: VecDeque<Incarnation>,
    models: BTreeMap<ObjectId, Model>,
    /// The newest models that others will build on, by job.
    chains: BTreeMap<JobId, Vec<ObjectId>>,
    /// Models of devices' own that are to be fetched, one after another.
    to_get: VecDeque<Manifest>,
    uploads: BTreeMap<ObjectId, Upload>,
    /// Works ordered so far.
    works: u64,
    relay: Relay,
    steering: Steering,
    upstreams: List<Upstream, UPSTREAMS_MAX>,
}

impl Edge {
    pub fn new(identity: EdgeIdentity) -> Self {
        let replicas = std::iter::once(&identity.cloud).chain(&identity.replicas).cloned();
        Self {
            clouds: Clouds::new(identity.id, replicas),
            identity,
            links: Links::default(),
            cut_off: false,
            guests: BTreeMap::new(),
            desks: BTreeMap::new(),
            fenced: VecDeque::new(),
            models: BTreeMap::new(),
            chains: BTreeMap::new(),
            to_get: VecDeque::new(),
            uploads: BTreeMap::new(),
            works: 0,
            relay: Relay::default(),
            steering: Steering::default(),
            upstreams: List::default(),
        }
    }

    // ---- towards the cloud ----

    /// To whoever it is for: the replica that runs the job, or all.
    fn tell(&self, message: Message, effects: &mut Vec<Effect>) {
        let mut links = self.clouds.of(&message);
        let last = links.pop();
        effects.extend(links.into_iter().map(|link| Effect::Send { link, message: message.clone() }));
        effects.extend(last.map(|link| Effect::Send { link, message }));
    }

    fn progress(
        &self,
        incarnation: Incarnation,
        device: NodeId,
        fate: Fate,
        reason: Reason,
        effects: &mut Vec<Effect>,
    ) {
        let told = self.desks.get(&incarnation).and_then(|desk| desk.notes.get(&device)).copied();
        let note = told.filter(|_| matches!(fate, Fate::Absorbed | Fate::Ready));
        self.tell(Message::Progress { incarnation, device, fate, reason, note }, effects);
    }

    fn attach(&self, link: LinkId, effects: &mut Vec<Effect>) {
        let open: Vec<OpenState> = self
            .desks
            .iter()
            .filter(|(_, desk)| !desk.kept())
            .map(|(incarnation, desk)| OpenState {
                incarnation: *incarnation,
                absorbed: List::new(desk.absorbed()).unwrap_or_default(),
            })
            .take(OFFERS_MAX)
            .collect();
        let message = Message::EdgeAttach {
            name: Name::new(self.identity.name.as_str()),
            listen: SocketName::new(self.identity.listen.as_str()),
            open: List::new(open).unwrap_or_default(),
        };
        effects.push(Effect::Send { link, message });
        for (device, guest) in &self.guests {
            effects.push(Effect::Send { link, message: guest.announced(*device) });
        }
    }

    fn announce_guest(&self, device: NodeId, effects: &mut Vec<Effect>) {
        let Some(guest) = self.guests.get(&device) else { return };
        self.tell(guest.announced(device), effects);
    }

    fn hear_cloud(&mut self, now: Millis, link: LinkId, message: Message, effects: &mut Vec<Effect>) {
        self.clouds.heard(link, &message);
        match message {
            Message::EdgeAttached { upstreams, .. } => {
                self.clouds.succeeded(link);
                self.cut_off = false;
                let cloud = self.identity.cloud.id;
                if self.identity.id != cloud && !self.identity.replicas.is_empty() {
                    let others = upstreams.iter().filter(|upstream| upstream.id == cloud);
                    let others = others.map(|upstream| Peer { id: cloud, address: upstream.address.to_string() });
                    self.clouds.learn(now, others, effects);
                }
                self.upstreams = upstreams;
                // Who came to the cloud itself, for want of an edge, may go to one now.
                if self.identity.id == self.identity.cloud.id {
                    self.guests.values().for_each(|guest| self.greet(guest.link, effects));
                }
            }
            Message::Open {
                incarnation,
                spec,
                model,
                before,
                inline,
                devices,
                words,
                bits,
                commitment,
                gather,
                given,
            } => {
                self.open(
                    now,
                    link,
                    incarnation,
                    spec.to_vec(),
                    model,
                    before,
                    inline,
                    devices.into_vec(),
                    words,
                    bits,
                    commitment,
                    gather,
                    given,
                    effects,
                );
            }
            Message::Release { incarnation, device } => self.release(incarnation, device, effects),
            Message::Close { incarnation } => match self.desks.get_mut(&incarnation) {
                Some(desk) => {
                    desk.closed = true;
                    self.stop_uploads(incarnation, effects);
                    self.hand_in(incarnation, effects);
                }
                None => self.tell(Message::NoPartial { incarnation }, effects),
            },
            Message::Fence { incarnation } => {
                self.remember_fenced(incarnation);
                self.drop_desk(incarnation, effects);
            }
            Message::PartialKept { incarnation } => {
                if let Some(desk) = self.desks.get_mut(&incarnation) {
                    effects.extend(desk.give_away().into_iter().map(Effect::Drop));
                }
            }
            Message::Announce { announcement, included } => self.announce(announcement, included.into_vec(), effects),
            Message::Tell { device, verdict } => self.tell_device(device, verdict, effects),
            Message::SealingTo { devices, collection, step, body } => {
                for guest in devices.iter().filter_map(|device| self.guests.get(device)) {
                    let message = Message::Sealing { collection, step, body: body.clone() };
                    effects.push(Effect::Send { link: guest.link, message });
                }
            }
            Message::Admit { device } => {
                if let Some(guest) = self.guests.get_mut(&device) {
                    guest.admitted = true;
                    self.tasks_for(device, effects);
                }
            }
            Message::Cut { node, reason } => {
                if let Some(guest) = self.guests.remove(&node) {
                    effects.push(Effect::Send { link: guest.link, message: Message::Cut { node, reason } });
                    effects.push(Effect::Hangup { link: guest.link, reason: "the cloud cut this key off".into() });
                    self.leave(node, guest.link, effects);
                } else if node == self.identity.id {
                    self.send_guests_away(&reason, effects);
                }
            }
            Message::GetChunk { object, index } => self.send_sum(link, object, index, effects),
            Message::Chunk { object, index, bytes } => {
                if let Some(fetch) = self.models.get_mut(&object).and_then(|m| m.fetch.as_mut()) {
                    fetch.chunk(index, bytes.into_bytes(), effects);
                }
            }
            Message::Bye { reason } => effects.push(Effect::Hangup { link, reason: reason.to_string() }),
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    fn open(
        &mut self,
        now: Millis,
        link: LinkId,
        incarnation: Incarnation,
        spec: Vec<u8>,
        model: Manifest,
        before: Chain,
        inline: Inline,
        devices: Vec<Asked>,
        words: u64,
        bits: u8,
        commitment: Option<[u8; 32]>,
        gather: Gather,
        given: Given,
        effects: &mut Vec<Effect>,
    ) {
        if self.fenced.contains(&incarnation) {
            return self.tell(Message::NoPartial { incarnation }, effects);
        }
        let object = model.id();
        let (_, chained) = Task::compresses(&spec);
        let objects: Vec<ObjectId> = before.iter().map(Manifest::id).collect();
        if !self.desks.contains_key(&incarnation) {
            let coding = match Coding::of(&spec, incarnation.collection.work, words, bits) {
                Ok(coding) => coding,
                Err(why) => {
                    let what = format!("a collection of coded updates cannot be summed here: {why}");
                    effects.push(Effect::Report(Report::Warning { what }));
                    return self.tell(Message::NoPartial { incarnation }, effects);
                }
            };
            let rules = match Rules::of(&spec, incarnation.collection.work, words, bits, gather) {
                Ok(rules) => rules,
                Err(why) => {
                    let what = format!("a collection of updates that are looked into cannot be gathered here: {why}");
                    effects.push(Effect::Report(Report::Warning { what }));
                    return self.tell(Message::NoPartial { incarnation }, effects);
                }
            };
            let Ok(format) = Format::new(words, bits.into()) else {
                let what = format!("a collection of {words} words of {bits} bits is more than this edge can hold");
                effects.push(Effect::Report(Report::Warning { what }));
                return self.tell(Message::NoPartial { incarnation }, effects);
            };
            let models = (object, objects.clone());
            let desk = Desk::open(spec, models, format, gather, commitment, coding, rules);
            self.desks.insert(incarnation, desk);
        }
        let window = FETCH_WINDOW / (1 + objects.len());
        for part in before.into_vec() {
            self.get_model(now, link, part, None, window, effects);
        }
        let rides = matches!(&inline, Some(bytes) if model.chunks() == 1 && model.check(0, bytes).is_ok());
        if let (true, true, Some(bytes)) = (chained, rides, &inline) {
            // Not only in memory: devices that have been away fetch it later.
            effects.push(Effect::Put { manifest: model.clone(), bytes: bytes.to_vec() });
        }
        self.get_model(now, link, model, inline.filter(|_| rides), window, effects);
        if chained {
            self.models.entry(object).and_modify(|model| model.stored = true);
            // It rides along while it is the newest.
            for before in &objects {
                self.models.entry(*before).and_modify(|model| model.inline = None);
            }
            let newest = objects.into_iter().chain([object]).collect();
            self.keep_chain(incarnation.collection.job, newest, effects);
        }
        self.give(now, link, incarnation, given, effects);
        for asked in devices {
            self.ask(incarnation, asked, effects);
        }
    }

    /// An object of a model is here, or on its way from now on.
    fn get_model(
        &mut self,
        now: Millis,
        link: LinkId,
        manifest: Manifest,
        inline: Inline,
        window: usize,
        effects: &mut Vec<Effect>,
    ) {
        match self.models.get_mut(&manifest.id()) {
            Some(known) => {
                if let Some(fetch) = &mut known.fetch {
                    fetch.resume(now, link, effects);
                }
            }
            None => {
                let fetch = inline.is_none().then(|| Fetch::begin(manifest.clone(), link, window, effects));
                let stored = fetch.is_some();
                self.models.insert(manifest.id(), Model { manifest, inline, stored, fetch });
            }
        }
    }

    /// What was on its way goes on from here.
    fn fetch_from(&mut self, now: Millis, link: LinkId, effects: &mut Vec<Effect>) {
        let fetches = self.models.values_mut().filter_map(|model| model.fetch.as_mut());
        fetches.filter(|fetch| fetch.source().is_none()).for_each(|fetch| fetch.resume(now, link, effects));
    }

    /// This model stays when its collection is over, and what the job had before goes.
    fn keep_chain(&mut self, job: JobId, objects: Vec<ObjectId>, effects: &mut Vec<Effect>) {
        let mut old = self.chains.insert(job, objects).unwrap_or_default();
        // Nobody says when a job has ended.
        while self.chains.len() > CHAINS_MAX
            && let Some(first) = self.chains.keys().copied().find(|of| *of != job)
        {
            old.extend(self.chains.remove(&first).unwrap_or_default());
        }
        old.into_iter().for_each(|object| self.forget_model(object, effects));
    }

    /// The cloud wants this device's work in this partial.
    fn ask(&mut self, incarnation: Incarnation, asked: Asked, effects: &mut Vec<Effect>) {
        let Asked { device, counted, effort } = asked;
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        match desk.seats.get(&device) {
            Some(Seat::Absorbed) => self.progress(incarnation, device, Fate::Absorbed, Reason::default(), effects),
            Some(Seat::Out { fate, reason }) => {
                let (fate, reason) = (*fate, reason.clone());
                self.progress(incarnation, device, fate, reason, effects);
            }
            // Coming: the device is reminded, in case it never heard of it.
            Some(Seat::Unread { .. } | Seat::Ready { .. } | Seat::Absorbing) => {}
            Some(Seat::Asked { .. }) => self.task(incarnation, device, effects),
            None if desk.closed => self.progress(incarnation, device, Fate::Released, Reason::default(), effects),
            None => {
                desk.seats.insert(device, Seat::Asked { counted, effort, told: None });
                self.task(incarnation, device, effects);
            }
        }
    }

    /// Once over each link of the device: a link delivers, or dies.
    fn task(&mut self, incarnation: Incarnation, device: NodeId, effects: &mut Vec<Effect>) {
        let (Some(desk), Some(guest)) = (self.desks.get_mut(&incarnation), self.guests.get(&device)) else { return };
        let Some(Seat::Asked { counted, effort, told }) = desk.seats.get_mut(&device) else { return };
        if !guest.admitted || *told == Some(guest.link) {
            return;
        }
        let here = |object: &ObjectId| self.models.get(object).filter(|model| model.fetch.is_none());
        let Some(model) = here(desk.given.get(&device).unwrap_or(&desk.model)) else { return };
        let Some(before) = desk.before.iter().map(here).collect::<Option<Vec<_>>>() else { return };
        let before = Chain::new(before.into_iter().map(|model| model.manifest.clone()).collect());
        let (Ok(before), Ok(spec)) = (before, Blob::new(desk.spec.clone())) else { return };
        *told = Some(guest.link);
        effects.push(Effect::Send {
            link: guest.link,
            message: Message::Task {
                collection: incarnation.collection,
                spec,
                model: model.manifest.clone(),
                before,
                inline: model.inline.clone(),
                counted: *counted,
                commitment: desk.commitment,
                effort: *effort,
            },
        });
    }

    /// Everything that this device is asked for.
    fn tasks_for(&mut self, device: NodeId, effects: &mut Vec<Effect>) {
        let open: Vec<Incarnation> = self.desks.iter().filter(|(_, desk)| !desk.closed).map(|(i, _)| *i).collect();
        open.into_iter().for_each(|incarnation| self.task(incarnation, device, effects));
    }

    fn release(&mut self, incarnation: Incarnation, device: NodeId, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else {
            return self.tell(Message::NoPartial { incarnation }, effects);
        };
        match desk.seats.get(&device) {
            Some(Seat::Absorbed) => self.progress(incarnation, device, Fate::Absorbed, Reason::default(), effects),
            // Decided when the bytes are in; the cloud asks again.
            Some(Seat::Absorbing) => {}
            _ => {
                desk.seats.insert(device, Seat::Out { fate: Fate::Released, reason: Reason::default() });
                self.stop_upload(incarnation, device, effects);
                self.progress(incarnation, device, Fate::Released, Reason::default(), effects);
            }
        }
    }

    /// The cloud does not let this edge in: its devices shall find another.
    fn send_guests_away(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        effects.push(Effect::Report(Report::Warning { what: format!("this edge was cut off: {reason}") }));
        self.clouds.refused();
        self.cut_off = true;
        for guest in std::mem::take(&mut self.guests).into_values() {
            effects.push(Effect::Hangup { link: guest.link, reason: CUT_OFF.into() });
        }
        let open: Vec<Incarnation> = self.desks.keys().copied().collect();
        open.into_iter().for_each(|incarnation| self.drop_desk(incarnation, effects));
    }

    fn next_work(&mut self) -> WorkId {
        self.works += 1;
        WorkId(FIRST_WORK + self.works)
    }

    fn remember_fenced(&mut self, incarnation: Incarnation) {
        if !self.fenced.contains(&incarnation) {
            self.fenced.push_back(incarnation);
            if self.fenced.len() > FENCED_MAX {
                self.fenced.pop_front();
            }
        }
    }

    fn drop_desk(&mut self, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        self.stop_uploads(incarnation, effects);
        if let Some(desk) = self.desks.remove(&incarnation) {
            let ready: Vec<ObjectId> = desk.spooled();
            effects.extend(ready.into_iter().map(Effect::Drop));
            desk.before
                .iter()
                .chain([&desk.model])
                .chain(desk.given.values())
                .for_each(|object| self.forget_model(*object, effects));
        }
    }

    /// A closed partial that absorbs nothing any more goes to the cloud.
    fn hand_in(&mut self, incarnation: Incarnation, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        if !desk.closed || desk.kept() || desk.absorbing() {
            return;
        }
        let devices = desk.absorbed();
        if devices.is_empty() {
            self.tell(Message::NoPartial { incarnation }, effects);
            return;
        }
        let Some(sum) = desk.sum() else { return self.bundle(incarnation, effects) };
        // A list is on disk, however short it is.
        let inline = (sum.bytes() <= INLINE_BYTES_MAX as u64 && !desk.keeps_each())
            .then(|| Blob::new(desk.words().to_vec()).ok())
            .flatten();
        let Ok(devices) = List::<NodeId, COHORT_MAX>::new(devices) else { return };
        self.tell(Message::Partial { incarnation, devices, sum, inline }, effects);
    }

    fn send_sum(&self, link: LinkId, object: ObjectId, index: u32, effects: &mut Vec<Effect>) {
        if self.desks.values().any(|desk| desk.lists(object)) {
            return effects.push(Effect::SendChunk { link, object, index });
        }
        let chunk = self.desks.values().find_map(|desk| desk.chunk_of_sum(object, index));
        let message = match chunk.map(|bytes| Blob::new(bytes.to_vec())) {
            Some(Ok(bytes)) => Message::Chunk { object, index, bytes },
            _ => Message::NoChunk { object, index },
        };
        effects.push(Effect::Send { link, message });
    }

    /// Tells each device here how the collection ended for it.
    fn announce(&mut self, announcement: Announcement, included: Vec<NodeId>, effects: &mut Vec<Effect>) {
        let collection = announcement.collection;
        let over: Vec<Incarnation> = self
            .desks
            .keys()
            .filter(|i| i.collection <= collection && i.collection.job == collection.job)
            // What devices prepare is no collection's; the cloud says when nobody does any more.
            .filter(|i| i.collection.work != Work::Prepare)
            .copied()
            .collect();
        let mut concerned: BTreeSet<NodeId> =
            self.guests.iter().filter(|(_, g)| g.held.contains(&collection)).map(|(d, _)| *d).collect();
        for incarnation in &over {
            concerned.extend(self.desks[incarnation].seats.keys());
        }
        let tree = Tree::new(&included);
        for device in concerned {
            let proof = tree.proof(device);
            let verdict = Verdict { collection, announcement: Some(announcement.clone()), proof };
            self.tell_device(device, verdict, effects);
        }
        over.into_iter().for_each(|incarnation| self.drop_desk(incarnation, effects));
    }

    fn tell_device(&self, device: NodeId, verdict: Verdict, effects: &mut Vec<Effect>) {
        if let Some(guest) = self.guests.get(&device) {
            effects.push(Effect::Send { link: guest.link, message: Message::Told { verdict } });
        }
    }

    // ---- towards devices ----

    fn hear_device(&mut self, link: LinkId, device: NodeId, message: Message, effects: &mut Vec<Effect>) {
        match message {
            Message::Attach { .. } if self.cut_off => {
                effects.push(Effect::Hangup { link, reason: CUT_OFF.into() });
            }
            Message::Attach { name, data, held } => {
                let admitted = match self.guests.remove(&device) {
                    Some(old) if old.link == link => old.admitted,
                    Some(old) => {
                        let reason = "the same machine has connected again".into();
                        effects.push(Effect::Hangup { link: old.link, reason });
                        self.leave(device, old.link, effects);
                        old.admitted
                    }
                    None => false,
                };
                self.guests.insert(device, Guest { link, name, data, held, admitted });
                self.greet(link, effects);
                self.announce_guest(device, effects);
                self.resume_uploads(device, link, effects);
            }
            Message::Offer { collection, update, inline, note } => {
                self.note(device, collection, note);
                self.offer(link, device, collection, update, inline, effects)
            }
            Message::Declined { collection, reason } => {
                let asked: Vec<Incarnation> = self
                    .desks
                    .iter()
                    .filter(|(i, _)| i.collection == collection)
                    .filter(|(_, d)| matches!(d.seats.get(&device), Some(Seat::Asked { .. })))
                    .map(|(i, _)| *i)
                    .collect();
                for incarnation in asked {
                    if let Some(desk) = self.desks.get_mut(&incarnation) {
                        desk.seats.insert(device, Seat::Out { fate: Fate::Declined, reason: reason.clone() });
                    }
                    self.progress(incarnation, device, Fate::Declined, reason.clone(), effects);
                }
            }
            Message::Ready { collection, note } => {
                self.note(device, collection, note);
                let prepares = |(i, desk): &(&Incarnation, &Desk)| {
                    i.collection == collection
                        && collection.work == Work::Prepare
                        && matches!(desk.seats.get(&device), Some(Seat::Asked { .. }))
                };
                let asked: Vec<Incarnation> = self.desks.iter().filter(prepares).map(|(i, _)| *i).collect();
                for incarnation in asked {
                    if let Some(desk) = self.desks.get_mut(&incarnation) {
                        let seat = Seat::Out { fate: Fate::Ready, reason: Reason::default() };
                        desk.seats.insert(device, seat);
                    }
                    self.progress(incarnation, device, Fate::Ready, Reason::default(), effects);
                }
            }
            // Only of collections that it is asked for here, or has sealed something for: it may have come from another
            // edge since. What it says is the cloud's to judge.
            Message::Sealing { collection, step, body } => {
                let seated = |(i, desk): (&Incarnation, &Desk)| {
                    i.collection == collection
                        && desk.seats.get(&device).is_some_and(|seat| !matches!(seat, Seat::Out { .. }))
                };
                let holds = self.guests.get(&device).is_some_and(|guest| guest.held.contains(&collection));
                if (holds || self.desks.iter().any(seated)) && self.relay.passes(device, step, body.len()) {
                    self.tell(Message::SealingFrom { device, collection, step, body }, effects);
                }
            }
            Message::GetChunk { object, index } => {
                // Devices may fetch models, nothing else, and none that is another's. One that rides along is in memory only: who began
                // to fetch it at another edge goes on here.
                let here = self.models.get(&object).filter(|model| model.fetch.is_none());
                match here.filter(|_| self.may_have(device, object)) {
                    Some(Model { stored: false, inline: Some(bytes), .. }) if index == 0 => {
                        let Ok(bytes) = Blob::new(bytes.to_vec()) else { return };
                        effects.push(Effect::Send { link, message: Message::Chunk { object, index, bytes } });
                    }
                    Some(_) => effects.push(Effect::SendChunk { link, object, index }),
                    None => effects.push(Effect::Send { link, message: Message::NoChunk { object, index } }),
                }
            }
            Message::Chunk { object, index, bytes } => {
                self.upload_chunk(link, object, index, bytes.into_bytes(), effects)
            }
            Message::Bye { reason } => effects.push(Effect::Hangup { link, reason: reason.to_string() }),
            _ => {}
        }
    }

    /// What a device tells of itself, for the cloud.
    fn note(&mut self, device: NodeId, collection: Collection, note: Option<Note>) {
        let Some(note) = note else { return };
        for (_, desk) in
            self.desks.iter_mut().filter(|(i, desk)| i.collection == collection && desk.seats.contains_key(&device))
        {
            desk.notes.insert(device, note);
        }
    }

    fn greet(&self, link: LinkId, effects: &mut Vec<Effect>) {
        let message = Message::Attached { cloud: self.identity.cloud.id, upstreams: self.upstreams.clone() };
        effects.push(Effect::Send { link, message });
    }

    fn leave(&mut self, device: NodeId, link: LinkId, effects: &mut Vec<Effect>) {
        self.uploads.values_mut().for_each(|upload| upload.fetch.lost(link));
        self.tell(Message::DeviceDetached { device }, effects);
    }

    /// An object of a model that no desk uses any more, and no model builds on, leaves the disk, unless it was only in
    /// memory.
    fn forget_model(&mut self, object: ObjectId, effects: &mut Vec<Effect>) {
        let kept = self.chains.values().flatten().any(|of| *of == object);
        if !kept && self.desks.values().all(|desk| !desk.models(object)) {
            let stored = self.models.remove(&object).is_some_and(|model| model.stored);
            effects.extend(stored.then_some(Effect::Drop(object)));
        }
    }

    fn model_is_here(&mut self, now: Millis, object: ObjectId, effects: &mut Vec<Effect>) {
        let Some(model) = self.models.get_mut(&object) else { return };
        if !model.fetch.as_ref().is_some_and(Fetch::whole) {
            return;
        }
        model.fetch = None;
        self.get_given(now, effects);
        let guests: Vec<NodeId> = self.guests.keys().copied().collect();
        guests.into_iter().for_each(|device| self.tasks_for(device, effects));
    }

    fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + TICK_MS });
        self.links.tick(now, effects);
        self.models.values_mut().filter_map(|m| m.fetch.as_mut()).for_each(|fetch| fetch.tick(now, effects));
        self.uploads.values_mut().for_each(|upload| upload.fetch.tick(now, effects));
        self.relay.tick();
        self.get_given(now, effects);
        let guests: Vec<NodeId> = self.guests.keys().copied().collect();
        for device in guests {
            if self.guests.get(&device).is_some_and(|g| !g.admitted) {
                self.announce_guest(device, effects);
            }
            self.tasks_for(device, effects);
        }
        self.send_idle_away(now, effects);
        let closed: Vec<Incarnation> =
            self.desks.iter().filter(|(_, d)| d.closed && !d.kept()).map(|(i, _)| *i).collect();
        closed.into_iter().for_each(|incarnation| self.hand_in(incarnation, effects));
    }
}

impl Role for Edge {
    fn step(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => {
                self.clouds.dial(now, effects);
                effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + TICK_MS });
            }
            Event::Connected { link, peer, dialled, kernels } => {
                self.links.connected(now, link, peer, kernels);
                if dialled {
                    self.clouds.connected(now, link, effects);
                    // First who we are: the cloud has chunks for edges only.
                    self.attach(link, effects);
                    self.fetch_from(now, link, effects);
                }
            }
            Event::DialFailed { .. } => self.clouds.dial_failed(now, effects),
            Event::Disconnected { link, .. } => {
                let Some(peer) = self.links.disconnected(link) else { return };
                if self.clouds.has(link) {
                    self.models.values_mut().filter_map(|m| m.fetch.as_mut()).for_each(|fetch| fetch.lost(link));
                    self.clouds.disconnected(now, link, effects);
                    let other = self.clouds.links().next();
                    if let Some(other) = other {
                        self.fetch_from(now, other, effects);
                    }
                } else if self.guests.get(&peer).is_some_and(|guest| guest.link == link) {
                    self.guests.remove(&peer);
                    self.leave(peer, link, effects);
                }
            }
            Event::Received { link, message } => {
                let Some(message) = self.links.received(now, link, message, effects) else { return };
                if self.clouds.has(link) {
                    self.hear_cloud(now, link, message, effects);
                } else if let Some(device) = self.links.peer(link) {
                    self.hear_device(link, device, message, effects);
                }
            }
            Event::Timer(Timer::Redial) => self.clouds.paused(now, effects),
            Event::Timer(_) => self.tick(now, effects),
            Event::Begun { object, missing } => {
                if let Some(fetch) = self.models.get_mut(&object).and_then(|m| m.fetch.as_mut()) {
                    fetch.begun(now, missing.clone(), effects);
                    self.model_is_here(now, object, effects);
                }
                if let Some(upload) = self.uploads.get_mut(&object) {
                    upload.fetch.begun(now, missing, effects);
                    self.upload_is_whole(object, effects);
                }
            }
            Event::Kept { object, index, fault } => {
                if let Some(why) = &fault {
                    effects.push(Effect::Report(Report::Warning { what: format!("chunk {index}: {why}") }));
                }
                if let Some(fetch) = self.models.get_mut(&object).and_then(|m| m.fetch.as_mut()) {
                    fetch.kept(now, index, fault.is_none(), effects);
                    self.model_is_here(now, object, effects);
                }
                if let Some(upload) = self.uploads.get_mut(&object) {
                    upload.fetch.kept(now, index, fault.is_none(), effects);
                    self.upload_is_whole(object, effects);
                }
            }
            Event::Loaded { object, index, bytes } => self.loaded(object, index, bytes, effects),
            Event::Worked { id, result } => self.worked(id, result, effects),
            Event::Conditions(_) | Event::Leased { .. } | Event::Shared { .. } | Event::Answered { .. } => {}
        }
    }

    fn needs(&self, object: ObjectId) -> bool {
        self.models.contains_key(&object)
            || self.uploads.contains_key(&object)
            || self.desks.values().any(|desk| desk.spooled().contains(&object))
    }
}
