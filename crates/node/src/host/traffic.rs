//! Bytes that went over the links, by peer.

use crate::transport::Counters;
use littoral_wire::NodeId;
use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Peers whose closed links are remembered one by one; those of further peers are remembered as a sum.
const PEERS_MAX: usize = 65_536;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerBytes {
    pub sent: u64,
    pub received: u64,
}

impl AddAssign for PeerBytes {
    fn add_assign(&mut self, more: Self) {
        self.sent += more.sent;
        self.received += more.received;
    }
}

#[derive(Default)]
pub struct Traffic(Mutex<Ledger>);

#[derive(Default)]
struct Ledger {
    open: Vec<(NodeId, Arc<Counters>)>,
    closed: HashMap<NodeId, PeerBytes>,
    others: PeerBytes,
}

impl Traffic {
    pub(super) fn add(&self, peer: NodeId, counters: Arc<Counters>) {
        self.ledger().open.push((peer, counters));
    }

    /// Settles links that have ended. Called once per link that ends, so that the list stays as long as there are links.
    pub(super) fn settle(&self) {
        self.ledger().settle();
    }

    pub fn of(&self, peer: NodeId) -> PeerBytes {
        let ledger = self.ledger();
        let mut sum = ledger.closed.get(&peer).copied().unwrap_or_default();
        ledger.open.iter().filter(|(of, _)| *of == peer).for_each(|(_, counters)| sum += read(counters));
        sum
    }

    pub fn total(&self) -> PeerBytes {
        let ledger = self.ledger();
        let mut sum = ledger.others;
        ledger.closed.values().for_each(|bytes| sum += *bytes);
        ledger.open.iter().for_each(|(_, counters)| sum += read(counters));
        sum
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn settle(&mut self) {
        let Self { open, closed, others } = self;
        open.retain(|(peer, counters)| {
            // Nobody else counts on it any more.
            let over = Arc::strong_count(counters) == 1;
            if over {
                let room = closed.len() < PEERS_MAX || closed.contains_key(peer);
                *(if room { closed.entry(*peer).or_default() } else { &mut *others }) += read(counters);
            }
            !over
        });
    }
}

fn read(counters: &Counters) -> PeerBytes {
    PeerBytes { sent: counters.sent(), received: counters.received() }
}
