//! Compressed jobs through the shipped roles: real training, sums checked bit for bit, with and without masks.

use littoral_node::work::LocalData;
use littoral_sim::faults::Faults;
use littoral_sim::fleet::{self, Fleet, FleetSpec};
use littoral_sim::report::Outcome;
use littoral_sim::synthetic::Synthetic;
use littoral_sim::world::Costs;
use std::sync::Arc;

const ROUNDS: u64 = 12;
const MASKS: &str = "secure_aggregation = { adversary = 0.0, dropout = 0.0 }";

/// 515 parameters: a block of the rotation, and a tail.
fn spec(seed: u64, threads: usize, faults: Faults, devices: usize, more: &str) -> FleetSpec {
    let (target, min) = (devices, devices.div_ceil(2).max(3));
    let job_toml = format!(
        r#"
        name = "compressed"
        seed = 7
        model = {{ kind = "mlp", hidden = [64] }}
        data = {{ set = "blobs", schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "w" }}, {{ name = "x" }}, {{ name = "y" }}, {{ name = "z" }}] }} }}
        algorithm = {{ name = "fedavg" }}
        local = {{ epochs = 2, batch = 8, optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = {target}, min = {min} }}
        rounds = {{ count = {ROUNDS}, deadline_ms = 20000, close_ms = 10000, wait_ms = 5000 }}
        precision = {{ weighting = "uniform" }}
        {more}
        "#
    );
    FleetSpec {
        seed,
        devices,
        names: Vec::new(),
        edges: 2,
        job_toml,
        data: Arc::new(move |device| (Arc::new(Synthetic::new(3, device, 60)) as Arc<dyn LocalData>, 60)),
        faults,
        costs: Costs::default(),
        runner: littoral_node::work::run,
        threads,
        check: true,
        limit_ms: 3_600_000,
    }
}

fn uplink(recipe: &str) -> String {
    format!("compression = {{ uplink = {{ {recipe} }} }}")
}

fn calm(devices: usize, more: &str) -> Outcome {
    let outcome = Fleet::new(spec(1, 1, Faults::default(), devices, more)).unwrap().run(&mut |_| {});
    assert_eq!(outcome.checks_broken, [] as [String; 0], "{more}");
    assert_eq!((outcome.rounds_completed, outcome.aborts), (ROUNDS, 0), "{more}: {outcome:?}");
    outcome
}

/// Of one device, of training: the last version's.
fn update_bytes(outcome: &Outcome) -> u64 {
    outcome.lines.iter().rev().find_map(|line| line.line.update_bytes).unwrap()
}

const LINEAR: [&str; 4] = [
    "name = \"rotation\", levels = 32, sent_range = 0.5",
    "name = \"random-k\", kept = 0.5, levels = 32, sent_range = 0.5",
    "name = \"random-k\", kept = 0.5, rescaled = false, residual = true, levels = 32, sent_range = 0.5",
    "name = \"powersgd\", rank = 2, residual = true, levels = 64, sent_range = 1.0",
];
const CODED: [&str; 4] = [
    "name = \"quantise\", bits = 4, block = 64",
    "name = \"eden\", bits = 2",
    "name = \"top-k\", kept = 0.2",
    "name = \"sign\"",
];

#[test]
fn compressed_fleets_learn_what_others_learn() {
    let plain = calm(4, "");
    let (accuracy, bytes) = (plain.accuracy.unwrap(), update_bytes(&plain));
    assert!(accuracy > 0.8, "{accuracy}");
    let cases = LINEAR.iter().flat_map(|recipe| [format!("{}\n{MASKS}", uplink(recipe)), uplink(recipe)]);
    for more in cases.chain(CODED.iter().map(|recipe| uplink(recipe))) {
        let outcome = calm(4, &more);
        let (got, fewer) = (outcome.accuracy.unwrap(), bytes as f64 / update_bytes(&outcome) as f64);
        println!("{more}: accuracy {got:.3} of {accuracy:.3}, {fewer:.1} x fewer bytes");
        // 48 held-out rows: four of them.
        assert!(got > accuracy - 0.085, "{more}: {got}, plain {accuracy}");
        let loss: Vec<f64> = outcome.lines.iter().filter_map(|line| line.line.test_loss).collect();
        assert!(loss.last().unwrap() < &(0.5 * loss[0]), "{more}: {loss:?}");
        assert!(fewer > 2.0, "{more}: {fewer}");
    }
}

#[test]
fn masks_change_no_bit() {
    let model = |more: &str| calm(4, more).lines.last().unwrap().model;
    for recipe in [uplink(LINEAR[2]), uplink(LINEAR[3])] {
        assert_eq!(model(&recipe), model(&format!("{recipe}\n{MASKS}")));
    }
}

