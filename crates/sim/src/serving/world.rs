//! Time, processes, connections, and what goes wrong.

use super::below::SILENT_US;
use super::chain::HeadHost;
use super::checks::{self, Bug, Checks, Tier};
use super::drafts::{EdgeHost, VerifierHost};
use super::report::{Outcome, middle_and_most};
use super::routed::Saying;
use super::scenario::{Faults, Scenario};
use super::stage::StageHost;
use super::tiny;
use crate::queue::{Micros, Queue};
use crate::stream::{Stream, derive};
use littoral_infer::model::Model;
use littoral_model::lm::Stage;
use littoral_node::split::beats::{EVERY, SILENT};
use littoral_node::transport::shaper::{self, Verdict};
use littoral_tensor::pool::Pool;
use littoral_wire::{NodeId, Pipeline, Speculation, Wire};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// A machine: 0 is the head, then stages, the verifier, edges.
pub(super) type Node = usize;
pub(super) const HEAD: Node = 0;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Head,
    Join { epoch: u32 },
    Watch,
    Drafts,
}

/// What a process hears.
pub(super) enum Input {
    Up {
        conn: u64,
        peer: Node,
        purpose: Purpose,
    },
    NotReached {
        peer: Node,
        purpose: Purpose,
    },
    Heard {
        conn: u64,
        bytes: Vec<u8>,
    },
    Ended {
        conn: u64,
    },
    Lives {
        stage: Node,
        epoch: u32,
        done: u64,
    },
    Lost {
        stage: Node,
    },
    /// A layer came, of the order with that number.
    Fetched {
        order: u64,
        layer: usize,
    },
    /// There is a request to look at.
    Ask,
}

enum Happening {
    Turn {
        node: Node,
    },
    /// `bytes`: none if the sender hung up.
    Arrives {
        conn: u64,
        end: usize,
        sent: Micros,
        bytes: Option<Vec<u8>>,
    },
    Dial {
        from: (Node, u32),
        to: Node,
        purpose: Purpose,
    },
    Dialled {
        from: (Node, u32),
        to: (Node, u32),
        purpose: Purpose,
        reached: bool,
    },
    /// A beat is due, or a connection for beats.
    Watch {
        stage: Node,
    },
    Silent {
        stage: Node,
        count: u64,
    },
    Request {
        number: u64,
    },
    Fetched {
        node: Node,
        order: u64,
        layer: usize,
    },
    Fault {
        kind: usize,
    },
    Restart {
        node: Node,
    },
}

struct Conn {
    ends: [Node; 2],
    /// Which process of each machine.
    lives: [u32; 2],
    open: [bool; 2],
    lines: [shaper::Link; 2],
    purpose: Purpose,
}

#[derive(Default)]
struct Process {
    up: bool,
    /// Processes that this machine had before, and when each was killed.
    killed: Vec<Micros>,
    stopped_until: Micros,
    silent_until: Micros,
    slow_until: Micros,
    busy_until: Micros,
    inbox: VecDeque<Input>,
    turn: Option<Micros>,
}

impl Process {
    fn life(&self) -> u32 {
        self.killed.len() as u32
    }
}

/// The thread of a head that asks a stage for beats.
#[derive(Default)]
struct Watcher {
    conn: Option<u64>,
    answered: bool,
    count: u64,
    begun: Micros,
    waiting: bool,
}

/// How long a greeting is waited for, and before somebody is dialled again; as the node does.
const GREETING_US: u64 = 5_000_000;
pub(super) const AGAIN_US: u64 = 250_000;
const WATCH_AGAIN_US: u64 = 200_000;
const KINDS: [&str; 5] = ["kill", "silent", "stop", "slow", "cut"];
/// A message that is late comes up to so much later.
const LATE_US: u64 = 300_000;
/// A machine that is slow takes so many times as long.
const SLOW: u64 = 10;

/// The layers that machines load.
pub(super) struct Files {
    pub big: Vec<u8>,
    stages: BTreeMap<(usize, usize), Arc<Stage>>,
}

