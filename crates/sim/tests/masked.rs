//! Secure aggregation among faults: what is opened is the sum, nothing else is, and most rounds complete.

use littoral_fed::round::Record;
use littoral_node::role::{Millis, Report, Table, Write};
use littoral_node::work::LocalData;
use littoral_sim::checkers::{Checker, Seen};
use littoral_sim::drill;
use littoral_sim::faults::{Blow, Faults, Kind, LinkShape};
use littoral_sim::fleet::{self, Fleet, FleetSpec};
use littoral_sim::report::Outcome;
use littoral_sim::synthetic::Synthetic;
use littoral_sim::world::{Costs, Machine};
use littoral_wire::Wire;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const ROUNDS: u64 = 6;

fn spec(seed: u64, threads: usize, faults: Faults, agreement: &str) -> FleetSpec {
    let job_toml = format!(
        r#"
        name = "masked"
        seed = {seed}
        model = {{ kind = "softmax" }}
        data = {{ set = "blobs", schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "x" }}, {{ name = "y" }}] }} }}
        algorithm = {{ name = "scaffold" }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = 12, min = 6 }}
        rounds = {{ count = {ROUNDS}, deadline_ms = 20000, close_ms = 10000, wait_ms = 5000 }}
        precision = {{ weighting = "uniform" }}
        secure_aggregation = {{ {agreement} }}
        "#
    );
    FleetSpec {
        seed,
        devices: 14,
        names: Vec::new(),
        edges: 3,
        job_toml,
        data: Arc::new(move |device| (Arc::new(Synthetic::new(seed, device, 8)) as Arc<dyn LocalData>, 8)),
        faults,
        costs: Costs::default(),
        runner: drill::run,
        threads,
        check: true,
        limit_ms: 1_800_000,
    }
}

const ACTIVE: &str = "adversary = 0.2";
const HONEST: &str = "threat = \"honest\", adversary = 0.2";
const PER_EDGE: &str = "groups = \"per_edge\", adversary = 0, dropout = 0.34, group_min = 2";

#[test]
fn a_calm_fleet_opens_every_sum() {
    for agreement in [ACTIVE, HONEST] {
        let outcome = Fleet::new(spec(1, 1, Faults::default(), agreement)).unwrap().run(&mut |_| {});
        assert_eq!(outcome.checks_broken, [] as [String; 0], "{agreement}");
        assert_eq!((outcome.rounds_completed, outcome.aborts), (ROUNDS, 0), "{agreement}: {outcome:?}");
        assert_eq!(outcome.device_rounds, 12 * ROUNDS, "{agreement}");
    }
}

/// Five devices under two edges, each of which is needed.
fn small(kill: Blow) -> Outcome {
    let mut spec = spec(5, 1, Faults { encode: true, ..Faults::default() }, "adversary = 0.2");
    spec.devices = 5;
    spec.edges = 2;
    spec.job_toml =
        spec.job_toml.replace("target = 12, min = 6", "target = 5, min = 4").replace("count = 6", "count = 2");
    let mut fleet = Fleet::new(spec).unwrap();
    fleet.strike(Kind::Device, 2, kill);
    fleet.run(&mut |_| {})
}

/// A device is killed before each effect of its whole life in turn, from its first call to the end of the second round. The
/// checkers watch that it never offers two vectors, signs two sets or reveals two shares, and that what is summed is exact;
/// and the job ends all the same.
#[test]
fn a_device_killed_at_every_step_gives_nothing_away() {
    let mut killed_at = BTreeSet::new();
    for effects in 0.. {
        let outcome = small(Blow::KillAtEffect(effects));
        assert_eq!(outcome.checks_broken, [] as [String; 0], "before effect {effects}");
        assert_eq!(outcome.rounds_completed, 2, "before effect {effects}: {outcome:?}");
        let faults = serde_json::to_value(&outcome.faults_injected).unwrap();
        let kills: Vec<String> = faults.as_object().unwrap().keys().cloned().collect();
        // It has done less than that in all its life.
        if kills.is_empty() {
            println!("{effects} effects; killed at: {killed_at:?}");
            break;
        }
        killed_at.extend(kills);
    }
    for step in [
        "Attach",
        "work",
        "Sealing Keys",
        "Sealing Nonce",
        "Sealing Shares",
        "laying masks on",
        "storing what is sealed",
        "Offer",
        "Sealing Agree",
        "Sealing Reveal",
    ] {
        assert!(killed_at.contains(&format!("device killed at {step}")), "{step} was not hit: {killed_at:?}");
    }
}

/// Reasons why devices were left out, as the cloud records them for `job show`.
#[derive(Clone, Default)]
struct Declined(Arc<Mutex<BTreeMap<String, String>>>);

impl Checker for Declined {
    fn name(&self) -> &'static str {
        "who was left out"
    }

    fn see(&mut self, _: Millis, _: &Machine, seen: &Seen<'_>) {
        let Seen::Stored { writes } = seen else { return };
        for write in *writes {
            if let Write::Put { key, value } = write
                && key.table == Table::Record
                && let Ok(Record::Declined { name, why, .. }) = Record::from_bytes(value)
            {
                self.0.lock().unwrap().insert(name, why);
            }
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        &[]
    }
}

