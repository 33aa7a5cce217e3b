//! The best ring for an objective: the table where it is small, else the beam; for many streams the best size of a batch.

use super::beam::{self, Order};
use super::costs::Costs;
use super::demand::{Demand, Objective};
use super::exact::{Table, is_small};
use super::fleet::Fleet;
use super::model_cost::ModelCost;
use super::relaxed::least_step_ps;
use super::ring::{Ring, Timing};

/// Devices up to which a plan is proven to be the best.
pub const DEVICES_EXACT_MAX: usize = 10;
/// Sizes of a batch that are searched where nothing is proven anyway, the most promising ones; what the others might do is in the
/// bound. Where plans are proven all are.
const BATCHES_SEARCHED: usize = 8;
/// The time between steps is found to one part in 2^this.
pub(super) const FINE: u32 = 20;

/// Sets of devices, as bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Only {
    pub with: u64,
    pub without: u64,
}

impl Only {
    pub fn allows(self, devices: u64) -> bool {
        devices & self.without == 0 && devices & self.with == self.with
    }
}

/// How good a plan is known to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Proof {
    /// No plan is better.
    Best,
    /// None is better by more than this share: where stages share a host they are searched, in batches of eight sizes at most.
    Within(f64),
    /// Too many devices to try all sets: found by a beam.
    Searched,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Found {
    pub ring: Ring,
    /// Streams that go through a stage together.
    pub batch: u64,
    pub timing: Timing,
    pub proof: Proof,
}

impl Found {
    /// Of all streams together.
    pub fn tok_s(&self, streams: u64) -> f64 {
        self.batch as f64 * 1e12 / self.timing.step_ps(streams / self.batch) as f64
    }
}

pub(super) struct Search<'a> {
    demand: &'a Demand,
    /// Devices but the head.
    others: Vec<usize>,
    exact: bool,
    /// Of one token at a time, then of the other batches.
    pub costs: Vec<Costs>,
}

impl<'a> Search<'a> {
    pub fn new(model: &ModelCost, fleet: &Fleet, demand: &'a Demand) -> Self {
        let batches = batches(demand.streams);
        let devices = fleet.devices().len();
        Self {
            demand,
            others: (0..devices).filter(|device| *device != fleet.head()).collect(),
            exact: devices <= DEVICES_EXACT_MAX && is_small(devices - 1, model.layers.len()),
            costs: batches.into_iter().map(|batch| Costs::of(model, fleet, demand, batch)).collect(),
        }
    }

