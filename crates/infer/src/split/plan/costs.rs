//! All that the search asks for, as tables of whole picoseconds and bytes.
//!
//! Whole numbers: sums are the same in any order, so ties are ties.

use super::demand::Demand;
use super::fleet::{Device, Fleet};
use super::model_cost::{LayerCost, ModelCost};
use std::ops::Range;

/// Nothing takes longer: a thousand layers and as many hops do not overflow a sum.
const ITEM_PS_MAX: f64 = 1e15;
/// More than any device gives; a thousand of them do not overflow a sum.
const LAYER_BYTES_MAX: u64 = 1 << 52;

pub(super) fn seconds(ps: u64) -> f64 {
    ps as f64 / 1e12
}

pub(super) fn picoseconds(seconds: f64) -> u64 {
    (seconds * 1e12).round().min(ITEM_PS_MAX) as u64
}

/// Costs of a step in which each stage computes `batch` tokens of as many streams.
pub(super) struct Costs {
    pub batch: u64,
    pub head: usize,
    pub devices: usize,
    pub layers: usize,
    /// Output matrix, at the head.
    pub ends_ps: u64,
    /// Of each device: layers before each, layers + 1 sums.
    before_ps: Vec<Vec<u64>>,
    hop_ps: Vec<u64>,
    transfer_ps: Vec<u64>,
    /// The number of each device's host.
    pub hosts: Vec<usize>,
    pub memory: Memory,
}

/// Who has room for which layers; the same for all batches.
#[derive(Clone)]
pub(super) struct Memory {
    /// Weights, keys and values of the layers before each.
    before_bytes: Vec<u64>,
    /// Of each device, what is left for layers of a split; `None`: not even for what it works in.
    pub room_bytes: Vec<Option<u64>>,
    /// The same of the head if it has all layers: it keeps no log of vectors that it sent.
    pub solo_bytes: Option<u64>,
    /// What each needs beside layers.
    pub fixed_bytes: Vec<u64>,
    pub solo_fixed_bytes: u64,
}

impl Memory {
    pub fn of(model: &ModelCost, fleet: &Fleet, demand: &Demand) -> Self {
        let positions = demand.streams * demand.context;
        let layer = |cost: &LayerCost| {
            cost.weight_bytes.saturating_add(cost.kv_bytes.saturating_mul(positions)).min(LAYER_BYTES_MAX)
        };
        // What a stage sent is kept until the answer is whole: a lost neighbour is rebuilt from it (ALGORITHMS E.9 B).
        let log = positions.saturating_mul(demand.vector_bytes(model.width));
        let scratch = model.scratch_bytes;
        let ends = model.ends_bytes + model.logits_bytes * demand.streams;
        let needs = |index: usize| scratch.saturating_add(log) + if index == fleet.head() { ends } else { 0 };
        let fixed_bytes: Vec<u64> = (0..fleet.devices().len()).map(needs).collect();
        let room = |device: &Device, fixed: u64| device.usable_bytes().checked_sub(fixed);
        let solo_fixed_bytes = scratch + ends;
        Self {
            before_bytes: sums(model.layers.iter().map(layer)),
            room_bytes: fleet.devices().iter().zip(&fixed_bytes).map(|(device, fixed)| room(device, *fixed)).collect(),
            solo_bytes: room(&fleet.devices()[fleet.head()], solo_fixed_bytes),
            fixed_bytes,
            solo_fixed_bytes,
        }
    }

    /// Of a range of layers.
    pub fn bytes(&self, layers: &Range<usize>) -> u64 {
        self.before_bytes[layers.end] - self.before_bytes[layers.start]
    }

    /// May `device` have them, as a part of a split?
    pub fn fits(&self, device: usize, layers: &Range<usize>) -> bool {
        self.room_bytes[device].is_some_and(|room| self.bytes(layers) <= room)
    }

    /// The most layers that a device can have in one piece, wherever they begin from each layer on; layers + 1 numbers.
    pub fn layers_max(&self, device: usize) -> Vec<usize> {
        let layers = self.before_bytes.len() - 1;
        let mut end = 0;
        let from_here = |from: usize| {
            end = from.max(end);
            while end < layers && self.fits(device, &(from..end + 1)) {
                end += 1;
            }
            end - from
        };
        let mut most: Vec<usize> = (0..=layers).map(from_here).collect();
        (0..layers).rev().for_each(|from| most[from] = most[from].max(most[from + 1]));
        most
    }
}

impl Costs {
    pub fn of(model: &ModelCost, fleet: &Fleet, demand: &Demand, batch: u64) -> Self {
        let devices = fleet.devices();
        let n = devices.len();
        // No layer takes no time, so that no rate is infinite.
        let decode = |d: &Device, cost: &LayerCost| picoseconds(decode_s(d, cost, demand.prompt, batch)).max(1);
        let vectors = (batch * demand.vector_bytes(model.width)) as f64;
        let pairs = || (0..n * n).map(|at| fleet.link(at / n, at % n));
        let head = &devices[fleet.head()];
        let host = |device: &Device| devices.iter().position(|other| other.shares_host(device)).unwrap_or(0);
        Self {
            batch,
            head: fleet.head(),
            devices: n,
            layers: model.layers.len(),
            ends_ps: picoseconds(pass_s(head, model.output_bytes, batch as f64 * model.output_flops as f64)),
            before_ps: devices.iter().map(|d| sums(model.layers.iter().map(|cost| decode(d, cost)))).collect(),
            hop_ps: pairs().map(|link| picoseconds(link.hop_s(vectors))).collect(),
            transfer_ps: pairs().map(|link| picoseconds(link.transfer_s(vectors))).collect(),
            hosts: devices.iter().map(host).collect(),
            memory: Memory::of(model, fleet, demand),
        }
    }

    /// Of a range of layers on a device, without the ends.
    pub fn layers_ps(&self, device: usize, layers: &Range<usize>) -> u64 {
        self.before_ps[device][layers.end] - self.before_ps[device][layers.start]
    }

    /// Of the layers before each; layers + 1 sums.
    pub fn before_ps(&self, device: usize) -> &[u64] {
        &self.before_ps[device]
    }

    pub fn hop_ps(&self, from: usize, to: usize) -> u64 {
        self.hop_ps[from * self.devices + to]
    }

    pub fn transfer_ps(&self, from: usize, to: usize) -> u64 {
        self.transfer_ps[from * self.devices + to]
    }
}

/// A pass over weights is bound by reading or by computing (the roofline of Williams et al. 2009).
pub(super) fn pass_s(device: &Device, weight_bytes: u64, flops: f64) -> f64 {
    (weight_bytes as f64 / device.read_bytes_per_s).max(flops / device.prefill_flops_per_s) + device.overhead_s
}

/// A token of each of `batch` streams through one layer, `positions` behind each. Weights are read once for all.
fn decode_s(device: &Device, cost: &LayerCost, positions: u64, batch: u64) -> f64 {
    let seen = if cost.window == 0 { positions } else { positions.min(cost.window) };
    let keys_and_values = (batch * seen) as f64 * cost.kv_bytes as f64;
    pass_s(device, cost.weight_bytes, batch as f64 * cost.flops as f64) + keys_and_values / device.read_bytes_per_s
}

fn sums(items: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut sum = 0u64;
    let rest = items.map(|item| {
        sum += item;
        sum
    });
    std::iter::once(0).chain(rest).collect()
}
