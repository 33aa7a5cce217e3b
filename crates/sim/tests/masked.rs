//! Secure aggregation among faults: what is opened is the sum, nothing else is, and most rounds complete.

use littoral_node::work::LocalData;
use littoral_sim::drill;
use littoral_sim::faults::Faults;
use littoral_sim::fleet::{self, Fleet, FleetSpec};
use littoral_sim::synthetic::Synthetic;
use littoral_sim::world::Costs;
use std::sync::Arc;

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

#[test]
fn a_calm_fleet_opens_every_sum() {
    for agreement in [ACTIVE, HONEST] {
        let outcome = Fleet::new(spec(1, 1, Faults::default(), agreement)).unwrap().run(&mut |_| {});
        assert_eq!(outcome.checks_broken, [] as [String; 0], "{agreement}");
        assert_eq!((outcome.rounds_completed, outcome.aborts), (ROUNDS, 0), "{agreement}: {outcome:?}");
        assert_eq!(outcome.device_rounds, 12 * ROUNDS, "{agreement}");
    }
}

#[test]
fn faults_cost_rounds_but_never_a_sum() {
    let mut completed = 0;
    for seed in 1..=8 {
        for agreement in [ACTIVE, HONEST] {
            let make = |threads| spec(seed, threads, Faults::profile("default").unwrap(), agreement);
            let outcome = fleet::run_twice(make, &mut |_| {}).unwrap();
            assert_eq!(outcome.checks_broken, [] as [String; 0], "{agreement}, seed {seed}");
            println!(
                "{seed} {agreement}: {} of {ROUNDS}, aborts {} ended {:?} {:?}",
                outcome.rounds_completed, outcome.aborts, outcome.ended, outcome.last_warning
            );
            completed += outcome.rounds_completed;
        }
    }
    // Most rounds complete.
    assert!(completed > 8 * ROUNDS, "{completed} of {}", 16 * ROUNDS);
}
