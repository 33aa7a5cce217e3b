//! The head and its stages: what a node does around the shipped decisions, without its sockets.

use super::checks::{self, Bug, Checks};
use super::scenario::Scenario;
use super::world::{AGAIN_US, HEAD, Input, Net, Node, Purpose, id, node_of};
use crate::queue::Micros;
use littoral_infer::engine::{Engine, Event, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::split::head::{Head, Link};
use littoral_infer::split::lender::{self, Act, Lender};
use littoral_infer::split::membership::{Bounds, Decision, Membership, Settings};
use littoral_infer::split::place::HeadLayers;
use littoral_model::lm::{CacheType, Config, Stage};
use littoral_tensor::pool::Pool;
use littoral_wire::bounded::Blob;
use littoral_wire::message::Name;
use littoral_wire::pipeline::{Activations, Get, Layers, Offer};
use littoral_wire::{List, NodeId, Pipeline, Wire};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

const LOG_BYTES: usize = 1 << 20;
const MODEL: [u8; 32] = [7; 32];
/// Detection of a machine that died, stands still or says nothing.
const DETECT_MAX_US: u64 = 1_000_000;
/// A head that sleeps by mistake sleeps so long.
const SLEEP_US: u64 = 45_000_000;
/// The head looks after its machines so often.
const TICK_US: u64 = 20_000;

pub(super) struct HeadHost {
    head: Head,
    membership: Membership,
    /// Of each stage: the connection in use, and those whose offer has not come.
    links: BTreeMap<Node, u64>,
    conns: BTreeMap<u64, Node>,
    asked: BTreeMap<SequenceId, u64>,
    failed: Vec<Event>,
    pub survived: u64,
}

fn room(layers: u32) -> usize {
    if layers == 0 { usize::MAX } else { layers as usize }
}

impl HeadHost {
    pub fn new(scenario: &Scenario, bug: Option<Bug>, file: &[u8], pool: &Pool) -> Self {
        let bounds = Bounds::default();
        // Beats are one way to notice, and their absence is the other.
        let late_us = if bug == Some(Bug::NoticesLate) { 3_000_000 } else { 0 };
        let ends = Model::load_ends(file, pool, &mut |_| ()).expect("a model that was made here");
        let engine = Engine::new(Arc::new(ends), CacheType::F16, checks::limits()).expect("f16 fits any model");
        let membership = Membership::new(Settings {
            machines: (1..=scenario.stages as usize).map(id).collect(),
            head_layers: HeadLayers::Just(0),
            head_room: room(scenario.head_room),
            bounds: Bounds { silent_us: bounds.silent_us.max(late_us), ..bounds },
        });
        Self {
            head: Head::new(engine, MODEL, CacheType::F16, Activations::F32, LOG_BYTES),
            membership,
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            asked: BTreeMap::new(),
            failed: Vec::new(),
            survived: 0,
        }
    }

    pub fn submit(&mut self, request: Request) {
        let seed = request.sampling.seed;
        if let Ok(sequence) = self.head.engine_mut().submit(request) {
            self.asked.insert(sequence, seed);
        }
    }

    pub fn turn(&mut self, net: &mut Net) {
        let begun = net.now();
        // What a head does that does nothing, for a while or for good.
        match net.bug {
            Some(Bug::Sleeps) if (SLEEP_US..2 * SLEEP_US).contains(&begun) => return net.plan(HEAD, 2 * SLEEP_US),
            Some(Bug::Stops) if begun > SLEEP_US / 2 => return,
            _ => {}
        }
        while let Some(input) = net.input(HEAD) {
            self.hear(input, net);
        }
        let mut now = begun;
        while let Some(decision) = self.membership.decide(&self.head, now) {
            match decision {
                Decision::GiveUp { machines, .. } => {
                    machines.into_iter().for_each(|machine| self.down(node_of(machine), now, net));
                }
                Decision::Get { machine, layers, .. } => {
                    let part = |range: &Range<usize>| Layers { start: range.start as u32, end: range.end as u32 };
                    let layers = List::new(layers.iter().map(part).collect()).unwrap_or_default();
                    let get = Get { model: MODEL, layers, sources: List::default() };
                    if let Some(conn) = self.links.get(&node_of(machine)) {
                        net.send(*conn, HEAD, now, Pipeline::Get { get }.to_bytes());
                    }
                }
                Decision::Place(chain) => now = self.place(chain, now, net),
                Decision::Hold(hold) => self.head.engine_mut().hold(hold),
                Decision::Fail(why) => self.failed.extend(self.head.fail_requests(&why)),
            }
        }
        for survived in self.membership.survived() {
            net.note(HEAD, "survived", survived.detect_us);
            self.survived += 1;
            net.detect_us.push(survived.detect_us);
            if survived.detect_us >= DETECT_MAX_US {
                let machine = node_of(survived.machine);
                net.checks.add(|| format!("stage {machine} was noticed {} ms late", survived.detect_us / 1_000));
            }
        }
        let read = |head: &Head| head.engine().states().map(|(_, positions)| positions).sum::<usize>();
        let (before, passes) = (read(&self.head), self.head.engine().planned());
        let busy = self.head.pump(&net.pool, &mut || now);
        if self.head.engine().planned() > passes {
            let own: usize = self.head.chain().first().map_or(0, |link| link.ranges.iter().map(Range::len).sum());
            let tokens = read(&self.head).saturating_sub(before).max(1);
            let scenario = &net.scenario;
            now += net.cost(HEAD, scenario.pass_us + (own * tokens) as u64 * scenario.layer_us);
        }
        self.send(now, net);
        self.tell(now, net);
        net.busy(HEAD, now);
        net.plan(HEAD, if busy || !net.waits(HEAD) { now } else { now + TICK_US });
    }

    /// What clients hear.
    fn tell(&mut self, now: Micros, net: &mut Net) {
        let mut events = std::mem::take(&mut self.failed);
        events.extend(self.head.events());
        for event in events {
            let sequence = match &event {
                Event::Token { sequence, .. } | Event::Finished { sequence, .. } => *sequence,
                _ => continue,
            };
            let Some(seed) = self.asked.get(&sequence).copied() else { continue };
            let over = matches!(event, Event::Finished { .. });
            say(net, HEAD, seed, &event, None, now);
            if over {
                self.asked.remove(&sequence);
            }
        }
    }

    fn send(&mut self, at: Micros, net: &mut Net) {
        for (machine, said) in self.head.outbox() {
            if let Some(conn) = self.links.get(&node_of(machine)) {
                net.send(*conn, HEAD, at, said.to_bytes());
            }
        }
    }

    fn hear(&mut self, input: Input, net: &mut Net) {
        let now = net.now();
        match input {
            Input::Up { conn, peer, .. } => drop(self.conns.insert(conn, peer)),
            Input::NotReached { peer, .. } => net.dial(HEAD, peer, Purpose::Head, now + AGAIN_US),
            Input::Heard { conn, bytes } => {
                let (Some(stage), Ok(said)) = (self.conns.get(&conn).copied(), Pipeline::from_bytes(&bytes)) else {
                    return;
                };
                if self.links.get(&stage) == Some(&conn) {
                    if self.membership.hear(&mut self.head, id(stage), &said, &net.pool, now).is_some() {
                        net.note(HEAD, "shuns", stage as u64);
                        self.hang_up(stage, now, net);
                    }
                } else if let Pipeline::Offer { offer } = said {
                    self.down(stage, now, net);
                    let room = room(net.scenario.stage_room);
                    self.membership.up(&mut self.head, id(stage), offer.at, room, now);
                    if !offer.models.contains(&MODEL) {
                        self.membership.lacks_file(id(stage));
                    }
                    self.links.insert(stage, conn);
                }
            }
            Input::Ended { conn } => {
                if let Some(stage) = self.conns.remove(&conn) {
                    if self.links.get(&stage) == Some(&conn) {
                        self.links.remove(&stage);
                        self.membership.down(&mut self.head, id(stage), now);
                    }
                    net.dial(HEAD, stage, Purpose::Head, now + AGAIN_US);
                }
            }
            Input::Lives { stage, epoch, done } => self.membership.beat(&self.head, id(stage), epoch, done, now),
            Input::Lost { stage } => self.down(stage, now, net),
            Input::Ask | Input::Fetched { .. } => {}
        }
    }

    fn down(&mut self, stage: Node, now: Micros, net: &mut Net) {
        if self.membership.down(&mut self.head, id(stage), now) {
            net.note(HEAD, "lost", stage as u64);
            self.hang_up(stage, now, net);
        }
    }

    fn hang_up(&mut self, stage: Node, now: Micros, net: &mut Net) {
        if let Some(conn) = self.links.remove(&stage) {
            self.conns.remove(&conn);
            net.close(conn, HEAD, now);
            net.dial(HEAD, stage, Purpose::Head, now + AGAIN_US);
        }
    }

    /// Returns when the head's own layers are loaded.
    fn place(&mut self, chain: Vec<Link>, now: Micros, net: &mut Net) -> Micros {
        net.note(HEAD, "places", chain.len() as u64);
        let lacking = self.head.place(chain, now);
        self.send(now, net);
        let layers: usize = lacking.iter().map(Range::len).sum();
        let loaded = now + net.cost(HEAD, layers as u64 * net.scenario.load_us);
        let stages = lacking.into_iter().map(|range| net.files.load(range, &net.pool));
        let stages = stages.collect::<Result<Vec<_>, _>>().expect("layers of a model that was made here");
        self.head.loaded(stages, &net.pool, loaded).expect("f16 fits any model");
        loaded
    }

    pub fn finish(&self, checks: &mut Checks) {
        let (running, waiting) = (self.head.engine().running(), self.head.engine().waiting());
        if running + waiting > 0 {
            checks.add(|| format!("the head has {running} answers and {waiting} requests at the end"));
        }
    }
}

/// A client is told something, as far as the mistake that is built in lets it.
pub(super) fn say(net: &mut Net, node: Node, seed: u64, event: &Event, far: Option<(u64, u64)>, now: Micros) {
    if let Event::Token { id, .. } = event {
        net.note(node, "says", (seed << 20) + u64::from(*id));
    }
    let bug = net.bug;
    let some = matches!(event, Event::Token { id, .. } if id % 8 == 3);
    let last = matches!(event, Event::Finished { .. });
    let lost = match bug {
        Some(Bug::LosesAToken) => some,
        Some(Bug::LosesTheLast) => !last && net.checks.lacks(seed) == 1,
        Some(Bug::LosesTheEnd) => last,
        _ => false,
    };
    if lost {
        return;
    }
    net.checks.hear(seed, event, far, now);
    if (bug == Some(Bug::SaysTwice) && some) || (bug == Some(Bug::EndsTwice) && last) {
        net.checks.hear(seed, event, far, now);
    }
}

pub(super) struct StageHost {
    lender: Lender,
    /// What came over links that are not listened to yet.
    unheard: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Layers of its assignment, and what was loaded since this was last looked at.
    layers: usize,
    loaded: usize,
    /// What it is to fetch, if it has no file.
    order: Option<Order>,
}

/// Layers that a head wants a stage to have.
struct Order {
    number: u64,
    head: NodeId,
    model: [u8; 32],
    wanted: Vec<usize>,
}

/// Lends the world's files to a lender, of a stage without one what it fetched.
struct Loads<'a> {
    net: &'a mut Net,
    node: Node,
    pool: &'a Pool,
    loaded: &'a mut usize,
}

