//! Noise among faults: sums are exact with their noise in them, budgets hold, and most rounds complete.

use littoral_node::role::{Millis, Table, Write};
use littoral_node::work::{self, LocalData};
use littoral_sim::checkers::{Checker, Seen};
use littoral_sim::faults::{Faults, Kind};
use littoral_sim::fleet::{self, Fleet, FleetSpec};
use littoral_sim::synthetic::Synthetic;
use littoral_sim::world::{Costs, Machine};
use littoral_wire::NodeId;
use littoral_wire::codec::Wire;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const ROUNDS: u64 = 4;

/// Real training, masks and noise.
fn spec(seed: u64, threads: usize, faults: Faults, mechanism: &str) -> FleetSpec {
    // Of two versions in a row a device is in one.
    let (target, min) = if mechanism == FTRL { (6, 3) } else { (12, 6) };
    // Where single examples are protected, none may be held out.
    let held_out = if mechanism == EXAMPLES { 0.0 } else { 0.2 };
    let job_toml = format!(
        r#"
        name = "private"
        seed = {seed}
        model = {{ kind = "softmax" }}
        data = {{ set = "blobs", standardise = false, held_out = {held_out}, schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "x" }}, {{ name = "y" }}] }} }}
        algorithm = {{ name = "fedavg" }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = {target}, min = {min} }}
        rounds = {{ count = {ROUNDS}, deadline_ms = 20000, close_ms = 10000, wait_ms = 5000 }}
        precision = {{ weighting = "uniform" }}
        {mechanism}
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
        runner: work::run,
        threads,
        check: true,
        limit_ms: 1_800_000,
    }
}

const DISTRIBUTED: &str = r#"
    secure_aggregation = { adversary = 0.2 }
    differential_privacy = { mechanism = "distributed-discrete-gaussian", clip = 0.5, noise_multiplier = 1.0, epsilon = 12.0, colluding = 0.2 }
"#;
const SKELLAM: &str = r#"
    secure_aggregation = { threat = "honest", adversary = 0.2 }
    differential_privacy = { mechanism = "distributed-skellam", clip = 0.5, noise_multiplier = 1.0, epsilon = 12.0, colluding = 0.2 }
"#;
const CENTRAL: &str = r#"
    secure_aggregation = { adversary = 0.2 }
    differential_privacy = { mechanism = "central", clip = 0.5, noise_multiplier = 1.0, epsilon = 12.0 }
"#;
const LOCAL: &str = r#"
    differential_privacy = { mechanism = "local-discrete-gaussian", clip = 0.5, noise_multiplier = 4.0, epsilon = 12.0 }
"#;

const EXAMPLES: &str = r#"
    secure_aggregation = { adversary = 0.2 }
    differential_privacy = { mechanism = "example-gaussian", clip = 0.5, noise_multiplier = 2.0, epsilon = 12.0, sampling_rate = 0.5 }
"#;
/// A clip that follows the updates: one more coordinate under the masks.
const ADAPTIVE: &str = r#"
    secure_aggregation = { adversary = 0.2 }
    differential_privacy = { mechanism = "distributed-discrete-gaussian", clip = 0.1, noise_multiplier = 1.0, epsilon = 12.0, colluding = 0.2, adaptive_clip = { bit_noise = 0.1 } }
"#;
const FTRL: &str = r#"
    differential_privacy = { mechanism = "dp-ftrl", clip = 0.5, noise_multiplier = 1.0, epsilon = 12.0, bands = 2, restart_rounds = 3 }
"#;

#[test]
fn a_calm_fleet_completes_every_round_with_every_mechanism() {
    for mechanism in [DISTRIBUTED, SKELLAM, CENTRAL, LOCAL, EXAMPLES, ADAPTIVE, FTRL] {
        let outcome = Fleet::new(spec(1, 1, Faults::default(), mechanism)).unwrap().run(&mut |_| {});
        assert_eq!(outcome.checks_broken, [] as [String; 0], "{mechanism}");
        assert_eq!((outcome.rounds_completed, outcome.aborts), (ROUNDS, 0), "{mechanism}: {outcome:?}");
        match mechanism == FTRL {
            // Of the first devices to come, those of version 0 may not be in version 1.
            true => assert!((3 * ROUNDS..=6 * ROUNDS).contains(&outcome.device_rounds), "{}", outcome.device_rounds),
            false => assert_eq!(outcome.device_rounds, 12 * ROUNDS, "{mechanism}"),
        }
    }
}