impl Files {
    pub fn load(&mut self, range: Range<usize>, pool: &Pool) -> Result<Arc<Stage>, String> {
        let key = (range.start, range.end);
        if let Some(stage) = self.stages.get(&key) {
            return Ok(stage.clone());
        }
        let stage = Arc::new(Model::load_layers(&self.big, range, pool).map_err(|e| e.to_string())?);
        self.stages.insert(key, stage.clone());
        Ok(stage)
    }
}

/// All that hosts may touch.
pub(super) struct Net {
    pub scenario: Scenario,
    pub bug: Option<Bug>,
    pub pool: Pool,
    pub files: Files,
    pub checks: Checks,
    /// Layers on the disks of machines without the file; a kill leaves them.
    pub disks: BTreeMap<Node, BTreeSet<usize>>,
    pub fetched: u64,
    orders: u64,
    pub detect_us: Vec<u64>,
    pub memory_bytes_max: u64,
    pub bytes: u64,
    now: Micros,
    queue: Queue<Happening>,
    processes: Vec<Process>,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    jitter: ChaCha8Rng,
    /// What happens to messages of drafts, and to how many it did.
    mishaps: Stream,
    mishaps_seen: u64,
    trace: blake3::Hasher,
}

impl Net {
    pub fn now(&self) -> Micros {
        self.now
    }

    /// What so much work costs on this machine now.
    pub fn cost(&self, node: Node, us: u64) -> u64 {
        if self.processes[node].slow_until > self.now { us * SLOW } else { us }
    }

    /// Did this machine stand still after that?
    pub fn stood(&self, node: Node, since: Micros) -> bool {
        self.processes[node].stopped_until > since
    }

    /// Who made this connection.
    pub fn dialler(&self, conn: u64) -> Option<Node> {
        self.conns.get(&conn).map(|conn| conn.ends[0])
    }

    pub fn note(&mut self, node: Node, what: &str, number: u64) {
        self.trace.update(&self.now.to_le_bytes());
        self.trace.update(&[node as u8, what.len() as u8]);
        self.trace.update(&number.to_le_bytes());
        self.trace.update(what.as_bytes());
    }

    pub fn send(&mut self, conn: u64, from: Node, at: Micros, bytes: Vec<u8>) {
        let Some(Conn { ends, open, lines, purpose, .. }) = self.conns.get_mut(&conn) else { return };
        let end = usize::from(ends[0] == from);
        if !open[1 - end] {
            return;
        }
        self.bytes += bytes.len() as u64;
        self.trace.update(&bytes);
        if let (Purpose::Drafts, Ok(frame)) = (*purpose, Speculation::from_bytes(&bytes)) {
            self.checks.link(ends[0], &frame, bytes.len());
        }
        let Verdict::Deliver { at_us } = lines[end].schedule(at, bytes.len(), &mut self.jitter) else { return };
        let arrives = |bytes| Happening::Arrives { conn, end, sent: at, bytes: Some(bytes) };
        if *purpose != Purpose::Drafts {
            return self.queue.push(at_us, arrives(bytes));
        }
        let Faults { lost, doubled, late, .. } = self.scenario.faults;
        if self.mishaps.chance(doubled) {
            self.mishaps_seen += 1;
            self.queue.push(at_us + self.mishaps.below(LATE_US), arrives(bytes.clone()));
        }
        if self.mishaps.chance(lost) {
            self.mishaps_seen += 1;
        } else if self.mishaps.chance(late) {
            self.mishaps_seen += 1;
            self.queue.push(at_us + self.mishaps.below(LATE_US), arrives(bytes));
        } else {
            self.queue.push(at_us, arrives(bytes));
        }
    }

    pub fn close(&mut self, conn: u64, from: Node, at: Micros) {
        let Some(Conn { ends, open, lines, .. }) = self.conns.get_mut(&conn) else { return };
        let end = usize::from(ends[0] == from);
        if std::mem::replace(&mut open[1 - end], false)
            && let Verdict::Deliver { at_us } = lines[end].schedule(at, 0, &mut self.jitter)
        {
            self.queue.push(at_us, Happening::Arrives { conn, end, sent: at, bytes: None });
        }
    }

