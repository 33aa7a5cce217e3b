//! A model for each device: what is a device's own never leaves it, becomes current with its update only, and makes the model
//! better where devices differ.

use littoral_model::{Examples, Features, Labels};
use littoral_node::job::JobSpec;
use littoral_node::work::{LocalData, Rows};
use littoral_sim::drill;
use littoral_sim::faults::{Blow, Faults, Kind};
use littoral_sim::fleet::{Fleet, FleetSpec};
use littoral_sim::report::Outcome;
use littoral_sim::stream::Stream;
use littoral_sim::workers::Runner;
use littoral_sim::world::Costs;
use std::collections::BTreeSet;
use std::sync::Arc;

const CLASSES: usize = 3;
const PIXELS: usize = 16;
const ROWS: usize = 40;

/// How devices differ.
#[derive(Clone, Copy, PartialEq)]
enum Differ {
    /// Other light and other contrast, the same meaning.
    Features,
    /// The same images, of which each third of the devices says something else.
    Labels,
}

/// Small images, a pattern for each class under noise.
struct Scans {
    device: usize,
    differ: Differ,
}

impl LocalData for Scans {
    fn rows(&self, _: &JobSpec) -> Result<Rows, String> {
        let mut common = Stream::new(7, "patterns");
        let patterns: Vec<f32> = (0..PIXELS * CLASSES).map(|_| uniform(&mut common)).collect();
        let mut own = Stream::new(7, &format!("device {}", self.device));
        let (scale, offset, turn) = match self.differ {
            Differ::Features => (0.2 * 2f32.powi(self.device as i32 % 5), 2.0 * (self.device as f32 % 4.0) - 3.0, 0),
            Differ::Labels => (1.0, 0.0, self.device % CLASSES),
        };
        let (mut values, mut ids) = (Vec::new(), Vec::new());
        for row in 0..ROWS {
            let class = row % CLASSES;
            let pattern = &patterns[class * PIXELS..][..PIXELS];
            values.extend(pattern.iter().map(|p| scale * (p + 0.7 * uniform(&mut own)) + offset));
            ids.push(((class + turn) % CLASSES) as u32);
        }
        let labels = Labels::Classes { ids, classes: CLASSES as u32 };
        let examples = Examples::new(Features::F32 { width: PIXELS, values }, labels).map_err(|e| e.to_string())?;
        let held_out = (ROWS / 2) as u32;
        Ok(Rows {
            examples: Arc::new(examples),
            train: (held_out..ROWS as u32).collect(),
            held_out: (0..held_out).collect(),
        })
    }
}

/// Between −1 and 1.
fn uniform(stream: &mut Stream) -> f32 {
    stream.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0
}

struct Job {
    algorithm: &'static str,
    rounds: u64,
    differ: Differ,
    more: &'static str,
}

fn spec(seed: u64, faults: Faults, runner: Runner, job: &Job) -> FleetSpec {
    let Job { algorithm, rounds, differ, more } = *job;
    let job_toml = format!(
        r#"
        name = "scans"
        seed = {seed}
        model = {{ kind = "cnn", image = [4, 4, 1], channels = [6], kernel = 3, pool = 2, norm = "batch" }}
        data = {{ set = "scans", held_out = 0.5, schema = {{ image = {{ height = 4, width = 4, channels = 1, classes = ["a", "b", "c"] }} }} }}
        algorithm = {{ {algorithm} }}
        local = {{ batch = 10, optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = 12, min = 6 }}
        rounds = {{ count = {rounds}, deadline_ms = 20000, close_ms = 10000, wait_ms = 2000 }}
        precision = {{ weighting = "uniform", range = 16.0 }}
        {more}
        "#
    );
    FleetSpec {
        seed,
        devices: 12,
        names: Vec::new(),
        edges: 2,
        job_toml,
        data: Arc::new(move |device| (Arc::new(Scans { device, differ }) as Arc<dyn LocalData>, ROWS as u64)),
        faults,
        costs: Costs::default(),
        runner,
        threads: 1,
        check: true,
        limit_ms: 1_800_000,
    }
}

const REAL: Runner = littoral_node::work::run;

fn run(spec: FleetSpec) -> Outcome {
    Fleet::new(spec).unwrap().run(&mut |_| {})
}

fn calm(algorithm: &'static str, differ: Differ, rounds: u64, more: &'static str) -> Outcome {
    let outcome = run(spec(1, Faults::default(), REAL, &Job { algorithm, rounds, differ, more }));
    assert_eq!(outcome.checks_broken, [] as [String; 0], "{algorithm}");
    assert_eq!((outcome.rounds_completed, outcome.warnings), (rounds, 0), "{algorithm}: {outcome:?}");
    outcome
}

