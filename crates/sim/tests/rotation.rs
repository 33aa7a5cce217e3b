//! Every algorithm in every company that a job allows, in rotation over seeds of faults: no checker finds anything.

use littoral_fed::algorithm::NAMES;
use littoral_node::job::JobSpec;
use littoral_node::work::LocalData;
use littoral_sim::drill;
use littoral_sim::faults::Faults;
use littoral_sim::fleet::{Fleet, FleetSpec};
use littoral_sim::synthetic::Synthetic;
use littoral_sim::world::Costs;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ROUNDS: u64 = 6;
/// What a job has beside its algorithm. What does not go together is refused, and left out here. Codes are not among it: the drill
/// that stands in for training writes none; `compressed` has them among faults.
const COMPANY: [(&str, &str); 9] = [
    ("plain", ""),
    ("masked", "secure_aggregation = { adversary = 0.2 }"),
    ("masked by edges", "secure_aggregation = { groups = \"per_edge\", adversary = 0, dropout = 0.34, group_min = 2 }"),
    ("late", LATE),
    (
        "late and masked",
        "secure_aggregation = { adversary = 0.2 }\npace = { pool = 10, dispatch = 1, staleness_max = 5 }",
    ),
    ("trimmed", "robust = { rule = \"trimmed_mean\", trim = 1 }"),
    ("chosen by Krum", "robust = { rule = \"krum\", byzantine = 1 }"),
    ("median and masked", "secure_aggregation = { adversary = 0.2 }\nrobust = { rule = \"geometric_median\" }"),
    (
        "private",
        "differential_privacy = { mechanism = \"central\", clip = 1.0, noise_multiplier = 5.0, epsilon = 50.0 }",
    ),
];
const LATE: &str = "pace = { pool = 10, dispatch = 1, staleness_max = 5 }";

fn job(algorithm: &str, more: &str) -> String {
    // A version of one update needs a cohort of one; all others have one that every rule can work with.
    let cohort = if algorithm == "fedasync" { "target = 1, min = 1" } else { "target = 8, min = 5" };
    let parameters = if algorithm == "fedprox" { ", mu = 0.1" } else { "" };
    format!(
        r#"
        name = "rotation"
        seed = 5
        model = {{ kind = "cnn", image = [4, 4, 1], channels = [2, 2], kernel = 3, pool = 2, norm = "group" }}
        data = {{ set = "scans", schema = {{ image = {{ height = 4, width = 4, channels = 1, classes = ["a", "b", "c"] }} }} }}
        algorithm = {{ name = "{algorithm}"{parameters} }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ {cohort} }}
        rounds = {{ count = {ROUNDS}, deadline_ms = 20000, close_ms = 10000, wait_ms = 2000 }}
        precision = {{ weighting = "uniform", resolution = {{ levels = 1048576 }} }}
        {more}
        "#
    )
}

/// Every job that is allowed, by what it is.
fn jobs() -> Vec<(String, String)> {
    let all = NAMES.iter().flat_map(|algorithm| {
        COMPANY.iter().map(move |(company, more)| (format!("{algorithm}, {company}"), job(algorithm, more)))
    });
    all.filter(|(_, toml)| JobSpec::parse(toml).is_ok()).collect()
}

/// Rounds that were completed of each job.
fn rotate(seeds: u64) -> BTreeMap<String, (u64, u64)> {
    let jobs = jobs();
    let mut completed = BTreeMap::new();
    for seed in 0..seeds {
        let (what, job_toml) = &jobs[seed as usize % jobs.len()];
        let spec = FleetSpec {
            seed,
            devices: 14,
            names: Vec::new(),
            edges: 3,
            job_toml: job_toml.clone(),
            data: Arc::new(move |device| (Arc::new(Synthetic::new(seed, device, 8)) as Arc<dyn LocalData>, 8)),
            faults: Faults::profile("default").unwrap(),
            costs: Costs::default(),
            runner: drill::run,
            threads: 1,
            check: true,
            limit_ms: 1_800_000,
        };
        let outcome = Fleet::new(spec).unwrap().run(&mut |_| {});
        assert_eq!(outcome.checks_broken, [] as [String; 0], "{what}, seed {seed}");
        let sum: &mut (u64, u64) = completed.entry(what.clone()).or_default();
        *sum = (sum.0 + outcome.rounds_completed, sum.1 + ROUNDS);
    }
    completed
}

fn all_ran(completed: &BTreeMap<String, (u64, u64)>) {
    let algorithms: BTreeSet<&str> = completed.keys().filter_map(|what| what.split(',').next()).collect();
    assert_eq!(algorithms, NAMES.iter().copied().collect(), "an algorithm is in no job that is allowed");
    for (_, more) in COMPANY.map(|(company, _)| (company, completed.keys().any(|what| what.ends_with(company)))) {
        assert!(more, "{completed:?}");
    }
    let (done, of) = completed.values().fold((0, 0), |sum, job| (sum.0 + job.0, sum.1 + job.1));
    assert!(done * 10 > of * 9, "{done} of {of} rounds: {completed:?}");
}

#[test]
fn every_algorithm_in_every_company_once() {
    all_ran(&rotate(jobs().len() as u64));
}

/// As many as `LITTORAL_SEEDS` says, 1,000 without it: for `.ci/long`.
#[test]
#[ignore = "takes minutes"]
fn a_thousand_seeds() {
    let count = std::env::var("LITTORAL_SEEDS").map_or(1_000, |count| count.parse().unwrap());
    let completed = rotate(count);
    completed.iter().for_each(|(what, (done, of))| println!("{what}: {done} of {of} rounds"));
    all_ran(&completed);
}
