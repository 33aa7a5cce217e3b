//! Jobs: each one's round machine, fed with what happens in the fleet.
//!
//! `begin` has a job's start and its return after a restart, `perform` what becomes of a round machine's decisions,
//! `partials` what edges hand in, `announce` how collections ended, `drift` whether the fleet's data is where it was.

mod announce;
mod begin;
mod drift;
mod partials;
mod perform;

use super::fleet::Fleet;
use super::ledger::Ledger;
use super::{Effect, Millis};
use crate::job::{JobSpec, Line};
use crate::role::Entropy;
use crate::role::WorkId;
use crate::work::Work;
use begin::recorded;
use bytes::Bytes;
use drift::Drift;
use littoral_fed::included::Tree;
use littoral_fed::roster::Register;
use littoral_fed::round::{self, Record, Round, Stage};
use littoral_wire::message::{Announcement, Incarnation, Work as Kind, version_number};
use littoral_wire::{Collection, JobId, Message, NodeId, ObjectId, SecretKey};
use partials::Incoming;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A version that was made, for verdicts and for the record of the run.
#[derive(Clone, Debug)]
pub struct Made {
    pub announcement: Announcement,
    /// Sorted.
    pub included: Vec<NodeId>,
    /// Where updates may be old: at which version each of them began.
    pub began: BTreeMap<NodeId, u64>,
    pub line: Line,
}

enum State {
    /// Version 0 is being made.
    Preparing(WorkId),
    Running(Box<Round>),
    Failed(String),
    /// What it needs is damaged here. Nothing is decided: it goes on from a better copy of this folder.
    Halted(String),
}

impl State {
    fn round(&self) -> Option<&Round> {
        match self {
            State::Running(round) => Some(round),
            _ => None,
        }
    }
}

pub struct Job {
    pub spec: Arc<JobSpec>,
    pub toml: String,
    pub submitted_by: String,
    pub at_ms: Millis,
    state: State,
    /// Records stored so far; those of an unfinished restore wait for version 0.
    records: Vec<Record>,
    stored: u64,
    pub made: BTreeMap<Collection, Made>,
    /// The last version of training that counts each key, of those that any counts.
    counted: BTreeMap<NodeId, u32>,
    /// The current model, if it is small enough to ride along.
    inline: Option<(ObjectId, Bytes)>,
    /// The encoded task, and the population that it tells.
    task: Option<(u64, Vec<u8>)>,
    /// Requests that wait for those bytes.
    waiting: Vec<(NodeId, Incarnation, Vec<NodeId>)>,
    incoming: Vec<Incoming>,
    applying: Option<WorkId>,
    /// Version 0 could not be made; it is tried again on a tick.
    prepare_again: bool,
    /// Objects of the current model, and of the one before: devices may still be fetching it.
    current: Vec<ObjectId>,
    previous: Vec<ObjectId>,
    /// Describes the version that is about to be announced.
    line: Line,
    /// Where updates may be old: at which version those began that are being applied.
    began: BTreeMap<NodeId, u64>,
    /// Once a version has a sketch.
    drift: Option<Drift>,
    pub notes: Vec<String>,
    pub aborts: u64,
    /// Of training, over all versions.
    attempts: u64,
    opened_at: Millis,
}

impl Job {
    pub fn round(&self) -> Option<&Round> {
        self.state.round()
    }

    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed(why) | State::Halted(why) => Some(why),
            _ => None,
        }
    }

    /// It stands still until an operator has mended the cloud's folder.
    pub fn halted(&self) -> bool {
        matches!(self.state, State::Halted(_))
    }

    pub fn finished(&self) -> bool {
        match &self.state {
            State::Running(round) => matches!(round.stage(), Stage::Finished { .. }),
            State::Failed(_) => true,
            State::Preparing(_) | State::Halted(_) => false,
        }
    }
}

