//! The geometric median under masks, through the shipped roles: bad data does not drag it away, devices train once for all of its
//! sums, and faults break nothing.

use littoral_node::work::{self, LocalData, Objects, Output, Work, WorkFault};
use littoral_sim::attack::{Attack, Kind};
use littoral_sim::faults::Faults;
use littoral_sim::fleet::{Fleet, FleetSpec};
use littoral_sim::report::Outcome;
use littoral_sim::synthetic::Synthetic;
use littoral_sim::workers::Runner;
use littoral_sim::world::Costs;
use littoral_wire::message::Work as Kinds;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const DEVICES: usize = 10;
const VERSIONS: u64 = 36;
const MEDIAN: &str = "robust = { rule = \"geometric_median\" }";

/// Ten devices with 100 rows each, 200 held out in all: one row is half a point of accuracy.
fn spec(seed: u64, min: usize, versions: u64, faults: Faults, runner: Runner, more: &str) -> FleetSpec {
    let job_toml = format!(
        r#"
        name = "median"
        seed = 7
        model = {{ kind = "mlp", hidden = [16] }}
        data = {{ set = "blobs", standardise = false, schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "w" }}, {{ name = "x" }}, {{ name = "y" }}, {{ name = "z" }}] }} }}
        algorithm = {{ name = "fedavg" }}
        local = {{ epochs = 1, batch = 16, optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = {DEVICES}, min = {min} }}
        rounds = {{ count = {versions}, deadline_ms = 20000, close_ms = 10000, wait_ms = 5000 }}
        precision = {{ weighting = "uniform" }}
        secure_aggregation = {{ adversary = 0.2 }}
        {more}
        "#
    );
    FleetSpec {
        seed,
        devices: DEVICES,
        names: Vec::new(),
        edges: 2,
        job_toml,
        data: Arc::new(move |device| (Arc::new(Synthetic::new(3, device, 100)) as Arc<dyn LocalData>, 100)),
        faults,
        costs: Costs::default(),
        runner,
        threads: 1,
        check: true,
        limit_ms: 3_600_000,
    }
}

fn run(attack: Option<Attack>, spec: FleetSpec) -> Outcome {
    let outcome = Fleet::under(attack.as_ref(), spec).unwrap().run(&mut |_| {});
    assert_eq!(outcome.checks_broken, [] as [String; 0]);
    outcome
}

/// Four of ten devices have every label wrong. Sums take three versions for each of the median's.
#[test]
fn bad_labels_do_not_drag_it_away() {
    let calm = |share: f64, versions, more| {
        let attack = (share > 0.0).then_some(Attack { kind: Kind::LabelFlip, share, strength: None });
        run(attack, spec(1, DEVICES, versions, Faults::default(), work::run, more)).accuracy.unwrap()
    };
    let (clean, median) = (calm(0.0, VERSIONS, MEDIAN), calm(0.4, VERSIONS, MEDIAN));
    let summed = calm(0.4, VERSIONS / 3, "");
    println!("clean {clean:.3}, median {median:.3}, summed {summed:.3}");
    assert!(median > clean - 0.03, "{median}, clean {clean}");
    assert!(summed < median - 0.03, "{summed}, median {median}");
}

static TRAINED: AtomicU64 = AtomicU64::new(0);
static REMEMBERED: AtomicU64 = AtomicU64::new(0);

fn counted(work: &Work, objects: &dyn Objects, data: &dyn LocalData) -> Result<Output, WorkFault> {
    let output = work::run(work, objects, data)?;
    if let (Work::Local { collection, learnt, .. }, Output::Local { learnt: new, .. }) = (work, &output)
        && collection.work == Kinds::Train
    {
        match learnt.as_ref().is_some_and(|(version, _)| *version + 3 > collection.version) {
            true => assert!(new.is_none(), "it knew already"),
            false => assert!(new.is_some()),
        }
        let count = if new.is_some() { &TRAINED } else { &REMEMBERED };
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(output)
}

/// As a device that lost what it had learnt.
fn forgetful(work: &Work, objects: &dyn Objects, data: &dyn LocalData) -> Result<Output, WorkFault> {
    let mut work = work.clone();
    if let Work::Local { learnt, .. } = &mut work {
        *learnt = None;
    }
    work::run(&work, objects, data)
}

#[test]
fn devices_train_once_for_three_sums_and_to_have_forgotten_it_changes_no_bit() {
    let model = |runner| {
        let outcome = run(None, spec(1, DEVICES, 6, Faults::default(), runner, MEDIAN));
        assert_eq!((outcome.rounds_completed, outcome.aborts), (6, 0));
        outcome.lines.last().unwrap().model
    };
    let remembered = model(counted);
    let counts = [&TRAINED, &REMEMBERED].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [2 * DEVICES as u64, 4 * DEVICES as u64]);
    assert_eq!(model(forgetful), remembered);
}

#[test]
fn faults_break_no_checker() {
    for seed in 0..8 {
        let outcome = run(None, spec(seed, 6, 9, Faults::profile("default").unwrap(), work::run, MEDIAN));
        assert!(outcome.rounds_completed >= 6, "seed {seed}: {outcome:?}");
    }
}
