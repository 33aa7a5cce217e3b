//! A hash of everything that happened, to compare two runs by.

use crate::disk::Disk;
use crate::network::NodeIndex;
use crate::queue::Micros;
use std::fmt;

/// Hash of a run. Two runs with one fingerprint did the same, to the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Gathers small records and hashes them by the block: a record costs a few nanoseconds.
#[derive(Debug, Default)]
pub struct Trace {
    hash: blake3::Hasher,
    block: Vec<u8>,
}

const BLOCK_BYTES: usize = 16 * 1024;

impl Trace {
    pub fn note(&mut self, at: Micros, node: NodeIndex, what: &str, number: u64) {
        self.block.extend_from_slice(&at.to_le_bytes());
        self.block.extend_from_slice(&node.to_le_bytes());
        self.block.extend_from_slice(&number.to_le_bytes());
        self.block.push(what.len() as u8);
        self.block.extend_from_slice(what.as_bytes());
        self.hash_full_blocks();
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.block.extend_from_slice(bytes);
        self.hash_full_blocks();
    }

    fn hash_full_blocks(&mut self) {
        if self.block.len() >= BLOCK_BYTES {
            self.hash.update(&self.block);
            self.block.clear();
        }
    }

    pub fn fingerprint<'a>(&self, disks: impl Iterator<Item = &'a Disk>) -> Fingerprint {
        let mut hash = self.hash.clone();
        hash.update(&self.block);
        disks.for_each(|disk| disk.digest(&mut hash));
        Fingerprint(*hash.finalize().as_bytes())
    }
}
