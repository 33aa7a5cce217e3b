//! Who goes on with a stage if its device is lost, and how long everybody waits.
//!
//! Wait = detect + load + replay (ALGORITHMS E.9 B): the loss is noticed, the standby has the stage's layers from its own
//! disk, and computes the positions so far anew from the vectors that the stage before it kept. One device is lost at a
//! time: memory is shared between the stages that a standby stands by for, disk is not.
//!
//! The head has no standby: it has the request, and whoever asked is connected to it.

use super::costs::{Costs, Memory};
use super::demand::Demand;
use super::fleet::Fleet;
use super::model_cost::ModelCost;
use super::prompt::stage_s;
use super::ring::{Ring, Stage};
use super::words::size;

/// What becomes of a stage whose device is lost.
#[derive(Clone, PartialEq, Debug)]
pub struct Cover {
    /// Its place in the plan; the head's is 0.
    pub stage: usize,
    pub standby: Option<Standby>,
    /// Of no standby: why. Of one on the same host: what it is good for. Else empty.
    pub why: String,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Standby {
    /// Its index in the fleet.
    pub device: usize,
    /// Of the stage's weights, that it keeps.
    pub disk_bytes: u64,
    /// That it uses while it has the stage.
    pub memory_bytes: u64,
    pub load_s: f64,
    pub replay_s: f64,
    /// Detection and both.
    pub pause_s: f64,
    /// Afterwards, of all streams together.
    pub tok_s: f64,
}

/// What standbys are chosen for.
pub(super) struct Planned<'a> {
    pub model: &'a ModelCost,
    pub fleet: &'a Fleet,
    pub demand: &'a Demand,
    /// Of the plan's batch.
    pub costs: &'a Costs,
    pub ring: &'a Ring,
}

/// One cover for each stage but the head's.
///
/// Stages with the fewest candidates choose first. A device of another host comes before one of the same, then the least
/// pause, then the most speed, then the list's order.
pub(super) fn covers(planned: &Planned<'_>) -> Vec<Cover> {
    let devices = planned.fleet.devices();
    let mut disk_bytes: Vec<u64> = devices.iter().map(|device| device.disk_free_bytes).collect();
    let mut stages: Vec<usize> = (1..planned.ring.len()).collect();
    let candidates =
        |stage: &usize| (0..devices.len()).filter(|d| planned.standby(*stage, *d, &disk_bytes).is_ok()).count();
    stages.sort_by_cached_key(|stage| (candidates(stage), *stage));
    let mut covers = Vec::new();
    for stage in stages {
        let owner = &devices[planned.ring[stage].device];
        let mut found: Vec<(bool, Standby)> = Vec::new();
        let mut refused = Vec::new();
        for (index, device) in devices.iter().enumerate().filter(|(_, device)| device.name != owner.name) {
            match planned.standby(stage, index, &disk_bytes) {
                Ok(standby) => found.push((device.shares_host(owner), standby)),
                Err(why) => refused.push(format!("{} lacks {why}", device.name)),
            }
        }
        found.sort_by(|(same, a), (other, b)| {
            same.cmp(other).then(a.pause_s.total_cmp(&b.pause_s)).then(b.tok_s.total_cmp(&a.tok_s))
        });
        let chosen = found.into_iter().next();
        let why = match &chosen {
            None if refused.is_empty() => "there is no other device".to_owned(),
            None => refused.join(", "),
            Some((true, _)) => "on the same host: it covers a lost process, not a lost machine".to_owned(),
            Some((false, _)) => String::new(),
        };
        let standby = chosen.map(|(_, standby)| standby);
        if let Some(standby) = &standby {
            disk_bytes[standby.device] -= standby.disk_bytes;
        }
        covers.push(Cover { stage, standby, why });
    }
    covers.sort_by_key(|cover| cover.stage);
    covers
}

impl Planned<'_> {
    /// `device` in the place of a stage's owner; else what it has too little of.
    fn standby(&self, stage: usize, device: usize, disk_bytes: &[u64]) -> Result<Standby, String> {
        let lost = &self.ring[stage];
        let own = &self.fleet.devices()[device];
        if device == lost.device {
            return Err("everything: it is the stage's own device".to_owned());
        }
        let weights = self.model.layers[lost.layers.clone()].iter().map(|layer| layer.weight_bytes).sum();
        if disk_bytes[device] < weights {
            return Err(format!("{} of disk", size(weights - disk_bytes[device])));
        }
        let memory_bytes = self.costs.memory.used_bytes(self.ring, device) + self.costs.memory.bytes(&lost.layers);
        if memory_bytes > own.usable_bytes() {
            return Err(format!("{} of memory", size(memory_bytes - own.usable_bytes())));
        }
        let (demand, n) = (self.demand, self.demand.prompt);
        let moved = Stage { device, layers: lost.layers.clone() };
        let load_s = if demand.recovery.warm { 0.0 } else { weights as f64 / own.disk_read_bytes_per_s };
        let vectors = (demand.streams * n * demand.vector_bytes(self.model.width)) as f64;
        let sent_s = self.fleet.link(self.ring[stage - 1].device, device).hop_s(vectors);
        let replay_s = sent_s + demand.streams as f64 * stage_s(self.model, self.fleet, &moved, n, n);
        let step_ps = self.costs.timing(&self.after(stage, device)).step_ps(demand.streams / self.costs.batch);
        Ok(Standby {
            device,
            disk_bytes: weights,
            memory_bytes,
            load_s,
            replay_s,
            pause_s: demand.recovery.detect_s + load_s + replay_s,
            tok_s: self.costs.batch as f64 * 1e12 / step_ps as f64,
        })
    }

    /// The ring with `device` in the place of a stage's owner. What lies beside its own layers becomes one stage with them.
    fn after(&self, stage: usize, device: usize) -> Ring {
        let mut ring: Ring = Vec::new();
        for (index, old) in self.ring.iter().enumerate() {
            let device = if index == stage { device } else { old.device };
            match ring.last_mut() {
                Some(last) if last.device == device => last.layers.end = old.layers.end,
                _ => ring.push(Stage { device, layers: old.layers.clone() }),
            }
        }
        ring
    }
}

impl Memory {
    /// Of a device in a plan, or of one that stands beside it and works in nothing yet.
    pub fn used_bytes(&self, ring: &[Stage], device: usize) -> u64 {
        let fixed = if ring.len() == 1 { self.solo_fixed_bytes } else { self.fixed_bytes[device] };
        let own = ring.iter().filter(|stage| stage.device == device);
        fixed + own.map(|stage| self.bytes(&stage.layers)).sum::<u64>()
    }
}
