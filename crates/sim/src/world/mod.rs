//! The seeded world: machines that run the shipped roles under virtual time, network and disk.
//!
//! One loop takes the next thing that happens (`Happening`), feeds the machine's role with an event and performs the
//! effects, by the contract of [`littoral_node::role`]: in order; a `Store` holds back what is behind it for the time
//! that a sync takes; a crash loses effects not performed, all of the role's memory, and what was not synced.
//!
//! What a world does depends on its seed and its settings only. Real threads compute works ([`crate::workers`]), and no
//! result depends on how many.
//!
//! Read in this order: `machine.rs`, this file, `perform.rs`, `blows.rs`.

mod blows;
mod field;
mod machine;
mod perform;
#[cfg(test)]
mod tests;
mod trace;

pub use machine::{Boot, Factory, Load, Machine, MachineSpec};
pub(crate) use perform::Timed;
pub use trace::{Fingerprint, Trace};

use crate::attack::Liars;
use crate::checkers::{Checker, Seen};
use crate::disk::Library;
use crate::faults::{Faults, Injected, Kill, Kind, Moment, Plan};
use crate::field::Availability;
use crate::network::{Class, End, Network, NodeIndex};
use crate::queue::{Micros, Queue};
use crate::stream::{Stream, derive};
use crate::workers::{Kept, Lender, Runner, Workers};
use littoral_node::role::{Effect, Event, Kernels, LinkId, Millis, Peer, Report, Table, Timer, WorkId, Write};
use littoral_node::work::Work;
use littoral_tensor::quant::KERNELS;
use littoral_wire::message::Work as Part;
use littoral_wire::{Message, NodeId, ObjectId, SecretKey, Wire};
use machine::Pending;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sealing what was learnt before.
const SEAL_US: Micros = 1_000;

/// How long works take on a machine of ordinary speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// A device's work, whatever it is.
    pub local_us: Micros,
    pub cloud_us: Micros,
    /// Instead of `local_us`, for each step of training: who has more rows takes longer. 0: not asked for.
    pub step_us: Micros,
}

impl Costs {
    fn of(&self, work: &Work, load: Load) -> Micros {
        match work {
            Work::Seal { .. } => SEAL_US,
            Work::Local { .. } if self.step_us == 0 => self.local_us,
            Work::Local { collection, steps_max, .. } if matches!(collection.work, Part::Train | Part::Prepare) => {
                let steps = if *steps_max > 0 { (*steps_max).into() } else { load.train };
                self.step_us.saturating_mul(steps)
            }
            Work::Local { .. } => self.step_us.saturating_mul(load.look),
            _ => self.cloud_us,
        }
    }
}

impl Default for Costs {
    fn default() -> Self {
        Self { local_us: 300_000, cloud_us: 50_000, step_us: 0 }
    }
}

/// What a world is made of, beside its machines.
#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    pub faults: Faults,
    pub costs: Costs,
    /// Real threads that compute works, this one included.
    pub threads: usize,
    pub runner: Runner,
    /// Devices that lie, if any do.
    pub liars: Option<Arc<Liars>>,
}

impl Settings {
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { seed, faults, costs: Costs::default(), threads: 1, runner: littoral_node::work::run, liars: None }
    }
}

