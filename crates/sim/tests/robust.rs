//! Liars against rules, through the shipped roles: what sums suffer and rules bear, with the same bits over any tree.

use littoral_node::work::LocalData;
use littoral_sim::attack::{self, Attack, Kind};
use littoral_sim::faults::Faults;
use littoral_sim::fleet::{Fleet, FleetSpec};
use littoral_sim::report::Outcome;
use littoral_sim::synthetic::Synthetic;
use littoral_sim::world::Costs;
use littoral_wire::message::Work;
use std::sync::Arc;

const DEVICES: usize = 10;
const ROUNDS: u64 = 12;

/// Ten devices with 100 rows each, 200 held out in all: one row is half a point of accuracy.
fn spec(seed: u64, threads: usize, edges: usize, faults: Faults, hidden: usize, more: &str) -> FleetSpec {
    // Under faults a few may be late; alone everybody is waited for.
    let min = if faults == Faults::default() { DEVICES } else { DEVICES - 3 };
    let job_toml = format!(
        r#"
        name = "robust"
        seed = 7
        model = {{ kind = "mlp", hidden = [{hidden}] }}
        data = {{ set = "blobs", standardise = false, schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "w" }}, {{ name = "x" }}, {{ name = "y" }}, {{ name = "z" }}] }} }}
        algorithm = {{ name = "fedavg" }}
        local = {{ epochs = 1, batch = 16, optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = {DEVICES}, min = {min} }}
        rounds = {{ count = {ROUNDS}, deadline_ms = 20000, close_ms = 10000, wait_ms = 5000 }}
        precision = {{ weighting = "uniform" }}
        {more}
        "#
    );
    FleetSpec {
        seed,
        devices: DEVICES,
        names: Vec::new(),
        edges,
        job_toml,
        data: Arc::new(move |device| (Arc::new(Synthetic::new(3, device, 100)) as Arc<dyn LocalData>, 100)),
        faults,
        costs: Costs::default(),
        runner: littoral_node::work::run,
        threads,
        check: true,
        limit_ms: 3_600_000,
    }
}

fn robust(text: &str) -> String {
    format!("robust = {{ {text} }}")
}

const RULES: [&str; 6] = [
    "rule = \"trimmed_mean\", trim = 2",
    "rule = \"median\"",
    "rule = \"krum\", byzantine = 2",
    "rule = \"multi_krum\", byzantine = 2",
    "rule = \"bulyan\", byzantine = 1",
    "rule = \"geometric_median\"",
];

fn calm(kind: Option<Kind>, more: &str) -> Outcome {
    let attack = kind.map(|kind| Attack { kind, share: 0.2, strength: None });
    let outcome = Fleet::under(attack.as_ref(), spec(1, 1, 2, Faults::default(), 16, more)).unwrap();
    let outcome = outcome.run(&mut |_| {});
    assert_eq!(outcome.checks_broken, [] as [String; 0], "{kind:?}, {more}");
    outcome
}

fn accuracy(kind: Option<Kind>, more: &str) -> f64 {
    calm(kind, more).accuracy.unwrap()
}

/// Issue 5: with 20 % sign flippers within 3 points of the clean run, and the collapse without a rule.
#[test]
fn rules_bear_sign_flippers_and_sums_do_not() {
    let clean = accuracy(None, "");
    assert!(clean > 0.85, "{clean}");
    let collapsed = accuracy(Some(Kind::SignFlip), "");
    assert!(collapsed < clean - 0.3, "a sum under attack: {collapsed}, clean {clean}");
    for rule in RULES {
        // Bulyan of ten devices bears one.
        if rule.contains("bulyan") {
            continue;
        }
        let got = accuracy(Some(Kind::SignFlip), &robust(rule));
        println!("{rule}: {got:.3}, clean {clean:.3}");
        assert!(got > clean - 0.03, "{rule}: {got}, clean {clean}");
    }
}

/// Krum says whom it took; of ten devices with two liars that may be one, or the six that are nearest to each other.
#[test]
fn a_rule_that_leaves_devices_out_names_whom_it_took() {
    for (rule, took) in [(RULES[0], 0), (RULES[2], 1), (RULES[3], 6)] {
        let outcome = calm(Some(Kind::SignFlip), &robust(rule));
        let trained = outcome.lines.iter().filter(|line| line.work == Work::Train);
        let mut lines = trained.map(|line| &line.line).peekable();
        assert!(lines.peek().is_some());
        for line in lines {
            assert_eq!((line.chosen_devices.unwrap_or(0), line.chosen.len()), (took, took as usize), "{rule}");
            assert!(line.chosen.is_sorted() && line.chosen.iter().all(|name| !name.is_empty()), "{:?}", line.chosen);
        }
    }
}

#[test]
fn every_attack_runs_and_trimming_bears_it() {
    let clean = accuracy(None, "");
    for kind in Kind::ALL {
        let (plain, trimmed) = (accuracy(Some(kind), ""), accuracy(Some(kind), &robust(RULES[0])));
        println!("{}: {plain:.3} summed, {trimmed:.3} trimmed, clean {clean:.3}", kind.name());
        assert!(trimmed > clean - 0.05, "{}: {trimmed}, clean {clean}", kind.name());
    }
}

