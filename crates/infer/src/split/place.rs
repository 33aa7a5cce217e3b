//! Who has which layers: an even spread, and what becomes of it when machines are lost.

use super::head::Link;
use littoral_wire::NodeId;
use std::collections::BTreeSet;
use std::ops::Range;

/// How many layers the head has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadLayers {
    /// As many as each other machine.
    Even,
    /// So many; all, where no machine is up.
    Just(usize),
}

impl HeadLayers {
    /// Of so many layers, beside so many other machines.
    pub fn of(self, layers: usize, machines: usize) -> usize {
        match self {
            Self::Even => layers.div_ceil(machines + 1),
            Self::Just(own) => own.min(layers),
        }
    }
}

/// The first `own` layers on the head, the others evenly on the machines in their order; all on the head, if there is none.
pub fn spread(layers: usize, own: usize, machines: &[NodeId]) -> Vec<Link> {
    let own = if machines.is_empty() { layers } else { own.min(layers) };
    let mut chain = vec![Link { machine: None, ranges: range(0, own) }];
    let (rest, mut at) = (layers - own, own);
    for (index, machine) in machines.iter().enumerate() {
        let end = own + rest * (index + 1) / machines.len();
        if end > at {
            chain.push(Link { machine: Some(*machine), ranges: range(at, end) });
        }
        at = end;
    }
    chain
}

/// As [`spread`], but nobody gets more layers than it has room for: what is too much goes to the others in their order, to the
/// head (which has room for `own_room`) last.
///
/// # Errors
/// Layers that nobody has room for.
pub fn spread_within(
    layers: usize,
    own: usize,
    own_room: usize,
    machines: &[(NodeId, usize)],
) -> Result<Vec<Link>, Range<usize>> {
    let ids: Vec<NodeId> = machines.iter().map(|(id, _)| *id).collect();
    let even = spread(layers, own, &ids);
    let count = |id: Option<NodeId>| {
        let link = even.iter().find(|link| link.machine == id);
        link.map_or(0, |link| link.ranges.iter().map(Range::len).sum::<usize>())
    };
    let others = machines.iter().map(|(id, room)| (Some(*id), *room));
    let shares = std::iter::once((None, own_room)).chain(others).map(|(id, room)| (id, room, count(id))).collect();
    within(layers, shares)
}

/// Each machine (`None`, the head, is the first), the layers that it has room for, and how many it is to have: as many, if
/// there is room. What is too much goes to the others in their order, to the head last.
///
/// # Errors
/// Layers that nobody has room for.
pub fn within(layers: usize, mut shares: Vec<(Option<NodeId>, usize, usize)>) -> Result<Vec<Link>, Range<usize>> {
    let mut rest = layers;
    for (_, room, count) in &mut shares {
        *count = (*count).min(*room).min(rest);
        rest -= *count;
    }
    let head_last = (1..shares.len()).chain([0]);
    for index in head_last {
        let (_, room, count) = &mut shares[index];
        let more = rest.min(*room - *count);
        (*count, rest) = (*count + more, rest - more);
    }
    if rest > 0 {
        return Err(layers - rest..layers);
    }
    let (mut chain, mut at) = (Vec::new(), 0);
    for (machine, _, count) in shares {
        if machine.is_none() || count > 0 {
            chain.push(Link { machine, ranges: range(at, at + count) });
        }
        at += count;
    }
    Ok(chain)
}

fn range(start: usize, end: usize) -> Vec<Range<usize>> {
    if start < end { std::iter::once(start..end).collect() } else { Vec::new() }
}