pub struct Jobs {
    epoch: u32,
    /// Several replicas share the jobs; only those that are leased are here, each with the token of its lease.
    shared: bool,
    epochs: BTreeMap<JobId, u32>,
    /// There are jobs up to this number, here or elsewhere.
    last: u64,
    entropy: Entropy,
    /// Which devices there are, as devices believe it.
    register: Option<Arc<Register>>,
    key: Option<SecretKey>,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs that this release does not understand, why, and their records: perhaps the next release does, so what they
    /// name stays.
    unread: Vec<(JobId, String, Vec<Record>)>,
    ledger: Ledger,
    next_work: u64,
    ticks: u64,
    /// The hash tree that was asked for last.
    tree: Option<(Collection, Tree)>,
}

impl Jobs {
    pub(in crate::role::cloud) fn new(epoch: u32, entropy: Entropy) -> Self {
        Self {
            epoch,
            shared: false,
            epochs: BTreeMap::new(),
            last: 0,
            entropy,
            register: None,
            key: None,
            jobs: BTreeMap::new(),
            unread: Vec::new(),
            ledger: Ledger::default(),
            next_work: 0,
            ticks: 0,
            tree: None,
        }
    }

    /// The key that announcements are signed with.
    pub(in crate::role::cloud) fn sign_with(&mut self, key: SecretKey) {
        self.key = Some(key);
    }

    pub fn get(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.jobs.iter()
    }

    pub(in crate::role::cloud) fn restore_ledger(&mut self, row: &super::Row) {
        self.ledger.restore(row);
    }

    pub(in crate::role::cloud) fn forget_ledger(&mut self) {
        self.ledger = Ledger::default();
    }

    /// Replicas share the jobs: what is not here is not unknown.
    pub(in crate::role::cloud) fn are_shared(&mut self) {
        self.shared = true;
    }

    /// There is a job of this number.
    pub(in crate::role::cloud) fn number_after(&mut self, job: JobId) {
        self.last = self.last.max(job.0);
    }

    pub(in crate::role::cloud) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(in crate::role::cloud) fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Devices believe this roster from now on.
    pub(in crate::role::cloud) fn set_register(&mut self, register: Arc<Register>) {
        self.register = Some(register);
    }

    pub(in crate::role::cloud) fn register(&self) -> Option<&Arc<Register>> {
        self.register.as_ref()
    }

    // ---- events for rounds ----

    fn device_event(
        &self,
        job: JobId,
        device: NodeId,
        edge: NodeId,
        data: &[littoral_wire::message::DataOffer],
        fleet: &Fleet,
    ) -> round::Event {
        let set = self.jobs[&job].spec.data_set();
        let rows = data.iter().filter(|offer| &*offer.name == set).map(|offer| offer.rows).max().unwrap_or(0);
        round::Event::Device { device, name: fleet.name(device), edge, rows }
    }

    pub(in crate::role::cloud) fn device_attached(
        &mut self,
        now: Millis,
        device: NodeId,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(here) = fleet.devices.get(&device) else { return };
        for id in self.running() {
            let event = self.device_event(id, device, here.edge, &here.data, fleet);
            self.round(now, id, event, fleet, effects);
        }
    }

    fn running(&self) -> Vec<JobId> {
        self.jobs.iter().filter(|(_, job)| job.round().is_some() && !job.finished()).map(|(id, _)| *id).collect()
    }

    pub(in crate::role::cloud) fn each_round(
        &mut self,
        now: Millis,
        event: round::Event,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        for id in self.running() {
            self.round(now, id, event.clone(), fleet, effects);
        }
    }

    pub(in crate::role::cloud) fn round(
        &mut self,
        now: Millis,
        id: JobId,
        event: round::Event,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &mut job.state else { return };
        let mut decided = Vec::new();
        round.step(now, event, &mut decided);
        self.perform(now, id, decided, fleet, effects);
    }

    /// The same for what is said of one collection, if that is what the job is at.
    pub(in crate::role::cloud) fn of_collection(
        &mut self,
        now: Millis,
        collection: Collection,
        event: round::Event,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let current = self.jobs.get(&collection.job).and_then(Job::round).map(Round::collection);
        if current == Some(collection) {
            self.round(now, collection.job, event, fleet, effects);
        }
    }

