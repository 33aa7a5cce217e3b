//! The side of a machine that drafts: its answers that the machine above verifies, beside whatever else its engine does.

use super::checks::Bug;
use super::net::{AGAIN_US, Input, Net, Node, Purpose};
use crate::queue::Micros;
use littoral_infer::engine::{Engine, Event, Refused, Request, SequenceId};
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::Costs;
use littoral_infer::speculate::drafter::{Mode, Patience, Policy};
use littoral_infer::speculate::drafting::Drafting;
use littoral_wire::{Speculation, Wire};

/// A verifier that is gone for so long will not end the answers that it began; as the node does.
const GIVEN_UP_US: u64 = 5_000_000;
/// What is answered at once was not, for so long: its link is given up; as the node does.
const SILENT_US: u64 = 6_000_000;

pub(super) struct Above {
    drafting: Drafting,
    /// Who verifies.
    to: Node,
    link: Option<u64>,
    down_since: Option<Micros>,
    /// Since nothing was heard after something that is answered at once.
    asked_since: Option<Micros>,
    learnt: Controller,
}

impl Above {
    /// `first`: the number of the first session.
    pub fn new(engine: &Engine, first: u64, to: Node) -> Self {
        Self {
            drafting: Drafting::new(engine, first, Patience::default()),
            to,
            link: None,
            down_since: None,
            asked_since: None,
            learnt: Controller::new(Costs::GUESS),
        }
    }

    pub fn to(&self) -> Node {
        self.to
    }

    pub fn idle(&self) -> bool {
        self.drafting.idle()
    }

    pub fn linked(&self) -> bool {
        self.link.is_some()
    }

    /// Does this connection lead to who verifies?
    pub fn has(&self, conn: u64) -> bool {
        self.link == Some(conn)
    }

    /// Drafted in one of five ways.
    pub fn submit(&mut self, engine: &mut Engine, request: Request, now: Micros) -> Result<SequenceId, Refused> {
        let policy = match request.sampling.seed % 5 {
            0 => Policy::Fixed(Mode::Rounds { tokens: 4 }),
            1 => Policy::Fixed(Mode::Ahead { block: 3, ahead: 20 }),
            2 => Policy::Fixed(Mode::Stream),
            3 => Policy::Fixed(Mode::Along { block: 2, ahead: 20 }),
            _ => Policy::Learning(Box::new(self.learnt.next_answer())),
        };
        self.drafting.submit(engine, request, policy, now)
    }

    pub fn cancel(&mut self, engine: &mut Engine, sequence: SequenceId) {
        self.drafting.cancel(engine, sequence);
    }

    /// Tokens of an answer that the large model wrote, and its passes.
    pub fn far(&self, sequence: SequenceId) -> Option<(u64, u64)> {
        self.drafting.far(sequence).map(|far| (far.tokens, far.passes))
    }

    pub fn before(&mut self, engine: &mut Engine, now: Micros) {
        self.drafting.before(engine, now);
    }

    /// Gives up a link over which nothing comes.
    pub fn look_for_silence(&mut self, node: Node, net: &mut Net) {
        let now = net.now();
        let since = self.asked_since.filter(|since| now.saturating_sub(*since) > SILENT_US);
        if let (Some(since), Some(conn)) = (since, self.link) {
            net.note(node, "silence", now - since);
            (self.link, self.down_since, self.asked_since) = (None, Some(since), None);
            net.close(conn, node, now);
            net.dial(node, self.to, Purpose::Drafts, now + AGAIN_US);
        }
    }

    /// After a pass: what happened to answers, and to what is none of this one's business.
    pub fn after(
        &mut self,
        node: Node,
        engine: &mut Engine,
        events: Vec<Event>,
        now: Micros,
        net: &mut Net,
    ) -> Vec<Event> {
        let mut events = self.drafting.after(engine, events, now);
        self.drafting.tick(engine, now);
        if self.down_since.is_some_and(|since| now.saturating_sub(since) > GIVEN_UP_US) {
            self.down_since = None;
            self.drafting.lost(engine, 0);
        }
        self.send(node, now, net);
        events.extend(self.drafting.events());
        events
    }

    /// Of connections for drafts to who verifies.
    pub fn hear(&mut self, node: Node, input: Input, engine: &mut Engine, net: &mut Net) {
        let now = net.now();
        match input {
            Input::Up { conn, .. } => {
                (self.link, self.down_since, self.asked_since) = (Some(conn), None, None);
                self.drafting.reconnected(engine, now);
            }
            Input::NotReached { peer, purpose } => net.dial(node, peer, purpose, now + AGAIN_US),
            Input::Heard { conn, bytes } if self.has(conn) => {
                self.asked_since = None;
                let Ok(said) = Speculation::from_bytes(&bytes) else { return };
                if let Speculation::Commit { session, .. } = &said
                    && let Some(learnt) = self.drafting.learnt(*session)
                {
                    self.learnt = learnt.clone();
                }
                self.drafting.hear(engine, said, now);
            }
            Input::Ended { conn } if self.has(conn) => {
                (self.link, self.down_since, self.asked_since) = (None, Some(now), None);
                net.dial(node, self.to, Purpose::Drafts, now + AGAIN_US);
            }
            _ => {}
        }
    }

    pub fn send(&mut self, node: Node, at: Micros, net: &mut Net) {
        let Some(conn) = self.link else { return drop(self.drafting.outbox()) };
        for mut said in self.drafting.outbox() {
            if let (Some(Bug::ClaimsMore), Speculation::Round { commit, .. }) = (net.bug, &mut said) {
                *commit += 3;
            }
            if matches!(said, Speculation::Open { .. } | Speculation::Resume { .. }) {
                self.asked_since.get_or_insert(at);
            }
            net.send(conn, node, at, said.to_bytes());
        }
    }
}
