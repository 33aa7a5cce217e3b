//! The round: who is asked, what is waited for, what counts, when a new version is current. One [`Round`] runs one job.
//!
//! A pure state machine: [`Round::step`] takes the time and an [`Event`] and adds [`Effect`]s. A version goes through
//!
//! ```text
//!   wait ── enough devices ──> collect ── enough updates, or the deadline ──> close ── all partials kept ──> apply ──> announce
//!    ^                            |                                             |                                        |
//!    └──── too few at the deadline, or too few left: a new attempt ─────────────┘         next version <────────────────┘
//! ```
//!
//! and so do the files: `wait`, `collect`, `close`, `apply`. Where sums are masked, `masked` has the steps between. Beside them, `ask` sends requests to devices, `fence`
//! takes back what an edge has lost, `restore` folds records, `show` answers questions; `event` and `record` are the
//! words that pass in and out.
//!
//! Everything is keyed by [`Collection`] (job, version, work, attempt), never by a count of rounds, and how many
//! devices are in flight, how many updates make a version and how old they may be are fields of [`Pace`]. Where they
//! may be old, a collection is opened for devices that have trained (`pool`); else it is opened first, and they train for
//! it. From there on both are one.
//!
//! # Why no device is ever counted twice
//!
//! An edge sums under an [`Incarnation`] that the cloud numbered. A device belongs to at most one incarnation that is
//! neither fenced nor discarded. Before it may send to another one, the old incarnation is *fenced*: recorded durably,
//! so that its partial is refused for ever, whatever arrives and whoever crashes. Partials that were kept are final
//! and their devices are asked no more. So the kept partials of a collection have disjoint devices, and their sum
//! counts each once.
//!
//! A device is a key. A machine whose key was replaced may join under the new one only when its old one is out, so its
//! name counts once too.
//!
//! # What survives a crash
//!
//! The [`Record`]s. [`Effect::Record`] must be durable before any later effect is performed; [`Round::after`] folds
//! the records back into a machine that goes on. What is not recorded (who was asked, how far an edge is) is learnt
//! again from edges and devices as they attach.

mod apply;
mod ask;
mod close;
mod collect;
mod compass;
mod declines;
mod desk;
mod event;
mod fence;
mod masked;
mod members;
mod pool;
mod presence;
mod record;
mod restore;
pub mod selection;
mod settings;
mod show;
#[cfg(test)]
mod tests;
mod wait;

pub use compass::Compass;
pub use declines::Decline;
pub use desk::Standing;
pub use event::{Base, Effect, Event, Outcome, Place};
pub use record::{Given, Kept, Record};
pub use settings::{Cohort, Masked, Pace, Phase, Settings, SettingsError};

use crate::masks::cloud::{Known, Masking};
use crate::roster::Register;
use declines::Declines;
use desk::Desk;
use littoral_wire::message::{Collection, Incarnation, Work};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{JobId, NodeId};
use members::{MemberState, Members};
use pool::Pool;
use presence::Presence;
use selection::Acquaintance;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Milliseconds on the host's clock.
pub type Millis = u64;

/// Where a job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// For devices; since when.
    Wait {
        since: Millis,
    },
    Collect {
        phase: Phase,
        until: Millis,
    },
    Close {
        until: Millis,
    },
    /// A masked sum is whole; the devices in it help to open it.
    Open {
        phase: Phase,
        until: Millis,
    },
    Apply,
    /// The sum could not be applied (a full disk, say); tried again at the time given.
    Stuck {
        why: String,
        again_at: Millis,
    },
    Finished {
        end: End,
        why: String,
    },
}

/// How a job came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its rounds are done, or its target is reached.
    Done,
    /// Somebody wanted it to stop.
    Stopped,
    /// Something was wrong that trying again does not mend.
    Failed,
}

/// One job's machine.
#[derive(Debug)]
pub struct Round {
    job: JobId,
    settings: Settings,
    stage: Stage,
    collection: Collection,
    model: Manifest,
    /// What the model builds on; empty: it is whole.
    before: Chain,
    state: Option<Manifest>,
    /// Models that devices are given instead.
    given: Given,
    /// Versions made by training.
    trained: u64,
    last: Outcome,
    presence: Presence,
    members: Members,
    desks: BTreeMap<u64, Desk>,
    fenced: BTreeSet<u64>,
    /// Devices seen so far that offer the data set, by name.
    seen: BTreeSet<String>,
    population: u64,
    /// Numbers for incarnations: those of two runs of the cloud never meet.
    next_number: u64,
    declines: Declines,
    /// What is known of devices, for choosing among them.
    acquaintance: Acquaintance,
    /// When the current collection was opened.
    opened_at: Millis,
    /// By name: the first version for which a device may be drawn again.
    spaced: BTreeMap<String, u64>,
    /// What nobody else can guess, for masked sums.
    entropy: [u8; 32],
    /// Which devices there are, as devices believe it.
    register: Option<Arc<Register>>,
    /// Samples that were drawn by this run of the cloud and let go.
    samples: u64,
    /// Devices that train before it is known for which collection.
    pool: Pool,
    /// Somebody in flight may be waiting to be asked.
    adrift: bool,
    /// Where secure aggregation of the current collection stands.
    masking: Option<Masking>,
    /// What the newest masked sum was fixed to.
    sessions: Vec<Known>,
    /// The last collection is applied, and this is why it was the last; the end itself is perhaps not recorded.
    over: Option<String>,
}