/// What happens next to whom. `life` tells a machine's run from an earlier one, whose answers nobody waits for.
#[derive(Debug)]
enum Happening {
    Boot { node: NodeIndex },
    Call { node: NodeIndex, life: u32, peer: Peer },
    CallFails { node: NodeIndex, life: u32, peer: Peer, reason: &'static str },
    Connected { node: NodeIndex, link: u64, end: End },
    Arrival { link: u64, end: End, parcel: Parcel },
    Closed { link: u64, end: End, reason: &'static str },
    Alarm { node: NodeIndex, life: u32, timer: Timer },
    Answer { node: NodeIndex, life: u32, event: Event },
    WorkEnds { node: NodeIndex, life: u32, id: WorkId },
    Synced { node: NodeIndex, life: u32 },
    Blow { source: usize },
    DiskFree { node: NodeIndex },
    Turn { node: NodeIndex },
}

/// A message under way.
// A fleet without faults sends messages as they are: no allocation for each.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
enum Parcel {
    Message(Message),
    Bytes(Vec<u8>),
}

/// Something that a role said.
#[derive(Debug)]
pub struct Reported {
    pub at: Millis,
    pub node: NodeIndex,
    pub report: Report,
}

pub struct World {
    now: Micros,
    clock: Arc<AtomicU64>,
    queue: Queue<Happening>,
    machines: Vec<Machine>,
    by_id: HashMap<NodeId, NodeIndex>,
    by_kind: [Vec<NodeIndex>; 3],
    network: Network,
    workers: Workers,
    plan: Plan,
    healed: bool,
    availability: Option<Arc<Availability>>,
    /// Whether devices are told in what state they are: nobody else asks.
    tells_conditions: bool,
    settings: Settings,
    crash: Stream,
    slow: Stream,
    start: Stream,
    damage: Stream,
    checkers: Vec<Box<dyn Checker>>,
    reports: Vec<Reported>,
    injected: Injected,
    breaches: Vec<String>,
    trace: Trace,
    events: u64,
    effects: Vec<Effect>,
    library: Library,
    /// Room for pending effects: machines that have none pending keep none.
    room: VecDeque<Pending>,
}

impl World {
    pub fn new(settings: Settings) -> Self {
        let seed = settings.seed;
        Self {
            now: 0,
            clock: Arc::default(),
            queue: Queue::default(),
            machines: Vec::new(),
            by_id: HashMap::new(),
            by_kind: Default::default(),
            network: Network::new(&settings.faults, seed),
            workers: Workers::new(settings.threads, settings.runner, settings.liars.clone()),
            plan: Plan::new(&Faults::default(), seed, |_| 0),
            healed: false,
            availability: None,
            tells_conditions: false,
            crash: Stream::new(seed, "what a crash takes"),
            slow: Stream::new(seed, "slow"),
            start: Stream::new(seed, "start"),
            damage: Stream::new(seed, "damaged bits"),
            checkers: Vec::new(),
            reports: Vec::new(),
            injected: Injected::default(),
            breaches: Vec::new(),
            trace: Trace::default(),
            events: 0,
            effects: Vec::new(),
            library: Library::default(),
            room: VecDeque::new(),
            settings,
        }
    }

    /// The key of the `number`-th machine of a kind: it follows from the seed.
    pub fn key(seed: u64, kind: Kind, number: usize) -> SecretKey {
        SecretKey::from_bytes(derive(seed, kind.name(), number as u64))
    }

    /// What a machine's run is handed that nobody else has.
    pub fn boot_entropy(seed: u64, node: NodeIndex, life: u32) -> [u8; 32] {
        derive(seed, "boot", u64::from(node) << 32 | u64::from(life))
    }

    /// A machine; it starts when the world does.
    pub fn add(&mut self, spec: MachineSpec) -> NodeIndex {
        let node = self.machines.len() as NodeIndex;
        let kind = spec.kind;
        let slow = kind == Kind::Device && self.slow.chance(self.settings.faults.slow);
        if slow {
            self.injected.count("slow device");
        }
        let mut machine = Machine::new(spec);
        machine.slowness = if slow { self.settings.faults.slow_factor.max(1) } else { 1 };
        self.by_id.insert(machine.id, node);
        self.by_kind[kind as usize].push(node);
        self.machines.push(machine);
        node
    }

    pub fn watch(&mut self, checker: Box<dyn Checker>) {
        self.checkers.push(checker);
    }

    /// Results of devices' works are looked for among these, and kept there. Before the world begins.
    pub fn keep(&self, kept: Kept) {
        self.workers.keep(kept);
    }

    /// For who takes works off this world's hands.
    pub fn lender(&self) -> Lender {
        self.workers.lender()
    }

    /// Shows virtual time, in microseconds, to other threads while the world runs.
    pub fn clock(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.clock)
    }

    /// Plans the machines' start, within `spread_us`, and the faults.
    pub fn begin(&mut self, spread_us: Micros) {
        for node in 0..self.machines.len() as NodeIndex {
            let at = if self.machines[node as usize].kind == Kind::Device { self.start.below(spread_us) } else { 0 };
            self.queue.push(at, Happening::Boot { node });
        }
        self.begin_traces();
        let counts = self.counts();
        self.plan = Plan::new(&self.settings.faults, self.settings.seed, |kind| counts[kind as usize]);
        for source in 0..self.plan.sources() {
            let at = self.now + self.plan.wait(source);
            self.queue.push(at, Happening::Blow { source });
        }
    }

    fn counts(&self) -> [usize; 3] {
        [self.by_kind[0].len(), self.by_kind[1].len(), self.by_kind[2].len()]
    }

    // ---- what there is to see ----

    pub fn now_ms(&self) -> Millis {
        self.now / 1_000
    }

    pub fn seed(&self) -> u64 {
        self.settings.seed
    }

    /// Events handled so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    pub fn machine(&self, node: NodeIndex) -> &Machine {
        &self.machines[node as usize]
    }

