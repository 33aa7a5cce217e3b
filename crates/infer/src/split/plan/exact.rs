//! The shortest way round, exactly: dynamic programming over sets of devices (ALGORITHMS E.6; the sets are Held and Karp's
//! of 1962).
//!
//! `reach[set][last][end]` is the least time in which the layers before `end` are computed by the head and all of `set`,
//! `last` being the last. A stage's layers are a window that ends at `end` and begins where memory allows; the best
//! beginning of such sliding windows is found in constant time on average, so the whole table costs 2^n n^2 L.

use super::costs::Costs;
use super::ring::{Ring, Stage};
use std::cmp::Reverse;
use std::collections::VecDeque;

/// No way. Adding a hop to it does not overflow, and no sum of times comes near.
const NONE: u64 = u64::MAX / 4;
/// Entries of a table: ten devices and a thousand layers fit.
const ENTRIES_MAX: usize = 1 << 23;

pub(super) struct Table<'a> {
    costs: &'a Costs,
    /// Devices but the head, in the order of the list; bit i of a set is the i-th.
    others: Vec<usize>,
    /// Of the head with the first layers, and with all of them.
    head: Vec<u64>,
    reach: Vec<u64>,
    /// No stage and no link is busy for longer.
    busy_ps_max: u64,
}

/// Is a table over so many devices but the head of a size that is sensible?
pub(super) fn is_small(others: usize, layers: usize) -> bool {
    others < 16 && (others << others) * (layers + 1) <= ENTRIES_MAX
}

impl<'a> Table<'a> {
    /// Over the head and `others`.
    pub fn fill(costs: &'a Costs, others: Vec<usize>, busy_ps_max: u64) -> Self {
        let layers = costs.layers;
        let head = (0..=layers).map(|end| {
            let room = if end == layers { costs.memory.solo_bytes } else { costs.memory.room_bytes[costs.head] };
            let stage = Stage { device: costs.head, layers: 0..end };
            let ps = costs.stage_ps(&stage);
            let fits = room.is_some_and(|room| costs.memory.bytes(&stage.layers) <= room);
            if fits && ps <= busy_ps_max { ps } else { NONE }
        });
        let reach = vec![NONE; (others.len() << others.len()) * (layers + 1)];
        let mut table = Self { costs, head: head.collect(), others, reach, busy_ps_max };
        let (mut enter, mut starts) = (vec![NONE; layers + 1], VecDeque::new());
        for set in 1..1usize << table.others.len() {
            for last in (0..table.others.len()).filter(|last| set & 1 << last != 0) {
                enter.fill(NONE);
                table.enter(set, last, &mut enter);
                table.slide(set, last, &enter, &mut starts);
            }
        }
        table
    }

    /// The least time in which a vector is at `last`, for each number of layers that were before.
    fn enter(&self, set: usize, last: usize, enter: &mut [u64]) {
        let mut from = |device: usize, reached: &[u64]| {
            let to = self.others[last];
            if self.costs.transfer_ps(device, to) > self.busy_ps_max {
                return;
            }
            let hop = self.costs.hop_ps(device, to);
            enter.iter_mut().zip(reached).for_each(|(best, reached)| *best = (*best).min(reached + hop));
        };
        let before = set ^ 1 << last;
        if before == 0 {
            // Solo is not a way into another device.
            from(self.costs.head, &self.head[..self.costs.layers]);
        }
        for previous in (0..self.others.len()).filter(|previous| before & 1 << previous != 0) {
            from(self.others[previous], self.row(before, previous));
        }
    }

    fn slide(&mut self, set: usize, last: usize, enter: &[u64], starts: &mut VecDeque<usize>) {
        let device = self.others[last];
        let before = self.costs.before_ps(device);
        // Of two beginnings the better one is the better one at every end.
        let key = |start: usize| enter[start] as i64 - before[start] as i64;
        starts.clear();
        let mut first = 0;
        for end in 1..=self.costs.layers {
            if enter[end - 1] < NONE {
                while starts.back().is_some_and(|&other| key(other) >= key(end - 1)) {
                    starts.pop_back();
                }
                starts.push_back(end - 1);
            }
            while first < end && !self.may(device, first, end) {
                first += 1;
            }
            while starts.front().is_some_and(|&start| start < first) {
                starts.pop_front();
            }
            if let Some(&start) = starts.front() {
                let at = self.at(set, last) + end;
                self.reach[at] = enter[start] + before[end] - before[start];
            }
        }
    }

