//! A partial sum: an edge absorbs devices' updates into one, the cloud merges the edges' into one.
//!
//! Addition is modulo 2^`bits` on packed words, so any order and any tree give the same bits, masks or none, and a
//! partial is exactly as large as one update, however many it holds.
//!
//! An update comes whole ([`Partial::absorb`]) or in chunks ([`Absorbing`]). Chunks of several devices can be added side by side: the sum then passes through memory once
//! for all of them instead of once for each.
//!
//! A sum cannot be told apart again. Once the first chunk of an update is in, the rest must follow; until it does, the
//! partial is unfinished and neither merges nor is merged. If the rest never comes, the partial is lost, and an edge
//! that cannot risk this has the whole update at hand (in its store) before it begins.

use crate::plan::Format;
use littoral_tensor::fixed::{self, FixedError};
use littoral_wire::NodeId;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use thiserror::Error;

/// Bytes of the sum that stay in the first-level cache while one chunk after another is added to them.
const BLOCK_BYTES: usize = 16 * 1024;

/// The sum of some devices' updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    format: Format,
    packed: Vec<u8>,
    devices: BTreeSet<NodeId>,
    /// Devices whose updates have begun and not finished.
    unfinished: BTreeSet<NodeId>,
}

/// Updates on their way into a partial, all of them at the same byte.
#[derive(Debug)]
pub struct Absorbing {
    devices: Vec<NodeId>,
    offset: usize,
    /// Per device, the bytes after the last whole group: fewer than `bits`.
    carry: Vec<[u8; 64]>,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refused {
    #[error("device {device} is in this sum already")]
    Twice { device: NodeId },
    #[error("device {device} is in both sums")]
    Overlap { device: NodeId },
    #[error("an update of this collection has {expected} bytes, got {got}")]
    WrongLength { expected: usize, got: usize },
    #[error("a coded update of this collection has {least} to {most} bytes, got {got}")]
    CodedLength { least: u64, most: u64, got: u64 },
    #[error("the sum has {expected_words} words of {expected_bits} bits, the other one {got_words} of {got_bits}")]
    WrongFormat { expected_words: u64, expected_bits: u32, got_words: u64, got_bits: u32 },
    #[error("{expected} updates are being absorbed together, got chunks of {got}")]
    WrongCount { expected: usize, got: usize },
    #[error("the update of device {device} is only partly in the sum")]
    Unfinished { device: NodeId },
    #[error("device {device} is not being absorbed into this sum")]
    NotBegun { device: NodeId },
    #[error(transparent)]
    Fixed(#[from] FixedError),
}

impl Partial {
    pub fn empty(format: Format) -> Self {
        Self { format, packed: vec![0; format.bytes()], devices: BTreeSet::new(), unfinished: BTreeSet::new() }
    }

    /// A sum that was stored or sent.
    pub fn restored(format: Format, devices: BTreeSet<NodeId>, packed: Vec<u8>) -> Result<Self, Refused> {
        expect_length(format.bytes(), packed.len())?;
        Ok(Self { format, packed, devices, unfinished: BTreeSet::new() })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Whose updates are in the sum, all of each.
    pub fn devices(&self) -> &BTreeSet<NodeId> {
        &self.devices
    }

    /// The sum's words, packed as an update's are.
    pub fn bytes(&self) -> Result<&[u8], Refused> {
        self.whole()?;
        Ok(&self.packed)
    }

    /// Would this device's update of so many bytes be absorbed?
    pub fn admits(&self, device: NodeId, update_bytes: u64) -> Result<(), Refused> {
        expect_length(self.packed.len(), usize::try_from(update_bytes).unwrap_or(usize::MAX))?;
        match self.devices.contains(&device) || self.unfinished.contains(&device) {
            true => Err(Refused::Twice { device }),
            false => Ok(()),
        }
    }

    /// The same for an update that is decoded first, and may have any of these lengths.
    pub fn admits_coded(
        &self,
        device: NodeId,
        update_bytes: u64,
        lengths: &RangeInclusive<u64>,
    ) -> Result<(), Refused> {
        if !lengths.contains(&update_bytes) {
            return Err(Refused::CodedLength { least: *lengths.start(), most: *lengths.end(), got: update_bytes });
        }
        self.admits(device, self.packed.len() as u64)
    }

    /// Absorbs a whole update.
    pub fn absorb(&mut self, device: NodeId, update: &[u8]) -> Result<(), Refused> {
        self.admits(device, update.len() as u64)?;
        fixed::add_packed(&mut self.packed, update, self.format.bits())?;
        if cfg!(feature = "broken-exact-sum") {
            self.packed.last_mut().into_iter().for_each(|byte| *byte ^= 1);
        }
        self.devices.insert(device);
        Ok(())
    }

    /// Adds another sum over other devices.
    pub fn merge(&mut self, other: &Self) -> Result<(), Refused> {
        other.whole()?;
        let (ours, theirs) = (self.format, other.format);
        if ours != theirs {
            return Err(Refused::WrongFormat {
                expected_words: ours.words(),
                expected_bits: ours.bits(),
                got_words: theirs.words(),
                got_bits: theirs.bits(),
            });
        }
        self.merge_bytes(&other.devices, &other.packed)
    }

    /// The same for a sum that was sent: its devices and its packed words.
    pub fn merge_bytes(&mut self, devices: &BTreeSet<NodeId>, packed: &[u8]) -> Result<(), Refused> {
        self.whole()?;
        expect_length(self.packed.len(), packed.len())?;
        if let Some(&device) = self.devices.intersection(devices).next() {
            return Err(Refused::Overlap { device });
        }
        fixed::add_packed(&mut self.packed, packed, self.format.bits())?;
        self.devices.extend(devices);
        Ok(())
    }

    fn whole(&self) -> Result<(), Refused> {
        match self.unfinished.first() {
            Some(&device) => Err(Refused::Unfinished { device }),
            None => Ok(()),
        }
    }

    fn begun(&self, absorbing: &Absorbing) -> Result<(), Refused> {
        match absorbing.devices.iter().find(|device| !self.unfinished.contains(device)) {
            Some(&device) => Err(Refused::NotBegun { device }),
            None => Ok(()),
        }
    }
}

impl Absorbing {
    /// Begins to absorb these devices' updates side by side. Nothing changes if one of them is refused.
    pub fn begin(partial: &mut Partial, devices: &[NodeId]) -> Result<Self, Refused> {
        let mut begun = partial.unfinished.clone();
        for &device in devices {
            if partial.devices.contains(&device) || !begun.insert(device) {
                return Err(Refused::Twice { device });
            }
        }
        partial.unfinished = begun;
        Ok(Self { devices: devices.to_vec(), offset: 0, carry: vec![[0; 64]; devices.len()] })
    }

    /// Adds the next bytes of each update, in the order of the devices: one chunk per device, all of one length, which
    /// need not be whole groups. Nothing changes if they are refused.
    pub fn chunk(&mut self, partial: &mut Partial, chunks: &[&[u8]]) -> Result<(), Refused> {
        if chunks.len() != self.devices.len() {
            return Err(Refused::WrongCount { expected: self.devices.len(), got: chunks.len() });
        }
        partial.begun(self)?;
        let len = chunks.first().map_or(0, |chunk| chunk.len());
        for chunk in chunks {
            expect_length(len, chunk.len())?;
        }
        let got = self.offset.saturating_add(len);
        if got > partial.packed.len() {
            return Err(Refused::WrongLength { expected: partial.packed.len(), got });
        }

        let bits = partial.format.bits();
        let group = bits as usize;
        // Complete the group that the chunk before left open.
        let carried = self.offset % group;
        let head = if carried == 0 { 0 } else { (group - carried).min(len) };
        if head > 0 {
            let start = self.offset - carried;
            for (carry, chunk) in self.carry.iter_mut().zip(chunks) {
                carry[carried..carried + head].copy_from_slice(&chunk[..head]);
                if carried + head == group {
                    fixed::add_packed(&mut partial.packed[start..start + group], &carry[..group], bits)?;
                }
            }
        }
        // Whole groups, a block of the sum at a time.
        let groups = (len - head) / group * group;
        let first = self.offset + head;
        let block_bytes = (BLOCK_BYTES / group).max(1) * group;
        for (i, sum) in partial.packed[first..first + groups].chunks_mut(block_bytes).enumerate() {
            let start = head + i * block_bytes;
            for chunk in chunks {
                fixed::add_packed(sum, &chunk[start..start + sum.len()], bits)?;
            }
        }
        // What is left opens a group for the next chunk.
        let tail = head + groups;
        if tail < len {
            for (carry, chunk) in self.carry.iter_mut().zip(chunks) {
                carry[..len - tail].copy_from_slice(&chunk[tail..]);
            }
        }
        self.offset += len;
        Ok(())
    }

    /// Counts the devices, once every byte of their updates is in.
    pub fn finish(self, partial: &mut Partial) -> Result<(), Refused> {
        partial.begun(&self)?;
        expect_length(partial.packed.len(), self.offset)?;
        for device in self.devices {
            partial.unfinished.remove(&device);
            partial.devices.insert(device);
        }
        Ok(())
    }

    /// Forgets updates of which no byte is in the sum yet.
    pub fn abandon(self, partial: &mut Partial) -> Result<(), Refused> {
        partial.begun(&self)?;
        match self.devices.first() {
            Some(&device) if self.offset > 0 => Err(Refused::Unfinished { device }),
            _ => {
                self.devices.iter().for_each(|device| _ = partial.unfinished.remove(device));
                Ok(())
            }
        }
    }

    pub fn devices(&self) -> &[NodeId] {
        &self.devices
    }

    /// Bytes of each update that are in.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

fn expect_length(expected: usize, got: usize) -> Result<(), Refused> {
    match expected == got {
        true => Ok(()),
        false => Err(Refused::WrongLength { expected, got }),
    }
}