    pub fn of_kind(&self, kind: Kind) -> &[NodeIndex] {
        &self.by_kind[kind as usize]
    }

    pub fn injected(&self) -> &Injected {
        &self.injected
    }

    /// What roles did against the contract with their host; each is a bug.
    pub fn breaches(&self) -> &[String] {
        &self.breaches
    }

    /// What roles reported since the last call.
    pub fn take_reports(&mut self) -> Vec<Reported> {
        std::mem::take(&mut self.reports)
    }

    /// Of all that happened, and of all disks.
    pub fn fingerprint(&self) -> Fingerprint {
        self.trace.fingerprint(self.machines.iter().map(|m| &m.disk))
    }

    /// Lets the checkers have their last word and takes them back.
    pub fn into_checkers(mut self) -> Vec<Box<dyn Checker>> {
        let mut checkers = std::mem::take(&mut self.checkers);
        for checker in &mut checkers {
            checker.finish(&self.machines);
        }
        checkers
    }

    // ---- time ----

    /// Lets one thing happen, unless nothing is planned before `until_us`.
    pub fn step(&mut self, until_us: Micros) -> bool {
        if self.queue.next_at().is_none_or(|at| at >= until_us) {
            self.now = self.now.max(until_us);
            return false;
        }
        let Some((at, happening)) = self.queue.pop() else { return false };
        self.now = at;
        self.clock.store(at, Ordering::Relaxed);
        self.happen(happening);
        true
    }

