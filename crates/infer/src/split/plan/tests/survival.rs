//! Standbys: who goes on, after what pause, and what cannot be lost.

use super::instances::{even_model, near};
use crate::split::plan::*;
use littoral_wire::pipeline::Activations;

/// Room for so many layers beside a log of 400 kB; disk for so many.
fn device(name: &str, layers: u64, on_disk: u64) -> Device {
    Device {
        name: name.to_owned(),
        memory_bytes: (layers * 10_000_000 + 400_000) * 5 / 4 + 100,
        read_bytes_per_s: 1e10,
        overhead_s: 0.0,
        prefill_flops_per_s: 2e10,
        disk_free_bytes: on_disk * 10_000_000,
        disk_read_bytes_per_s: 1e9,
        host: None,
    }
}

fn covers(devices: Vec<Device>, warm: bool) -> (Plan, Vec<Cover>) {
    let recovery = Recovery { warm, ..Recovery::default() };
    let (objective, activations) = (Objective::Latency, Activations::F32);
    let demand = Demand { objective, streams: 1, context: 100, prompt: 100, activations, recovery };
    let fleet = Fleet::new(devices, 0, Link { rtt_s: 2e-3, bytes_per_s: 4e6 }, &[]).unwrap();
    let plan = plan(&even_model(8), &fleet, &demand).unwrap();
    let covers = plan.covers.clone();
    (plan, covers)
}

#[test]
fn a_pause_is_detection_loading_and_replay() {
    // Four layers each on a and b; c is slow to read and stands by.
    let slow = Device { read_bytes_per_s: 5e9, ..device("c", 4, 4) };
    let (plan, covers) = covers(vec![device("a", 4, 0), device("b", 4, 0), slow.clone()], false);
    assert_eq!((plan.stages.len(), covers.len(), covers[0].stage), (2, 1, 1));
    let standby = covers[0].standby.as_ref().unwrap();
    assert_eq!((standby.device, standby.disk_bytes, covers[0].why.as_str()), (2, 40_000_000, ""));
    // 40 MB at 1 GB/s; 100 vectors of 4 kB at 4 MB/s and half a round trip, 100 tokens x 4 layers x 1 ms.
    near(standby.load_s, 0.04);
    near(standby.replay_s, 0.101 + 0.4);
    near(standby.pause_s, 0.6 + 0.04 + 0.501);
    // 4 layers of 1 ms, 4 of 2 ms, two hops of 2 ms.
    near(standby.tok_s, 1.0 / 16e-3);
    let warm = self::covers(vec![device("a", 4, 0), device("b", 4, 0), slow], true).1;
    near(warm[0].standby.as_ref().unwrap().pause_s, 0.6 + 0.501);
}

/// The head has room for all: where it takes over, no hop is left.
#[test]
fn the_head_may_stand_by() {
    let quick = Device { read_bytes_per_s: 1e12, prefill_flops_per_s: 2e12, ..device("b", 8, 0) };
    let (plan, covers) = covers(vec![device("a", 8, 8), quick], true);
    assert_eq!(plan.stages.len(), 2);
    let standby = covers[0].standby.as_ref().unwrap();
    assert_eq!(standby.device, 0);
    near(standby.tok_s, plan.solo.tok_s);
    // What it keeps it sent to itself.
    near(standby.replay_s, 100.0 * plan.stages[1].stage.layers.len() as f64 * 1e-3);
}

#[test]
fn what_cannot_be_lost_is_said_beforehand() {
    let (_, covers) = covers(vec![device("a", 4, 4), device("b", 4, 4), device("c", 2, 3), device("d", 3, 4)], true);
    assert_eq!(covers[0].standby, None);
    assert_eq!(covers[0].why, "a lacks 40 MB of memory, c lacks 10 MB of disk, d lacks 10.00 MB of memory");
    let alone = self::covers(vec![device("a", 8, 0)], true).1;
    assert!(alone.is_empty(), "the head has no standby");
}

/// Two stages of three layers; the one spare device has disk for one of them, and the other stands by for the rest.
#[test]
fn disk_is_counted_once() {
    let stages = || vec![device("a", 2, 0), device("b", 3, 0), device("c", 3, 0)];
    let spare = |on_disk| Device { read_bytes_per_s: 1e9, ..device("d", 6, on_disk) };
    let by = |on_disk| {
        let (plan, covers) = covers([stages(), vec![spare(on_disk)]].concat(), true);
        assert_eq!(plan.stages.len(), 3);
        covers.into_iter().map(|cover| cover.standby.map(|standby| standby.device)).collect::<Vec<_>>()
    };
    assert_eq!(by(6), [Some(3), Some(3)]);
    assert_eq!(by(5), [Some(3), None]);
    assert_eq!(by(2), [None, None]);
}

#[test]
fn another_host_comes_first() {
    let at = |host: &str, device: Device| Device { host: Some(host.to_owned()), ..device };
    // c is on b's host and quicker, d is far slower.
    let (a, b) = (at("one", device("a", 4, 0)), at("two", device("b", 4, 0)));
    let c = at("two", Device { read_bytes_per_s: 9e9, ..device("c", 4, 4) });
    let d = at("three", Device { prefill_flops_per_s: 1e9, read_bytes_per_s: 1e9, ..device("d", 4, 4) });
    let both = covers(vec![a.clone(), b.clone(), c.clone(), d], true).1;
    assert_eq!(both[0].standby.as_ref().map(|standby| standby.device), Some(3));
    let same = covers(vec![a, b, c], true).1;
    assert_eq!(same[0].standby.as_ref().map(|standby| standby.device), Some(2));
    assert_eq!(same[0].why, "on the same host: it covers a lost process, not a lost machine");
}
