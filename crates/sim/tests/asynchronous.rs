//! Devices that train before it is known for which version, among faults: what is summed is exact, each counts once, and a
//! synchronous round is the case in which nothing is old.

use littoral_node::work::LocalData;
use littoral_sim::drill;
use littoral_sim::faults::{Blow, Faults, Kind};
use littoral_sim::fleet::{Fleet, FleetSpec};
use littoral_sim::report::Outcome;
use littoral_sim::synthetic::Synthetic;
use littoral_sim::workers::Runner;
use littoral_sim::world::Costs;
use std::collections::BTreeSet;
use std::sync::Arc;

const ROUNDS: u64 = 8;

struct Job {
    algorithm: &'static str,
    cohort: &'static str,
    pace: &'static str,
    more: &'static str,
}

const FEDBUFF: Job = Job {
    algorithm: "name = \"fedbuff\"",
    cohort: "target = 4, min = 3",
    pace: "pool = 10, dispatch = 1, staleness_max = 5",
    more: "",
};

fn spec(seed: u64, threads: usize, faults: Faults, runner: Runner, job: &Job) -> FleetSpec {
    let Job { algorithm, cohort, pace, more } = job;
    let job_toml = format!(
        r#"
        name = "asynchronous"
        seed = {seed}
        model = {{ kind = "softmax" }}
        data = {{ set = "blobs", schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "x" }}, {{ name = "y" }}] }} }}
        algorithm = {{ {algorithm} }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ {cohort} }}
        pace = {{ {pace} }}
        rounds = {{ count = {ROUNDS}, deadline_ms = 20000, close_ms = 10000, wait_ms = 2000 }}
        precision = {{ weighting = "uniform", resolution = {{ levels = 1048576 }} }}
        {more}
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
        runner,
        threads,
        check: true,
        limit_ms: 1_800_000,
    }
}

fn run(spec: FleetSpec) -> Outcome {
    Fleet::new(spec).unwrap().run(&mut |_| {})
}

fn models(outcome: &Outcome) -> Vec<String> {
    outcome.lines.iter().map(|line| line.model.to_string()).collect()
}

#[test]
fn versions_are_made_of_the_first_that_are_ready_and_some_are_old() {
    let outcome = run(spec(1, 2, Faults::default(), littoral_node::work::run, &FEDBUFF));
    assert_eq!(outcome.checks_broken, [] as [String; 0]);
    assert_eq!((outcome.rounds_completed, outcome.aborts), (ROUNDS, 0), "{outcome:?}");
    assert_eq!(outcome.device_rounds, 4 * ROUNDS);
    let oldest = outcome.lines.iter().filter_map(|line| line.line.staleness_max).max();
    assert!(oldest.is_some_and(|oldest| (1..=5).contains(&oldest)), "{oldest:?}");
    let alone = run(spec(1, 1, Faults::default(), littoral_node::work::run, &FEDBUFF));
    assert_eq!(alone.state_hash, outcome.state_hash, "threads leave no trace");
}

/// A pool as large as the version, dispatched as a whole, of a fleet that is as large: FedBuff is FedAvg, bit for bit, with
/// and without masks.
#[test]
fn without_staleness_it_is_fedavg() {
    let sync = Job { algorithm: "name = \"fedavg\"", cohort: "target = 14", pace: "", more: "" };
    let pace = "pool = 14, dispatch = 14, staleness_max = 3, staleness = { rule = \"polynomial\", a = 0.5 }";
    let masks = "secure_aggregation = { threat = \"honest\", adversary = 0.2 }";
    let expected = models(&run(spec(3, 1, Faults::default(), littoral_node::work::run, &sync)));
    for more in ["", masks] {
        let job = Job { algorithm: "name = \"fedbuff\"", cohort: "target = 14", pace, more };
        let got = run(spec(3, 1, Faults::default(), littoral_node::work::run, &job));
        assert_eq!(got.checks_broken, [] as [String; 0]);
        assert_eq!(models(&got), expected, "{more}");
        assert!(got.lines.iter().all(|line| line.line.staleness_max.is_none_or(|oldest| oldest == 0)));
    }
}