    /// Lets things happen until a role reports something, or until then. Returns whether time is left.
    pub fn run(&mut self, until_us: Micros) -> bool {
        while self.step(until_us) {
            if !self.reports.is_empty() {
                return true;
            }
        }
        false
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Boot { node } => self.boot(node),
            Happening::Call { node, life, peer } => self.call(node, life, peer),
            Happening::CallFails { node, life, peer, reason } => {
                self.answer(node, life, Event::DialFailed { peer, reason: reason.into() });
            }
            Happening::Connected { node, link, end } => {
                let Some(open) = self.network.link(link).filter(|l| l.open[end]) else { return };
                let peer = self.machines[open.ends[1 - end] as usize].id;
                let kernels = Kernels::new(KERNELS);
                self.feed(node, Event::Connected { link: LinkId(link), peer, dialled: end == 0, kernels });
            }
            Happening::Arrival { link, end, parcel } => self.arrive(link, end, parcel),
            Happening::Closed { link, end, reason } => self.closed(link, end, reason),
            Happening::Alarm { node, life, timer } => self.alarm(node, life, timer),
            Happening::Answer { node, life, event } => self.answer(node, life, event),
            Happening::WorkEnds { node, life, id } => self.work_ends(node, life, id),
            Happening::Synced { node, life } => self.synced(node, life),
            Happening::Blow { source } => self.blow(source),
            Happening::DiskFree { node } => self.machines[node as usize].disk.set_full(false),
            Happening::Turn { node } => self.turn(node),
        }
    }

    fn boot(&mut self, node: NodeIndex) {
        let (now, seed) = (self.now_ms(), self.settings.seed);
        let machine = &mut self.machines[node as usize];
        if machine.role.is_some() || machine.away {
            return;
        }
        if let Err(why) = machine.boot(now, seed, node) {
            self.breaches.push(format!("{} did not start: {why}", machine.name));
            return;
        }
        self.trace.note(self.now, node, "boot", u64::from(self.machines[node as usize].life));
        self.show(node, Seen::Started);
        self.feed(node, Event::Start);
        self.tell_conditions(node);
    }

    fn arrive(&mut self, link: u64, end: End, parcel: Parcel) {
        let Some(open) = self.network.link(link).filter(|l| l.open[end]) else { return };
        let node = open.ends[end];
        let message = match parcel {
            Parcel::Message(message) => message,
            Parcel::Bytes(bytes) => {
                self.trace.bytes(&bytes);
                match Message::from_bytes(&bytes) {
                    Ok(message) => message,
                    Err(e) => {
                        self.breaches.push(format!("a message to {} is not one: {e}", self.machine(node).name));
                        return;
                    }
                }
            }
        };
        self.feed(node, Event::Received { link: LinkId(link), message });
    }

    fn closed(&mut self, link: u64, end: End, reason: &'static str) {
        let Some(open) = self.network.link(link).filter(|l| l.open[end]) else { return };
        let node = open.ends[end];
        self.network.shut(link, end);
        self.machines[node as usize].unlink(link);
        self.feed(node, Event::Disconnected { link: LinkId(link), reason: reason.into() });
    }

    fn alarm(&mut self, node: NodeIndex, life: u32, timer: Timer) {
        let now = self.now;
        let machine = &mut self.machines[node as usize];
        if machine.life != life {
            return;
        }
        match machine.rings(now, timer) {
            machine::Ring::Now => self.feed(node, Event::Timer(timer)),
            machine::Ring::Later(at) => self.queue.push(at, Happening::Alarm { node, life, timer }),
            machine::Ring::Moved => {}
        }
    }

    fn answer(&mut self, node: NodeIndex, life: u32, event: Event) {
        if self.machines[node as usize].life == life {
            self.feed(node, event);
        }
    }

    fn work_ends(&mut self, node: NodeIndex, life: u32, id: WorkId) {
        let machine = &mut self.machines[node as usize];
        if machine.life != life {
            return;
        }
        let Some(place) = machine.works.iter().position(|(work, _)| *work == id) else { return };
        let (_, ticket) = machine.works.swap_remove(place);
        let done = self.workers.collect(ticket);
        let made: Vec<ObjectId> = done.made.iter().map(|(manifest, _)| manifest.id()).collect();
        for (object, (manifest, bytes)) in made.iter().zip(done.made) {
            machine.disk.put(*object, manifest, bytes);
            self.library.add(*object, &machine.disk);
        }
        self.show(node, Seen::Worked { work: &done.work, result: &done.result });
        self.feed(node, Event::Worked { id, result: done.result });
        let machine = &mut self.machines[node as usize];
        if machine.is_up() {
            let unwanted = made.into_iter().filter(|object| !machine.needs(*object)).collect::<Vec<_>>();
            machine.pending.extend(unwanted.into_iter().map(|object| Pending::Effect(Effect::Drop(object))));
            self.flow(node);
        }
    }

    fn synced(&mut self, node: NodeIndex, life: u32) {
        let now = self.now;
        let machine = &mut self.machines[node as usize];
        if machine.life != life {
            return;
        }
        if machine.disk.is_full() {
            // The host waits for room: what is behind the barrier may not go on.
            self.queue.push(now + 100_000, Happening::Synced { node, life });
            return;
        }
        self.commit(node);
        self.flow(node);
    }

    /// The writes of the barrier become durable.
    fn commit(&mut self, node: NodeIndex) {
        let machine = &mut self.machines[node as usize];
        let Some(writes) = machine.storing.take() else { return };
        let absent = machine.disk.commit(&writes);
        for object in absent {
            self.breaches.push(format!("{} stored object {object}, which it does not have", machine.name));
        }
        self.show(node, Seen::Stored { writes: &writes });
    }

    /// Feeds one event to a machine's role and performs what it asks for.
    fn feed(&mut self, node: NodeIndex, event: Event) {
        let now = self.now_ms();
        let machine = &mut self.machines[node as usize];
        let Some(role) = machine.role.as_mut() else { return };
        self.events += 1;
        let name = event_name(&event);
        self.trace.note(self.now, node, name, 0);
        let kill = machine.kill.filter(|kill: &Kill| kill.on == name);
        if kill.is_some() {
            machine.kill = None;
        }
        if kill.is_some_and(|kill| kill.moment == Moment::Before) {
            self.killed(node, "killed before");
            return;
        }
        role.step(now, event, &mut self.effects);
        let count = self.effects.len();
        if machine.pending.capacity() == 0 {
            std::mem::swap(&mut machine.pending, &mut self.room);
        }
        let stop_after = kill.map(|kill| match kill.moment {
            Moment::Before => 0,
            Moment::AfterEffects(effects) => effects.min(count),
        });
        for (i, effect) in self.effects.drain(..).enumerate() {
            if stop_after == Some(i) {
                machine.pending.push_back(Pending::Kill { last: false });
            }
            machine.pending.push_back(Pending::Effect(effect));
        }
        if stop_after == Some(count) {
            machine.pending.push_back(Pending::Kill { last: true });
        }
        self.flow(node);
    }

    /// Performs what is pending until a barrier, a kill, or the end.
    fn flow(&mut self, node: NodeIndex) {
        loop {
            let machine = &mut self.machines[node as usize];
            if machine.storing.is_some() {
                return;
            }
            match machine.pending.pop_front() {
                None => {
                    let room = std::mem::take(&mut machine.pending);
                    if room.capacity() > self.room.capacity() {
                        self.room = room;
                    }
                    return;
                }
                Some(Pending::Effect(effect)) => match machine.effects_left.as_mut() {
                    Some(0) => {
                        machine.effects_left = None;
                        self.killed(node, &format!("killed at {}", effect_name(&effect)));
                        return;
                    }
                    left => {
                        left.into_iter().for_each(|left| *left -= 1);
                        self.perform(node, effect);
                    }
                },
                Some(Pending::Kill { last }) => {
                    self.killed(node, if last { "killed after" } else { "killed between" });
                    return;
                }
            }
        }
    }

    fn show(&mut self, node: NodeIndex, seen: Seen<'_>) {
        let now = self.now_ms();
        for checker in &mut self.checkers {
            checker.see(now, &self.machines[node as usize], &seen);
        }
    }
}

