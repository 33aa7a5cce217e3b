//! Small fleets with the shipped roles.

use super::*;
use crate::drill;
use crate::faults::Every;
use crate::synthetic::Synthetic;

/// A softmax on four inputs: tiny.
pub fn job(algorithm: &str, rounds: u64, target: usize) -> String {
    format!(
        r#"
        name = "tiny"
        seed = 7
        model = {{ kind = "softmax" }}
        data = {{ set = "blobs", standardise = false, schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "w" }}, {{ name = "x" }}, {{ name = "y" }}, {{ name = "z" }}] }} }}
        algorithm = {{ name = "{algorithm}" }}
        local = {{ epochs = 2, batch = 8, optimiser = {{ name = "sgd", learning_rate = 0.05 }} }}
        cohort = {{ target = {target}, min = {min} }}
        rounds = {{ count = {rounds}, deadline_ms = 20000, close_ms = 10000, wait_ms = 5000 }}
        precision = {{ weighting = "uniform" }}
        "#,
        min = target.div_ceil(2),
    )
}

pub fn fleet(seed: u64, devices: usize, edges: usize, job_toml: String, faults: Faults, threads: usize) -> FleetSpec {
    FleetSpec {
        seed,
        devices,
        names: Vec::new(),
        edges,
        job_toml,
        data: Arc::new(move |device| (Arc::new(Synthetic::new(seed, device, 40)) as Arc<dyn LocalData>, 40)),
        faults,
        costs: Costs::default(),
        runner: drill::run,
        threads,
        check: true,
        limit_ms: 3_600_000,
    }
}

fn run(spec: FleetSpec) -> Outcome {
    Fleet::new(spec).unwrap().run(&mut |_| {})
}

#[test]
fn a_quiet_fleet_learns() {
    let spec =
        FleetSpec { runner: littoral_node::work::run, ..fleet(1, 8, 2, job("fedavg", 10, 8), Faults::default(), 1) };
    let outcome = run(spec);
    assert_eq!(outcome.checks_broken, [] as [String; 0]);
    assert_eq!((outcome.rounds_completed, outcome.aborts, outcome.device_rounds), (10, 0, 80), "{outcome:?}");
    assert!(outcome.accuracy.unwrap() > 0.8, "{:?}", outcome.accuracy);
}

#[test]
fn faults_break_no_check_and_threads_do_not_show() {
    let spec = |threads| fleet(3, 12, 3, job("scaffold", 10, 10), Faults::profile("default").unwrap(), threads);
    let outcome = run_twice(spec, &mut |_| {}).unwrap();
    assert_eq!(outcome.checks_broken, [] as [String; 0]);
    assert!(outcome.counts(10), "{outcome:?}");
    assert!(outcome.faults_injected.total() > 20, "{:?}", outcome.faults_injected);
}

#[test]
fn a_device_that_lost_its_store_breaks_no_sum() {
    let lose = Every { device_ms: 40_000, edge_ms: 10_000, ..Every::default() };
    let faults = Faults { lose, restart_ms: 200, ..Faults::default() };
    let outcome = run(fleet(5, 20, 2, job("scaffold", 20, 8), faults, 1));
    assert_eq!(outcome.checks_broken, [] as [String; 0], "{outcome:?}");
    assert_eq!(outcome.rounds_completed, 20, "{outcome:?}");
    assert!(outcome.faults_injected.of("store lost") >= 5, "{:?}", outcome.faults_injected);
    assert!(outcome.last_warning.as_ref().is_some_and(|w| w.contains("control variate")), "{:?}", outcome.last_warning);
}

#[test]
fn a_quiet_drill_loses_nothing() {
    let outcome = run(fleet(1, 8, 2, job("scaffold", 10, 8), Faults::default(), 1));
    assert_eq!(outcome.checks_broken, [] as [String; 0], "{outcome:?}");
    assert_eq!((outcome.rounds_completed, outcome.aborts, outcome.device_rounds), (10, 0, 80), "{outcome:?}");
}