impl Round {
    /// A new job, whose version 0 is `model`. `epoch` is a number that grows each time the cloud starts.
    pub fn new(
        job: JobId,
        settings: Settings,
        model: Manifest,
        state: Option<Manifest>,
        epoch: u32,
        entropy: [u8; 32],
        now: Millis,
    ) -> Self {
        let work = if settings.statistics { Work::Statistics } else { Work::Train };
        Self {
            job,
            settings,
            stage: Stage::Wait { since: now },
            collection: Collection { job, version: 0, work, attempt: 0 },
            model,
            before: Chain::default(),
            state,
            given: Given::new(),
            trained: 0,
            last: Outcome::default(),
            presence: Presence::default(),
            members: Members::default(),
            desks: BTreeMap::new(),
            fenced: BTreeSet::new(),
            seen: BTreeSet::new(),
            population: 0,
            next_number: u64::from(epoch) << 32,
            declines: Declines::default(),
            acquaintance: Acquaintance::default(),
            opened_at: now,
            spaced: BTreeMap::new(),
            entropy,
            register: None,
            samples: 0,
            pool: Pool::default(),
            adrift: false,
            masking: None,
            sessions: Vec::new(),
            over: None,
        }
    }

    pub fn step(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        if matches!(self.stage, Stage::Finished { .. }) {
            return;
        }
        match event {
            Event::Device { device, name, edge, rows } => self.device(device, name, edge, rows, effects),
            Event::DeviceLeft { device } => {
                self.presence.went(now, device);
                self.flight_left(now, device, effects);
            }
            Event::Expelled { device, why } => self.expelled(device, why, effects),
            Event::Edge { edge, holds } => self.edge(now, edge, holds, effects),
            Event::EdgeLost { edge } => self.edge_lost(edge, effects),
            Event::Progress { incarnation, device, fate, reason, note } => {
                self.hear_note(now, incarnation.collection, device, note);
                if self.expects(incarnation) {
                    self.progress(now, incarnation.number, device, fate, reason, effects);
                } else if incarnation.collection.work == Work::Prepare {
                    self.flight_progress(now, incarnation, device, fate, reason, effects);
                }
            }
            Event::NoPartial { incarnation } => {
                if incarnation.collection == self.collection {
                    self.fence(incarnation.number, effects);
                } else if incarnation.collection.work == Work::Prepare {
                    self.desk_lost(incarnation.number, effects);
                }
            }
            Event::Partial { incarnation, devices, sum } => self.partial(incarnation, devices, sum, effects),
            Event::Applied { model, before, state, given, outcome, line } => {
                self.applied(now, model, before, state, given, outcome, line, effects);
            }
            Event::ApplyFailed { why } => {
                if self.stage == Stage::Apply {
                    let again_at = now + self.settings.retry_ms;
                    self.stage = Stage::Stuck { why, again_at };
                    effects.push(Effect::Wake { at: again_at });
                }
            }
            Event::Sealing { device, step, body } => {
                if !self.sealing(device, step, &body, effects) {
                    return;
                }
            }
            Event::Roster(register) => self.register = register,
            Event::Tick => {}
            Event::Stop { why } => {
                self.fence_all(effects);
                self.finish(End::Stopped, why, effects);
            }
            Event::Fail { why } => {
                self.fence_all(effects);
                self.finish(End::Failed, why, effects);
            }
        }
        self.go_on(now, effects);
    }

    /// Moves through stages until one has to wait for something.
    fn go_on(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        loop {
            if let (Stage::Wait { .. }, Some(why)) = (&self.stage, self.over.take()) {
                return self.finish(End::Done, why, effects);
            }
            self.fill_pool(now, effects);
            let before = self.stage.clone();
            match self.stage.clone() {
                Stage::Wait { since } if self.asynchronous() => self.try_group(now, since, effects),
                Stage::Wait { since } => self.try_open(now, since, effects),
                Stage::Collect { phase: Phase::Upload, until } => self.try_close(now, until, effects),
                Stage::Collect { phase, until } => self.try_phase(now, phase, until, effects),
                Stage::Close { until } => self.try_apply(now, until, effects),
                Stage::Open { phase, until } => self.try_reveal(now, phase, until, effects),
                Stage::Stuck { again_at, .. } if now >= again_at => self.apply(effects),
                Stage::Stuck { .. } | Stage::Apply | Stage::Finished { .. } => {}
            }
            if self.stage == before {
                return;
            }
        }
    }

    fn clear(&mut self) {
        self.members = Members::default();
        self.desks.clear();
        self.fenced.clear();
        self.masking = None;
    }

    fn set(&mut self, device: NodeId, state: MemberState) {
        if let (MemberState::Out { .. } | MemberState::Expelling { .. }, Some(masking)) = (&state, &mut self.masking) {
            masking.forget(device);
        }
        self.members.set(device, state);
    }

    fn incarnation(&self, number: u64) -> Incarnation {
        Incarnation { collection: self.collection, number }
    }
}