/// For kill points and the trace.
fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Start => "Start",
        Event::Connected { .. } => "Connected",
        Event::DialFailed { .. } => "DialFailed",
        Event::Disconnected { .. } => "Disconnected",
        Event::Received { message, .. } => message.name(),
        Event::Timer(_) => "Timer",
        Event::Begun { .. } => "Begun",
        // Two names of messages would hide these.
        Event::Kept { .. } => "Kept",
        Event::Loaded { .. } => "Loaded",
        Event::Worked { .. } => "Worked",
        Event::Conditions(_) => "Conditions",
        // Of replicas, which are not simulated.
        Event::Leased { .. } | Event::Shared { .. } | Event::Answered { .. } => "Shared",
    }
}

/// For kills at effects: what a machine was about to do.
fn effect_name(effect: &Effect) -> String {
    match effect {
        Effect::Send { message: Message::Sealing { step, .. }, .. } => format!("Sealing {step:?}"),
        Effect::Send { message, .. } => message.name().into(),
        Effect::SendChunk { .. } => "Chunk".into(),
        Effect::Work { work, .. } => match **work {
            Work::Mask { .. } => "laying masks on".into(),
            _ => "work".into(),
        },
        Effect::Store(writes) => {
            let sealed = |write: &Write| matches!(write, Write::Put { key, .. } if key.table == Table::Sealed);
            if writes.iter().any(sealed) { "storing what is sealed".into() } else { "storing".into() }
        }
        Effect::Drop(_) => "dropping".into(),
        _ => "another effect".into(),
    }
}

fn class_of(kind: Kind) -> Class {
    if kind == Kind::Edge { Class::Edge } else { Class::Device }
}