    /// The table of the shortest ways; `None` if there are too many devices.
    pub fn table(&self) -> Option<Table<'_>> {
        self.exact.then(|| Table::fill(&self.costs[0], self.others.clone(), u64::MAX))
    }

    pub fn best(&self, table: Option<&Table<'_>>, only: Only) -> Option<Found> {
        match self.demand.objective {
            Objective::Latency => self.quickest(table, only),
            Objective::Throughput => self.most(only),
        }
    }

    fn quickest(&self, table: Option<&Table<'_>>, only: Only) -> Option<Found> {
        let costs = &self.costs[0];
        let found = |ring: Ring, proof| Found { timing: costs.timing(&ring), ring, batch: 1, proof };
        match table {
            Some(table) => table.best(|devices| only.allows(devices)).map(|ring| found(ring, Proof::Best)),
            None => {
                let rings = self.searched(costs, only, Order::Token);
                let found = rings.into_iter().map(|ring| found(ring, Proof::Searched));
                found.min_by_key(|found| (found.timing.token_ps(), found.ring.len()))
            }
        }
    }

    /// Solo, the beam's ring, and the best over its devices and the quickest of the rest.
    fn searched(&self, costs: &Costs, only: Only, order: Order) -> Vec<Ring> {
        let solo = Table::fill(costs, Vec::new(), u64::MAX).best(|devices| only.allows(devices));
        let beam = beam::search(costs, only, order);
        let mut some: Vec<usize> = self.others.iter().copied().filter(|d| only.without & 1 << d == 0).collect();
        let used = |d: usize| only.with & 1 << d != 0 || beam.iter().flatten().any(|stage| stage.device == d);
        some.sort_by_key(|d| {
            (!used(*d), costs.layers_ps(*d, &(0..costs.layers)) + 2 * costs.hop_ps(costs.head, *d), *d)
        });
        some.truncate(DEVICES_EXACT_MAX - 1);
        while !is_small(some.len(), costs.layers) {
            some.pop();
        }
        some.sort_unstable();
        let polished = Table::fill(costs, some, u64::MAX).best(|devices| only.allows(devices));
        solo.into_iter().chain(polished).chain(beam).collect()
    }

    fn most(&self, only: Only) -> Option<Found> {
        let streams = self.demand.streams;
        let (mut best, mut bound): (Option<Found>, f64) = (None, 0.0);
        let hoped = |costs: &Costs| costs.tok_s(least_step_ps(costs, only, streams / costs.batch));
        let mut sizes: Vec<(f64, &Costs)> = self.costs.iter().map(|costs| (hoped(costs), costs)).collect();
        // The most promising first, of equal ones the largest.
        sizes.sort_by(|(a, of_a), (b, of_b)| b.total_cmp(a).then(of_b.batch.cmp(&of_a.batch)));
        let proven = self.exact && !self.costs[0].hosts_are_shared();
        for (nth, (hoped, costs)) in sizes.into_iter().enumerate() {
            let beat = best.as_ref().map_or(0.0, |found: &Found| found.tok_s(streams));
            if hoped <= beat {
                break;
            }
            if nth >= BATCHES_SEARCHED && !proven {
                bound = bound.max(hoped);
                break;
            }
            let (found, tok_s_max) = self.most_of_batch(costs, only, beat);
            bound = bound.max(tok_s_max);
            if let Some(found) = found.filter(|found| found.tok_s(streams) > beat) {
                best = Some(found);
            }
        }
        let mut best = best?;
        let gap = bound / best.tok_s(streams) - 1.0;
        best.proof = match (self.exact, gap <= 1e-5) {
            (false, _) => Proof::Searched,
            (_, true) => Proof::Best,
            (_, false) => Proof::Within(gap),
        };
        Some(best)
    }

    /// The best ring of one batch's size that is better than `beat`, and tokens per second that none of that size exceeds.
    ///
    /// max(period, token / batches) is least where the two cross: the table gives the quickest token among rings that are
    /// never busy for longer than a limit, and the limit is halved in. It knows stages and links; hosts, which sum over
    /// stages, are looked at in what it finds.
    fn most_of_batch(&self, costs: &Costs, only: Only, beat: f64) -> (Option<Found>, f64) {
        let batches = self.demand.streams / costs.batch;
        let shared = costs.hosts_are_shared();
        let mut rings = Vec::new();
        let mut low = 0;
        if self.exact {
            let table = |limit| Table::fill(costs, self.others.clone(), limit);
            // One table tells whether any ring of this size is better, by what is found fine.
            let beat_ps = (costs.batch as f64 * 1e12 / beat) as u64;
            let limit = beat_ps - (beat_ps >> FINE);
            let Some(ring) = table(limit).best(|devices| only.allows(devices)) else {
                return (None, costs.tok_s(limit));
            };
            let timing = costs.timing(&ring);
            low = timing.token_ps().div_ceil(batches).max(least_step_ps(costs, only, batches));
            if low > limit {
                return (None, costs.tok_s(limit));
            }
            let mut high = timing.stage_ps.max(low);
            rings.push(ring);
            while high - low > high >> FINE {
                let limit = low + (high - low) / 2;
                let table = table(limit);
                if shared {
                    rings.extend(table.best(|devices| only.allows(devices) && costs.one_for_each_host(devices)));
                }
                let ring = table.best(|devices| only.allows(devices));
                let timing = ring.as_ref().map(|ring| costs.timing(ring));
                rings.extend(ring);
                match timing.map(|timing| timing.stage_ps.max(timing.token_ps().div_ceil(batches))) {
                    Some(step) if step <= limit => high = step.max(low),
                    // What is less busy waits longer.
                    _ => low = limit + 1,
                }
                if costs.tok_s(low) <= beat {
                    break;
                }
            }
        }
        if shared || !self.exact {
            rings.extend(self.searched(costs, only, Order::Step(batches)));
        }
        let timed = rings.into_iter().map(|ring| (costs.timing(&ring), ring));
        let best = timed.min_by_key(|(timing, ring)| (timing.step_ps(batches), ring.len(), timing.token_ps()));
        let found = best.map(|(timing, ring)| Found { ring, batch: costs.batch, timing, proof: Proof::Searched });
        let bound = if self.exact { costs.tok_s(low) } else { f64::INFINITY };
        (found, bound)
    }
}

/// Batches are of one size, so that all stages have as much to do: all numbers that divide the streams, 32 at most.
fn batches(streams: u64) -> Vec<u64> {
    (1..=streams).filter(|batch| streams.is_multiple_of(*batch)).collect()
}

impl Costs {
    /// Of all streams together.
    fn tok_s(&self, step_ps: u64) -> f64 {
        self.batch as f64 * 1e12 / step_ps as f64
    }

    fn hosts_are_shared(&self) -> bool {
        self.hosts.iter().enumerate().any(|(device, host)| device != *host)
    }

    /// Has each host one of these devices at most, the head included?
    fn one_for_each_host(&self, devices: u64) -> bool {
        let mut hosts = 0u64;
        (0..self.devices).filter(|device| devices & 1 << device != 0 || *device == self.head).all(|device| {
            let host = 1 << self.hosts[device];
            let new = hosts & host == 0;
            hosts |= host;
            new
        })
    }
}
