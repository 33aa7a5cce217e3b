//! States of sequences that have ended, for those that begin alike.

use littoral_model::lm::State;
use std::collections::VecDeque;

/// A start shorter than this is read again: that costs less than copying a state.
const TOKENS_MIN: usize = 16;

/// The ids that each state has seen, the one used last at the end. At most so many bytes.
pub(super) struct Kept {
    entries: VecDeque<(Vec<u32>, State)>,
    bytes_max: usize,
}

impl Kept {
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes_max }
    }

    pub fn put(&mut self, ids: Vec<u32>, state: State) {
        debug_assert_eq!(ids.len(), state.positions());
        if ids.len() < TOKENS_MIN || state.bytes() > self.bytes_max {
            return;
        }
        // What this one continues is of no more use.
        self.entries.retain(|(other, _)| !ids.starts_with(other));
        self.entries.push_back((ids, state));
        while self.entries.iter().map(|(_, state)| state.bytes()).sum::<usize>() > self.bytes_max {
            self.entries.pop_front();
        }
    }

    /// The state of as many of these ids as any has seen, cut to them.
    pub fn take(&mut self, ids: &[u32]) -> Option<State> {
        let alike = |other: &[u32]| other.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let (best, count) = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, (other, _))| (index, alike(other)))
            .max_by_key(|(_, count)| *count)
            .filter(|(_, count)| *count >= TOKENS_MIN)?;
        let (other, state) = self.entries.remove(best)?;
        // One that is used up is moved; one that others may want, too, is copied.
        let mut taken = if other.len() == count {
            state
        } else {
            let copy = state.clone();
            self.entries.push_back((other, state));
            copy
        };
        taken.truncate(count);
        Some(taken)
    }
}