    fn may(&self, device: usize, start: usize, end: usize) -> bool {
        let layers = start..end;
        self.costs.memory.fits(device, &layers) && self.costs.layers_ps(device, &layers) <= self.busy_ps_max
    }

    fn at(&self, set: usize, last: usize) -> usize {
        (set * self.others.len() + last) * (self.costs.layers + 1)
    }

    fn row(&self, set: usize, last: usize) -> &[u64] {
        &self.reach[self.at(set, last)..][..=self.costs.layers]
    }

    /// The quickest ring whose set of devices, the head left out, `allows`. Of equal ones that of fewer devices, then of
    /// those that come first in the list, then the one that leaves more layers to the earlier.
    pub fn best(&self, allows: impl Fn(u64) -> bool) -> Option<Ring> {
        let layers = self.costs.layers;
        let solo = (self.head[layers] < NONE && allows(0)).then(|| (self.head[layers], 0, Reverse(0), 0, 0));
        let closed = (1..1usize << self.others.len()).filter_map(|set| {
            let devices = self.devices(set);
            let last = (0..self.others.len()).filter(|last| set & 1 << last != 0 && self.returns(self.others[*last]));
            let last = last.map(|last| {
                let back = self.costs.hop_ps(self.others[last], self.costs.head);
                (self.row(set, last)[layers] + back, Reverse(last))
            });
            let (ps, Reverse(last)) = last.min().filter(|(ps, _)| *ps < NONE && allows(devices))?;
            Some((ps, set.count_ones(), Reverse(devices.reverse_bits()), set, last))
        });
        let (.., set, last) = solo.into_iter().chain(closed).min()?;
        Some(self.ring(set, last))
    }

    fn returns(&self, device: usize) -> bool {
        self.costs.transfer_ps(device, self.costs.head) <= self.busy_ps_max
    }

    /// The most layers that find a place.
    pub fn layers_placed(&self) -> usize {
        let reached = |row: &[u64]| row.iter().rposition(|ps| *ps < NONE).unwrap_or(0);
        let rows = self.reach.chunks_exact(self.costs.layers + 1).map(reached);
        rows.max().unwrap_or(0).max(reached(&self.head))
    }

    fn devices(&self, set: usize) -> u64 {
        let bits = self.others.iter().enumerate().filter(|(bit, _)| set & 1 << bit != 0);
        bits.fold(0, |devices, (_, device)| devices | 1 << device)
    }

    /// The way that led there, found once more from its end.
    fn ring(&self, mut set: usize, mut last: usize) -> Ring {
        let (mut ring, mut end) = (Vec::new(), self.costs.layers);
        let mut enter = vec![NONE; self.costs.layers + 1];
        while set != 0 {
            let device = self.others[last];
            enter.fill(NONE);
            self.enter(set, last, &mut enter);
            let reached = self.row(set, last)[end];
            let is_start = |start: &usize| {
                self.may(device, *start, end) && enter[*start] + self.costs.layers_ps(device, &(*start..end)) == reached
            };
            let start = (0..end).rev().find(is_start).unwrap_or(0);
            ring.push(Stage { device, layers: start..end });
            set ^= 1 << last;
            let came = |previous: &usize| {
                let from = self.others[*previous];
                let hop = self.costs.hop_ps(from, device);
                set & 1 << previous != 0
                    && self.costs.transfer_ps(from, device) <= self.busy_ps_max
                    && self.row(set, *previous)[start] + hop == enter[start]
            };
            last = (0..self.others.len()).rev().find(came).unwrap_or(0);
            end = start;
        }
        ring.push(Stage { device: self.costs.head, layers: 0..end });
        ring.reverse();
        ring
    }
}
