//! A way round the fleet, and what a step on it takes.

use super::costs::Costs;
use std::ops::Range;

/// A device and the layers that it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    /// Its index in the fleet.
    pub device: usize,
    /// Consecutive; of the head perhaps none.
    pub layers: Range<usize>,
}

/// In the order of the way; the head is the first.
pub(super) type Ring = Vec<Stage>;

/// Of one step, in which every stage computes a batch once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Timing {
    /// All stages, one after the other.
    pub compute_ps: u64,
    pub hops_ps: u64,
    /// Of the busiest stage or link.
    pub stage_ps: u64,
    /// The same, where stages of one host take turns.
    pub period_ps: u64,
}

impl Timing {
    /// From a token to the next one of the same stream.
    pub fn token_ps(&self) -> u64 {
        self.compute_ps + self.hops_ps
    }

    /// Between the steps of one batch and the next, with so many batches on the way.
    ///
    /// A ring of stages with fixed times is an event graph: it turns as fast as its slowest cycle (Baccelli et al. 1992,
    /// Synchronization and Linearity, section 2.5), which is a stage, a link, or the whole way with `batches` tokens on it.
    pub fn step_ps(&self, batches: u64) -> u64 {
        self.period_ps.max(self.token_ps().div_ceil(batches))
    }
}

impl Costs {
    /// Of a stage, with the ends at the head.
    pub fn stage_ps(&self, stage: &Stage) -> u64 {
        self.layers_ps(stage.device, &stage.layers)
            + if stage.layers.start == 0 { self.head_ends_ps(stage.device) } else { 0 }
    }

    fn head_ends_ps(&self, device: usize) -> u64 {
        if device == self.head { self.ends_ps } else { 0 }
    }

    pub fn timing(&self, ring: &[Stage]) -> Timing {
        let mut timing = Timing::default();
        let mut of_hosts = vec![0; self.devices];
        for (index, stage) in ring.iter().enumerate() {
            let (own, to) = (self.stage_ps(stage), ring[(index + 1) % ring.len()].device);
            let transfer = self.transfer_ps(stage.device, to);
            timing.compute_ps += own;
            timing.hops_ps += self.hop_ps(stage.device, to);
            timing.stage_ps = timing.stage_ps.max(own).max(transfer);
            of_hosts[self.hosts[stage.device]] += own;
        }
        timing.period_ps = of_hosts.into_iter().fold(timing.stage_ps, u64::max);
        timing
    }
}