    /// The number of an order for layers; of earlier processes' no more is heard.
    pub fn order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }

    /// A layer is asked for.
    pub fn fetch(&mut self, node: Node, order: u64, layer: usize, at: Micros) {
        self.queue.push(at + self.scenario.fetch_us(), Happening::Fetched { node, order, layer });
    }

    pub fn dial(&mut self, from: Node, to: Node, purpose: Purpose, at: Micros) {
        let from = (from, self.processes[from].life());
        self.queue.push(at, Happening::Dial { from, to, purpose });
    }

    fn silent_until(&self, a: Node, b: Node) -> Micros {
        self.processes[a].silent_until.max(self.processes[b].silent_until)
    }

    /// Of what an earlier process dialled the next one hears nothing, but that a join came to nothing, which it does not know.
    fn dials(&self, (node, life): (Node, u32), purpose: Purpose) -> bool {
        life == self.processes[node].life() || !matches!(purpose, Purpose::Head | Purpose::Drafts)
    }

    fn dial_now(&mut self, from: Node, to: Node, purpose: Purpose) {
        if !self.processes[from].up {
            return;
        }
        let hangs = self.silent_until(from, to) > self.now || self.processes[to].stopped_until > self.now;
        let reached = !hangs && self.processes[to].up;
        let link = if purpose == Purpose::Drafts { self.scenario.edge_link } else { self.scenario.stage_link };
        // A handshake, hellos, and what the link is for.
        let takes = if hangs { GREETING_US } else { 1 + link.round_trip_us * 5 / 2 };
        let life = |node: Node| (node, self.processes[node].life());
        let dialled = Happening::Dialled { from: life(from), to: life(to), purpose, reached };
        self.queue.push(self.now + takes, dialled);
    }

    /// The number of a new connection between processes that still live.
    fn connect(&mut self, from: (Node, u32), to: (Node, u32), purpose: Purpose) -> Option<u64> {
        let lives = |(node, life): (Node, u32)| self.processes[node].up && self.processes[node].life() == life;
        if !lives(from) || !lives(to) || self.silent_until(from.0, to.0) > self.now {
            return None;
        }
        let link = if purpose == Purpose::Drafts { self.scenario.edge_link } else { self.scenario.stage_link };
        let line = || shaper::Link::new(link.shape(), true);
        let conn = self.next_conn;
        self.next_conn += 1;
        let ends = [from.0, to.0];
        let conn_of = Conn { ends, lives: [from.1, to.1], open: [true; 2], lines: [line(), line()], purpose };
        self.conns.insert(conn, conn_of);
        Some(conn)
    }

    fn give(&mut self, node: Node, input: Input) {
        if self.processes[node].up {
            self.processes[node].inbox.push_back(input);
            self.plan(node, self.now);
        }
    }

    /// A process gets to work at this time, or as soon as it can.
    pub fn plan(&mut self, node: Node, at: Micros) {
        let process = &mut self.processes[node];
        let at = at.max(process.busy_until).max(process.stopped_until);
        if process.turn.is_none_or(|turn| at < turn) {
            process.turn = Some(at);
            self.queue.push(at, Happening::Turn { node });
        }
    }

    pub fn input(&mut self, node: Node) -> Option<Input> {
        self.processes[node].inbox.pop_front()
    }

    pub fn waits(&self, node: Node) -> bool {
        self.processes[node].inbox.is_empty()
    }

    pub fn busy(&mut self, node: Node, until: Micros) {
        self.processes[node].busy_until = until;
    }

    fn kill(&mut self, node: Node) {
        self.processes[node].up = false;
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            if self.conns[&conn].ends.contains(&node) {
                self.close(conn, node, self.now);
            }
        }
        let process = &mut self.processes[node];
        process.killed.push(self.now);
        process.inbox.clear();
        (process.stopped_until, process.busy_until, process.turn) = (0, 0, None);
    }
}

enum Host {
    Head(Box<HeadHost>),
    Stage(Box<StageHost>),
    Verifier(Box<VerifierHost>),
    Edge(Box<EdgeHost>),
}

