//! The head of a chain: what a node does around the shipped decisions, without its sockets.

use super::above::Above;
use super::below::Below;
use super::checks::{Bug, Checks};
use super::net::{AGAIN_US, HEAD, Input, Net, Node, Purpose, id, node_of};
use super::scenario::Scenario;
use crate::queue::Micros;
use littoral_infer::engine::{Engine, Event, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::split::head::{Head, Link};
use littoral_infer::split::membership::{Bounds, Decision, Membership, Settings};
use littoral_infer::split::place::HeadLayers;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::{Activations, Get, Layers};
use littoral_wire::{List, Pipeline, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

pub(super) const LOG_BYTES: usize = 1 << 20;
pub(super) const MODEL: [u8; 32] = [7; 32];
/// Detection of a machine that died, stands still or says nothing.
const DETECT_MAX_US: u64 = 1_000_000;
/// A head that sleeps by mistake sleeps so long.
const SLEEP_US: u64 = 45_000_000;
/// The head looks after its machines so often.
const TICK_US: u64 = 20_000;

/// What its engine does for other machines, where there are three tiers.
struct Tiers {
    above: Above,
    below: Below,
}

pub(super) struct HeadHost {
    head: Head,
    membership: Membership,
    tiers: Option<Tiers>,
    /// Requests that have no place yet, and whether they are for the machine above.
    line: VecDeque<(Request, bool)>,
    /// Of each stage: the connection in use, and those whose offer has not come.
    links: BTreeMap<Node, u64>,
    conns: BTreeMap<u64, Node>,
    asked: BTreeMap<SequenceId, u64>,
    failed: Vec<Event>,
    pub survived: u64,
    /// Losses of a running chain with a pass of an edge's session on its way.
    pub survived_verifying: u64,
}

fn room(layers: u32) -> usize {
    if layers == 0 { usize::MAX } else { layers as usize }
}

impl HeadHost {
    /// `first`: the number of the first session, where there is a machine above.
    pub fn new(scenario: &Scenario, bug: Option<Bug>, first: u64, file: &[u8], pool: &Pool) -> Self {
        let bounds = Bounds::default();
        // Beats are one way to notice, and their absence is the other.
        let late_us = if bug == Some(Bug::NoticesLate) { 3_000_000 } else { 0 };
        let ends = Model::load_ends(file, pool, &mut |_| ()).expect("a model that was made here");
        let engine = Engine::new(Arc::new(ends), CacheType::F16, scenario.limits()).expect("f16 fits any model");
        let tiers = scenario
            .above()
            .map(|above| Tiers { above: Above::new(&engine, first, above), below: Below::new(&engine) });
        let membership = Membership::new(Settings {
            machines: (1..=scenario.stages as usize).map(id).collect(),
            head_layers: HeadLayers::Just(0),
            head_room: room(scenario.head_room),
            bounds: Bounds { silent_us: bounds.silent_us.max(late_us), ..bounds },
        });
        Self {
            head: Head::new(engine, MODEL, CacheType::F16, Activations::F32, LOG_BYTES),
            membership,
            tiers,
            line: VecDeque::new(),
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            asked: BTreeMap::new(),
            failed: Vec::new(),
            survived: 0,
            survived_verifying: 0,
        }
    }

    /// Is there a machine above that can be asked?
    pub fn linked(&self) -> bool {
        self.tiers.as_ref().is_some_and(|tiers| tiers.above.linked())
    }

    /// `above`: the machine above is to answer it.
    pub fn submit(&mut self, request: Request, above: bool, net: &mut Net) {
        self.line.push_back((request, above));
        self.admit(net);
    }

    /// Who asked first has the next place in the engine. Beside machines that draft there may be none.
    fn admit(&mut self, net: &mut Net) {
        let engine = self.head.engine_mut();
        while engine.waiting_room() > 0
            && (self.tiers.is_none() || self.asked.len() < engine.limits().running_max)
            && let Some((request, up)) = self.line.pop_front()
        {
            let seed = request.sampling.seed;
            let submitted = match &mut self.tiers {
                Some(Tiers { above, .. }) if up => above.submit(engine, request, net.now()),
                _ => engine.submit(request),
            };
            if let Ok(sequence) = submitted {
                self.asked.insert(sequence, seed);
            }
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
        self.hear_all(net);
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
                Decision::Place(chain) => {
                    now = self.place(chain, now, net);
                    // While layers were loaded here nobody was heard; a slow head would call all of them silent.
                    if self.tiers.is_some() {
                        break;
                    }
                }
                Decision::Hold(hold) => self.head.engine_mut().hold(hold),
                Decision::Fail(why) => self.failed.extend(self.head.fail_requests(&why)),
            }
        }
        for survived in self.membership.survived() {
            net.note(HEAD, "survived", survived.detect_us);
            self.survived += 1;
            net.detect_us.push(survived.detect_us);
            if survived.detect_us >= DETECT_MAX_US && !net.stood(HEAD, survived.at_us - survived.detect_us) {
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
        self.tell(now, now - begun, net);
        net.busy(HEAD, now);
        net.plan(HEAD, if busy || !net.waits(HEAD) { now } else { now + TICK_US });
    }

    /// Hears what came as a node does, in which links for drafts are not those of the chain: first machines below, whose sessions are
    /// arranged then, then the one above, and then the chain.
    fn hear_all(&mut self, net: &mut Net) {
        let now = net.now();
        let mut inputs = Vec::new();
        while let Some(input) = net.input(HEAD) {
            inputs.push(input);
        }
        let Some(Tiers { above, below }) = &mut self.tiers else {
            return inputs.into_iter().for_each(|input| self.hear(input, net));
        };
        let engine = self.head.engine_mut();
        let (drafts, of_chain): (Vec<Input>, Vec<Input>) = inputs.into_iter().partition(|input| match input {
            Input::Up { purpose, .. } | Input::NotReached { purpose, .. } => *purpose == Purpose::Drafts,
            Input::Heard { conn, .. } | Input::Ended { conn } => !self.conns.contains_key(conn),
            _ => false,
        });
        let (mut from_above, mut known) = (Vec::new(), None);
        for input in drafts {
            let is_above = match &input {
                Input::Up { conn, peer, .. } if *peer == above.to() => {
                    known = Some(*conn);
                    true
                }
                Input::NotReached { .. } => true,
                Input::Heard { conn, .. } | Input::Ended { conn } => above.has(*conn) || known == Some(*conn),
                _ => false,
            };
            match is_above {
                true => from_above.push(input),
                false => below.hear(HEAD, input, engine, net),
            }
        }
        self.admit(net);
        let Some(Tiers { above, below }) = &mut self.tiers else { return };
        let engine = self.head.engine_mut();
        below.before(engine, now, net.bug);
        from_above.into_iter().for_each(|input| above.hear(HEAD, input, engine, net));
        above.look_for_silence(HEAD, net);
        above.before(engine, now);
        of_chain.into_iter().for_each(|input| self.hear(input, net));
    }

    /// What clients and machines below hear after a step that took so long.
    fn tell(&mut self, now: Micros, took: u64, net: &mut Net) {
        let mut events = std::mem::take(&mut self.failed);
        events.extend(self.head.events());
        if let (Some(Bug::TellsDrafts), Some(Tiers { above, .. })) = (net.bug, &self.tiers) {
            for event in &events {
                if let Event::Token { sequence, .. } = event
                    && let (Some(seed), Some(far)) = (self.asked.get(sequence), above.far(*sequence))
                {
                    say(net, HEAD, *seed, event, Some(far), now);
                }
            }
        }
        if let Some(Tiers { above, below }) = &mut self.tiers {
            // Several passes are on their way at a time.
            let took = self.head.pace().last_us().unwrap_or(took);
            events = above.after(HEAD, self.head.engine_mut(), events, now, net);
            below.after(HEAD, &events, took, now, net);
        }
        for event in events {
            let (Event::Token { sequence, .. } | Event::Finished { sequence, .. }) = &event else { continue };
            let Some(seed) = self.asked.get(sequence).copied() else { continue };
            let far = self.tiers.as_ref().and_then(|tiers| tiers.above.far(*sequence));
            say(net, HEAD, seed, &event, far, now);
            if let Event::Finished { sequence, .. } = event {
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
                        self.lose(stage, now, net.bug);
                    }
                    net.dial(HEAD, stage, Purpose::Head, now + AGAIN_US);
                }
            }
            Input::Lives { stage, epoch, done } => self.membership.beat(&self.head, id(stage), epoch, done, now),
            Input::Lost { stage } => self.down(stage, now, net),
            Input::Ask | Input::Fetched { .. } => {}
        }
    }

    /// False if it was not up.
    fn lose(&mut self, stage: Node, now: Micros, bug: Option<Bug>) -> bool {
        let engine = self.head.engine();
        let sessions = self.tiers.as_ref().map(|tiers| tiers.below.sequences(engine)).unwrap_or_default();
        let away = !self.head.broken() && sessions.iter().any(|sequence| engine.is_away(*sequence));
        let was_up = self.membership.down(&mut self.head, id(stage), now);
        self.survived_verifying += u64::from(away && self.head.broken());
        if bug == Some(Bug::DropsSessions) && was_up {
            sessions.into_iter().for_each(|sequence| self.head.engine_mut().cancel(sequence));
        }
        was_up
    }

    fn down(&mut self, stage: Node, now: Micros, net: &mut Net) {
        if self.lose(stage, now, net.bug) {
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
        if let Some(Tiers { above, below }) = &self.tiers
            && (below.unended() > 0 || !above.idle() || !self.line.is_empty())
        {
            let (sessions, line) = (below.unended(), self.line.len());
            checks.add(|| {
                format!("the head has {sessions} sessions, drafts: {}, and {line} in line at the end", !above.idle())
            });
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