/// The same chain without machines that are not up. Layers that are lost go to a machine that is up and has none, to the
/// neighbour that has fewer layers, or to the head in front of them: those that stay where they are need not be computed again.
/// `fits`: may a machine have that? Where it may not, nowhere, the chain is one of which some link does not fit.
pub fn without_lost(chain: &[Link], up: &BTreeSet<NodeId>, fits: &dyn Fn(&Link) -> bool) -> Vec<Link> {
    let mut spares: Vec<NodeId> =
        up.iter().copied().filter(|id| !chain.iter().any(|link| link.machine == Some(*id))).collect();
    let mut chain = chain.to_vec();
    let lost = |link: &Link| link.machine.is_some_and(|id| !up.contains(&id));
    while let Some(at) = chain.iter().position(lost) {
        let taken = |id: &NodeId| Link { machine: Some(*id), ranges: chain[at].ranges.clone() };
        if let Some(spare) = spares.iter().position(|id| fits(&taken(id))) {
            chain[at].machine = Some(spares.remove(spare));
            continue;
        }
        // With those behind it that are lost too.
        let end = chain[at..].iter().position(|link| !lost(link)).map_or(chain.len(), |more| at + more);
        let gone: Vec<Range<usize>> = chain.drain(at..end).flat_map(|link| link.ranges).collect();
        let layers = |at: &usize| chain[*at].ranges.iter().map(Range::len).sum::<usize>();
        let mut takers: Vec<usize> = (at - 1..=at).filter(|taker| (1..chain.len()).contains(taker)).collect();
        takers.sort_by_key(layers);
        // The head only where there is nobody else.
        takers.extend((at == 1).then_some(0));
        let with = |taker: usize| {
            let Link { machine, ranges } = chain[taker].clone();
            let ranges = if taker < at { [ranges, gone.clone()] } else { [gone.clone(), ranges] };
            Link { machine, ranges: ranges.concat() }
        };
        let taker = takers.iter().copied().find(|taker| fits(&with(*taker))).unwrap_or(takers[0]);
        chain[taker] = with(taker);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn shown(chain: &[Link]) -> String {
        let link = |link: &Link| format!("{}{:?}", link.machine.map_or(0, |id| id.0[0]), link.ranges);
        chain.iter().map(link).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nobody_gets_more_layers_than_it_has_room_for() {
        let within = |own, own_room, rooms: &[usize]| {
            let machines: Vec<_> = rooms.iter().zip(1..).map(|(room, n)| (node(n), *room)).collect();
            spread_within(28, own, own_room, &machines).map(|chain| shown(&chain))
        };
        let most = usize::MAX;
        assert_eq!(within(0, most, &[most; 3]).unwrap(), "0[] 1[0..9] 2[9..18] 3[18..28]");
        assert_eq!(within(0, 0, &[4, most, 10]).unwrap(), "0[] 1[0..4] 2[4..18] 3[18..28]");
        assert_eq!(within(0, 20, &[4, 0, 10]).unwrap(), "0[0..14] 1[14..18] 3[18..28]");
        assert_eq!(within(10, 6, &[22]).unwrap(), "0[0..6] 1[6..28]");
        assert_eq!(within(0, 3, &[4, 5]), Err(12..28));
        assert_eq!(within(0, 3, &[]), Err(3..28));
    }

    #[test]
    fn layers_are_spread_and_taken_over() {
        let chain = spread(28, 0, &[node(1), node(2), node(3)]);
        assert_eq!(shown(&chain), "0[] 1[0..9] 2[9..18] 3[18..28]");
        assert_eq!(shown(&spread(28, 10, &[node(1)])), "0[0..10] 1[10..28]");
        assert_eq!(shown(&spread(28, 10, &[])), "0[0..28]");
        assert_eq!(shown(&spread(2, 0, &[node(1), node(2), node(3)])), "0[] 2[0..1] 3[1..2]");
        let up = |ids: &[u8]| ids.iter().map(|id| node(*id)).collect::<BTreeSet<_>>();
        assert_eq!(shown(&without_lost(&chain, &up(&[1, 3]), &|_| true)), "0[] 1[0..9, 9..18] 3[18..28]");
        assert_eq!(shown(&without_lost(&chain, &up(&[2, 3]), &|_| true)), "0[] 2[0..9, 9..18] 3[18..28]");
        assert_eq!(shown(&without_lost(&chain, &up(&[1, 2]), &|_| true)), "0[] 1[0..9] 2[9..18, 18..28]");
        assert_eq!(shown(&without_lost(&chain, &up(&[1, 3, 4]), &|_| true)), "0[] 1[0..9] 4[9..18] 3[18..28]");
        assert_eq!(shown(&without_lost(&chain, &up(&[3]), &|_| true)), "0[] 3[0..9, 9..18, 18..28]");
        assert_eq!(shown(&without_lost(&chain, &up(&[]), &|_| true)), "0[0..9, 9..18, 18..28]");
        // Neither the machine behind nor, then, the one that has none may have them.
        let not = |id: u8| move |link: &Link| link.machine != Some(node(id)) || link.ranges.len() < 2;
        assert_eq!(shown(&without_lost(&chain, &up(&[2, 3]), &not(2))), "0[0..9] 2[9..18] 3[18..28]");
        let nine = |link: &Link| link.machine != Some(node(4));
        assert_eq!(shown(&without_lost(&chain, &up(&[1, 3, 4]), &nine)), "0[] 1[0..9, 9..18] 3[18..28]");
    }
}