pub(super) struct World {
    net: Net,
    hosts: Vec<Option<Host>>,
    watchers: Vec<Watcher>,
    faults: Stream,
    requests: Stream,
    kept: u64,
    injected: [u64; KINDS.len()],
    next_request: u64,
    end: Micros,
}

pub(super) fn id(node: Node) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(node as u64 + 1).to_le_bytes());
    NodeId(bytes)
}

/// The number of the first session of an edge, or, behind them, the head; of no earlier process.
fn first_session(scenario: &Scenario, edge: usize, life: u32) -> u64 {
    Stream::new(scenario.seed, "sessions").below(1 << 40) + ((edge as u64) << 41) + (u64::from(life) << 48)
}

pub(super) fn node_of(id: NodeId) -> Node {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.0[..8]);
    (u64::from_le_bytes(bytes) as usize).wrapping_sub(1)
}

impl World {
    /// Of a scenario that was checked.
    pub fn new(scenario: Scenario, bug: Option<Bug>) -> Self {
        let pool = Pool::new(1);
        let big = tiny::file(scenario.layers);
        let load = |bytes: &[u8]| Arc::new(Model::load(bytes, &pool, &mut |_| ()).expect("a model that was made here"));
        let (whole, small) = (load(&big), load(&tiny::file(1)));
        let above = if scenario.tiers == 3 { load(&tiny::file(2 * scenario.layers)) } else { whole.clone() };
        let (stages, edges, limits) = (scenario.stages as usize, scenario.edges as usize, scenario.limits());
        let checks = Checks::new([small.clone(), whole, above.clone()], scenario.pause_max_ms * 1_000);
        let first = |edge: usize| first_session(&scenario, edge, 0);
        let head = HeadHost::new(&scenario, bug, first(edges), &big, &pool);
        let mut hosts = vec![Some(Host::Head(Box::new(head)))];
        hosts.extend((0..stages).map(|_| Some(Host::Stage(Box::new(StageHost::new())))));
        if let Some(verifier) = scenario.verifier() {
            hosts.push(Some(Host::Verifier(Box::new(VerifierHost::new(&above, limits)))));
            let to = scenario.above().map_or(verifier, |_| HEAD);
            let edge = |edge: usize| EdgeHost::new(&small, limits, first(edge), to);
            hosts.extend((0..edges).map(|number| Some(Host::Edge(Box::new(edge(number))))));
        }
        let processes = hosts.iter().map(|_| Process { up: true, ..Process::default() }).collect();
        let seed = scenario.seed;
        let end = u64::from(scenario.minutes) * 60_000_000;
        Self {
            net: Net {
                bug,
                pool,
                files: Files { big, stages: BTreeMap::new() },
                checks,
                disks: BTreeMap::new(),
                fetched: 0,
                orders: 0,
                detect_us: Vec::new(),
                memory_bytes_max: 0,
                bytes: 0,
                now: 0,
                queue: Queue::default(),
                processes,
                conns: BTreeMap::new(),
                next_conn: 0,
                jitter: ChaCha8Rng::from_seed(derive(seed, "serving jitter", 0)),
                mishaps: Stream::new(seed, "serving mishaps"),
                mishaps_seen: 0,
                trace: blake3::Hasher::new(),
                scenario,
            },
            watchers: (0..=stages).map(|_| Watcher::default()).collect(),
            hosts,
            faults: Stream::new(seed, "serving faults"),
            requests: Stream::new(seed, "serving requests"),
            kept: 0,
            injected: [0; KINDS.len()],
            next_request: 0,
            end,
        }
    }

    fn stages(&self) -> usize {
        self.net.scenario.stages as usize
    }

