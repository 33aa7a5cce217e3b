//! States of sequences that have ended, for those that begin alike.

use crate::pass::{Fork, Slot};
use std::collections::VecDeque;

/// A start shorter than this is read again: that costs less than copying a state.
const TOKENS_MIN: usize = 16;

/// The ids that each state has seen, the one used last at the end. At most so many positions in all.
pub(super) struct Kept {
    entries: VecDeque<(Vec<u32>, Slot)>,
    positions_max: usize,
}

/// What a sequence begins with.
pub(super) struct Begun {
    pub slot: Slot,
    pub positions: usize,
    /// Others may want the state, too: it is copied.
    pub fork: Option<Fork>,
}

impl Kept {
    pub fn new(positions_max: usize) -> Self {
        Self { entries: VecDeque::new(), positions_max }
    }

    /// Keeps a state of these ids; those that are not kept any more are pushed to `freed`.
    pub fn put(&mut self, ids: Vec<u32>, slot: Slot, freed: &mut Vec<Slot>) {
        if ids.len() < TOKENS_MIN || ids.len() > self.positions_max {
            freed.push(slot);
            return;
        }
        // What this one continues is of no more use.
        self.entries.retain(|(other, slot)| {
            let continued = ids.starts_with(other);
            if continued {
                freed.push(*slot);
            }
            !continued
        });
        self.entries.push_back((ids, slot));
        while self.entries.iter().map(|(ids, _)| ids.len()).sum::<usize>() > self.positions_max {
            freed.extend(self.entries.pop_front().map(|(_, slot)| slot));
        }
    }

    /// The state of as many of these ids as any has seen. `next`: a slot that nobody has.
    pub fn take(&mut self, ids: &[u32], next: Slot) -> Option<Begun> {
        let alike = |other: &[u32]| other.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let (best, positions) = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, (other, _))| (index, alike(other)))
            .max_by_key(|(_, count)| *count)
            .filter(|(_, count)| *count >= TOKENS_MIN)?;
        let (other, slot) = self.entries.remove(best)?;
        // One that is used up is taken.
        if other.len() == positions {
            return Some(Begun { slot, positions, fork: None });
        }
        self.entries.push_back((other, slot));
        Some(Begun { slot: next, positions, fork: Some(Fork { from: slot, to: next, positions }) })
    }
}
