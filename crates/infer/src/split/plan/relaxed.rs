//! What no ring can be quicker than: a step where devices take layers out of their order and vectors travel in no time.
//!
//! It costs next to nothing, and tells which sizes of a batch need not be searched: those that could not beat what is found.

use super::costs::Costs;
use super::search::{FINE, Only};
use std::ops::Range;

/// No step with so many batches on the way is shorter. `u64::MAX`: not all layers find a place.
///
/// A token passes each layer, at best on the device that is quickest at it. And a step is as long as its busiest stage: for
/// none to be busy for longer than a limit, the most layers that each device can have within it must add up to all.
pub(super) fn least_step_ps(costs: &Costs, only: Only, batches: u64) -> u64 {
    let devices: Vec<usize> = (0..costs.devices).filter(|device| only.without & 1 << device == 0).collect();
    let quickest = |layer: usize| devices.iter().map(|device| costs.layers_ps(*device, &(layer..layer + 1))).min();
    let token_ps = costs.ends_ps + (0..costs.layers).filter_map(quickest).sum::<u64>();
    let enough = |limit| devices.iter().map(|device| most(costs, *device, limit)).sum::<usize>() >= costs.layers;
    let all = |device: &usize| costs.layers_ps(*device, &(0..costs.layers)) + costs.ends_ps;
    let (mut low, mut high) = (0, devices.iter().map(all).max().unwrap_or(0));
    if !enough(high) {
        return u64::MAX;
    }
    while high - low > high >> FINE {
        let limit = low + (high - low) / 2;
        if enough(limit) { high = limit } else { low = limit + 1 }
    }
    low.max(token_ps.div_ceil(batches))
}

/// The most consecutive layers that a device computes within a limit and has room for; the head beside the ends, and with the
/// room that it has alone.
fn most(costs: &Costs, device: usize, limit: u64) -> usize {
    let (ends_ps, room) = match device == costs.head {
        true => (costs.ends_ps, costs.memory.solo_bytes),
        false => (0, costs.memory.room_bytes[device]),
    };
    let (Some(limit), Some(room)) = (limit.checked_sub(ends_ps), room) else { return 0 };
    let may = |layers: &Range<usize>| costs.layers_ps(device, layers) <= limit && costs.memory.bytes(layers) <= room;
    let (mut end, mut most) = (0, 0);
    for start in 0..costs.layers {
        end = end.max(start);
        while end < costs.layers && may(&(start..end + 1)) {
            end += 1;
        }
        most = most.max(end - start);
    }
    most
}
