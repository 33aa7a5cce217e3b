//! Machines whose drafts are verified here: their links, and their sessions beside the answers of this server's own clients.
//!
//! While some layers of the model have no machine nobody is let in, and who was hears so by the end of the link: then drafters
//! go on with another verifier, or by themselves.

use super::motor::Motor;
use crate::peer::Link;
use crate::speculate::verify::FromDrafter;
use littoral_infer::engine::{Engine, Event};
use littoral_infer::speculate::sessions::Sessions;
use littoral_wire::{NodeId, Speculation};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A session whose drafter has no link, or that has ended, is given up after so long.
const SILENT: Duration = Duration::from_secs(120);

struct Linked {
    number: u64,
    link: Link<Speculation>,
    model: [u8; 32],
    let_in: bool,
}

pub struct Drafters {
    sessions: Sessions,
    links: BTreeMap<NodeId, Linked>,
    begun: Instant,
}

impl Drafters {
    pub fn new(engine: &Engine) -> Self {
        Self { sessions: Sessions::new(engine), links: BTreeMap::new(), begun: Instant::now() }
    }

    /// Sessions that are being answered.
    pub fn running(&self) -> usize {
        self.sessions.running()
    }

    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    pub fn hear(&mut self, said: FromDrafter, motor: &mut Motor) {
        let now_us = self.now_us();
        match said {
            FromDrafter::Up { number, link, model } => {
                tracing::info!("{} drafts", link.peer);
                link.listen();
                self.links.insert(link.peer, Linked { number, link, model, let_in: false });
                self.let_in(motor);
            }
            FromDrafter::Heard { peer, number, said, place: _place } => match said {
                Ok(said) => {
                    let Some(engine) = motor.verifies() else { return };
                    for told in self.sessions.hear(engine, peer, said, now_us) {
                        self.tell(peer, &told);
                    }
                }
                Err(why) if self.links.get(&peer).is_some_and(|linked| linked.number == number) => {
                    tracing::info!("{peer} is gone: {why}");
                    self.links.remove(&peer);
                }
                Err(_) => {}
            },
        }
    }

    fn tell(&self, peer: NodeId, said: &Speculation) {
        // What is lost with a link is asked for again over the next one.
        if let Some(linked) = self.links.get(&peer) {
            linked.link.send(said);
        }
    }

    fn let_in(&mut self, motor: &Motor) {
        if !motor.is_whole() {
            return self.links.retain(|peer, linked| {
                if linked.let_in {
                    tracing::warn!("{peer} is let go: some layers have no machine");
                }
                !linked.let_in
            });
        }
        for linked in self.links.values_mut().filter(|linked| !linked.let_in) {
            linked.link.send(&Speculation::Model { blake3: linked.model });
            linked.let_in = true;
        }
    }

    /// Before a pass.
    pub fn before(&mut self, motor: &mut Motor) {
        self.let_in(motor);
        if let Some(engine) = motor.verifies() {
            let (now_us, silent_us) = (self.begun.elapsed().as_micros() as u64, SILENT.as_micros() as u64);
            self.links.keys().for_each(|peer| self.sessions.linked(*peer, now_us));
            self.sessions.expire(engine, now_us.saturating_sub(silent_us));
            self.sessions.before(engine, now_us);
        }
    }

    /// After one that took so long.
    pub fn after(&mut self, events: &[Event], took: Duration) {
        for (peer, said) in self.sessions.after(events, took.as_micros() as u64) {
            self.tell(peer, &said);
        }
    }
}
