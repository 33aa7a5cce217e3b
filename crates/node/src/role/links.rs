//! Which links are up, and which have gone silent.
//!
//! A partition that drops everything shows in nothing but silence: a link on which nothing was heard for [`DEAD_MS`]
//! is hung up, and what was on it starts again elsewhere.

use super::{Effect, Kernels, LinkId, Millis};
use littoral_wire::{Message, NodeId};
use std::collections::BTreeMap;

/// A link on which nothing was heard for this long is asked whether it lives.
pub const PING_MS: u64 = 5_000;
/// And after this long it is given up.
pub const DEAD_MS: u64 = 16_000;
/// How often [`Links::tick`] wants to be called.
pub const TICK_MS: u64 = 4_000;

#[derive(Debug, Default)]
pub struct Links {
    up: BTreeMap<LinkId, Link>,
}

#[derive(Debug)]
pub struct Link {
    pub peer: NodeId,
    /// What the peer's hello said.
    kernels: Kernels,
    heard_at: Millis,
}

impl Links {
    pub fn connected(&mut self, now: Millis, link: LinkId, peer: NodeId, kernels: Kernels) {
        self.up.insert(link, Link { peer, kernels, heard_at: now });
    }

    pub fn disconnected(&mut self, link: LinkId) -> Option<NodeId> {
        self.up.remove(&link).map(|l| l.peer)
    }

    pub fn peer(&self, link: LinkId) -> Option<NodeId> {
        self.up.get(&link).map(|l| l.peer)
    }

    /// The arithmetic of who is at the other end. Work whose bits must be the same is for machines with equal names only.
    pub fn kernels(&self, link: LinkId) -> Option<&Kernels> {
        self.up.get(&link).map(|l| &l.kernels)
    }

    /// Notes life, and answers pings. Returns the message if it is for somebody else.
    pub fn received(
        &mut self,
        now: Millis,
        link: LinkId,
        message: Message,
        effects: &mut Vec<Effect>,
    ) -> Option<Message> {
        self.up.get_mut(&link)?.heard_at = now;
        match message {
            Message::Ping { nonce } => effects.push(Effect::Send { link, message: Message::Pong { nonce } }),
            Message::Pong { .. } => {}
            other => return Some(other),
        }
        None
    }

    /// Pings the silent and hangs up on the dead; the host reports those as disconnected.
    pub fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        for (link, state) in &self.up {
            let silent_ms = now.saturating_sub(state.heard_at);
            if silent_ms >= DEAD_MS {
                let reason = format!("nothing heard for {silent_ms} ms");
                effects.push(Effect::Hangup { link: *link, reason });
            } else if silent_ms >= PING_MS {
                effects.push(Effect::Send { link: *link, message: Message::Ping { nonce: now } });
            }
        }
    }
}