    pub fn run(mut self) -> Outcome {
        for stage in 1..=self.stages() {
            self.net.dial(HEAD, stage, Purpose::Head, 0);
            self.net.queue.push(0, Happening::Watch { stage });
        }
        (1..self.hosts.len()).for_each(|node| self.dial_above(node));
        self.dial_above(HEAD);
        self.net.plan(HEAD, 0);
        self.next_request(0);
        (0..KINDS.len()).for_each(|kind| self.next_fault(kind, 5_000_000));
        // What was asked has ten minutes more to come to its end, and what was given up is to be gone by then.
        let given_up_us = if self.net.scenario.verifier().is_some() { SILENT_US + 5_000_000 } else { 1_000_000 };
        let (mut least, most) = (self.end + given_up_us, self.end + 600_000_000);
        while let Some((at, happening)) = self.net.queue.pop() {
            // What an answer leaves behind that ended late is given up late.
            if self.net.scenario.tiers == 3 && self.net.checks.open() > 0 {
                least = least.max(at + given_up_us);
            }
            if at > most || (at > least && self.net.checks.open() == 0) {
                break;
            }
            self.net.now = at;
            self.happen(happening);
        }
        self.outcome()
    }

    /// A process that drafts dials who verifies.
    fn dial_above(&mut self, node: Node) {
        let (verifier, above) = (self.net.scenario.verifier(), self.net.scenario.above());
        let to = match verifier {
            _ if node == HEAD => above,
            Some(verifier) if node > verifier => above.map(|_| HEAD).or(Some(verifier)),
            _ => None,
        };
        if let Some(to) = to {
            self.net.dial(node, to, Purpose::Drafts, self.net.now);
        }
    }

    fn next_request(&mut self, now: Micros) {
        let mean = 60_000_000 / u64::from(self.net.scenario.requests_per_minute);
        let at = now + self.requests.around(mean);
        if at < self.end {
            let number = self.next_request;
            self.next_request += 1;
            self.net.queue.push(at, Happening::Request { number });
        }
    }

