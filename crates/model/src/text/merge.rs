//! Joining neighbours, the most urgent pair first.
//!
//! Both kinds of tokeniser do this and differ only in which pairs join and how urgent that is. A heap holds the pairs
//! that may join, so that a text of n symbols takes O(n log n), also one long word.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Part of a text, `start..end` in bytes. Once its left neighbour has swallowed it, it is empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub(super) start: usize,
    pub(super) end: usize,
    /// [`NONE`] if the vocabulary has no such token.
    pub(super) id: u32,
    previous: usize,
    next: usize,
}

pub(super) const NONE: u32 = u32::MAX;
const NOWHERE: usize = usize::MAX;

/// A join that was possible when it was written down. The order is that of making them: urgency, then from the left.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Less is more urgent.
    rank: u32,
    left: usize,
    right: usize,
    /// Where `right` ended: if it has grown since, this candidate is stale and another has taken its place.
    end: usize,
    id: u32,
}

/// Room to join in, used for word after word.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.heap.clear();
    }

    /// Adds a symbol after the last.
    pub(super) fn push(&mut self, start: usize, end: usize, id: u32) {
        let at = self.symbols.len();
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let previous = at.checked_sub(1).unwrap_or(NOWHERE);
        self.symbols.push(Symbol { start, end, id, previous, next: NOWHERE });
    }

    /// Joins until no pair is left for which `join` gives a rank and the id of the whole. The symbols that remain, in
    /// order.
    pub(super) fn run(
        &mut self,
        join: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) -> impl Iterator<Item = Symbol> {
        for right in 1..self.symbols.len() {
            self.consider(right - 1, right, &join);
        }
        while let Some(Reverse(Candidate { left, right, end, id, .. })) = self.heap.pop() {
            let (a, b) = (self.symbols[left], self.symbols[right]);
            let swallowed = a.start == a.end || b.start == b.end;
            if swallowed || b.end != end {
                continue;
            }
            self.symbols[left] = Symbol { end, id, next: b.next, ..a };
            self.symbols[right].end = b.start;
            if let Some(after) = self.symbols.get_mut(b.next) {
                after.previous = left;
            }
            self.consider(a.previous, left, &join);
            self.consider(left, b.next, &join);
        }
        self.symbols.iter().copied().filter(|symbol| symbol.start < symbol.end)
    }

    fn consider(&mut self, left: usize, right: usize, join: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let (Some(a), Some(b)) = (self.symbols.get(left), self.symbols.get(right)) else { return };
        if let Some((rank, id)) = join(a, b) {
            self.heap.push(Reverse(Candidate { rank, left, right, end: b.end, id }));
        }
    }
}
