//! Drills a fleet: `drill DEVICES EDGES ROUNDS TARGET SEEDS FAULTS THREADS ALGORITHM real|drill check|fast`. For measuring.

use littoral_sim::checkers::{Checker, Seen};
use littoral_sim::drill;
use littoral_sim::faults::Faults;
use littoral_sim::fleet::{Fleet, FleetSpec};
use littoral_sim::synthetic::Synthetic;
use littoral_sim::world::{Costs, Machine};
use std::sync::Arc;

/// Prints what machines whose name starts with this do.
struct Print(String);

impl Checker for Print {
    fn name(&self) -> &'static str {
        "print"
    }
    fn see(&mut self, now: u64, machine: &Machine, seen: &Seen<'_>) {
        if machine.name.starts_with(&self.0) {
            let mut text = format!("{seen:?}");
            text.truncate(400);
            println!("{now} {} {text}", machine.name);
        }
    }
    fn finish(&mut self, _: &[Machine]) {}
    fn broken(&self) -> &[String] {
        &[]
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args[i].parse::<usize>().expect("a number");
    let (devices, edges, rounds, target) = (number(0), number(1), number(2), number(3));
    let (first, last) = args[4].split_once("..").map_or_else(
        || (number(4), number(4)),
        |(a, b)| (a.parse().expect("a number"), b.parse::<usize>().expect("a number") - 1),
    );
    let (faults, threads, algorithm) = (&args[5], number(6), &args[7]);
    let (mut broken, mut counted) = (0, 0);
    for seed in first..=last {
        let job_toml = format!(
            r#"
            name = "tiny"
            seed = {seed}
            model = {{ kind = "softmax" }}
            data = {{ set = "blobs", standardise = false, schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "w" }}, {{ name = "x" }}, {{ name = "y" }}, {{ name = "z" }}] }} }}
            algorithm = {{ name = "{algorithm}" }}
            local = {{ epochs = 1, batch = 8, optimiser = {{ name = "sgd", learning_rate = 0.05 }} }}
            cohort = {{ target = {target}, min = {min} }}
            rounds = {{ count = {rounds}, deadline_ms = 20000, close_ms = 10000, wait_ms = 5000 }}
            precision = {{ weighting = "uniform" }}
            "#,
            min = target.div_ceil(2),
        );
        let seed = seed as u64;
        let spec = FleetSpec {
            seed,
            devices,
            names: Vec::new(),
            edges,
            job_toml,
            data: Arc::new(move |device| (Arc::new(Synthetic::new(seed, device, 20)) as _, 20)),
            faults: Faults::profile(faults).expect("none, default or harsh"),
            costs: Costs::default(),
            runner: if args[8] == "real" { littoral_node::work::run } else { drill::run },
            threads,
            check: args[9] == "check",
            limit_ms: 3_600_000,
        };
        let started = std::time::Instant::now();
        let mut fleet = Fleet::new(spec).expect("a job");
        if args.get(10).is_some() {
            fleet.watch(Box::new(Print(args[10].clone())));
        }
        let outcome = fleet.run(&mut |_| {});
        let elapsed_s = started.elapsed().as_secs_f64();
        counted += usize::from(outcome.counts(rounds as u64));
        if !outcome.checks_broken.is_empty() || first == last {
            broken += usize::from(!outcome.checks_broken.is_empty());
            println!("seed {seed}: {}", outcome.json(elapsed_s, 0.0));
            let per = outcome.events as f64 / outcome.device_rounds.max(1) as f64;
            println!(
                "  {elapsed_s:.2} s, {:.1} events per device-round, virtual {} ms, ended {:?}, warnings {} ({:?})",
                per, outcome.virtual_ms, outcome.ended, outcome.warnings, outcome.last_warning
            );
        }
    }
    println!("{} seeds, {counted} count, {broken} broken", last + 1 - first);
}
