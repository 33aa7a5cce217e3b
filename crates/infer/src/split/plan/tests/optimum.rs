//! Plans are the best there are, and what is said of each device is so.

use super::instances::{Draw, Shape, demand, fleet, model};
use super::oracle::{Oracle, tok_s, way};
use crate::split::plan::*;

/// Times are rounded to picoseconds, of sums of milliseconds.
const ROUNDED: f64 = 1e-7;
/// The time between steps is found to 2^-20.
const HALVED: f64 = 3e-6;

struct Instance {
    model: ModelCost,
    fleet: Fleet,
    demand: Demand,
}

fn instance(seed: u64, objective: Objective, hosts: bool) -> Instance {
    let mut draw = Draw::new(seed);
    let shape = if seed.is_multiple_of(3) { Shape::Uniform } else { Shape::Mixed };
    let (devices, layers) = (1 + draw.below(4) as usize, 3 + draw.below(4) as usize);
    let model = model(&mut draw, layers, shape);
    let fleet = fleet(&mut draw, devices, layers, hosts);
    let demand = demand(&mut draw, objective);
    Instance { model, fleet, demand }
}

impl Instance {
    fn oracle(&self) -> Oracle<'_> {
        Oracle { model: &self.model, fleet: &self.fleet, demand: &self.demand }
    }

    fn plan(&self) -> Result<Plan, PlanError> {
        plan(&self.model, &self.fleet, &self.demand)
    }
}

fn near(got: f64, expected: f64, tolerance: f64) -> bool {
    (got / expected - 1.0).abs() <= tolerance
}

/// Each plan is whole: all layers, once, in order, each device once, the head first, and where there is room.
fn check_whole(instance: &Instance, plan: &Plan) {
    let way = way(plan);
    assert_eq!(way[0].0, instance.fleet.head());
    assert_eq!((way[0].1.start, way.last().unwrap().1.end), (0, instance.model.layers.len()));
    assert!(way.windows(2).all(|pair| pair[0].1.end == pair[1].1.start && !pair[1].1.is_empty()), "{way:?}");
    let mut devices: Vec<usize> = way.iter().map(|(device, _)| *device).collect();
    devices.sort_unstable();
    devices.dedup();
    assert_eq!(devices.len(), way.len());
    assert!(instance.oracle().fits(&way), "{way:?}");
    assert!(plan.stages.iter().all(|stage| stage.memory_bytes <= stage.usable_bytes));
}

#[test]
fn no_way_is_quicker() {
    let (mut splits, mut none) = (0, 0);
    for seed in 0..400 {
        let instance = instance(seed, Objective::Latency, seed % 2 == 0);
        match (instance.plan(), instance.oracle().best(|_| true)) {
            (Ok(plan), Some(best)) => {
                check_whole(&instance, &plan);
                assert!(near(plan.tok_s(), best, ROUNDED), "seed {seed}: {} is not {best}", plan.tok_s());
                assert!(near(instance.oracle().tok_s(&way(&plan)), best, ROUNDED), "seed {seed}");
                let stages: Vec<Stage> = plan.stages.iter().map(|stage| stage.stage.clone()).collect();
                let predicted = predict(&instance.model, &instance.fleet, &instance.demand, &stages);
                assert_eq!(predicted, Ok(plan.token_s), "seed {seed}");
                assert_eq!(plan.proof, Proof::Best);
                splits += usize::from(plan.stages.len() > 1);
            }
            (Err(PlanError::Head { .. } | PlanError::NoRoom { .. }), None) => none += 1,
            (plan, best) => panic!("seed {seed}: {plan:?} but {best:?}"),
        }
    }
    // The instances are of all kinds: 213 splits and 130 that have no room were seen. Other draws may have half as many.
    assert!(splits > 80 && none > 40 && none < 250, "{splits} {none}");
}

#[test]
fn no_way_does_more_where_no_host_is_shared() {
    let mut splits = 0;
    for seed in 0..300 {
        let instance = instance(seed, Objective::Throughput, false);
        match (instance.plan(), instance.oracle().best(|_| true)) {
            (Ok(plan), Some(best)) => {
                check_whole(&instance, &plan);
                assert!(near(plan.streams_tok_s, best, HALVED), "seed {seed}: {} is not {best}", plan.streams_tok_s);
                assert_eq!(plan.proof, Proof::Best, "seed {seed}");
                splits += usize::from(plan.stages.len() > 1);
            }
            (Err(_), None) => {}
            (plan, best) => panic!("seed {seed}: {plan:?} but {best:?}"),
        }
    }
    // Seen: 174. Other draws may have half as many.
    assert!(splits > 60, "{splits}");
}

/// Where stages of a host take turns the plan may miss the best; what it says about how far is true.
#[test]
fn what_a_plan_with_shared_hosts_may_miss_is_said() {
    let (mut best_ones, mut all) = (0, 0);
    for seed in 0..300 {
        let instance = instance(seed, Objective::Throughput, true);
        let (Ok(plan), Some(best)) = (instance.plan(), instance.oracle().best(|_| true)) else { continue };
        check_whole(&instance, &plan);
        let within = match plan.proof {
            Proof::Best => 0.0,
            Proof::Within(share) => share,
            Proof::Searched => panic!("seed {seed}"),
        };
        assert!(plan.streams_tok_s <= best * (1.0 + HALVED), "seed {seed}");
        assert!(plan.streams_tok_s * (1.0 + within) >= best * (1.0 - 1e-5), "seed {seed}: {within}");
        best_ones += usize::from(near(plan.streams_tok_s, best, 1e-5));
        all += 1;
    }
    // Seen: all of 201. The search promises no more than its share; a few may miss the best without being wrong.
    assert!(best_ones * 100 >= all * 98, "{best_ones} of {all}");
}

