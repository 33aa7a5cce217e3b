//! Times whose closed form is known.

use super::instances::{even_model, near};
use super::oracle::way;
use crate::split::plan::*;
use littoral_wire::pipeline::Activations;

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

/// Room for so many layers of [`even_model`], beside the log of 6.4 MB for each stream.
fn room(layers: u64) -> u64 {
    (layers * 10_000_000 + 6_400_000) * 5 / 4 + 100
}

#[test]
fn a_token_takes_its_layers_and_its_hops() {
    let devices = ["a", "b", "c"].map(|name| device(name, room(4))).to_vec();
    let link = Link { rtt_s: 2e-3, bytes_per_s: 4e6 };
    let fleet = Fleet::new(devices, 0, link, &[]).unwrap();
    let plan = plan(&even_model(12), &fleet, &demand(Objective::Latency, 1)).unwrap();
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
        let plan = plan(&even_model(12), &fleet, &demand(Objective::Throughput, streams)).unwrap();
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
        let plan = plan(&even_model(10), &fleet, &demand(Objective::Throughput, streams)).unwrap();
        near(plan.streams_tok_s, tok_s);
        near(plan.tok_s(), 100.0);
    }
}

/// Stages of one host take turns: two of them are no more than one.
#[test]
fn stages_of_one_host_take_turns() {
    let devices = ["a", "b"].map(|name| Device { host: Some("h".to_owned()), ..device(name, room(40)) });
    let fleet = Fleet::new(devices.to_vec(), 0, Link { rtt_s: 1e-5, bytes_per_s: 1e9 }, &[]).unwrap();
    let plan = plan(&even_model(12), &fleet, &demand(Objective::Throughput, 4)).unwrap();
    assert_eq!(plan.stages.len(), 1);
    near(plan.streams_tok_s, 1.0 / 12e-3);
}

/// E.6: equal stages whose pieces cost c0 + P/M take (M + s - 1)(c0 + P/M), here with the M that an engine makes of it.
#[test]
fn a_prompt_goes_in_the_engines_pieces() {
    // Four layers a stage, 4 x 25 ms beside computing; P = 4 layers x 1280 tokens x 1 ms.
    let (stages, pieces, c0, whole) = (2.0, 10.0, 0.1, 5.12);
    let slow = |name| Device { overhead_s: 0.025, ..device(name, room(4)) };
    let link = Link { rtt_s: 0.0, bytes_per_s: 1e18 };
    let fleet = Fleet::new(["a", "b"].map(slow).to_vec(), 0, link, &[]).unwrap();
    let of = |prompt| plan(&even_model(8), &fleet, &Demand { prompt, ..demand(Objective::Latency, 1) }).unwrap().prompt;
    assert_eq!(of(1_280).micro_batches, 10);
    // And the head's pass for logits, which has nothing to read here.
    near(of(1_280).total_s, (pieces + stages - 1.0) * (c0 + whole / pieces) + 0.025);
    assert_eq!([1, 128, 129, 1_600].map(|prompt| of(prompt).micro_batches), [1, 1, 2, 13]);
    near(of(128).total_s, stages * (c0 + 0.512) + 0.025);
}

#[test]
fn stages_that_are_not_of_the_fleet_or_the_model_are_refused() {
    let devices = ["a", "b", "c"].map(|name| device(name, room(4))).to_vec();
    let fleet = Fleet::new(devices, 0, Link { rtt_s: 2e-3, bytes_per_s: 4e6 }, &[]).unwrap();
    let told = |stages: &[(usize, std::ops::Range<usize>)]| {
        let stages: Vec<Stage> =
            stages.iter().map(|(device, layers)| Stage { device: *device, layers: layers.clone() }).collect();
        predict(&even_model(12), &fleet, &demand(Objective::Latency, 1), &stages).map_err(|e| e.to_string())
    };
    // One that has no layers yet is on the way all the same: twelve layers, three hops of 2 ms.
    near(told(&[(0, 0..4), (1, 4..4), (2, 4..12)]).unwrap(), 12e-3 + 3.0 * 2e-3);
    for (stages, error) in [
        (&[][..], "stages: all 12 layers expected, got 0"),
        (&[(0, 0..4), (2, 4..11)], "stages: all 12 layers expected, got 11"),
        (&[(1, 0..12)], "stage 0: device: 0, the head expected, got 1"),
        (&[(0, 0..4), (3, 4..12)], "stage 1: device: 0 to 2 expected, got 3"),
        (&[(0, 0..4), (1, 5..12)], "stage 1: layers: 4 up to 12 at most expected, got 5..12"),
        (&[(0, 0..4), (1, 4..13)], "stage 1: layers: 4 up to 12 at most expected, got 4..13"),
    ] {
        assert_eq!(told(stages), Err(error.to_owned()));
    }
}
