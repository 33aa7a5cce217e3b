//! What a role may keep secret from everybody: numbers that nobody can guess.
//!
//! A role draws nothing itself. Its host hands it 32 bytes at every start, in a deployment from the operating system's
//! generator, in a simulated fleet from the world's seed. Whatever a run needs is a hash of these bytes, of what it is for and
//! of the collection; no two of these are equal, and a restart has other bytes, so no key is ever made twice.

use super::WorkId;
use littoral_wire::Collection;
use littoral_wire::codec::Wire;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::fmt;

/// One run's 32 bytes. Never printed, sent or stored.
#[derive(Clone)]
pub struct Entropy([u8; 32]);

impl Entropy {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A generator for one purpose.
    pub fn generator(&self, purpose: &str) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.draw(purpose, &[]))
    }

    /// 32 bytes for one purpose: the same for the same purpose and subject, and telling nothing of any others.
    pub fn draw(&self, purpose: &str, subject: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(purpose.as_bytes());
        hasher.update(&[0]);
        hasher.update(subject);
        *hasher.finalize().as_bytes()
    }

    /// What a device's work for a collection is given. Counted on: should the same collection be worked on anew, it has other
    /// noise.
    pub fn of_work(&self, collection: &Collection, id: WorkId) -> Self {
        let mut subject = collection.to_bytes();
        id.0.put(&mut subject);
        Self(self.draw("noise", &subject))
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}