#[test]
fn fedasync_makes_a_version_of_each_update_and_converges() {
    let pace = "pool = 6, dispatch = 1, staleness_max = 20, staleness = { rule = \"hinge\", a = 0.5, b = 2 }";
    let job = Job { algorithm: "name = \"fedasync\", alpha = 0.5", cohort: "target = 1", pace, more: "" };
    let mut fleet = spec(2, 1, Faults::default(), littoral_node::work::run, &job);
    fleet.job_toml = fleet.job_toml.replace("count = 8", "count = 60");
    let outcome = run(fleet);
    assert_eq!(outcome.checks_broken, [] as [String; 0]);
    assert_eq!((outcome.rounds_completed, outcome.device_rounds), (60, 60));
    // Three blobs that are far apart: a model that learnt nothing answers a third right.
    assert!(outcome.accuracy.is_some_and(|accuracy| accuracy > 0.9), "{:?}", outcome.accuracy);
}

#[test]
fn compass_gives_steps_by_speed() {
    let pace = "pool = 14, dispatch = 1, staleness_max = 5, compass = { steps_min = 1, steps_max = 4 }";
    let job = Job { algorithm: "name = \"fedbuff\"", cohort: "target = 14, min = 2", pace, more: "" };
    let outcome = run(spec(4, 1, Faults::default(), littoral_node::work::run, &job));
    assert_eq!(outcome.checks_broken, [] as [String; 0]);
    assert_eq!(outcome.rounds_completed, ROUNDS, "{outcome:?}");
}

/// A device is killed before each effect of its life in turn. What it had learnt it still has, and what is summed is exact.
#[test]
fn a_device_killed_at_every_step_counts_once() {
    let mut killed_at = BTreeSet::new();
    for effects in 0.. {
        let job = Job { cohort: "target = 3, min = 3", pace: "pool = 5, dispatch = 1, staleness_max = 4", ..FEDBUFF };
        let mut spec = spec(5, 1, Faults { encode: true, ..Faults::default() }, drill::run, &job);
        (spec.devices, spec.edges) = (5, 2);
        spec.job_toml = spec.job_toml.replace("count = 8", "count = 3");
        let mut fleet = Fleet::new(spec).unwrap();
        fleet.strike(Kind::Device, 2, Blow::KillAtEffect(effects));
        let outcome = fleet.run(&mut |_| {});
        assert_eq!(outcome.checks_broken, [] as [String; 0], "before effect {effects}");
        assert_eq!(outcome.rounds_completed, 3, "before effect {effects}: {outcome:?}");
        let faults = serde_json::to_value(&outcome.faults_injected).unwrap();
        let kills: Vec<String> = faults.as_object().unwrap().keys().cloned().collect();
        if kills.is_empty() {
            println!("{effects} effects; killed at: {killed_at:?}");
            break;
        }
        killed_at.extend(kills);
    }
    for step in ["Ready", "Offer", "work"] {
        assert!(killed_at.contains(&format!("device killed at {step}")), "{step} was not hit: {killed_at:?}");
    }
}

/// The drill of `.ci/long` has a thousand.
#[test]
fn twenty_seeds_of_faults_break_nothing() {
    let masked = "secure_aggregation = { adversary = 0.2 }";
    for seed in 0..20 {
        let job = match seed % 4 {
            0 | 1 => FEDBUFF,
            2 => Job { more: masked, ..FEDBUFF },
            _ => Job {
                algorithm: "name = \"fedasync\"",
                cohort: "target = 1",
                pace: "pool = 5, staleness_max = 10",
                more: "",
            },
        };
        let outcome = run(spec(seed, 1, Faults::profile("default").unwrap(), drill::run, &job));
        assert_eq!(outcome.checks_broken, [] as [String; 0], "seed {seed}");
        assert!(outcome.ended.is_some() && outcome.rounds_completed == ROUNDS, "seed {seed}: {outcome:?}");
    }
}
