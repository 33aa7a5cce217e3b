//! What all hosts may touch: processes, connections and the time, and what is on its way.

use super::checks::{Bug, Checks};
use super::scenario::{Faults, Scenario};
use crate::queue::{Micros, Queue};
use crate::stream::Stream;
use littoral_infer::model::Model;
use littoral_model::lm::Stage;
use littoral_node::transport::shaper::{self, Verdict};
use littoral_tensor::pool::Pool;
use littoral_wire::{NodeId, Speculation, Wire};
use rand_chacha::ChaCha8Rng;
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

pub(super) enum Happening {
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

pub(super) struct Conn {
    pub ends: [Node; 2],
    /// Which process of each machine.
    pub lives: [u32; 2],
    pub open: [bool; 2],
    pub lines: [shaper::Link; 2],
    pub purpose: Purpose,
}

#[derive(Default)]
pub(super) struct Process {
    pub up: bool,
    /// Processes that this machine had before, and when each was killed.
    pub killed: Vec<Micros>,
    pub stopped_until: Micros,
    pub silent_until: Micros,
    pub slow_until: Micros,
    pub busy_until: Micros,
    pub inbox: VecDeque<Input>,
    pub turn: Option<Micros>,
}

impl Process {
    pub fn life(&self) -> u32 {
        self.killed.len() as u32
    }
}

/// How long a greeting is waited for, and before somebody is dialled again; as the node does.
const GREETING_US: u64 = 5_000_000;
pub(super) const AGAIN_US: u64 = 250_000;
/// A message that is late comes up to so much later.
const LATE_US: u64 = 300_000;
/// A machine that is slow takes so many times as long.
const SLOW: u64 = 10;

/// The layers that machines load.
pub(super) struct Files {
    pub big: Vec<u8>,
    pub stages: BTreeMap<(usize, usize), Arc<Stage>>,
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
    pub orders: u64,
    pub detect_us: Vec<u64>,
    pub memory_bytes_max: u64,
    pub bytes: u64,
    pub now: Micros,
    pub queue: Queue<Happening>,
    pub processes: Vec<Process>,
    pub conns: BTreeMap<u64, Conn>,
    pub next_conn: u64,
    pub jitter: ChaCha8Rng,
    /// What happens to messages of drafts, and to how many it did.
    pub mishaps: Stream,
    pub mishaps_seen: u64,
    pub trace: blake3::Hasher,
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

    pub fn silent_until(&self, a: Node, b: Node) -> Micros {
        self.processes[a].silent_until.max(self.processes[b].silent_until)
    }

    /// Of what an earlier process dialled the next one hears nothing, but that a join came to nothing, which it does not know.
    pub fn dials(&self, (node, life): (Node, u32), purpose: Purpose) -> bool {
        life == self.processes[node].life() || !matches!(purpose, Purpose::Head | Purpose::Drafts)
    }

    pub fn dial_now(&mut self, from: Node, to: Node, purpose: Purpose) {
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
    pub fn connect(&mut self, from: (Node, u32), to: (Node, u32), purpose: Purpose) -> Option<u64> {
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

    pub fn give(&mut self, node: Node, input: Input) {
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

    pub fn kill(&mut self, node: Node) {
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

pub(super) fn id(node: Node) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(node as u64 + 1).to_le_bytes());
    NodeId(bytes)
}

pub(super) fn node_of(id: NodeId) -> Node {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.0[..8]);
    (u64::from_le_bytes(bytes) as usize).wrapping_sub(1)
}
