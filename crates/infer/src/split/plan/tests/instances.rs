//! Random models and fleets, by a seed.

use crate::split::plan::*;
use littoral_wire::pipeline::Activations;

pub(in crate::split) struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    pub fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.below(1 << 30) as f64 / (1u64 << 30) as f64
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// All layers are alike.
    Uniform,
    /// As in mixed quantisation, and some have a window.
    Mixed,
}

pub(super) fn model(draw: &mut Draw, layers: usize, shape: Shape) -> ModelCost {
    let mut layer = |_| LayerCost {
        weight_bytes: 10_000_000 + if shape == Shape::Mixed { draw.below(10_000_000) } else { 0 },
        kv_bytes: 2_048,
        window: if shape == Shape::Mixed { draw.below(2) * 50 } else { 0 },
        flops: 30_000_000,
        flops_per_position: 4_096,
    };
    ModelCost {
        layers: (0..layers).map(&mut layer).collect(),
        ends_bytes: 12_000_000,
        output_bytes: 11_000_000,
        output_flops: 33_000_000,
        width: 1_024,
        scratch_bytes: 2_000_000,
        logits_bytes: 100_000,
    }
}

/// Layers of 10 MB and 20 Mflop, ends of nothing, vectors of 4 kB: times that can be reckoned by hand.
pub(in crate::split) fn even_model(layers: usize) -> ModelCost {
    let layer =
        LayerCost { weight_bytes: 10_000_000, kv_bytes: 0, window: 0, flops: 20_000_000, flops_per_position: 0 };
    ModelCost {
        layers: vec![layer; layers],
        ends_bytes: 0,
        output_bytes: 0,
        output_flops: 0,
        width: 1_000,
        scratch_bytes: 0,
        logits_bytes: 0,
    }
}

/// Times are rounded to picoseconds, and those of hops to a few digits by whoever reckons by hand.
pub(super) fn near(got: f64, expected: f64) {
    assert!((got / expected - 1.0).abs() < 1e-6, "{got} is not {expected}");
}

/// Some can have all layers, some a few, some none. With `hosts` some share one.
pub(super) fn fleet(draw: &mut Draw, devices: usize, layers: usize, hosts: bool) -> Fleet {
    let mut device = |index: usize| Device {
        name: format!("m{index}"),
        memory_bytes: 30_000_000 + draw.below(layers as u64 * 25_000_000),
        read_bytes_per_s: draw.between(1e9, 2e10),
        overhead_s: draw.between(0.0, 2e-4),
        prefill_flops_per_s: draw.between(5e9, 2e11),
        disk_free_bytes: draw.below(200_000_000),
        disk_read_bytes_per_s: draw.between(1e8, 2e9),
        host: hosts.then(|| format!("h{}", draw.below(2 + index as u64 / 2))),
    };
    let all = (0..devices).map(&mut device).collect();
    let mut link = || Link { rtt_s: draw.between(1e-5, 3e-3), bytes_per_s: draw.between(1e6, 1e9) };
    let (usual, pairs) = (link(), (0..devices).flat_map(|to| (0..to).map(move |from| (from, to))));
    let links: Vec<_> = pairs.map(|(from, to)| (from, to, link())).collect();
    Fleet::new(all, draw.below(devices as u64) as usize, usual, &links).unwrap()
}

/// 36 streams go in batches of nine sizes; their contexts are shorter, so that as many layers find a place as of six.
pub(in crate::split) fn demand(draw: &mut Draw, objective: Objective) -> Demand {
    let (streams, context) = [(1, 600), (2, 600), (4, 600), (6, 600), (36, 100)][draw.below(5) as usize];
    Demand {
        objective,
        streams,
        context,
        prompt: 1 + draw.below(context.min(400)),
        activations: [Activations::F32, Activations::F16, Activations::Int8][draw.below(3) as usize],
        recovery: Recovery::default(),
    }
}
