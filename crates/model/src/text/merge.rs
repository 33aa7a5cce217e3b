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

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: of all neighbours the most urgent, of those the leftmost, until none joins.
    fn naive(mut symbols: Vec<u32>, join: impl Fn(u32, u32) -> Option<(u32, u32)>) -> Vec<u32> {
        let best = |symbols: &[u32]| {
            let pairs = symbols.windows(2).enumerate();
            pairs.filter_map(|(at, pair)| join(pair[0], pair[1]).map(|(rank, id)| (rank, at, id))).min()
        };
        while let Some((_, at, id)) = best(&symbols) {
            symbols.splice(at..at + 2, [id]);
        }
        symbols
    }

    #[test]
    fn the_heap_joins_what_the_definition_joins() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut merger = Merger::default();
        for _ in 0..3_000 {
            // Joins of a made-up vocabulary, several of one rank.
            let joins: Vec<((u32, u32), (u32, u32))> = (0..12)
                .map(|whole| {
                    let pair = (random(3 + whole) as u32, random(3 + whole) as u32);
                    (pair, (random(6) as u32, 3 + whole as u32))
                })
                .collect();
            let join = |a: u32, b: u32| joins.iter().find(|(pair, _)| *pair == (a, b)).map(|(_, join)| *join);
            let symbols: Vec<u32> = (0..random(30)).map(|_| random(3) as u32).collect();

            merger.clear();
            for (at, &id) in symbols.iter().enumerate() {
                merger.push(at, at + 1, id);
            }
            let got: Vec<Symbol> = merger.run(|a, b| join(a.id, b.id)).collect();
            let ends: Vec<usize> = got.iter().map(|symbol| symbol.end).collect();
            assert!(
                got.iter().skip(1).map(|symbol| symbol.start).eq(ends[..ends.len().saturating_sub(1)].iter().copied())
            );
            assert_eq!(got.iter().map(|symbol| symbol.id).collect::<Vec<u32>>(), naive(symbols, join), "{joins:?}");
        }
    }
}
