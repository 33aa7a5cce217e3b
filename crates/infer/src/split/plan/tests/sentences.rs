//! What people are told, word for word.

use crate::split::plan::*;
use littoral_wire::pipeline::Activations;

fn model(layers: usize) -> ModelCost {
    let layer =
        LayerCost { weight_bytes: 100_000_000, kv_bytes: 1_000, window: 0, flops: 200_000_000, flops_per_position: 0 };
    ModelCost {
        layers: vec![layer; layers],
        ends_bytes: 100_000_000,
        output_bytes: 100_000_000,
        output_flops: 0,
        width: 1_000,
        scratch_bytes: 1_000_000,
        logits_bytes: 0,
    }
}

fn device(name: &str, memory_bytes: u64, read_bytes_per_s: f64) -> Device {
    Device {
        name: name.to_owned(),
        memory_bytes,
        read_bytes_per_s,
        overhead_s: 0.0,
        prefill_flops_per_s: 1e12,
        disk_free_bytes: 0,
        disk_read_bytes_per_s: 1e9,
        host: None,
    }
}

fn planned(devices: &[Device], rtt_s: f64, objective: Objective) -> Result<Plan, PlanError> {
    let fleet = Fleet::new(devices.to_vec(), 0, Link { rtt_s, bytes_per_s: 1e9 }, &[])?;
    let (activations, recovery) = (Activations::F32, Recovery::default());
    plan(&model(10), &fleet, &Demand { objective, streams: 4, context: 100, prompt: 100, activations, recovery })
}

fn said(devices: &[Device], rtt_s: f64, objective: Objective) -> Vec<String> {
    let plan = planned(devices, rtt_s, objective).unwrap();
    std::iter::once(plan.summary).chain(plan.verdicts.into_iter().map(|verdict| verdict.why)).collect()
}

#[test]
fn solo_is_faster() {
    let devices = [device("a", 4_000_000_000, 1e10), device("b", 4_000_000_000, 1e10), device("c", 100_000, 1e10)];
    // 110 ms here; with b all but the ends could go there, for two hops of 10 ms.
    assert_eq!(
        said(&devices, 0.02, Objective::Latency),
        [
            "solo is faster: 1.18x; a split is only needed for memory",
            "in: it serves, with both ends and 10 of 10 layers",
            "out: each token would wait 20.0 ms for its link and save nothing",
            "out: not one layer fits: 103 MB of 80.0 kB",
        ]
    );
    // Twice as quick: it saves 50 ms, and hops of 30 are too long.
    let devices = [device("a", 4_000_000_000, 1e10), device("b", 4_000_000_000, 2e10)];
    assert_eq!(
        said(&devices, 0.06, Objective::Latency)[2],
        "out: each token would wait 60.0 ms for its link and save 50.0 ms"
    );
    assert_eq!(
        said(&devices, 0.04, Objective::Latency),
        [
            "a split is faster than solo: 1.10x",
            "in: it serves, with both ends and 0 of 10 layers",
            "in: a token takes 100.1 ms with it and 110.1 ms without (1.10x)"
        ]
    );
    let devices = [device("a", 4_000_000_000, 1e10)];
    assert_eq!(said(&devices, 0.0, Objective::Latency)[0], "solo: a is the only device");
}

#[test]
fn memory_is_why() {
    let devices = [device("a", 1_000_000_000, 1e10), device("b", 1_000_000_000, 5e9), device("c", 1_000_000_000, 1e9)];
    assert_eq!(
        said(&devices[..2], 0.001, Objective::Latency),
        [
            "a split for memory: a alone needs 1.10 GB and may use 800 MB; with enough, solo would be faster: 1.37x",
            "in: it serves, with both ends and 6 of 10 layers",
            "in: the model does not fit on a alone: 1.10 GB of 800 MB",
        ]
    );
    assert_eq!(
        said(&devices, 0.001, Objective::Latency)[3],
        "out: each token would wait 0.50 ms more for links and compute 80.1 ms longer"
    );
}

#[test]
fn throughput_is_told_in_tokens() {
    let devices = [device("a", 4_000_000_000, 1e10), device("b", 4_000_000_000, 1e8)];
    let said = said(&devices, 0.001, Objective::Throughput);
    assert!(said[0].starts_with("solo is faster: "), "{}", said[0]);
    assert!(said[2].starts_with("out: ") && said[2].ends_with(" tok/s without"), "{}", said[2]);
}

