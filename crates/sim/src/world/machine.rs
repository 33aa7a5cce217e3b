//! A machine: a role, its disk, and what lives only as long as the role does.

use crate::disk::Disk;
use crate::faults::{Kill, Kind};
use crate::queue::Micros;
use crate::workers::Ticket;
use littoral_node::role::{Effect, Millis, Role, Row, Timer, WorkId, Write};
use littoral_node::work::LocalData;
use littoral_wire::{NodeId, ObjectId, SecretKey};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a role is made from, at the first start and at every later one.
#[derive(Debug)]
pub struct Boot<'a> {
    pub secret: &'a SecretKey,
    pub name: &'a str,
    pub address: &'a str,
    pub rows: Vec<Row>,
    pub now: Millis,
    /// Grows from start to start.
    pub life: u32,
    /// Another number at every start.
    pub entropy: [u8; 32],
}

/// Makes the role of a machine; an error is a sentence.
pub type Factory = Arc<dyn Fn(Boot<'_>) -> Result<Box<dyn Role>, String>>;

/// What a machine is when it is added to a world.
pub struct MachineSpec {
    pub kind: Kind,
    pub name: String,
    pub secret: SecretKey,
    pub address: String,
    /// What its installation left on the disk.
    pub rows: Vec<Row>,
    pub data: Arc<dyn LocalData>,
    pub factory: Factory,
}

/// How much local work is, in steps of training: what [`super::Costs::step_us`] is multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// A round's training.
    pub train: u64,
    /// A look at all rows without training: statistics, evaluation.
    pub look: u64,
    /// Training ends after so long; 0: when it is done.
    pub time_ms: u64,
}

pub struct Machine {
    pub kind: Kind,
    pub name: String,
    pub id: NodeId,
    pub address: String,
    pub disk: Disk,
    secret: SecretKey,
    factory: Factory,
    pub(super) data: Arc<dyn LocalData>,
    /// How many times longer works take.
    pub(super) slowness: u64,
    /// How many times faster, beside that; 1 is ordinary.
    pub(super) speed: f64,
    pub(super) load: Load,
    /// 0: enough.
    pub(super) memory_mb: u32,
    /// Which device of the world's traces this is.
    pub(super) trace: Option<u32>,
    /// Its trace says that it is not there.
    pub(super) away: bool,
    /// None while the machine is down.
    pub(super) role: Option<Box<dyn Role>>,
    /// Grows with every start and every stop.
    pub(super) life: u32,
    pub(super) pending: VecDeque<Pending>,
    /// The writes of the barrier that holds `pending` back.
    pub(super) storing: Option<Vec<Write>>,
    alarms: Vec<Alarm>,
    pub(super) links: Vec<u64>,
    pub(super) works: Vec<(WorkId, Ticket)>,
    /// A kill that waits for its event.
    pub(super) kill: Option<Kill>,
    /// Effects until a kill that waits for none in particular.
    pub(super) effects_left: Option<u64>,
}

// Nearly all are effects: a box for each would cost more than the room it saves.
#[allow(clippy::large_enum_variant)]
pub(super) enum Pending {
    Effect(Effect),
    /// `last`: behind all effects of its step.
    Kill {
        last: bool,
    },
}

/// A timer that is set. At most one happening in the queue speaks for it.
#[derive(Debug)]
struct Alarm {
    timer: Timer,
    wanted: Micros,
    planned: Micros,
}

pub(super) enum Ring {
    Now,
    /// It was moved to a later time meanwhile.
    Later(Micros),
    /// Another happening speaks for it, or it is off.
    Moved,
}

impl Machine {
    pub(super) fn new(spec: MachineSpec) -> Self {
        let mut disk = Disk::default();
        disk.install(spec.rows);
        Self {
            kind: spec.kind,
            name: spec.name,
            id: spec.secret.id(),
            address: spec.address,
            disk,
            secret: spec.secret,
            factory: spec.factory,
            data: spec.data,
            slowness: 1,
            speed: 1.0,
            load: Load::default(),
            memory_mb: 0,
            trace: None,
            away: false,
            role: None,
            life: 0,
            pending: VecDeque::new(),
            storing: None,
            alarms: Vec::new(),
            links: Vec::new(),
            works: Vec::new(),
            kill: None,
            effects_left: None,
        }
    }

    /// How long a work takes here that takes `cost` on a machine of ordinary speed.
    pub(super) fn takes(&self, cost: Micros) -> Micros {
        let cost = cost.saturating_mul(self.slowness);
        // Division and rounding of IEEE 754 are the same everywhere.
        if self.speed == 1.0 { cost } else { (cost as f64 / self.speed).round() as Micros }
    }

    pub fn is_up(&self) -> bool {
        self.role.is_some()
    }

    pub(super) fn needs(&self, object: ObjectId) -> bool {
        self.role.as_ref().is_some_and(|role| role.needs(object))
    }

    pub(super) fn boot(&mut self, now: Millis, seed: u64, node: u32) -> Result<(), String> {
        self.life += 1;
        let boot = Boot {
            secret: &self.secret,
            name: &self.name,
            address: &self.address,
            rows: self.disk.rows(),
            now,
            life: self.life,
            entropy: super::World::boot_entropy(seed, node, self.life),
        };
        self.role = Some((self.factory)(boot)?);
        Ok(())
    }

    /// Forgets what does not survive. Works and links are left for the world to end.
    pub(super) fn stop(&mut self) {
        self.role = None;
        self.life += 1;
        self.pending.clear();
        self.storing = None;
        self.alarms.clear();
        self.kill = None;
    }

    /// Sets a timer. Returns when to look at it, unless that is planned already.
    pub(super) fn set_alarm(&mut self, timer: Timer, at: Micros) -> Option<Micros> {
        match self.alarms.iter_mut().find(|alarm| alarm.timer == timer) {
            Some(alarm) => {
                alarm.wanted = at;
                // Planned earlier: it is looked at then, and planned again.
                (at < alarm.planned).then(|| {
                    alarm.planned = at;
                    at
                })
            }
            None => {
                self.alarms.push(Alarm { timer, wanted: at, planned: at });
                Some(at)
            }
        }
    }

    pub(super) fn rings(&mut self, now: Micros, timer: Timer) -> Ring {
        let Some(place) = self.alarms.iter().position(|a| a.timer == timer && a.planned == now) else {
            return Ring::Moved;
        };
        let alarm = &mut self.alarms[place];
        if alarm.wanted > now {
            alarm.planned = alarm.wanted;
            return Ring::Later(alarm.wanted);
        }
        self.alarms.swap_remove(place);
        Ring::Now
    }

    pub(super) fn unlink(&mut self, link: u64) {
        if let Some(place) = self.links.iter().position(|l| *l == link) {
            self.links.swap_remove(place);
        }
    }
}
