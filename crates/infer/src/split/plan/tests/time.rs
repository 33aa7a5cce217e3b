//! Times whose closed form is known.

use super::oracle::way;
use crate::split::plan::*;
use littoral_wire::pipeline::Activations;

/// Layers of 10 MB and 20 Mflop, ends of nothing, vectors of 4 kB.
fn model(layers: usize) -> ModelCost {
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

/// 10 GB/s: a layer takes 1 ms. Prompts: 20 Gflop/s, a token takes 1 ms too.
fn device(name: &str, memory_bytes: u64) -> Device {
    Device {
        name: name.to_owned(),
        memory_bytes,
        read_bytes_per_s: 1e10,
        overhead_s: 0.0,
        prefill_flops_per_s: 2e10,
        disk_free_bytes: 0,
        disk_read_bytes_per_s: 1e9,
        host: None,
    }
}

fn demand(objective: Objective, streams: u64) -> Demand {
    let (activations, recovery) = (Activations::F32, Recovery::default());
    Demand { objective, streams, context: 1_600, prompt: 1_600, activations, recovery }
}

/// Room for so many layers of [`model`], beside the log of 6.4 MB for each stream.
fn room(layers: u64) -> u64 {
    (layers * 10_000_000 + 6_400_000) * 5 / 4 + 100
}

fn near(got: f64, expected: f64) {
    assert!((got / expected - 1.0).abs() < 1e-6, "{got} is not {expected}");
}

#[test]
fn a_token_takes_its_layers_and_its_hops() {
    let devices = ["a", "b", "c"].map(|name| device(name, room(4))).to_vec();
    let link = Link { rtt_s: 2e-3, bytes_per_s: 4e6 };
    let fleet = Fleet::new(devices, 0, link, &[]).unwrap();
    let plan = plan(&model(12), &fleet, &demand(Objective::Latency, 1)).unwrap();
    // Twelve layers of 1 ms; three hops of 1 ms on the way and 1 ms of 4 kB at 4 MB/s.
    near(plan.token_s, 12e-3 + 3.0 * 2e-3);
    near(plan.streams_tok_s, plan.tok_s());
    assert_eq!(way(&plan), [(0, 0..4), (1, 4..8), (2, 8..12)]);
}

/// Three stages of 4 ms, three hops of 2 ms that are busy for 1: with one stream 18 ms, with three batches on the way 6,
/// with more no stage idles. A batch computes as long as its tokens' flops take, so that it does not help here.
#[test]
fn many_streams_fill_the_ring_until_a_stage_is_always_busy() {
    let link = Link { rtt_s: 2e-3, bytes_per_s: 4e6 };
    for (streams, step_s) in [(1, 18e-3), (2, 9e-3), (3, 6e-3), (5, 4e-3), (7, 4e-3)] {
        let room = (4 * 10_000_000 + 6_400_000 * streams) * 5 / 4 + 100;
        let devices = ["a", "b", "c"].map(|name| device(name, room)).to_vec();
        let fleet = Fleet::new(devices, 0, link, &[]).unwrap();
        let plan = plan(&model(12), &fleet, &demand(Objective::Throughput, streams)).unwrap();
        near(plan.streams_tok_s, 1.0 / step_s);
        assert_eq!(plan.batch, 1);
    }
}

/// Where computing is ten times quicker than reading, ten streams in a batch cost what one costs.
#[test]
fn a_batch_reads_the_weights_once() {
    let quick = Device { prefill_flops_per_s: 2e11, ..device("a", room(100)) };
    let fleet = Fleet::new(vec![quick], 0, Link { rtt_s: 0.0, bytes_per_s: 1e9 }, &[]).unwrap();
    for (streams, tok_s) in [(1, 100.0), (10, 1_000.0), (20, 1_000.0)] {
        let plan = plan(&model(10), &fleet, &demand(Objective::Throughput, streams)).unwrap();
        near(plan.streams_tok_s, tok_s);
        near(plan.tok_s(), 100.0);
    }
}

/// Stages of one host take turns: two of them are no more than one.
#[test]
fn stages_of_one_host_take_turns() {
    let devices = ["a", "b"].map(|name| Device { host: Some("h".to_owned()), ..device(name, room(40)) });
    let fleet = Fleet::new(devices.to_vec(), 0, Link { rtt_s: 1e-5, bytes_per_s: 1e9 }, &[]).unwrap();
    let plan = plan(&model(12), &fleet, &demand(Objective::Throughput, 4)).unwrap();
    assert_eq!(plan.stages.len(), 1);
    near(plan.streams_tok_s, 1.0 / 12e-3);
}

/// E.6: equal stages whose pieces cost c0 + P/M take (M + s - 1)(c0 + P/M), least at M* = sqrt((s - 1) P / c0).
#[test]
fn a_prompt_is_cut_into_the_best_number_of_pieces() {
    // Four layers a stage, 4 x 25 ms beside computing; P = 4 layers x 1600 tokens x 1 ms.
    let (stages, c0, whole) = (2.0f64, 0.1, 6.4f64);
    let slow = |name| Device { overhead_s: 0.025, ..device(name, room(4)) };
    let link = Link { rtt_s: 0.0, bytes_per_s: 1e18 };
    let fleet = Fleet::new(["a", "b"].map(slow).to_vec(), 0, link, &[]).unwrap();
    let plan = plan(&model(8), &fleet, &demand(Objective::Latency, 1)).unwrap();
    let best = ((stages - 1.0) * whole / c0).sqrt();
    assert_eq!((best, plan.prompt.micro_batches), (8.0, 8));
    // And the head's pass for logits, which has nothing to read here.
    near(plan.prompt.total_s, (best + stages - 1.0) * (c0 + whole / best) + 0.025);
}
