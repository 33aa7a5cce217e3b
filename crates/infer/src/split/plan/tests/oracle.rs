//! All plans there are, and what each takes: written down once more, in seconds, without tables.

use crate::split::plan::*;
use std::ops::Range;

pub(super) struct Oracle<'a> {
    pub model: &'a ModelCost,
    pub fleet: &'a Fleet,
    pub demand: &'a Demand,
}

type Way = Vec<(usize, Range<usize>)>;

impl Oracle<'_> {
    /// The most tokens per second of the objective over all ways that `allows`; `None` if no such way has room.
    pub fn best(&self, allows: impl Fn(&[usize]) -> bool) -> Option<f64> {
        let mut best: Option<f64> = None;
        for way in self.ways() {
            let devices: Vec<usize> = way.iter().map(|(device, _)| *device).collect();
            if allows(&devices) && self.fits(&way) {
                best = Some(best.unwrap_or(0.0).max(self.tok_s(&way)));
            }
        }
        best
    }

    pub fn tok_s(&self, way: &[(usize, Range<usize>)]) -> f64 {
        match self.demand.objective {
            Objective::Latency => 1.0 / self.token_and_period_s(way, 1.0).0,
            Objective::Throughput => {
                let streams = self.demand.streams;
                let batches = (1..=streams).filter(|batch| streams.is_multiple_of(*batch)).map(|batch| {
                    let (token_s, period_s) = self.token_and_period_s(way, batch as f64);
                    batch as f64 / period_s.max(token_s / (streams / batch) as f64)
                });
                batches.fold(0.0, f64::max)
            }
        }
    }

    fn token_and_period_s(&self, way: &[(usize, Range<usize>)], batch: f64) -> (f64, f64) {
        let devices = self.fleet.devices();
        let (mut token_s, mut period_s) = (0.0, 0.0f64);
        let mut hosts = vec![0.0; devices.len()];
        for (index, (at, layers)) in way.iter().enumerate() {
            let device = &devices[*at];
            let pass = |bytes: u64, flops: u64| {
                let (read, compute) =
                    (bytes as f64 / device.read_bytes_per_s, batch * flops as f64 / device.prefill_flops_per_s);
                read.max(compute) + device.overhead_s
            };
            let mut own_s = if index == 0 { pass(self.model.output_bytes, self.model.output_flops) } else { 0.0 };
            for layer in &self.model.layers[layers.clone()] {
                let seen = if layer.window > 0 { self.demand.prompt.min(layer.window) } else { self.demand.prompt };
                own_s += pass(layer.weight_bytes, layer.flops);
                own_s += batch * (seen * layer.kv_bytes) as f64 / device.read_bytes_per_s;
            }
            let host =
                devices.iter().position(|other| device.host.is_some() && other.host == device.host).unwrap_or(*at);
            hosts[host] += own_s;
            token_s += own_s;
            if way.len() > 1 {
                let link = self.fleet.link(*at, way[(index + 1) % way.len()].0);
                let transfer_s = batch * self.demand.vector_bytes(self.model.width) as f64 / link.bytes_per_s;
                token_s += link.rtt_s / 2.0 + transfer_s;
                period_s = period_s.max(transfer_s);
            }
        }
        (token_s, hosts.into_iter().fold(period_s, f64::max))
    }

    pub fn fits(&self, way: &[(usize, Range<usize>)]) -> bool {
        let positions = self.demand.streams * self.demand.context;
        way.iter().enumerate().all(|(index, (at, layers))| {
            let mut bytes = self.model.scratch_bytes;
            if way.len() > 1 {
                bytes += positions * self.demand.vector_bytes(self.model.width);
            }
            if index == 0 {
                bytes += self.model.ends_bytes + self.model.logits_bytes * self.demand.streams;
            }
            for layer in &self.model.layers[layers.clone()] {
                bytes += layer.weight_bytes + layer.kv_bytes * positions;
            }
            bytes as f64 <= self.fleet.devices()[*at].memory_bytes as f64 * 0.8
        })
    }

    /// All orders of all subsets, all cuts. The head is the first, perhaps without layers.
    fn ways(&self) -> Vec<Way> {
        let head = self.fleet.head();
        let mut ways = Vec::new();
        for first in 0..=self.model.layers.len() {
            self.extend(&mut vec![(head, 0..first)], &mut ways);
        }
        ways
    }

    fn extend(&self, way: &mut Way, ways: &mut Vec<Way>) {
        let placed = way.last().unwrap().1.end;
        if placed == self.model.layers.len() {
            return ways.push(way.clone());
        }
        for device in 0..self.fleet.devices().len() {
            if way.iter().all(|(used, _)| *used != device) {
                for end in placed + 1..=self.model.layers.len() {
                    way.push((device, placed..end));
                    self.extend(way, ways);
                    way.pop();
                }
            }
        }
    }
}

pub(super) fn way(plan: &Plan) -> Way {
    plan.stages.iter().map(|stage| (stage.stage.device, stage.stage.layers.clone())).collect()
}

/// Of the objective.
pub(super) fn tok_s(plan: &Plan, demand: &Demand) -> f64 {
    if demand.objective == Objective::Latency { plan.tok_s() } else { plan.streams_tok_s }
}