#[test]
fn faults_break_no_sum_and_no_residual() {
    for recipe in [LINEAR[2], LINEAR[3], CODED[0], CODED[2]] {
        let mut completed = 0;
        for seed in 1..=3 {
            let make = |threads| spec(seed, threads, Faults::profile("default").unwrap(), 10, &uplink(recipe));
            let outcome = fleet::run_twice(make, &mut |_| {}).unwrap();
            assert_eq!(outcome.checks_broken, [] as [String; 0], "{recipe}, seed {seed}");
            completed += outcome.rounds_completed;
        }
        assert!(completed > 2 * ROUNDS, "{recipe}: {completed}");
    }
}

const DOWN: &str = "compression = { downlink = { name = \"delta\" } }";

#[test]
fn models_told_as_changes_teach_what_whole_ones_teach() {
    let (plain, down) = (calm(4, ""), calm(4, DOWN));
    let (accuracy, got) = (plain.accuracy.unwrap(), down.accuracy.unwrap());
    assert!(got > accuracy - 0.085, "{got}, plain {accuracy}");
    let told: Vec<u64> = down.lines.iter().filter_map(|line| line.line.downlink_bytes).collect();
    let new: Vec<u64> = down.lines.iter().filter_map(|line| line.line.downlink_bytes_new).collect();
    println!("{told:?} {new:?}, accuracy {got} of {accuracy}");
    // 515 parameters: most versions are changes, of a sixth of the bytes and an id.
    assert!(told.iter().sum::<u64>() * 3 < told.len() as u64 * 4 * 515, "{told:?}");
    assert!(new.iter().zip(&told).any(|(new, told)| new > told));
    // Masks see updates only.
    let masked = calm(4, &format!("{DOWN}\n{MASKS}"));
    assert_eq!(masked.lines.last().unwrap().model, down.lines.last().unwrap().model);
}

/// Devices and edges that were killed, or away for some versions, take what they lack; the bits are the same in every run.
#[test]
fn chains_survive_faults() {
    let both = "compression = { uplink = { name = \"top-k\", kept = 0.2 }, downlink = { name = \"delta\", bits = 8 } }";
    for more in [DOWN, both] {
        let mut completed = 0;
        for seed in 1..=3 {
            // Ten devices, of which a version asks six: some are away.
            let make = |threads| {
                let mut fleet = spec(seed, threads, Faults::profile("default").unwrap(), 10, more);
                fleet.job_toml = fleet.job_toml.replace("target = 10", "target = 6");
                fleet
            };
            let outcome = fleet::run_twice(make, &mut |_| {}).unwrap();
            assert_eq!(outcome.checks_broken, [] as [String; 0], "{more}, seed {seed}");
            completed += outcome.rounds_completed;
        }
        assert!(completed > 2 * ROUNDS, "{more}: {completed}");
    }
}

/// Whole models of several chunks, and changes that do not ride along.
#[test]
fn long_chains_are_fetched_among_faults() {
    let mut completed = 0;
    for seed in 1..=2 {
        let make = |threads| {
            let mut fleet = spec(
                seed,
                threads,
                Faults::profile("default").unwrap(),
                6,
                &DOWN.replace("\"delta\"", "\"delta\", bits = 8"),
            );
            // 320,003 parameters.
            fleet.job_toml = fleet.job_toml.replace("hidden = [64]", "hidden = [40000]");
            fleet.job_toml = fleet.job_toml.replace(&format!("count = {ROUNDS}"), "count = 4");
            fleet
        };
        let outcome = fleet::run_twice(make, &mut |_| {}).unwrap();
        assert_eq!(outcome.checks_broken, [] as [String; 0], "seed {seed}");
        completed += outcome.rounds_completed;
    }
    assert!(completed >= 4, "{completed} of 8");
}

/// Updates of two chunks and more: they are spooled, and read back while machines fail.
#[test]
fn spooled_codes_are_summed_among_faults() {
    let more = uplink("name = \"quantise\", bits = 8, entropy = false");
    let mut completed = 0;
    for seed in 1..=2 {
        let make = |threads| {
            let mut fleet = spec(seed, threads, Faults::profile("default").unwrap(), 6, &more);
            // 160,003 parameters.
            fleet.job_toml = fleet.job_toml.replace("hidden = [64]", "hidden = [20000]");
            fleet.job_toml = fleet.job_toml.replace(&format!("count = {ROUNDS}"), "count = 4");
            fleet
        };
        let outcome = fleet::run_twice(make, &mut |_| {}).unwrap();
        assert_eq!(outcome.checks_broken, [] as [String; 0], "seed {seed}");
        assert!(update_bytes(&outcome) > 160_003, "more than rides in an offer: {}", update_bytes(&outcome));
        completed += outcome.rounds_completed;
    }
    assert!(completed >= 4, "{completed} of 8");
}