#[test]
fn what_does_not_fit_is_told_with_what_is_missing_and_where() {
    let small = [device("a", 500_000_000, 1e10), device("b", 300_000_000, 1e10)];
    let refused = planned(&small, 0.0, Objective::Latency).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "memory for layers (a 297 MB, b 237 MB): memory for 10 layers expected, got it for 4: 602 MB missing"
    );
    let refused = planned(&[device("a", 100_000_000, 1e10), small[0].clone()], 0.0, Objective::Latency);
    let PlanError::Field { field, expected, got } = refused.clone().unwrap_err() else {
        panic!("{refused:?}");
    };
    assert_eq!((field.as_str(), expected.as_str(), got.as_str()), ("device 2: name", "a name of its own", "a"));
    let refused = planned(&[device("h", 100_000_000, 1e10), small[0].clone()], 0.0, Objective::Latency).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "h: 103 MB for both ends of the model and what it works in expected, got 80 MB (23 MB missing)"
    );
}

#[test]
fn numbers_out_of_bounds_are_refused_by_name() {
    let good = device("a", 1_000_000_000, 1e10);
    for (device, field) in [
        (Device { read_bytes_per_s: f64::NAN, ..good.clone() }, "device a: read_bytes_per_s"),
        (Device { read_bytes_per_s: 0.0, ..good.clone() }, "device a: read_bytes_per_s"),
        (Device { overhead_s: -1.0, ..good.clone() }, "device a: overhead_s"),
        (Device { prefill_flops_per_s: f64::INFINITY, ..good.clone() }, "device a: prefill_flops_per_s"),
        (Device { memory_bytes: u64::MAX, ..good.clone() }, "device a: memory_bytes"),
        (Device { name: String::new(), ..good.clone() }, "device 1: name"),
    ] {
        let refused = planned(&[device], 0.0, Objective::Latency).unwrap_err();
        assert_eq!(refused.parts().0, field, "{refused}");
    }
    let refused = planned(&[good], f64::NAN, Objective::Latency).unwrap_err();
    assert_eq!(refused.parts().0, "link: rtt_s");
}

/// What takes less than a picosecond takes one.
#[test]
fn no_rate_is_infinite() {
    let mut quick = model(3);
    quick.layers.iter_mut().for_each(|layer| *layer = LayerCost { weight_bytes: 1, flops: 0, kv_bytes: 0, ..*layer });
    quick.output_bytes = 0;
    let device = Device { prefill_flops_per_s: RATE_MAX, ..device("a", 1_000_000_000, RATE_MAX) };
    let fleet = Fleet::new(vec![device], 0, Link { rtt_s: 0.0, bytes_per_s: RATE_MAX }, &[]).unwrap();
    let (activations, recovery) = (Activations::F32, Recovery::default());
    for objective in [Objective::Latency, Objective::Throughput] {
        let demand = Demand { objective, streams: 6, context: 1, prompt: 1, activations, recovery };
        let plan = plan(&quick, &fleet, &demand).unwrap();
        assert!(plan.tok_s().is_finite() && plan.streams_tok_s.is_finite());
        assert_eq!(plan.proof, Proof::Best);
    }
}

/// The largest numbers that are allowed: sums do not overflow, and nothing fits by wrapping round.
#[test]
fn the_largest_numbers_are_only_large() {
    let mut vast = model(LAYERS_MAX);
    vast.layers.iter_mut().for_each(|layer| (layer.kv_bytes, layer.flops) = (1 << 33, u64::MAX));
    vast.width = 1 << 20;
    let device =
        Device { memory_bytes: BYTES_MAX, overhead_s: SECONDS_MAX, read_bytes_per_s: RATE_MIN, ..device("a", 0, 1e3) };
    let devices = ["a", "b"].map(|name| Device { name: name.to_owned(), ..device.clone() });
    let link = Link { rtt_s: SECONDS_MAX, bytes_per_s: RATE_MIN };
    let fleet = Fleet::new(devices.to_vec(), 0, link, &[]).unwrap();
    let (activations, recovery) = (Activations::F32, Recovery::default());
    for objective in [Objective::Latency, Objective::Throughput] {
        let demand = |streams, context| Demand { objective, streams, context, prompt: context, activations, recovery };
        let refused = plan(&vast, &fleet, &demand(STREAMS_MAX, POSITIONS_MAX)).unwrap_err();
        assert!(matches!(refused, PlanError::Head { .. } | PlanError::NoRoom { placed: 0, .. }), "{refused}");
        let slow = plan(&vast, &fleet, &demand(2, 1)).unwrap();
        assert!(slow.token_s.is_finite() && slow.token_s > 1e3);
    }
}