    pub(in crate::role::cloud) fn edge_attached(
        &mut self,
        now: Millis,
        edge: NodeId,
        holds: Vec<(Incarnation, Vec<NodeId>)>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        for id in self.running() {
            let ours = holds.iter().filter(|(incarnation, _)| incarnation.collection.job == id).cloned().collect();
            self.round(now, id, round::Event::Edge { edge, holds: ours }, fleet, effects);
            if let Some(link) = fleet.edge_link(edge) {
                let Some(job) = self.jobs.get_mut(&id) else { continue };
                for incoming in &mut job.incoming {
                    let from_here = job.state.round().and_then(|r| r.edge_of(incoming.incarnation)) == Some(edge);
                    if from_here && incoming.fetch.source().is_none() {
                        incoming.fetch.resume(now, link, effects);
                    }
                }
            }
        }
        // What the edge holds of jobs that are no more.
        if let Some(link) = fleet.edge_link(edge) {
            for (incarnation, _) in holds {
                if self.jobs.get(&incarnation.collection.job).map_or(!self.shared, Job::finished) {
                    effects.push(Effect::Send { link, message: Message::Fence { incarnation } });
                }
            }
        }
    }

    pub(in crate::role::cloud) fn tick(&mut self, now: Millis, fleet: &Fleet, effects: &mut Vec<Effect>) {
        self.ticks += 1;
        let say_again = self.ticks.is_multiple_of(4);
        for job in self.jobs.values_mut().filter(|job| job.prepare_again) {
            if let State::Preparing(id) = job.state {
                job.prepare_again = false;
                effects.push(Effect::Work { id, work: Box::new(Work::Initial { spec: job.spec.clone() }) });
            }
        }
        for id in self.running() {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.incoming.iter_mut().for_each(|incoming| incoming.fetch.tick(now, effects));
            }
            self.round(now, id, round::Event::Tick, fleet, effects);
            if say_again {
                self.repeat(now, id, fleet, effects);
            }
        }
    }

    // ---- objects ----

    /// Is this object still needed by any job?
    pub(in crate::role::cloud) fn needs(&self, object: ObjectId) -> bool {
        self.unread.iter().any(|(_, _, records)| recorded(records, object))
            || self.jobs.values().any(|job| {
                job.round().is_some_and(|round| round.needs(object))
                    || recorded(&job.records, object)
                    || job.incoming.iter().any(|incoming| incoming.fetch.object() == object)
                    || job.previous.contains(&object)
            })
    }

    /// Models that operators may fetch.
    pub(in crate::role::cloud) fn offers(&self, object: ObjectId) -> bool {
        self.jobs.values().any(|job| {
            job.round().is_some_and(|round| objects_of(round).any(|of| of == object))
                || job.made.values().any(|made| made.announcement.model == object)
        })
    }
}

impl Job {
    fn note_made(&mut self, made: Made) {
        let Announcement { collection, version, .. } = made.announcement;
        if collection.work == Kind::Train {
            let counted = version_number(version);
            self.counted.extend(made.included.iter().map(|device| (*device, counted)));
        }
        self.made.insert(collection, made);
    }

    /// The last version of training that counts this machine, under this key or one that it replaced; 0: none.
    fn last_counted(&self, device: NodeId, fleet: &Fleet) -> u32 {
        let keys = std::iter::once(device).chain(fleet.replaced_by(device));
        keys.filter_map(|key| self.counted.get(&key)).max().copied().unwrap_or(0)
    }

    fn note(&mut self, what: String) {
        // Enough to explain a stall; the log has the rest.
        if self.notes.len() >= 20 {
            self.notes.remove(0);
        }
        self.notes.push(what);
    }
}

/// What a device needs to have a round's model, the model itself last.
fn objects_of(round: &Round) -> impl Iterator<Item = ObjectId> + '_ {
    round.before().iter().chain([round.model()]).map(littoral_wire::Manifest::id)
}

fn send(fleet: &Fleet, edge: NodeId, message: Message, effects: &mut Vec<Effect>) {
    if let Some(link) = fleet.edge_link(edge) {
        effects.push(Effect::Send { link, message });
    }
}

/// The kinds of work, in words.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Statistics => "statistics",
        Kind::Train => "train",
        Kind::Prepare => "prepare",
        Kind::Evaluate => "evaluate",
    }
}
