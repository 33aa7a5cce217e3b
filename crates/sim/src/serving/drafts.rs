//! Edges that draft and the verifier: what a node does around the shipped decisions, without its sockets.

use super::chain::say;
use super::checks::{self, Bug, Checks};
use super::routed::{Deciding, Saying};
use super::world::{AGAIN_US, Input, Net, Node, Purpose, id, node_of};
use crate::queue::Micros;
use littoral_infer::engine::{Engine, Event, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::Costs;
use littoral_infer::speculate::drafter::{Mode, Patience, Policy};
use littoral_infer::speculate::drafting::Drafting;
use littoral_infer::speculate::sessions::Sessions;
use littoral_model::lm::CacheType;
use littoral_wire::bounded::List;
use littoral_wire::{Speculation, Wire};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A session whose drafter has no link, or that has ended, is given up after so long; as the node does.
pub(super) const SILENT_US: u64 = 120_000_000;
/// A verifier that is gone for so long will not end the answers that it began; as the node does.
const GIVEN_UP_US: u64 = 5_000_000;
/// Sessions that wait for nothing but time are looked at so often.
const LOOK_US: u64 = 1_000_000;
/// After so long an edge that is deaf by mistake is.
const DEAF_US: u64 = 20_000_000;
const TICK_US: u64 = 20_000;

pub(super) struct EdgeHost {
    engine: Engine,
    drafting: Drafting,
    link: Option<u64>,
    down_since: Option<Micros>,
    learnt: Controller,
    deciding: Deciding,
    asked: BTreeMap<SequenceId, u64>,
}

impl EdgeHost {
    pub fn new(small: &Arc<Model>, first: u64) -> Self {
        let engine = Engine::new(small.clone(), CacheType::F16, checks::limits()).expect("f16 fits any model");
        Self {
            drafting: Drafting::new(&engine, first, Patience::default()),
            engine,
            link: None,
            down_since: None,
            learnt: Controller::new(Costs::GUESS),
            deciding: Deciding::new(),
            asked: BTreeMap::new(),
        }
    }

    fn idle(&self) -> bool {
        self.drafting.idle() && self.engine.idle()
    }

    pub fn linked(&self) -> bool {
        self.link.is_some()
    }

    /// What must stay here does; so does what is asked while the verifier is not there, and what the small model is good enough for.
    pub fn keeps(&mut self, saying: &Saying, bug: Option<Bug>) -> bool {
        self.deciding.stays(saying, self.link.is_some(), bug)
    }

    /// What does not stay here is drafted in one of five ways.
    pub fn submit(&mut self, node: Node, request: Request, here: bool, net: &mut Net) {
        let seed = request.sampling.seed;
        let policy = || match seed % 5 {
            0 => Policy::Fixed(Mode::Rounds { tokens: 4 }),
            1 => Policy::Fixed(Mode::Ahead { block: 3, ahead: 20 }),
            2 => Policy::Fixed(Mode::Stream),
            3 => Policy::Fixed(Mode::Along { block: 2, ahead: 20 }),
            _ => Policy::Learning(Box::new(self.learnt.next_answer())),
        };
        let submitted = match here {
            true => self.engine.submit(request),
            false => self.drafting.submit(&mut self.engine, request, policy(), net.now()),
        };
        if let Ok(sequence) = submitted {
            self.asked.insert(sequence, seed);
        }
        self.send(node, net.now(), net);
    }

    pub fn turn(&mut self, node: Node, net: &mut Net) {
        let mut now = net.now();
        if net.bug == Some(Bug::Deafens) && now > DEAF_US {
            return;
        }
        while let Some(input) = net.input(node) {
            self.hear(node, input, net);
        }
        let passes = self.engine.planned();
        let took = net.cost(node, net.scenario.pass_us + net.scenario.layer_us);
        self.drafting.before(&mut self.engine, now);
        let events = self.engine.step(&net.pool);
        let busy = self.engine.planned() > passes;
        if busy {
            now += took;
        }
        let mut events = self.drafting.after(&mut self.engine, events, now);
        self.drafting.tick(&mut self.engine, now);
        if self.down_since.is_some_and(|since| now.saturating_sub(since) > GIVEN_UP_US) {
            self.down_since = None;
            self.drafting.lost(&mut self.engine, 0);
        }
        self.send(node, now, net);
        events.extend(self.drafting.events());
        for event in events {
            let (Event::Token { sequence, .. } | Event::Finished { sequence, .. }) = &event else { continue };
            let Some(seed) = self.asked.get(sequence).copied() else { continue };
            let (sequence, over) = (*sequence, matches!(event, Event::Finished { .. }));
            let far = self.drafting.far(sequence).map(|far| (far.tokens, far.passes));
            say(net, node, seed, &event, far, now);
            let leaves = net.bug == Some(Bug::KeepsSessions) && far.is_some_and(|(tokens, _)| tokens > 3);
            if leaves {
                self.drafting.cancel(&mut self.engine, sequence);
            }
            if over || leaves {
                self.asked.remove(&sequence);
            }
        }
        net.busy(node, now);
        if busy || !net.waits(node) {
            net.plan(node, now);
        } else if !self.idle() {
            net.plan(node, now + TICK_US);
        }
    }

    fn hear(&mut self, node: Node, input: Input, net: &mut Net) {
        let now = net.now();
        match input {
            Input::Up { conn, .. } => {
                (self.link, self.down_since) = (Some(conn), None);
                self.drafting.reconnected(&mut self.engine, now);
            }
            Input::NotReached { peer, purpose } => net.dial(node, peer, purpose, now + AGAIN_US),
            Input::Heard { conn, bytes } if self.link == Some(conn) => {
                let Ok(said) = Speculation::from_bytes(&bytes) else { return };
                if let Speculation::Commit { session, .. } = &said
                    && let Some(learnt) = self.drafting.learnt(*session)
                {
                    self.learnt = learnt.clone();
                }
                self.drafting.hear(&mut self.engine, said, now);
            }
            Input::Ended { conn } if self.link == Some(conn) => {
                (self.link, self.down_since) = (None, Some(now));
                net.dial(node, 1 + net.scenario.stages as usize, Purpose::Drafts, now + AGAIN_US);
            }
            _ => {}
        }
    }

    fn send(&mut self, node: Node, at: Micros, net: &mut Net) {
        let Some(conn) = self.link else { return drop(self.drafting.outbox()) };
        for mut said in self.drafting.outbox() {
            if let (Some(Bug::ClaimsMore), Speculation::Round { commit, .. }) = (net.bug, &mut said) {
                *commit += 3;
            }
            net.send(conn, node, at, said.to_bytes());
        }
    }

    pub fn finish(&self, node: Node, checks: &mut Checks) {
        let running = self.engine.running();
        if running > 0 || !self.idle() {
            checks.add(|| format!("edge {node} has {running} answers at the end"));
        }
    }
}

pub(super) struct VerifierHost {
    engine: Engine,
    sessions: Sessions,
    links: BTreeMap<Node, u64>,
    of: BTreeMap<u64, Node>,
}

impl VerifierHost {
    pub fn new(model: &Arc<Model>) -> Self {
        let engine = Engine::new(model.clone(), CacheType::F16, checks::limits()).expect("f16 fits any model");
        Self { sessions: Sessions::new(&engine), engine, links: BTreeMap::new(), of: BTreeMap::new() }
    }

    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    pub fn turn(&mut self, node: Node, net: &mut Net) {
        let begun = net.now();
        while let Some(input) = net.input(node) {
            match input {
                Input::Up { conn, peer, .. } => {
                    self.links.insert(peer, conn);
                    self.of.insert(conn, peer);
                }
                Input::Heard { conn, bytes } => {
                    let (Some(edge), Ok(said)) = (self.of.get(&conn).copied(), Speculation::from_bytes(&bytes)) else {
                        continue;
                    };
                    if net.bug == Some(Bug::KeepsSessions) && matches!(said, Speculation::Close { .. }) {
                        continue;
                    }
                    for told in self.sessions.hear(&mut self.engine, id(edge), said, begun) {
                        self.tell(node, edge, told, begun, net);
                    }
                }
                Input::Ended { conn } => {
                    if let Some(edge) = self.of.remove(&conn)
                        && self.links.get(&edge) == Some(&conn)
                    {
                        self.links.remove(&edge);
                    }
                }
                _ => {}
            }
        }
        self.links.keys().for_each(|edge| self.sessions.linked(id(*edge), begun));
        if net.bug != Some(Bug::KeepsSessions) {
            self.sessions.expire(&mut self.engine, begun.saturating_sub(SILENT_US));
        }
        self.sessions.before(&mut self.engine, begun);
        let passes = self.engine.planned();
        let events = self.engine.step(&net.pool);
        let ran = self.engine.planned() > passes;
        // What was tried costs as what was written.
        let tried = |event: &Event| match event {
            Event::Token { .. } => 1,
            Event::Tried { proposed, accepted, .. } => (proposed - accepted) as u64,
            _ => 0,
        };
        let tokens: u64 = events.iter().map(tried).sum();
        let scenario = &net.scenario;
        let work = scenario.pass_us + tokens.max(1) * u64::from(scenario.layers) * scenario.layer_us;
        let took = if ran { net.cost(node, work) } else { 0 };
        for (edge, told) in self.sessions.after(&events, took) {
            self.tell(node, node_of(edge), told, begun + took, net);
        }
        net.busy(node, begun + took);
        if ran || !net.waits(node) {
            net.plan(node, begun + took);
        } else if self.sessions.unended() > 0 {
            net.plan(node, begun + LOOK_US);
        }
    }

    fn tell(&self, node: Node, edge: Node, mut told: Speculation, at: Micros, net: &mut Net) {
        if let Speculation::Commit { start, tokens, .. } = &mut told
            && *start > 4
        {
            let mut changed = tokens.to_vec();
            match net.bug {
                Some(Bug::CommitsAnother) => changed.iter_mut().for_each(|token| token.id ^= 1),
                // Once more what was committed last, as something else.
                Some(Bug::TakesBack) if *start % 5 == 0 => {
                    *start -= 1;
                    changed.iter_mut().for_each(|token| token.id ^= 1);
                }
                _ => {}
            }
            *tokens = List::new(changed).unwrap_or_default();
        }
        if let Some(conn) = self.links.get(&edge) {
            net.send(*conn, node, at, told.to_bytes());
        }
    }

    pub fn finish(&self, checks: &mut Checks) {
        // In the engine, or set aside.
        let left = self.engine.running().max(self.sessions.unended());
        if left > 0 {
            checks.add(|| format!("the verifier has {left} answers at the end"));
        }
    }
}
