//! A good way round where there are too many devices to try all sets of them: a beam over the layers that are placed.
//!
//! Ways that have placed as many layers stand beside each other, and the best of them go on. One whose remaining layers
//! could not find a place on the devices that it has not used does not. So where all layers are of one size, a way is
//! found whenever there is one, whatever memory the devices have: any of them can take its most, in any order. Layers of
//! different sizes can be cut so badly that the last one is left over; then the way may be missed.

use super::costs::Costs;
use super::ring::{Ring, Stage};
use super::search::Only;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Ways that go on for each number of layers placed.
const WIDTH: usize = 48;

#[derive(Clone, Copy)]
struct Way {
    /// What is least is kept.
    key: (u64, u64),
    token_ps: u64,
    /// Of the busiest stage, link or host.
    period_ps: u64,
    used: u64,
    device: usize,
    end: usize,
    /// Where it came from, in the list of those that went on.
    from: Option<usize>,
}

/// How ways are compared.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// By the time of a token.
    Token,
    /// By the time between steps, with so many batches on the way.
    Step(u64),
}

/// A ring of several devices, not solo; `None` if none was found.
pub(super) fn search(costs: &Costs, only: Only, order: Order) -> Option<Ring> {
    let (n, layers) = (costs.devices, costs.layers);
    let most: Vec<Vec<usize>> = (0..n).map(|device| costs.memory.layers_max(device)).collect();
    let usable: Vec<usize> = (0..n).filter(|device| *device != costs.head && only.without & 1 << device == 0).collect();
    let mut gone_on: Vec<Way> = Vec::new();
    let mut waiting = vec![Abreast::default(); layers + 1];
    for (end, abreast) in waiting.iter_mut().enumerate().take(layers) {
        let stage = Stage { device: costs.head, layers: 0..end };
        if costs.memory.fits(costs.head, &stage.layers) {
            let ps = costs.stage_ps(&stage);
            let way = Way { key: (0, 0), token_ps: ps, period_ps: ps, used: 0, device: costs.head, end, from: None };
            abreast.push(way.keyed(costs, order), only, order);
        }
    }
    for placed in 0..layers {
        let mut abreast = std::mem::take(&mut waiting[placed]);
        abreast.cut(only, order);
        for way in abreast.ways {
            let left: Vec<usize> = usable.iter().copied().filter(|device| way.used & 1 << device == 0).collect();
            // The most layers that all of them can have, wherever they begin from each layer on.
            let of_left: Vec<usize> =
                (0..=layers).map(|start| left.iter().map(|device| most[*device][start]).sum()).collect();
            let loads = loads(costs, &gone_on, &way);
            gone_on.push(way);
            let from = gone_on.len() - 1;
            for &device in &left {
                let (hop, transfer) = (costs.hop_ps(way.device, device), costs.transfer_ps(way.device, device));
                for end in placed + 1..=layers {
                    if !costs.memory.fits(device, &(placed..end)) {
                        break;
                    }
                    if of_left[end] - most[device][end] < layers - end {
                        continue;
                    }
                    let own = costs.layers_ps(device, &(placed..end));
                    let busy = transfer.max(loads[costs.hosts[device]] + own);
                    let next = Way {
                        token_ps: way.token_ps + hop + own,
                        period_ps: way.period_ps.max(busy),
                        used: way.used | 1 << device,
                        device,
                        end,
                        from: Some(from),
                        ..way
                    };
                    waiting[end].push(next.keyed(costs, order), only, order);
                }
            }
        }
    }
    let whole = std::mem::take(&mut waiting[layers].ways).into_iter().filter(|way| only.allows(way.used));
    whole.min_by_key(Way::rank).map(|way| ring(&gone_on, way))
}

impl Way {
    /// As if it went home from here: devices that are far away would look too good.
    fn keyed(mut self, costs: &Costs, order: Order) -> Self {
        let token_ps = self.token_ps + costs.hop_ps(self.device, costs.head);
        let period_ps = self.period_ps.max(costs.transfer_ps(self.device, costs.head));
        self.key = match order {
            Order::Token => (token_ps, 0),
            Order::Step(batches) => (period_ps.max(token_ps.div_ceil(batches)), token_ps),
        };
        self
    }

    fn side(&self, only: Only) -> usize {
        usize::from(only.with & !self.used == 0)
    }

    /// Of equal ways that of fewer devices, then of those that come first in the list.
    fn rank(&self) -> ((u64, u64), u32, Reverse<u64>, usize) {
        (self.key, self.used.count_ones(), Reverse(self.used.reverse_bits()), self.device)
    }
}

/// Ways that have placed as many layers.
#[derive(Clone, Default)]
struct Abreast {
    ways: Vec<Way>,
    /// What is worse need not come: of those that lack wanted devices, and of those that have them.
    limits: [Option<(u64, u64)>; 2],
}

impl Abreast {
    fn push(&mut self, way: Way, only: Only, order: Order) {
        if self.limits[way.side(only)].is_some_and(|limit| way.key > limit) {
            return;
        }
        self.ways.push(way);
        if self.ways.len() > 16 * WIDTH {
            self.cut(only, order);
        }
    }

    /// Of either side the best, so many.
    fn cut(&mut self, only: Only, order: Order) {
        let mut ways = std::mem::take(&mut self.ways);
        ways.sort_by_key(Way::rank);
        let (mut counts, mut seen) = ([0; 2], BTreeSet::new());
        for way in ways {
            let side = way.side(only);
            // By time alone, what is slower with the same devices and the same last one is slower for ever.
            let again = matches!(order, Order::Token) && !seen.insert((way.used, way.device));
            if counts[side] < WIDTH && !again {
                counts[side] += 1;
                if counts[side] == WIDTH {
                    self.limits[side] = Some(way.key);
                }
                self.ways.push(way);
            }
        }
    }
}

/// What each host has to do in a step so far.
fn loads(costs: &Costs, gone_on: &[Way], way: &Way) -> Vec<u64> {
    let mut loads = vec![0; costs.devices];
    for stage in ring(gone_on, *way) {
        loads[costs.hosts[stage.device]] += costs.stage_ps(&stage);
    }
    loads
}

fn ring(gone_on: &[Way], mut way: Way) -> Ring {
    let mut ring = Vec::new();
    loop {
        let before = way.from.map(|from| gone_on[from]);
        ring.push(Stage { device: way.device, layers: before.map_or(0, |before| before.end)..way.end });
        match before {
            Some(before) => way = before,
            None => break,
        }
    }
    ring.reverse();
    ring
}