fn models(outcome: &Outcome) -> Vec<String> {
    outcome.lines.iter().map(|line| line.model.to_string()).collect()
}

const SPREAD: &str = "evaluation = { distribution = true }";
/// Squared distances of one kind of devices stay below 0.1, those of different kinds grow far above.
const FEDAMP: &str = "name = \"fedamp\", alpha = 0.02, sigma = 0.1, lambda = 0.002";
const MASKS: &str = "secure_aggregation = { threat = \"honest\", adversary = 0.2 }";

#[test]
fn fedbn_does_better_than_fedavg_where_inputs_look_different() {
    let fedavg = calm("name = \"fedavg\"", Differ::Features, 30, SPREAD);
    let fedbn = calm("name = \"fedbn\"", Differ::Features, 30, "");
    let (averaged, own) = (fedavg.accuracy.unwrap(), fedbn.accuracy.unwrap());
    let worst = |outcome: &Outcome| outcome.worst_decile_accuracy.unwrap();
    println!("fedavg {averaged:.3}, worst {:.3}; fedbn {own:.3}, worst {:.3}", worst(&fedavg), worst(&fedbn));
    assert!(own > 0.8 && own > averaged + 0.3 && worst(&fedbn) > worst(&fedavg) + 0.1);
    let last = &fedbn.lines.last().unwrap().line;
    // All devices have as many held-out rows, so that both means are one; the bins are right to half of one.
    assert!((last.accuracy_mean_over_devices.unwrap() - last.accuracy.unwrap()).abs() < 1e-8, "{last:?}");
    assert!(last.accuracy_variance.unwrap() < 0.05);
}

#[test]
fn devices_that_mean_different_things_need_models_of_their_own() {
    let fedavg = calm("name = \"fedavg\"", Differ::Labels, 12, SPREAD);
    let worst = |outcome: &Outcome| outcome.worst_decile_accuracy.unwrap();
    println!("fedavg {:.3}, worst {:.3}", fedavg.accuracy.unwrap(), worst(&fedavg));
    assert!(fedavg.accuracy.unwrap() < 0.6, "one model cannot say three things of one image");
    for algorithm in [
        "name = \"fedper\"",
        "name = \"fedrep\"",
        "name = \"ditto\", lambda = 0.1",
        "name = \"perfedavg\", alpha = 0.5",
        FEDAMP,
    ] {
        let outcome = calm(algorithm, Differ::Labels, 12, "");
        println!("{algorithm}: {:.3}, worst {:.3}", outcome.accuracy.unwrap(), worst(&outcome));
        assert!(outcome.accuracy.unwrap() > fedavg.accuracy.unwrap() + 0.15, "{algorithm}");
        assert!(worst(&outcome) > worst(&fedavg) + 0.1, "{algorithm}");
    }
}

