//! Machines without a copy of the model's file: which layers they have, and which they are to get.
//!
//! A machine is told to get what a placement would give it. Until all of that is there it has no layers; from then on it may
//! have any that it holds. [`Holdings::reach`] makes of a placement one that can be had now. Not here: how layers travel.

use super::head::Link;
use littoral_wire::NodeId;
use littoral_wire::pipeline::Layers;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// One machine.
#[derive(Default)]
struct Holding {
    has: BTreeSet<usize>,
    /// What it is to get.
    told: Vec<Range<usize>>,
    /// It has had all that it was told to get.
    served: bool,
    /// Why it can get none.
    cannot: Option<String>,
}

impl Holding {
    fn all(&self, ranges: &[Range<usize>]) -> bool {
        ranges.iter().cloned().flatten().all(|layer| self.has.contains(&layer))
    }
}

/// Of machines that are not named here nothing is known but that they have the file.
#[derive(Default)]
pub struct Holdings {
    machines: BTreeMap<NodeId, Holding>,
}

impl Holdings {
    /// A machine has no copy of the file.
    pub fn lacks(&mut self, machine: NodeId) {
        self.machines.insert(machine, Holding::default());
    }

    pub fn gone(&mut self, machine: NodeId) {
        self.machines.remove(&machine);
    }

    /// It can get no layers, as long as it is up. False if that was known, or it has the file.
    pub fn cannot_get(&mut self, machine: NodeId, why: &str) -> bool {
        let Some(holding) = self.machines.get_mut(&machine).filter(|holding| holding.cannot.is_none()) else {
            return false;
        };
        holding.cannot = Some(why.to_owned());
        true
    }

    /// Why a machine is to have no layers.
    pub fn cannot(&self, machine: NodeId) -> Option<&str> {
        self.machines.get(&machine)?.cannot.as_deref()
    }

    /// How many of them can get none.
    pub fn incapable(&self) -> usize {
        self.machines.values().filter(|holding| holding.cannot.is_some()).count()
    }

    /// It says which layers of so many it has.
    pub fn heard(&mut self, machine: NodeId, layers: usize, has: &[Layers]) {
        let Some(holding) = self.machines.get_mut(&machine) else { return };
        let some = |layer: &usize| has.iter().any(|part| (part.start as usize..part.end as usize).contains(layer));
        holding.has = (0..layers).filter(some).collect();
        holding.served |= !holding.told.is_empty() && holding.all(&holding.told);
    }

    /// Of the layers that it is to get: how many it has, and how many they are. `None`: it has the file.
    pub fn progress(&self, machine: NodeId) -> Option<(usize, usize)> {
        let Holding { has, told, .. } = self.machines.get(&machine)?;
        let told = || told.iter().cloned().flatten();
        Some((told().filter(|layer| has.contains(layer)).count(), told().count()))
    }

    /// Machines that have not yet what they are to get.
    pub fn waiting(&self) -> usize {
        let waits = |holding: &&Holding| holding.cannot.is_none() && !holding.all(&holding.told);
        self.machines.values().filter(waits).count()
    }

    /// Everybody has the file.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// A machine that is to get other layers than it was told, if all shall be as in this placement. It counts as told then.
    pub fn next_get(&mut self, placement: &[Link]) -> Option<(NodeId, Vec<Range<usize>>)> {
        placement.iter().find_map(|link| {
            let machine = link.machine?;
            let holding = self.machines.get_mut(&machine).filter(|holding| holding.told != link.ranges)?;
            holding.told.clone_from(&link.ranges);
            holding.served |= holding.all(&link.ranges);
            Some((machine, link.ranges.clone()))
        })
    }

    /// Others that fetched some of these layers.
    pub fn sources(&self, machine: NodeId, ranges: &[Range<usize>]) -> Vec<NodeId> {
        let some = |holding: &Holding| ranges.iter().cloned().flatten().any(|layer| holding.has.contains(&layer));
        let others = self.machines.iter().filter(|(other, holding)| **other != machine && some(holding));
        others.map(|(other, _)| *other).collect()
    }

    /// May it have these layers?
    pub fn holds(&self, link: &Link) -> bool {
        let holding = link.machine.and_then(|machine| self.machines.get(&machine));
        holding.is_none_or(|holding| holding.served && holding.all(&link.ranges))
    }