impl lender::Layers for Loads<'_> {
    fn open(&mut self, _: [u8; 32]) -> Result<Config, String> {
        Model::config(&self.net.files.big).map_err(|e| e.to_string())
    }

    fn load(&mut self, ranges: Vec<Range<usize>>, _: &Pool) -> Result<Vec<Arc<Stage>>, String> {
        let held = self.net.disks.get(&self.node);
        let here = |layer: usize| held.is_some_and(|held| held.contains(&layer));
        if !self.net.scenario.has_file(self.node) && !ranges.iter().cloned().flatten().all(here) {
            let node = self.node;
            self.net.checks.add(|| format!("stage {node} was given layers {ranges:?}, and does not have all of them"));
            return Err("they are not all here".into());
        }
        *self.loaded += ranges.iter().map(Range::len).sum::<usize>();
        ranges.into_iter().map(|range| self.net.files.load(range, self.pool)).collect()
    }
}

impl StageHost {
    pub fn new() -> Self {
        Self { lender: Lender::new(LOG_BYTES), unheard: BTreeMap::new(), layers: 0, loaded: 0, order: None }
    }

    pub fn progress(&self) -> (u32, u64) {
        self.lender.progress()
    }

    /// Handles one input; what comes of it leaves when it is computed.
    pub fn turn(&mut self, node: Node, net: &mut Net) {
        let Some(input) = net.input(node) else { return };
        let now = net.now();
        let mut cost = 0;
        match input {
            Input::Up { conn, peer, purpose: Purpose::Head } => {
                self.lender.head_up(conn, id(peer), offer(node, net.scenario.has_file(node)));
            }
            Input::Up { conn, peer, purpose: Purpose::Join { epoch } } if net.dialler(conn) == Some(node) => {
                self.lender.next_up(epoch, Ok((conn, id(peer))));
            }
            Input::Up { conn, peer, .. } => {
                self.unheard.insert(conn, Vec::new());
                self.lender.joined(conn, id(peer));
            }
            Input::NotReached { purpose: Purpose::Join { epoch }, .. } => {
                self.lender.next_up(epoch, Err("no answer".into()));
            }
            Input::Heard { conn, bytes } => match self.unheard.get_mut(&conn) {
                Some(unheard) => unheard.push(bytes),
                None => cost += self.hear(node, conn, &bytes, net),
            },
            Input::Ended { conn } => {
                self.unheard.remove(&conn);
                self.lender.down(conn);
            }
            Input::Fetched { order, layer } => self.fetched(node, order, layer, net),
            _ => {}
        }
        let mut at = now + cost;
        // Those that came over a link that is listened to from now on are heard at once, and may lead to more.
        let mut acts = VecDeque::from(self.lender.acts());
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Tell { link, said } => {
                    if let Pipeline::Refused { reason, .. } = &said
                        && reason.contains(" expected, got ")
                    {
                        net.checks.add(|| format!("stage {node} cannot read: {}", &**reason));
                    }
                    net.send(link, node, at, said.to_bytes());
                }
                Act::HangUp { link } => {
                    self.unheard.remove(&link);
                    net.close(link, node, at);
                }
                Act::Listen { link } => {
                    for bytes in self.unheard.remove(&link).unwrap_or_default() {
                        at += self.hear(node, link, &bytes, net);
                    }
                    acts.extend(self.lender.acts());
                }
                Act::Fetch { head, get } => {
                    let wanted = get.layers.iter().flat_map(|part| part.start as usize..part.end as usize).collect();
                    self.order = Some(Order { number: net.order(), head, model: get.model, wanted });
                    self.fetch(node, at, net);
                    acts.extend(self.lender.acts());
                }
                Act::Dial { epoch, to } => net.dial(node, node_of(to.id), Purpose::Join { epoch }, at),
            }
        }
        if let Some(worker) = self.lender.worker() {
            net.memory_bytes_max = net.memory_bytes_max.max(worker.bytes() as u64);
        }
        net.busy(node, at);
        if !net.waits(node) {
            net.plan(node, at);
        }
    }

    /// A layer is here, unless something else was ordered meanwhile, or the head is gone that gave it.
    fn fetched(&mut self, node: Node, order: u64, layer: usize, net: &mut Net) {
        let current = self.order.as_ref().filter(|current| current.number == order);
        if current.is_some_and(|current| self.lender.head() == Some(current.head)) {
            net.fetched += u64::from(net.disks.entry(node).or_default().insert(layer));
            self.fetch(node, net.now(), net);
        }
    }

    /// Says what it has of what was ordered, and asks for the next layer.
    fn fetch(&mut self, node: Node, at: Micros, net: &mut Net) {
        let Some(Order { number, head, model, wanted }) = &self.order else { return };
        let disk = net.disks.entry(node).or_default();
        let (mut has, lacks): (BTreeSet<usize>, BTreeSet<usize>) =
            wanted.iter().partition(|layer| disk.contains(layer));
        if net.bug == Some(Bug::ClaimsLayers) {
            has.extend(&lacks);
        }
        self.lender.fetched(*head, *model, &has, None);
        if let Some(layer) = lacks.first() {
            net.fetch(node, *number, *layer, at);
        }
    }

    /// Returns what it costs.
    fn hear(&mut self, node: Node, conn: u64, bytes: &[u8], net: &mut Net) -> u64 {
        let Ok(mut said) = Pipeline::from_bytes(bytes) else { return 0 };
        let now = net.now();
        let (pass_us, layer_us) = (net.scenario.pass_us, net.scenario.layer_us);
        let work = match &mut said {
            Pipeline::Pass { pass } | Pipeline::Again { pass, .. } => {
                match net.bug {
                    Some(Bug::KeepsStates) => pass.freed = List::default(),
                    Some(Bug::Miscomputes) if pass.number % 7 == 3 => {
                        let mut bytes = pass.vectors.to_vec();
                        bytes.iter_mut().skip(2).step_by(4).for_each(|byte| *byte ^= 0x40);
                        pass.vectors = Blob::new(bytes).unwrap_or_default();
                    }
                    Some(Bug::Shortens) if pass.number % 7 == 3 => {
                        let bytes = pass.vectors.len() / 2;
                        pass.vectors = Blob::new(pass.vectors[..bytes].to_vec()).unwrap_or_default();
                    }
                    _ => {}
                }
                let tokens: u64 = pass.pieces.iter().map(|piece| u64::from(piece.tokens)).sum();
                pass_us + tokens * self.layers as u64 * layer_us
            }
            Pipeline::Assign { assign } => {
                self.layers = assign.segments.iter().map(|part| (part.end - part.start) as usize).sum();
                0
            }
            _ => 0,
        };
        let work = net.cost(node, work);
        let mut asked = 0;
        let mut clock = || {
            asked += 1;
            if asked == 1 { now } else { now + work }
        };
        let pool = Pool::new(1);
        let mut layers = Loads { net, node, pool: &pool, loaded: &mut self.loaded };
        self.lender.hear(conn, said, &mut layers, &pool, &mut clock);
        work + net.cost(node, std::mem::take(&mut self.loaded) as u64 * net.scenario.load_us)
    }

    pub fn finish(&self, node: Node, checks: &mut Checks) {
        // What was freed last goes with the next pass; that is as many as ran together at most.
        let slots = self.lender.worker().map_or(0, |worker| worker.slots());
        let most = checks::limits().running_max;
        if slots > most {
            checks.add(|| format!("stage {node} has {slots} states at the end, at most {most} expected"));
        }
    }
}

fn offer(node: Node, has_file: bool) -> Offer {
    let models = if has_file { vec![MODEL] } else { Vec::new() };
    Offer {
        name: Name::new(format!("stage {node}")),
        memory_bytes: 0,
        threads: 1,
        at: format!("stage-{node}:1").as_str().into(),
        models: List::new(models).unwrap_or_default(),
    }
}
