//! Why each device is in or out: the best plan is compared with the best that has it, or has it not.

use super::costs::seconds;
use super::demand::{Demand, Objective};
use super::exact::Table;
use super::fleet::Fleet;
use super::ring::Stage;
use super::search::{Found, Only, Search};
use super::words::{rate, ratio, size, span};
use std::cmp::Ordering;

/// A device, and one sentence about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Its index in the fleet.
    pub device: usize,
    pub included: bool,
    pub why: String,
    /// What the objective would be with the device where it is out, without it where it is in, in tokens per second;
    /// `None` if that cannot be.
    pub otherwise_tok_s: Option<f64>,
}

/// The head alone, whether or not it has the memory.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Solo {
    /// Of the objective: one stream, or all together.
    pub tok_s: f64,
    pub fits: bool,
    pub memory_bytes: u64,
    pub usable_bytes: u64,
}

pub(super) struct Why<'a> {
    pub fleet: &'a Fleet,
    pub demand: &'a Demand,
    pub search: &'a Search<'a>,
    pub table: Option<&'a Table<'a>>,
    pub best: &'a Found,
}

impl Why<'_> {
    pub fn verdicts(&self) -> Vec<Verdict> {
        let devices = 0..self.fleet.devices().len();
        devices.map(|device| if device == self.fleet.head() { self.of_head() } else { self.of(device) }).collect()
    }

    pub fn solo(&self) -> Solo {
        let (costs, head) = (&self.search.costs[0], self.fleet.head());
        let ring = vec![Stage { device: head, layers: 0..costs.layers }];
        let batches = match self.demand.objective {
            Objective::Latency => &self.search.costs[..1],
            Objective::Throughput => &self.search.costs,
        };
        let tok_s = batches
            .iter()
            .map(|costs| self.tok_s(costs.batch, costs.timing(&ring).step_ps(self.streams() / costs.batch)));
        let memory_bytes = costs.memory.used_bytes(&ring, head);
        let usable_bytes = self.fleet.devices()[head].usable_bytes();
        Solo { tok_s: tok_s.fold(0.0, f64::max), fits: memory_bytes <= usable_bytes, memory_bytes, usable_bytes }
    }

    /// The plan as a whole against solo, or solo against the best split.
    pub fn summary(&self, verdicts: &[Verdict], solo: &Solo) -> String {
        let head = &self.fleet.devices()[self.fleet.head()].name;
        let best = self.of_objective(self.best);
        let split = verdicts.iter().filter_map(|verdict| verdict.otherwise_tok_s).fold(0.0, f64::max);
        match (self.best.ring.len(), solo.fits) {
            (1, _) if verdicts.len() == 1 => format!("solo: {head} is the only device"),
            (1, _) if split == 0.0 => format!("solo: nothing of the model fits anywhere but on {head}"),
            (1, _) if best == split => "solo: no split is faster; a split is only needed for memory".to_owned(),
            (1, _) => format!("solo is faster: {}; a split is only needed for memory", ratio(best / split)),
            (_, true) => format!("a split is faster than solo: {}", ratio(best / solo.tok_s)),
            (_, false) => {
                let (needed, has) = (size(solo.memory_bytes), size(solo.usable_bytes));
                let than = if solo.tok_s > best { "faster" } else { "slower" };
                let times = ratio((solo.tok_s / best).max(best / solo.tok_s));
                format!(
                    "a split for memory: {head} alone needs {needed} and may use {has}; with enough, solo would be {than}: {times}"
                )
            }
        }
    }

    fn of_head(&self) -> Verdict {
        let (device, layers) = (self.fleet.head(), self.best.ring[0].layers.len());
        let all = self.search.costs[0].layers;
        let why = format!("in: it serves, with both ends and {layers} of {all} layers");
        Verdict { device, included: true, why, otherwise_tok_s: None }
    }

    fn of(&self, device: usize) -> Verdict {
        let included = self.best.ring.iter().any(|stage| stage.device == device);
        let only = match included {
            true => Only { without: 1 << device, with: 0 },
            false => Only { with: 1 << device, without: 0 },
        };
        let other = self.search.best(self.table, only);
        let why = match (included, &other) {
            (true, Some(other)) => self.helps(other),
            (true, None) => self.needed(device),
            (false, Some(other)) => self.hinders(other),
            (false, None) => self.no_room(device),
        };
        Verdict { device, included, why, otherwise_tok_s: other.map(|other| self.of_objective(&other)) }
    }

    fn helps(&self, other: &Found) -> String {
        let times = ratio(self.of_objective(self.best) / self.of_objective(other));
        match self.demand.objective {
            Objective::Latency => {
                let [without, with] = [other, self.best].map(|found| span(seconds(found.timing.token_ps())));
                format!("in: a token takes {with} with it and {without} without ({times})")
            }
            Objective::Throughput => {
                let [without, with] = [other, self.best].map(|found| rate(self.of_objective(found)));
                format!("in: {with} with it, {without} without ({times})")
            }
        }
    }

    fn needed(&self, device: usize) -> String {
        let (devices, memory) = (self.fleet.devices(), &self.search.costs[0].memory);
        if devices.len() == 2 {
            let (head, solo) = (&devices[self.fleet.head()].name, self.solo());
            let (needed, has) = (size(solo.memory_bytes), size(solo.usable_bytes));
            return format!("in: the model does not fit on {head} alone: {needed} of {has}");
        }
        let others = (0..devices.len()).filter(|other| *other != device);
        let room: u64 = others.filter_map(|other| memory.room_bytes[other]).sum();
        let layers = memory.bytes(&(0..self.search.costs[0].layers));
        let whole = if layers <= room { ", but not for whole layers" } else { "" };
        let (layers, room) = (size(layers), size(room));
        format!(
            "in: without it the model does not fit: its layers take {layers}, the others have room for {room}{whole}"
        )
    }

    fn hinders(&self, other: &Found) -> String {
        let (best, with) = (self.best.timing, other.timing);
        if self.demand.objective == Objective::Throughput {
            let [best, with] = [self.best, other].map(|found| rate(self.of_objective(found)));
            return format!("out: {with} with it, {best} without");
        }
        let apart = |a: u64, b: u64| span(seconds(a.abs_diff(b)));
        let waits = apart(with.hops_ps, best.hops_ps);
        let computes = apart(with.compute_ps, best.compute_ps);
        let links = if best.hops_ps == 0 { "for its link" } else { "more for links" };
        match (with.hops_ps.cmp(&best.hops_ps), with.compute_ps.cmp(&best.compute_ps)) {
            (Ordering::Less, _) => {
                format!("out: each token would compute {computes} longer and wait {waits} less for links")
            }
            (Ordering::Equal, Ordering::Equal) => "out: it would change nothing".to_owned(),
            (Ordering::Equal, _) => format!("out: each token would compute {computes} longer"),
            (_, Ordering::Less) => format!("out: each token would wait {waits} {links} and save {computes}"),
            (_, Ordering::Equal) => format!("out: each token would wait {waits} {links} and save nothing"),
            (_, Ordering::Greater) => {
                format!("out: each token would wait {waits} {links} and compute {computes} longer")
            }
        }
    }

    fn no_room(&self, device: usize) -> String {
        let memory = &self.search.costs[0].memory;
        let smallest = (0..self.search.costs[0].layers).map(|layer| memory.bytes(&(layer..layer + 1))).min();
        let needed = memory.fixed_bytes[device] + smallest.unwrap_or(0);
        let usable = self.fleet.devices()[device].usable_bytes();
        match usable < needed {
            true => format!("out: not one layer fits: {} of {}", size(needed), size(usable)),
            false => "out: with it there is no way round on which all layers find a place".to_owned(),
        }
    }

    fn streams(&self) -> u64 {
        match self.demand.objective {
            Objective::Latency => 1,
            Objective::Throughput => self.demand.streams,
        }
    }

    fn tok_s(&self, batch: u64, step_ps: u64) -> f64 {
        batch as f64 * 1e12 / step_ps.max(1) as f64
    }

    fn of_objective(&self, found: &Found) -> f64 {
        self.tok_s(found.batch, found.timing.step_ps(self.streams() / found.batch))
    }
}