    /// The placement itself, or one with the same machines in the same order in which each has layers that it holds and has
    /// `room` for; each range ends as near as possible to where it should.
    ///
    /// # Errors
    /// Layers from which on nobody can have them.
    pub fn reach(
        &self,
        placement: Vec<Link>,
        room: impl Fn(Option<NodeId>) -> usize,
    ) -> Result<Vec<Link>, Range<usize>> {
        if placement.iter().all(|link| self.holds(link)) {
            return Ok(placement);
        }
        let layers = placement.iter().flat_map(|link| &link.ranges).map(|range| range.end).max().unwrap_or(0);
        // How far each can go from a layer on.
        let far = |link: &Link, at: usize| {
            let one =
                |layer: usize| Link { machine: link.machine, ranges: std::iter::once(layer..layer + 1).collect() };
            let most = at.saturating_add(room(link.machine)).min(layers);
            (at..most).find(|layer| !self.holds(&one(*layer))).unwrap_or(most)
        };
        // From which layers on it and those behind it can have all.
        let mut possible = vec![vec![false; layers + 1]; placement.len() + 1];
        possible[placement.len()][layers] = true;
        for (index, link) in placement.iter().enumerate().rev() {
            for at in 0..=layers {
                possible[index][at] = (at..=far(link, at)).any(|end| possible[index + 1][end]);
            }
        }
        if !possible[0][0] {
            let first = placement.iter().fold(0, |at, link| (0..=at).map(|from| far(link, from)).max().unwrap_or(at));
            return Err(first..layers);
        }
        let (mut chain, mut at, mut should) = (Vec::new(), 0, 0);
        for (index, link) in placement.into_iter().enumerate() {
            should = link.ranges.last().map_or(should, |range| range.end);
            let ends = (at..=far(&link, at)).filter(|end| possible[index + 1][*end]);
            let Some(end) = ends.min_by_key(|end| end.abs_diff(should)) else { continue };
            if end > at || link.machine.is_none() {
                let ranges = if end > at { std::iter::once(at..end).collect() } else { Vec::new() };
                chain.push(Link { machine: link.machine, ranges });
            }
            at = end;
        }
        Ok(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(n: usize) -> Option<NodeId> {
        (n > 0).then_some(NodeId([n as u8; 32]))
    }

    fn link(n: usize, range: Range<usize>) -> Link {
        let ranges = if range.is_empty() { Vec::new() } else { std::iter::once(range).collect() };
        Link { machine: node(n), ranges }
    }

    fn part(start: u32, end: u32) -> Layers {
        Layers { start, end }
    }

    #[test]
    fn a_machine_gets_what_it_would_have_and_is_used_when_it_is_all_there() {
        let (mut holdings, machine) = (Holdings::default(), NodeId([1; 32]));
        holdings.lacks(machine);
        let placement = vec![link(0, 0..0), link(1, 0..10)];
        assert_eq!(holdings.next_get(&placement), Some((machine, placement[1].ranges.clone())));
        assert_eq!(holdings.next_get(&placement), None);
        holdings.heard(machine, 10, &[part(0, 4), part(5, u32::MAX)]);
        assert_eq!((holdings.progress(machine), holdings.waiting()), (Some((9, 10)), 1));
        assert!(!holdings.holds(&link(1, 0..4)), "before it has all");
        // The head alone, as long as it has room.
        assert_eq!(holdings.reach(placement.clone(), |_| 10), Ok(vec![link(0, 0..10)]));
        assert_eq!(holdings.reach(placement.clone(), |_| 9), Err(9..10));
        holdings.heard(machine, 10, &[part(0, 10)]);
        assert_eq!(holdings.reach(placement.clone(), |_| 9), Ok(placement));
        // Told of others, it may have what it holds.
        let less = vec![link(0, 0..0), link(1, 0..5), link(2, 5..10)];
        assert_eq!(holdings.next_get(&less), Some((machine, less[1].ranges.clone())));
        assert_eq!(holdings.sources(NodeId([2; 32]), &less[2].ranges), [machine]);
        assert_eq!(holdings.sources(machine, &less[1].ranges), []);
        holdings.heard(machine, 10, &[part(0, 5)]);
        let lost = vec![link(0, 0..0), link(1, 0..10)];
        assert_eq!(holdings.reach(lost, |_| 10), Ok(vec![link(0, 0..10)]));
        let joined = vec![link(0, 0..0), link(1, 0..7), link(2, 7..10)];
        assert_eq!(holdings.reach(joined, |_| 10), Ok(vec![link(0, 0..0), link(1, 0..5), link(2, 5..10)]));
        holdings.gone(machine);
        assert!(holdings.is_empty());
    }

    /// All ways to cut, one after another.
    fn possible(holdings: &Holdings, rooms: &[usize], from: usize, at: usize, layers: usize) -> bool {
        if from == rooms.len() {
            return at == layers;
        }
        (at..=layers).any(|end| {
            end - at <= rooms[from]
                && holdings.holds(&link(from, at..end))
                && possible(holdings, rooms, from + 1, end, layers)
        })
    }

    proptest! {
        #[test]
        fn a_chain_is_found_if_there_is_one(
            rooms in prop::collection::vec(0usize..7, 4),
            has in prop::collection::vec(prop::collection::vec(any::<bool>(), 6), 3),
            served in prop::collection::vec(any::<bool>(), 3),
        ) {
            let (layers, mut holdings) = (6, Holdings::default());
            let placement = vec![link(0, 0..1), link(1, 1..3), link(2, 3..4), link(3, 4..6)];
            for (n, (has, served)) in (1..).zip(has.iter().zip(served)) {
                let machine = node(n).unwrap();
                holdings.lacks(machine);
                let has = (0..layers).filter(|layer| has[*layer]).collect();
                holdings.machines.insert(machine, Holding { has, served, ..Holding::default() });
            }
            let room = |machine: Option<NodeId>| rooms[machine.map_or(0, |id| id.0[0] as usize)];
            let as_it_is = placement.iter().all(|link| holdings.holds(link));
            match holdings.reach(placement.clone(), room) {
                Ok(chain) if as_it_is => prop_assert_eq!(chain, placement),
                Ok(chain) => {
                    let mut at = 0;
                    for link in &chain {
                        for range in &link.ranges {
                            prop_assert_eq!(range.start, at);
                            prop_assert!(range.len() <= room(link.machine) && range.end > at);
                            at = range.end;
                        }
                        prop_assert!(holdings.holds(link));
                    }
                    prop_assert_eq!(at, layers);
                    prop_assert!(chain[0].machine.is_none(), "the head is always the first");
                }
                Err(nobodys) => {
                    prop_assert!(!possible(&holdings, &rooms, 0, 0, layers));
                    prop_assert!(nobodys.start < nobodys.end && nobodys.end == layers);
                }
            }
        }
    }
}