#[test]
fn a_device_more_is_never_worse() {
    for objective in [Objective::Latency, Objective::Throughput] {
        for seed in 0..120 {
            let more = instance(seed, objective, false);
            let devices = more.fleet.devices();
            let Some(gone) = (0..devices.len()).rev().find(|device| *device != more.fleet.head()) else { continue };
            let fewer =
                Instance { fleet: without(&more.fleet, gone), model: more.model.clone(), demand: more.demand.clone() };
            if let Ok(fewer) = fewer.plan() {
                let more_tok_s = tok_s(&more.plan().unwrap(), &more.demand);
                assert!(more_tok_s >= tok_s(&fewer, &more.demand) * (1.0 - HALVED), "seed {seed}");
            }
        }
    }
}

fn without(fleet: &Fleet, gone: usize) -> Fleet {
    let kept: Vec<usize> = (0..fleet.devices().len()).filter(|device| *device != gone).collect();
    let devices = kept.iter().map(|device| fleet.devices()[*device].clone()).collect();
    let at = |device: usize| kept.iter().position(|kept| *kept == device).unwrap();
    let pairs = kept.iter().flat_map(|a| kept.iter().filter(move |b| a < b).map(move |b| (*a, *b)));
    let links: Vec<_> = pairs.map(|(a, b)| (at(a), at(b), fleet.link(a, b))).collect();
    Fleet::new(devices, at(fleet.head()), Link { rtt_s: 0.0, bytes_per_s: 1e9 }, &links).unwrap()
}

/// If the head has room for all, others help one stream only by what they save beyond their hops.
#[test]
fn solo_is_left_only_for_devices_that_save_more_than_their_hops() {
    let (mut solo, mut split) = (0, 0);
    for seed in 0..400 {
        let instance = instance(seed, Objective::Latency, false);
        let Ok(plan) = instance.plan() else { continue };
        if !plan.solo.fits {
            continue;
        }
        let way = way(&plan);
        let of_head = |layers| instance.oracle().tok_s(&[(instance.fleet.head(), layers)]);
        let hops_s: f64 = plan.stages.iter().map(|stage| stage.hop_s).sum();
        let saved_s = 1.0 / of_head(0..instance.model.layers.len()) - (plan.token_s - hops_s);
        if way.len() == 1 {
            solo += 1;
            assert_eq!(hops_s, 0.0);
        } else {
            split += 1;
            assert!(saved_s > hops_s, "seed {seed}: {saved_s} {hops_s}");
        }
    }
    // Seen: 58 and 39. Enough that neither side is empty by other draws.
    assert!(solo > 10 && split > 10, "{solo} {split}");
}

#[test]
fn what_is_said_of_each_device_is_so() {
    let (mut included, mut excluded, mut needed) = (0, 0, 0);
    for (seed, objective) in (0..250).flat_map(|seed| [(seed, Objective::Latency), (seed, Objective::Throughput)]) {
        let instance = instance(seed, objective, false);
        let Ok(plan) = instance.plan() else { continue };
        let used = |device: usize| plan.stages.iter().any(|stage| stage.stage.device == device);
        for verdict in plan.verdicts.iter().filter(|verdict| verdict.device != instance.fleet.head()) {
            let device = verdict.device;
            assert_eq!(verdict.included, used(device));
            assert!(verdict.why.starts_with(if verdict.included { "in: " } else { "out: " }), "{}", verdict.why);
            // Planned again over all ways that have it, or have it not.
            let other = instance.oracle().best(|devices| devices.contains(&device) != verdict.included);
            match (verdict.otherwise_tok_s, other) {
                (Some(got), Some(expected)) => {
                    assert!(near(got, expected, HALVED), "seed {seed}: {}: {got} is not {expected}", verdict.why);
                    assert!(got <= tok_s(&plan, &instance.demand) * (1.0 + HALVED));
                }
                (None, None) => {}
                (got, expected) => panic!("seed {seed}: {}: {got:?} is not {expected:?}", verdict.why),
            }
            included += usize::from(verdict.included);
            excluded += usize::from(!verdict.included);
            needed += usize::from(verdict.included && other.is_none());
        }
    }
    // Seen: 398, 304 and 140. Other draws may have a third of it.
    assert!(included > 100 && excluded > 100 && needed > 30, "{included} {excluded} {needed}");
}

/// Three that are alike: as few as do, and those that come first.
#[test]
fn equal_plans_are_told_apart_by_the_order_of_the_list() {
    let mut draw = Draw::new(1);
    let model = model(&mut draw, 6, Shape::Uniform);
    let one = Device { memory_bytes: 100_000_000, host: None, ..fleet(&mut draw, 1, 6, false).devices()[0].clone() };
    let names = ["a", "b", "c", "d"].map(|name| Device { name: name.to_owned(), ..one.clone() });
    let fleet = Fleet::new(names.to_vec(), 1, Link { rtt_s: 1e-3, bytes_per_s: 1e8 }, &[]).unwrap();
    let demand = Demand { streams: 1, ..demand(&mut draw, Objective::Latency) };
    let plan = plan(&model, &fleet, &demand).unwrap();
    let layers: Vec<(usize, usize)> = way(&plan).into_iter().map(|(device, layers)| (device, layers.len())).collect();
    assert_eq!(layers, [(1, 5), (0, 1)], "{plan:?}");
}