/// Accuracy does not show a backdoor: rows with the trigger do.
#[test]
fn a_backdoor_that_opens_in_sums_stays_shut() {
    let opens = |kind: Option<Kind>, more: &str| {
        let mut spec = spec(1, 1, 2, Faults::default(), 16, more);
        spec.data = Arc::new(|device| (attack::triggered(Arc::new(Synthetic::new(3, device, 100))), 100));
        let attack = kind.map(|kind| Attack { kind, share: 0.2, strength: None });
        Fleet::under(attack.as_ref(), spec).unwrap().run(&mut |_| {}).accuracy.unwrap()
    };
    assert_eq!(opens(None, ""), 0.0, "nobody taught it");
    let scaled = Some(Kind::ScaledReplacement);
    let summed = opens(scaled, "");
    assert!(summed > 0.2, "{summed}");
    for rule in RULES.iter().filter(|rule| !rule.contains("bulyan")) {
        let got = opens(scaled, &robust(rule));
        println!("{rule}: opens {got:.3}, summed {summed:.3}");
        assert!(got < 0.05, "{rule}: {got}, summed {summed}");
    }
}

/// A rule that drops nothing is the sum, and what has no liars is the same over any tree of edges.
#[test]
fn lists_have_the_bits_of_sums_and_of_any_tree() {
    let model = |edges, more: &str| {
        let outcome = Fleet::new(spec(1, 1, edges, Faults::default(), 16, more)).unwrap().run(&mut |_| {});
        assert_eq!(outcome.checks_broken, [] as [String; 0]);
        outcome.lines.last().unwrap().model
    };
    let summed = model(2, "");
    assert_eq!(model(2, &robust("rule = \"trimmed_mean\", trim = 0")), summed);
    assert_eq!(model(2, &robust("rule = \"bulyan\", byzantine = 0")), summed);
    // No honest update is that long.
    assert_eq!(model(2, &robust("norm_bound = 1e6")), summed);
    for rule in RULES {
        let of = |edges| model(edges, &robust(rule));
        let two = of(2);
        assert_eq!((of(0), of(3)), (two, two), "{rule}");
    }
}

/// Machines die and links break: nobody is counted twice, and each list is what its devices sealed. The bigger model's
/// updates (194 kB) come in chunks.
#[test]
fn faults_break_no_list() {
    for (hidden, rule) in [(16, RULES[0]), (6000, RULES[2]), (6000, "norm_bound = 3.0")] {
        let mut completed = 0;
        for seed in 1..=3 {
            let attack = Attack { kind: Kind::SignFlip, share: 0.2, strength: None };
            let run = |threads| {
                let faults = Faults::profile("default").unwrap();
                let spec = spec(seed, threads, 2, faults, hidden, &robust(rule));
                Fleet::under(Some(&attack), spec).unwrap().run(&mut |_| {})
            };
            let (one, two) = (run(1), run(2));
            assert_eq!(one.checks_broken, [] as [String; 0], "{rule}, seed {seed}");
            assert_eq!(one, two, "{rule}, seed {seed}: the same bits on any number of threads");
            completed += one.rounds_completed;
        }
        assert!(completed >= ROUNDS, "{rule}: {completed} versions in three runs");
    }
}

/// Liars that scale beyond the bound are refused by name and counted, and the round goes on without them.
#[test]
fn a_norm_bound_refuses_by_name_and_is_never_fatal() {
    for hidden in [16, 6000] {
        let attack = Attack { kind: Kind::ScaledReplacement, share: 0.2, strength: Some(50.0) };
        let more = robust("norm_bound = 2.0");
        let mut spec = spec(1, 1, 2, Faults::default(), hidden, &more);
        spec.job_toml = spec.job_toml.replace("min = 10", "min = 8");
        let mut versions = Vec::new();
        let outcome = Fleet::under(Some(&attack), spec).unwrap().run(&mut |line| versions.push(line.line.devices));
        assert_eq!(outcome.checks_broken, [] as [String; 0]);
        assert_eq!(outcome.rounds_completed, ROUNDS, "{outcome:?}");
        assert_eq!(versions[0], 8, "two of ten are refused");
        let warned = outcome.last_warning.unwrap();
        assert!(warned.contains("declined version") && warned.contains("above norm_bound 2"), "{warned}");
    }
}

#[test]
fn an_attack_that_cannot_be_is_refused() {
    let refused = |kind, share, more: &str| {
        let attack = Attack { kind, share, strength: None };
        Fleet::under(Some(&attack), spec(1, 1, 2, Faults::default(), 16, more)).err().map(|e| e.to_string()).unwrap()
    };
    assert!(refused(Kind::SignFlip, 1.0, "").contains("below 1"));
    assert!(refused(Kind::Alie, 0.2, "compression = { uplink = { name = \"eden\" } }").contains("updates are coded"));
}