fn seeds(count: u64, mechanism: &str) -> u64 {
    let (completed, next) = (AtomicU64::new(0), AtomicU64::new(1));
    let some = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > count {
                return;
            }
            let faults = Faults::profile("default").unwrap();
            let outcome = Fleet::new(spec(seed, 1, faults, mechanism)).unwrap().run(&mut |_| {});
            assert_eq!(outcome.checks_broken, [] as [String; 0], "seed {seed}, {mechanism}");
            completed.fetch_add(outcome.rounds_completed, Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(some))));
    let completed = completed.into_inner();
    println!("{count} seeds: {completed} of {} rounds,{mechanism}", count * ROUNDS);
    completed
}

#[test]
fn faults_cost_rounds_but_never_a_budget() {
    for mechanism in [DISTRIBUTED, SKELLAM, CENTRAL, LOCAL, EXAMPLES, ADAPTIVE, FTRL] {
        // Most rounds complete.
        assert!(seeds(4, mechanism) > 4 * ROUNDS * 3 / 4, "{mechanism}");
    }
    let make = |threads| spec(1, threads, Faults::profile("default").unwrap(), DISTRIBUTED);
    assert_eq!(fleet::run_twice(make, &mut |_| {}).unwrap().checks_broken, [] as [String; 0]);
}

/// As many as `LITTORAL_SEEDS` says, 1,000 without it: for `.ci/long`.
#[test]
#[ignore = "takes minutes"]
fn a_thousand_seeds() {
    let count = std::env::var("LITTORAL_SEEDS").map_or(1_000, |count| count.parse().unwrap());
    for mechanism in [DISTRIBUTED, CENTRAL, ADAPTIVE, FTRL] {
        assert!(seeds(count, mechanism) > count * ROUNDS * 3 / 4, "{mechanism}");
    }
}

/// How often each device sealed, as it keeps it durably.
#[derive(Clone, Default)]
struct TakenPart(Arc<Mutex<BTreeMap<NodeId, u64>>>);

impl Checker for TakenPart {
    fn name(&self) -> &'static str {
        "taken part"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        let Seen::Stored { writes } = seen else { return };
        for write in *writes {
            if let Write::Put { key, value } = write
                && (machine.kind, key.table) == (Kind::Device, Table::Ledger)
            {
                self.0.lock().unwrap().insert(machine.id, u64::from_bytes(&value[..8]).unwrap());
            }
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        &[]
    }
}

/// Fourteen devices may take part twice each, so of four rounds of twelve only two come about: the third finds two devices. No
/// restart lets one in a third time.
#[test]
fn devices_refuse_beyond_their_cap() {
    for faults in [Faults::default(), Faults { encode: true, ..Faults::profile("default").unwrap() }] {
        let capped = CENTRAL.replace("epsilon", "participations_max = 2, epsilon");
        let mut spec = spec(2, 1, faults.clone(), &capped);
        spec.limit_ms = 600_000;
        let mut fleet = Fleet::new(spec).unwrap();
        let taken_part = TakenPart::default();
        fleet.watch(Box::new(taken_part.clone()));
        let outcome = fleet.run(&mut |_| {});
        assert_eq!(outcome.checks_broken, [] as [String; 0]);
        assert!(outcome.rounds_completed <= 2, "{outcome:?}");
        let taken_part = taken_part.0.lock().unwrap();
        assert!(taken_part.values().all(|times| *times <= 2) && !taken_part.is_empty(), "{taken_part:?}");
        if faults == Faults::default() {
            assert_eq!((outcome.rounds_completed, outcome.ended.as_deref()), (2, None), "{outcome:?}");
            assert!(outcome.last_warning.as_deref().is_some_and(|w| w.contains("participations_max")), "{outcome:?}");
        }
    }
}
