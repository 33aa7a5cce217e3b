//! What happens when: requests, faults, beats, and what came of it all.

use super::below::SILENT_US;
use super::chain::HeadHost;
use super::checks::{self, Bug, Checks, Tier};
use super::drafts::{EdgeHost, VerifierHost};
use super::net::{Conn, Files, HEAD, Happening, Input, Net, Node, Process, Purpose};
use super::report::{Outcome, middle_and_most};
use super::routed::Saying;
use super::scenario::Scenario;
use super::stage::StageHost;
use super::tiny;
use crate::queue::{Micros, Queue};
use crate::stream::{Stream, derive};
use littoral_infer::model::Model;
use littoral_node::split::beats::{EVERY, SILENT};
use littoral_tensor::pool::Pool;
use littoral_wire::{Pipeline, Wire};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The thread of a head that asks a stage for beats.
#[derive(Default)]
struct Watcher {
    conn: Option<u64>,
    answered: bool,
    count: u64,
    begun: Micros,
    waiting: bool,
}

const WATCH_AGAIN_US: u64 = 200_000;
const KINDS: [&str; 5] = ["kill", "silent", "stop", "slow", "cut"];

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

/// The number of the first session of an edge, or, behind them, the head; of no earlier process.
fn first_session(scenario: &Scenario, edge: usize, life: u32) -> u64 {
    Stream::new(scenario.seed, "sessions").below(1 << 40) + ((edge as u64) << 41) + (u64::from(life) << 48)
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
