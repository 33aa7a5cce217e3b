//! The side of a machine that verifies: sessions of machines below, beside whatever else its engine does.

use super::checks::Bug;
use super::net::{Input, Net, Node, id, node_of};
use crate::queue::Micros;
use littoral_infer::engine::{Engine, Event, SequenceId};
use littoral_infer::speculate::sessions::Sessions;
use littoral_wire::bounded::List;
use littoral_wire::{Speculation, Wire};
use std::collections::BTreeMap;

/// A session whose drafter has no link, or that has ended, is given up after so long; as the node does.
pub(super) const SILENT_US: u64 = 120_000_000;

pub(super) struct Below {
    sessions: Sessions,
    links: BTreeMap<Node, u64>,
    of: BTreeMap<u64, Node>,
}

impl Below {
    pub fn new(engine: &Engine) -> Self {
        Self { sessions: Sessions::new(engine), links: BTreeMap::new(), of: BTreeMap::new() }
    }

    /// Sessions whose answers have not ended.
    pub fn unended(&self) -> usize {
        self.sessions.unended()
    }

    /// Sequences of sessions that are in the engine.
    pub fn sequences(&self, engine: &Engine) -> Vec<SequenceId> {
        engine.answers().map(|(sequence, ..)| sequence).filter(|sequence| self.sessions.has(*sequence)).collect()
    }

    pub fn hear(&mut self, node: Node, input: Input, engine: &mut Engine, net: &mut Net) {
        let now = net.now();
        match input {
            Input::Up { conn, peer, .. } => {
                self.links.insert(peer, conn);
                self.of.insert(conn, peer);
            }
            Input::Heard { conn, bytes } => {
                let (Some(peer), Ok(said)) = (self.of.get(&conn).copied(), Speculation::from_bytes(&bytes)) else {
                    return;
                };
                if net.bug == Some(Bug::KeepsSessions) && matches!(said, Speculation::Close { .. }) {
                    return;
                }
                for told in self.sessions.hear(engine, id(peer), said, now) {
                    self.tell(node, peer, told, now, net);
                }
            }
            Input::Ended { conn } => {
                if let Some(peer) = self.of.remove(&conn)
                    && self.links.get(&peer) == Some(&conn)
                {
                    self.links.remove(&peer);
                }
            }
            _ => {}
        }
    }

    /// Before a pass.
    pub fn before(&mut self, engine: &mut Engine, now: Micros, bug: Option<Bug>) {
        self.links.keys().for_each(|peer| self.sessions.linked(id(*peer), now));
        if bug != Some(Bug::KeepsSessions) {
            self.sessions.expire(engine, now.saturating_sub(SILENT_US));
        }
        self.sessions.before(engine, now);
    }

    /// After a pass that took so long, which ends `at` this time.
    pub fn after(&mut self, node: Node, events: &[Event], took: u64, at: Micros, net: &mut Net) {
        for (peer, told) in self.sessions.after(events, took) {
            self.tell(node, node_of(peer), told, at, net);
        }
    }

    fn tell(&self, node: Node, peer: Node, mut told: Speculation, at: Micros, net: &mut Net) {
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
        if let Some(conn) = self.links.get(&peer) {
            net.send(*conn, node, at, told.to_bytes());
        }
    }
}