    fn next_fault(&mut self, kind: usize, now: Micros) {
        let faults = &self.net.scenario.faults;
        let every_s = [faults.kill_s, faults.silent_s, faults.stop_s, faults.slow_s, faults.cut_s][kind];
        if every_s > 0 {
            let at = now + self.faults.around(every_s * 1_000_000);
            if at < self.end {
                self.net.queue.push(at, Happening::Fault { kind });
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.net.now;
        match happening {
            Happening::Turn { node } => {
                if self.net.processes[node].turn != Some(now) {
                    return;
                }
                self.net.processes[node].turn = None;
                let process = &self.net.processes[node];
                if process.busy_until.max(process.stopped_until) > now {
                    return self.net.plan(node, now);
                }
                self.turn(node);
            }
            Happening::Arrives { conn, end, sent, bytes } => self.arrives(conn, end, sent, bytes),
            Happening::Dial { from: (from, life), to, purpose } => {
                if self.net.dials((from, life), purpose) {
                    self.net.dial_now(from, to, purpose);
                }
            }
            Happening::Dialled { from, to, purpose, reached } => {
                if self.net.dials(from, purpose) {
                    let conn = if reached { self.net.connect(from, to, purpose) } else { None };
                    self.dialled(from.0, to.0, purpose, conn);
                }
            }
            Happening::Watch { stage } => self.watch(stage),
            Happening::Silent { stage, count } => {
                if self.watchers[stage].waiting && self.watchers[stage].count == count {
                    self.stop_watching(stage);
                }
            }
            Happening::Request { number } => self.request(number),
            Happening::Fetched { node, order, layer } => {
                let silent = self.net.silent_until(HEAD, node);
                if silent > now {
                    // It begins anew: chunks are not simulated.
                    return self.net.fetch(node, order, layer, silent);
                }
                self.net.give(node, Input::Fetched { order, layer });
            }
            Happening::Fault { kind } => self.fault(kind),
            Happening::Restart { node } => {
                self.net.note(node, "starts", 0);
                self.net.processes[node].up = true;
                self.net.plan(node, now);
                if node == HEAD {
                    (1..=self.stages()).for_each(|stage| self.net.dial(HEAD, stage, Purpose::Head, now));
                }
                self.dial_above(node);
            }
        }
    }

    fn turn(&mut self, node: Node) {
        let Some(mut host) = self.hosts[node].take() else { return };
        match &mut host {
            Host::Head(head) => head.turn(&mut self.net),
            Host::Stage(stage) => stage.turn(node, &mut self.net),
            Host::Verifier(verifier) => verifier.turn(node, &mut self.net),
            Host::Edge(edge) => edge.turn(node, &mut self.net),
        }
        self.hosts[node] = Some(host);
    }

    fn arrives(&mut self, conn: u64, end: usize, sent: Micros, bytes: Option<Vec<u8>>) {
        let now = self.net.now;
        let Some(Conn { ends, lives, open, purpose, .. }) = self.net.conns.get(&conn) else { return };
        let (ends, to, purpose) = (*ends, ends[end], *purpose);
        // `end` hears, the other one has sent; what a process would have sent after it was killed was never sent.
        let sender = &self.net.processes[ends[1 - end]];
        let killed = sender.killed.get(lives[1 - end] as usize).copied();
        if killed.is_some_and(|killed| sent > killed) {
            return;
        }
        if !open[end] {
            // Nobody listens: the sender is told so.
            if bytes.is_some() {
                self.net.close(conn, to, now);
                self.reset(conn, 1 - end);
            }
            return;
        }
        let silent = self.net.silent_until(ends[0], ends[1]);
        if silent > now {
            return self.net.queue.push(silent, Happening::Arrives { conn, end, sent, bytes });
        }
        let Some(bytes) = bytes else { return self.reset(conn, end) };
        if purpose == Purpose::Watch {
            return self.beat(conn, end, ends, sent, bytes);
        }
        self.net.give(to, Input::Heard { conn, bytes });
    }

    /// This end learns that the connection is over.
    fn reset(&mut self, conn: u64, end: usize) {
        let Some(Conn { ends, open, purpose, .. }) = self.net.conns.get_mut(&conn) else { return };
        let (node, other, purpose) = (ends[end], ends[1 - end], *purpose);
        if std::mem::replace(&mut open[end], false) {
            if purpose != Purpose::Watch {
                self.net.give(node, Input::Ended { conn });
            } else if node == HEAD && self.watchers[other].conn == Some(conn) {
                self.stop_watching(other);
            }
        }
        if self.net.conns.get(&conn).is_some_and(|conn| conn.open == [false; 2]) {
            self.net.conns.remove(&conn);
        }
    }

    fn dialled(&mut self, from: Node, to: Node, purpose: Purpose, conn: Option<u64>) {
        match (conn, purpose) {
            (Some(conn), Purpose::Watch) => {
                self.watchers[to] = Watcher { conn: Some(conn), ..Watcher::default() };
                self.watch(to);
            }
            (None, Purpose::Watch) => {
                self.net.queue.push(self.net.now + WATCH_AGAIN_US, Happening::Watch { stage: to });
            }
            (Some(conn), _) => {
                self.net.give(to, Input::Up { conn, peer: from, purpose });
                self.net.give(from, Input::Up { conn, peer: to, purpose });
            }
            (None, _) => self.net.give(from, Input::NotReached { peer: to, purpose }),
        }
    }

    fn watch(&mut self, stage: Node) {
        let now = self.net.now;
        if !self.net.processes[HEAD].up {
            return self.net.queue.push(now + WATCH_AGAIN_US, Happening::Watch { stage });
        }
        let Some(conn) = self.watchers[stage].conn else {
            return self.net.dial_now(HEAD, stage, Purpose::Watch);
        };
        let watcher = &mut self.watchers[stage];
        (watcher.begun, watcher.waiting) = (now, true);
        let count = watcher.count;
        self.net.send(conn, HEAD, now, Pipeline::Beat { count, epoch: 0, done: 0 }.to_bytes());
        let silent_us = if self.net.bug == Some(Bug::NoticesLate) { 3_000_000 } else { SILENT.as_micros() as u64 };
        self.net.queue.push(now + silent_us, Happening::Silent { stage, count });
    }

    /// A beat came to a stage, or its answer to the head. Neither waits for what is being computed.
    fn beat(&mut self, conn: u64, end: usize, ends: [Node; 2], sent: Micros, bytes: Vec<u8>) {
        let (now, stage) = (self.net.now, ends[1]);
        let Ok(Pipeline::Beat { count, epoch, done }) = Pipeline::from_bytes(&bytes) else { return };
        if end == 1 {
            let stopped = self.net.processes[stage].stopped_until;
            if stopped > now {
                let again = Happening::Arrives { conn, end, sent, bytes: Some(bytes) };
                return self.net.queue.push(stopped, again);
            }
            let Some(Host::Stage(host)) = &self.hosts[stage] else { return };
            let (epoch, done) = host.progress();
            return self.net.send(conn, stage, now, Pipeline::Beat { count, epoch, done }.to_bytes());
        }
        let watcher = &mut self.watchers[stage];
        if watcher.conn == Some(conn) && watcher.count == count {
            (watcher.waiting, watcher.answered) = (false, true);
            watcher.count += 1;
            let next = now.max(watcher.begun + EVERY.as_micros() as u64);
            self.net.queue.push(next, Happening::Watch { stage });
            self.net.give(HEAD, Input::Lives { stage, epoch, done });
        }
    }

    fn stop_watching(&mut self, stage: Node) {
        let now = self.net.now;
        let Watcher { conn, answered, .. } = std::mem::take(&mut self.watchers[stage]);
        if let Some(conn) = conn {
            self.net.close(conn, HEAD, now);
        }
        if answered {
            self.net.give(HEAD, Input::Lost { stage });
        }
        self.net.queue.push(now + WATCH_AGAIN_US, Happening::Watch { stage });
    }

    fn request(&mut self, number: u64) {
        let now = self.net.now;
        // With three tiers some answers come to the end of the context, and prompts begin alike: states that were kept are used again.
        let (tokens_max, text) = if self.net.scenario.tiers == 3 { (64, number % 5) } else { (40, number) };
        let (prompt, tokens) = (1 + self.requests.below(40), 4 + self.requests.below(tokens_max));
        let edges = self.net.scenario.edges as u64;
        let to = match self.net.scenario.verifier() {
            Some(verifier) if edges > 0 && self.requests.below(2) == 0 => {
                verifier + 1 + self.requests.below(edges) as usize
            }
            _ => HEAD,
        };
        let local_only = to != HEAD && self.requests.chance(self.net.scenario.local_only);
        let request = checks::request(number, text, prompt, tokens);
        self.net.note(to, "asked", number);
        let saying = Saying::new(number, prompt, local_only);
        if !self.net.processes[to].up {
            return self.next_request(now);
        }
        let Some(mut host) = self.hosts[to].take() else { return };
        match &mut host {
            Host::Edge(edge) => {
                let (here, linked) = (edge.keeps(&saying, self.net.bug), edge.linked());
                self.kept += u64::from(here && linked && !local_only);
                let by = if here { Tier::Edge } else { Tier::Head };
                self.net.checks.ask(request.clone(), local_only, (to, Tier::Edge), by, now);
                edge.submit(to, request, here, &mut self.net);
            }
            Host::Head(head) => {
                // Some are for the machine above, if it is there.
                let above = head.linked() && number % 7 < 4;
                let by = if above { Tier::Verifier } else { Tier::Head };
                self.net.checks.ask(request.clone(), false, (HEAD, Tier::Head), by, now);
                head.submit(request, above, &mut self.net);
            }
            Host::Stage(_) | Host::Verifier(_) => {}
        }
        self.hosts[to] = Some(host);
        self.net.give(to, Input::Ask);
        self.next_request(now);
    }

    fn fault(&mut self, kind: usize) {
        let (now, stages) = (self.net.now, self.stages() as u64);
        self.next_fault(kind, now);
        let lasts = self.faults.around(self.net.scenario.faults.lasts_s * 1_000_000);
        let victims = stages + u64::from(self.net.scenario.verifier().is_some());
        if victims == 0 {
            return;
        }
        let node = match self.net.scenario.tiers {
            3 => self.faults.below(self.hosts.len() as u64) as usize,
            _ => 1 + self.faults.below(victims) as usize,
        };
        self.net.note(node, KINDS[kind], lasts);
        self.injected[kind] += 1;
        match KINDS[kind] {
            "kill" if self.net.processes[node].up => {
                self.net.kill(node);
                self.net.checks.died(node);
                self.hosts[node] = self.hosts[node].take().map(|old| self.anew(node, old));
                self.net.queue.push(now + lasts, Happening::Restart { node });
            }
            "silent" => self.net.processes[node].silent_until = now + lasts,
            "stop" => self.net.processes[node].stopped_until = now + lasts,
            "slow" => self.net.processes[node].slow_until = now + lasts,
            "cut" => {
                let open: Vec<u64> = self.net.conns.keys().copied().collect();
                if !open.is_empty() {
                    let conn = open[self.faults.below(open.len() as u64) as usize];
                    self.reset(conn, 0);
                    self.reset(conn, 1);
                }
            }
            _ => self.injected[kind] -= 1,
        }
    }

    /// Another process of a machine.
    fn anew(&mut self, node: Node, old: Host) -> Host {
        let (scenario, life) = (&self.net.scenario, self.net.processes[node].life());
        let first = |edge: usize| first_session(scenario, edge, life);
        match old {
            Host::Stage(_) => Host::Stage(Box::new(StageHost::new())),
            Host::Verifier(old) => Host::Verifier(Box::new(old.anew())),
            Host::Edge(old) => {
                let edge = node - scenario.verifier().map_or(0, |verifier| verifier + 1);
                Host::Edge(Box::new(old.anew(first(edge))))
            }
            Host::Head(old) => {
                let first = first(scenario.edges as usize);
                let mut head = HeadHost::new(scenario, self.net.bug, first, &self.net.files.big, &self.net.pool);
                (head.survived, head.survived_verifying) = (old.survived, old.survived_verifying);
                // Who asked for beats is gone, too.
                for stage in 1..self.watchers.len() {
                    if std::mem::take(&mut self.watchers[stage]).waiting {
                        self.net.queue.push(self.net.now + WATCH_AGAIN_US, Happening::Watch { stage });
                    }
                }
                Host::Head(Box::new(head))
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        let mut trace = self.net.trace.clone();
        let (mut survived, mut verifying) = (0, 0);
        let limits = self.net.scenario.limits();
        let kept = self.net.scenario.kept_max();
        for (node, host) in self.hosts.iter().enumerate() {
            match host {
                Some(Host::Head(head)) => {
                    (survived, verifying) = (head.survived, head.survived_verifying);
                    head.finish(&mut self.net.checks);
                }
                Some(Host::Stage(stage)) => stage.finish(node, &limits, kept, &mut self.net.checks),
                Some(Host::Verifier(verifier)) => verifier.finish(&mut self.net.checks),
                Some(Host::Edge(edge)) => edge.finish(node, &mut self.net.checks),
                None => {}
            }
        }
        self.net.checks.finish();
        let checks = &self.net.checks;
        trace.update(&checks.tokens.to_le_bytes());
        let (median_detect_s, longest_detect_s) = middle_and_most(self.net.detect_us.clone());
        let (median_pause_s, longest_pause_s) = middle_and_most(checks.pauses_us.clone());
        let [kills, silences, stops, slowings, cuts] = self.injected;
        Outcome {
            seed: self.net.scenario.seed,
            virtual_s: self.net.now as f64 / 1e6,
            requests: checks.ended,
            tokens: checks.tokens,
            failed: checks.failed,
            taken_over: checks.taken_over,
            head_verified: checks.head_verified,
            head_taken_over: checks.head_taken_over,
            local_only: checks.local_only,
            kept: self.kept,
            kills,
            silences,
            stops,
            slowings,
            cuts,
            mishaps: self.net.mishaps_seen,
            fetched: self.net.fetched,
            losses_survived: survived,
            losses_verifying: verifying,
            median_detect_s,
            longest_detect_s,
            pauses: checks.pauses_us.len() as u64,
            median_pause_s,
            longest_pause_s,
            passes_saved: checks.passes_saved,
            bytes: self.net.bytes,
            memory_bytes_max: self.net.memory_bytes_max,
            broken: checks.broken(),
            trace: trace.finalize().to_hex().to_string(),
        }
    }
}
