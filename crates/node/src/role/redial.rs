//! Dialling out: the next address after a failure, after a pause that doubles and is never quite the same.

use super::{Effect, Millis, Peer, Timer};
use littoral_wire::NodeId;

const FIRST_MS: u64 = 250;
const LAST_MS: u64 = 30_000;

/// Where a peer stands in a machine's own order: each machine has another, so that a fleet that was told one list spreads
/// over it.
pub fn draw(me: NodeId, peer: NodeId) -> [u8; 32] {
    *blake3::hash(&[me.0, peer.0].concat()).as_bytes()
}

/// Whom to dial, in order of preference, and how long to wait.
#[derive(Debug)]
pub struct Redial {
    me: NodeId,
    peers: Vec<Peer>,
    /// The peer to dial next.
    next: usize,
    failures: u32,
    /// Dials so far; varies the jitter.
    dials: u64,
}

impl Redial {
    pub fn new(me: NodeId, peers: Vec<Peer>) -> Self {
        Self { me, peers, next: 0, failures: 0, dials: 0 }
    }

    /// Adds peers that are not known yet; one whose address changed is dialled at the new one.
    pub fn learn(&mut self, peers: impl IntoIterator<Item = Peer>) {
        for peer in peers {
            match self.peers.iter_mut().find(|p| p.id == peer.id) {
                Some(known) => known.address = peer.address,
                None => self.peers.push(peer),
            }
        }
    }

    /// Once the present link is down, this peer is tried first.
    pub fn prefer(&mut self, peer: NodeId) {
        if let Some(at) = self.peers.iter().position(|known| known.id == peer) {
            // `failed` goes one further.
            self.next = (at + self.peers.len() - 1) % self.peers.len();
        }
    }

    pub fn dial(&mut self, effects: &mut Vec<Effect>) {
        if let Some(peer) = self.peers.get(self.next % self.peers.len().max(1)) {
            self.dials += 1;
            effects.push(Effect::Dial(peer.clone()));
        }
    }

    /// We were told to go away: the next try is a long one, however often we get as far as this.
    pub fn refused(&mut self) {
        self.failures = u32::MAX / 2;
    }

    /// The same peer again, after so long: it said so.
    pub fn rest(&mut self, now: Millis, ms: u64, effects: &mut Vec<Effect>) {
        self.failures = 0;
        effects.push(Effect::SetTimer { timer: Timer::Redial, at: now + ms });
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Tries the next peer, later. The pause is 50 to 100 % of 250 ms x 2^failures, at most 30 s; the part that varies
    /// depends on who we are, so that a fleet does not return all at once.
    pub fn failed(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let at = now + self.pause_ms();
        effects.push(Effect::SetTimer { timer: Timer::Redial, at });
    }

    /// Counts a failure. The next peer is to be dialled after this pause.
    pub fn pause_ms(&mut self) -> Millis {
        self.next = (self.next + 1) % self.peers.len().max(1);
        let whole_ms = (FIRST_MS << self.failures.min(10)).min(LAST_MS);
        self.failures = self.failures.saturating_add(1);
        let mut hash = blake3::Hasher::new();
        hash.update(&self.me.0).update(&self.dials.to_le_bytes()).update(&self.failures.to_le_bytes());
        let draw = u64::from(u16::from_le_bytes([hash.finalize().as_bytes()[0], hash.finalize().as_bytes()[1]]));
        whole_ms / 2 + whole_ms / 2 * draw / 65_536
    }
}