/// Of seven devices three are under the first edge and two under each other one. Groups of two are too small: their devices
/// are left out and named with the reason; the others' sum is opened.
#[test]
fn a_group_that_is_too_small_is_left_out_and_named() {
    let agreement = "groups = \"per_edge\", adversary = 0, dropout = 0, group_min = 3";
    let mut spec = spec(3, 1, Faults::default(), agreement);
    spec.devices = 7;
    spec.job_toml =
        spec.job_toml.replace("target = 12, min = 6", "target = 7, min = 3").replace("count = 6", "count = 2");
    let mut fleet = Fleet::new(spec).unwrap();
    let declined = Declined::default();
    fleet.watch(Box::new(declined.clone()));
    let outcome = fleet.run(&mut |_| {});
    assert_eq!(outcome.checks_broken, [] as [String; 0]);
    assert_eq!((outcome.rounds_completed, outcome.aborts), (2, 0), "{outcome:?}");
    assert_eq!(outcome.device_rounds, 2 * 3);
    let declined = declined.0.lock().unwrap();
    assert_eq!(declined.keys().collect::<Vec<_>>(), ["device-2", "device-3", "device-5", "device-6"]);
    let named =
        |why: &String| why.contains("the group of its edge") && why.contains("the group has 2 devices, at least 3");
    assert!(declined.values().all(named), "{declined:?}");
}

/// Why attempts were given up, and how often: digits are left out, so that like reasons are counted together.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<BTreeMap<String, u64>>>);

impl Checker for Reasons {
    fn name(&self) -> &'static str {
        "why attempts are given up"
    }

    fn see(&mut self, _: Millis, _: &Machine, seen: &Seen<'_>) {
        if let Seen::Reported { report: Report::Aborted { why, .. } } = seen {
            let like: String = why.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
            let like = like.split_once(';').map_or(like.as_str(), |(first, _)| first).to_owned();
            *self.0.lock().unwrap().entry(like).or_default() += 1;
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        &[]
    }
}

/// Seeds from 1 on. Returns the rounds that were completed.
fn seeds(count: u64, agreement: &str, faults: &Faults) -> u64 {
    let (reasons, next) = (Reasons::default(), AtomicU64::new(1));
    let (completed, aborts) = (AtomicU64::new(0), AtomicU64::new(0));
    let some = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > count {
                return;
            }
            let mut fleet = Fleet::new(spec(seed, 1, faults.clone(), agreement)).unwrap();
            fleet.watch(Box::new(reasons.clone()));
            let outcome = fleet.run(&mut |_| {});
            assert_eq!(outcome.checks_broken, [] as [String; 0], "{agreement}, seed {seed}");
            completed.fetch_add(outcome.rounds_completed, Ordering::Relaxed);
            aborts.fetch_add(outcome.aborts, Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(some))));
    let (completed, aborts, rounds) = (completed.into_inner(), aborts.into_inner(), count * ROUNDS);
    println!("{count} seeds, {agreement}: {completed} of {rounds} rounds, {aborts} attempts given up");
    for (why, times) in reasons.0.lock().unwrap().iter() {
        println!("{times:6} {why}");
    }
    completed
}

fn usual() -> Faults {
    Faults::profile("default").unwrap()
}

#[test]
fn faults_cost_rounds_but_never_a_sum() {
    for agreement in [ACTIVE, HONEST, PER_EDGE] {
        let completed = seeds(12, agreement, &usual());
        // Most rounds complete.
        assert!(completed > 12 * ROUNDS * 9 / 10, "{agreement}: {completed}");
        let make = |threads| spec(1, threads, usual(), agreement);
        assert_eq!(fleet::run_twice(make, &mut |_| {}).unwrap().checks_broken, [] as [String; 0], "{agreement}");
    }
}

/// Links of devices die all the time, so that devices go from edge to edge at every step: also from group to group.
#[test]
fn devices_that_move_between_edges_are_counted_once_and_help_to_open() {
    let usual = usual();
    let moves = Faults { device_link: LinkShape { death: 0.03, ..usual.device_link }, ..usual };
    for agreement in [ACTIVE, HONEST, PER_EDGE] {
        let completed = seeds(8, agreement, &moves);
        assert!(completed > 8 * ROUNDS * 3 / 4, "{agreement}: {completed}");
    }
}

/// As many as `LITTORAL_SEEDS` says, 1,000 without it: for `.ci/long`.
#[test]
#[ignore = "takes minutes"]
fn a_thousand_seeds() {
    let count = std::env::var("LITTORAL_SEEDS").map_or(1_000, |count| count.parse().unwrap());
    for agreement in [ACTIVE, HONEST, PER_EDGE] {
        let completed = seeds(count, agreement, &usual());
        assert!(completed > count * ROUNDS * 9 / 10, "{agreement}: {completed}");
    }
}