/// Sums under masks are the same sums, and so is how devices are spread; threads leave no trace.
#[test]
fn masks_and_threads_change_nothing() {
    for algorithm in ["name = \"fedbn\"", "name = \"ditto\"", "name = \"perfedavg\", order = \"hessian_vector\""] {
        let open = calm(algorithm, Differ::Features, 3, "");
        let masked = calm(algorithm, Differ::Features, 3, MASKS);
        assert_eq!(models(&open), models(&masked), "{algorithm}");
        let told = |outcome: &Outcome| {
            let lines = outcome.lines.iter().map(|v| (v.line.worst_decile_accuracy, v.line.accuracy_variance));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(told(&open), told(&masked));
        assert!(told(&open).iter().all(|(worst, variance)| worst.is_some() && variance.is_some()));
        let mut threads =
            spec(1, Faults::default(), REAL, &Job { algorithm, rounds: 3, differ: Differ::Features, more: "" });
        threads.threads = 3;
        assert_eq!(run(threads).state_hash, open.state_hash, "{algorithm}");
    }
}

/// A device is killed before each effect of its life in turn. What is its own is what it was trained with, and nothing of it leaves.
#[test]
fn a_device_killed_at_every_step_keeps_its_own() {
    for (more, steps) in [
        ("", vec!["Offer", "work", "storing what is sealed"]),
        (MASKS, vec!["Sealing Keys", "laying masks on", "storing what is sealed"]),
    ] {
        let mut killed_at = BTreeSet::new();
        for effects in 0.. {
            let job = Job { algorithm: "name = \"fedper\"", rounds: 2, differ: Differ::Labels, more };
            let mut spec = spec(5, Faults { encode: true, ..Faults::default() }, drill::run, &job);
            (spec.devices, spec.edges) = (5, 2);
            spec.job_toml = spec.job_toml.replace("target = 12, min = 6", "target = 5, min = 4");
            let mut fleet = Fleet::new(spec).unwrap();
            fleet.strike(Kind::Device, 2, Blow::KillAtEffect(effects));
            let outcome = fleet.run(&mut |_| {});
            assert_eq!(outcome.checks_broken, [] as [String; 0], "before effect {effects}");
            assert_eq!(outcome.rounds_completed, 2, "before effect {effects}: {outcome:?}");
            let faults = serde_json::to_value(&outcome.faults_injected).unwrap();
            let kills: Vec<String> = faults.as_object().unwrap().keys().cloned().collect();
            if kills.is_empty() {
                println!("{effects} effects; killed at: {killed_at:?}");
                break;
            }
            killed_at.extend(kills);
        }
        for step in steps {
            let hit = killed_at.iter().any(|kill| kill.to_lowercase().contains(&step.to_lowercase()));
            assert!(hit, "{step} was not hit: {killed_at:?}");
        }
    }
}

/// Effects of the cloud in which three versions are made, announced, and followed by requests that name devices' models.
const EFFECTS: u64 = 120;

/// Devices' own models come from the cloud: the cloud is killed before each effect of its life in turn, so also between a version that
/// is applied and the requests that name these models. (That each device is given its own and no other's is a checker's.)
///
/// It stops before the last evaluation is applied: a cloud that is killed between that record and the job's end evaluates once more,
/// under any algorithm, and checkers say so.
#[test]
fn a_cloud_killed_at_every_step_gives_each_device_its_own_model() {
    let job = Job { algorithm: FEDAMP, rounds: 3, differ: Differ::Labels, more: "" };
    let mut killed_at = BTreeSet::new();
    for effects in 0..EFFECTS {
        let mut spec = spec(5, Faults { encode: true, ..Faults::default() }, drill::run, &job);
        (spec.devices, spec.edges) = (5, 2);
        spec.job_toml = spec.job_toml.replace("target = 12, min = 6", "target = 5, min = 4");
        let mut fleet = Fleet::new(spec).unwrap();
        fleet.strike(Kind::Cloud, 0, Blow::KillAtEffect(effects));
        let outcome = fleet.run(&mut |_| {});
        assert_eq!(outcome.checks_broken, [] as [String; 0], "before effect {effects}");
        // (Of a version that was recorded, and not announced by the killed cloud, there is no report.)
        assert_eq!(outcome.ended.as_deref(), Some("3 rounds are done"), "before effect {effects}: {outcome:?}");
        let faults = serde_json::to_value(&outcome.faults_injected).unwrap();
        let kills: Vec<String> = faults.as_object().unwrap().keys().cloned().collect();
        assert_eq!(kills.len(), 1, "effect {effects} is after the end");
        killed_at.extend(kills);
    }
    println!("killed at: {killed_at:?}");
    for step in ["Open", "Announce", "work"] {
        let hit = killed_at.iter().any(|kill| kill.to_lowercase().contains(&step.to_lowercase()));
        assert!(hit, "{step} was not hit: {killed_at:?}");
    }
}

/// With the cloud's half in earnest: a cloud that was killed goes on to the very same models.
#[test]
fn given_models_are_the_same_after_a_kill_and_with_more_threads() {
    let job = Job { algorithm: FEDAMP, rounds: 4, differ: Differ::Labels, more: "" };
    let calm = calm(FEDAMP, Differ::Labels, 4, "");
    let mut killed = Fleet::new(spec(1, Faults::default(), REAL, &job)).unwrap();
    killed.strike(Kind::Cloud, 0, Blow::KillAtEffect(60));
    let killed = killed.run(&mut |_| {});
    assert_eq!(killed.checks_broken, [] as [String; 0]);
    assert_eq!(models(&killed), models(&calm));
    let mut threads = spec(1, Faults::default(), REAL, &job);
    threads.threads = 3;
    assert_eq!(run(threads).state_hash, calm.state_hash);
}

/// The drill of `.ci/long` has a thousand.
#[test]
fn twenty_seeds_of_faults_break_nothing() {
    for seed in 0..20 {
        let algorithm = match seed % 6 {
            0 => "name = \"fedbn\"",
            1 => "name = \"fedper\"",
            2 => "name = \"fedrep\", head_steps = 2",
            3 => "name = \"ditto\"",
            4 => "name = \"perfedavg\"",
            _ => FEDAMP,
        };
        let more = if seed % 3 == 0 && algorithm != FEDAMP { "secure_aggregation = { adversary = 0.2 }" } else { "" };
        let runner: Runner = if seed < 10 { drill::run } else { REAL };
        let job = Job { algorithm, rounds: 6, differ: Differ::Labels, more };
        let outcome = run(spec(seed, Faults::profile("default").unwrap(), runner, &job));
        assert_eq!(outcome.checks_broken, [] as [String; 0], "seed {seed}");
        assert!(outcome.ended.is_some() && outcome.counts(6), "seed {seed}: {outcome:?}");
    }
}
