//! Edges that draft, and the verifier: what a node does around the shipped decisions, without its sockets.

use super::above::Above;
use super::below::Below;
use super::chain::say;
use super::checks::{Bug, Checks};
use super::net::{Net, Node};
use super::routed::{Deciding, Saying};
use littoral_infer::engine::{Engine, Event, Limits, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_model::lm::CacheType;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sessions that wait for nothing but time are looked at so often.
const LOOK_US: u64 = 1_000_000;
/// After so long an edge that is deaf by mistake is.
const DEAF_US: u64 = 20_000_000;
const TICK_US: u64 = 20_000;

pub(super) struct EdgeHost {
    engine: Engine,
    above: Above,
    deciding: Deciding,
    asked: BTreeMap<SequenceId, u64>,
}

impl EdgeHost {
    /// `first`: the number of the first session. `to`: who verifies.
    pub fn new(small: &Arc<Model>, limits: Limits, first: u64, to: Node) -> Self {
        let engine = Engine::new(small.clone(), CacheType::F16, limits).expect("f16 fits any model");
        let above = Above::new(&engine, first, to);
        Self { engine, above, deciding: Deciding::new(), asked: BTreeMap::new() }
    }

    /// Another process of the same machine.
    pub fn anew(&self, first: u64) -> Self {
        Self::new(self.engine.model(), *self.engine.limits(), first, self.above.to())
    }

    fn idle(&self) -> bool {
        self.above.idle() && self.engine.idle()
    }

    pub fn linked(&self) -> bool {
        self.above.linked()
    }

    /// What must stay here does; so does what is asked while the verifier is not there, and what the small model is good enough for.
    pub fn keeps(&mut self, saying: &Saying, bug: Option<Bug>) -> bool {
        self.deciding.stays(saying, self.above.linked(), bug)
    }

    pub fn submit(&mut self, node: Node, request: Request, here: bool, net: &mut Net) {
        let seed = request.sampling.seed;
        let submitted = match here {
            true => self.engine.submit(request),
            false => self.above.submit(&mut self.engine, request, net.now()),
        };
        if let Ok(sequence) = submitted {
            self.asked.insert(sequence, seed);
        }
        self.above.send(node, net.now(), net);
    }

    pub fn turn(&mut self, node: Node, net: &mut Net) {
        let mut now = net.now();
        if net.bug == Some(Bug::Deafens) && now > DEAF_US {
            return;
        }
        while let Some(input) = net.input(node) {
            self.above.hear(node, input, &mut self.engine, net);
        }
        let passes = self.engine.planned();
        let took = net.cost(node, net.scenario.pass_us + net.scenario.layer_us);
        if net.scenario.tiers == 3 {
            self.above.look_for_silence(node, net);
        }
        self.above.before(&mut self.engine, now);
        let events = self.engine.step(&net.pool);
        let busy = self.engine.planned() > passes;
        if busy {
            now += took;
        }
        for event in self.above.after(node, &mut self.engine, events, now, net) {
            let (Event::Token { sequence, .. } | Event::Finished { sequence, .. }) = &event else { continue };
            let Some(seed) = self.asked.get(sequence).copied() else { continue };
            let (sequence, over) = (*sequence, matches!(event, Event::Finished { .. }));
            let far = self.above.far(sequence);
            say(net, node, seed, &event, far, now);
            let leaves = net.bug == Some(Bug::KeepsSessions) && far.is_some_and(|(tokens, _)| tokens > 3);
            if leaves {
                self.above.cancel(&mut self.engine, sequence);
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

    pub fn finish(&self, node: Node, checks: &mut Checks) {
        let running = self.engine.running();
        if running > 0 || !self.idle() {
            checks.add(|| format!("edge {node} has {running} answers at the end"));
        }
    }
}

pub(super) struct VerifierHost {
    engine: Engine,
    below: Below,
}

impl VerifierHost {
    pub fn new(model: &Arc<Model>, limits: Limits) -> Self {
        let engine = Engine::new(model.clone(), CacheType::F16, limits).expect("f16 fits any model");
        Self { below: Below::new(&engine), engine }
    }

    /// Another process of the same machine.
    pub fn anew(&self) -> Self {
        Self::new(self.engine.model(), *self.engine.limits())
    }

    pub fn turn(&mut self, node: Node, net: &mut Net) {
        let begun = net.now();
        while let Some(input) = net.input(node) {
            self.below.hear(node, input, &mut self.engine, net);
        }
        self.below.before(&mut self.engine, begun, net.bug);
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
        let layers = self.engine.model().stage.config().layers as u64;
        let work = scenario.pass_us + tokens.max(1) * layers * scenario.layer_us;
        let took = if ran { net.cost(node, work) } else { 0 };
        self.below.after(node, &events, took, begun + took, net);
        net.busy(node, begun + took);
        if ran || !net.waits(node) {
            net.plan(node, begun + took);
        } else if self.below.unended() > 0 {
            net.plan(node, begun + LOOK_US);
        }
    }

    pub fn finish(&self, checks: &mut Checks) {
        // In the engine, or set aside.
        let left = self.engine.running().max(self.below.unended());
        if left > 0 {
            checks.add(|| format!("the verifier has {left} answers at the end"));
        }
    }
}
