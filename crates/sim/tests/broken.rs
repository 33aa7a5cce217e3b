//! Who checks the checkers? Each deliberately broken build (a cargo feature, `cargo test -p littoral-sim --test broken
//! --features broken-…`) must be caught by the checker of its name within 100 seeds, of which those count in which at
//! least half of the rounds completed. A sound build must pass the same seeds.

use littoral_node::work::LocalData;
use littoral_sim::drill;
use littoral_sim::faults::{Faults, LinkShape};
use littoral_sim::fleet::{self, Fleet, FleetSpec};
use littoral_sim::report::Outcome;
use littoral_sim::synthetic::Synthetic;
use littoral_sim::world::Costs;
use std::sync::Arc;

const ROUNDS: u64 = 10;
const SEEDS: u64 = 100;

/// Masks: a build that leaks what they hide breaks nothing where there are none.
const MASKED: &str = if cfg!(any(feature = "broken-plain-update", feature = "broken-one-vector-per-key")) {
    "secure_aggregation = { adversary = 0.2 }"
} else {
    ""
};

/// Noise, of which devices give a share so often and no oftener.
const PRIVATE: &str = if cfg!(feature = "broken-within-budget") {
    r#"differential_privacy = { mechanism = "central", clip = 1.0, noise_multiplier = 1.0, epsilon = 1000.0, participations_max = 5 }"#
} else {
    ""
};
/// An algorithm that keeps something on devices, where it may.
const ALGORITHM: &str = if cfg!(feature = "broken-own-segments") {
    "fedper"
} else if PRIVATE.is_empty() {
    "scaffold"
} else {
    "fedavg"
};
/// Of which some can stay on devices.
const MODEL: &str =
    if cfg!(feature = "broken-own-segments") { r#"{ kind = "mlp", hidden = [4] }"# } else { r#"{ kind = "softmax" }"# };

fn spec(seed: u64, threads: usize, faults: Faults) -> FleetSpec {
    let job_toml = format!(
        r#"
        name = "drill"
        seed = {seed}
        model = {MODEL}
        data = {{ set = "blobs", standardise = false, schema = {{ label = {{ name = "class", classes = ["a", "b", "c"] }}, fields = [{{ name = "x" }}, {{ name = "y" }}] }} }}
        algorithm = {{ name = "{ALGORITHM}" }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = 16, min = 8 }}
        rounds = {{ count = {ROUNDS}, deadline_ms = 20000, close_ms = 10000, wait_ms = 5000 }}
        precision = {{ weighting = "uniform" }}
        {MASKED}
        {PRIVATE}
        "#
    );
    FleetSpec {
        seed,
        devices: 20,
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

fn usual() -> Faults {
    Faults::profile("default").unwrap()
}

/// Devices move to another edge right after they were absorbed, and the cloud hears of the absorbing late.
fn moves() -> Faults {
    let usual = usual();
    Faults {
        device_link: LinkShape { death: 0.03, ..usual.device_link },
        edge_link: LinkShape { loss: 0.2, retransmit_us: 3_000_000, ..usual.edge_link },
        ..usual
    }
}

/// Which checker this build must be caught by.
const BROKEN: Option<&str> = if cfg!(feature = "broken-counted-once") {
    Some("counted once")
} else if cfg!(feature = "broken-exact-sum") {
    Some("exact sum")
} else if cfg!(feature = "broken-pending-state") {
    Some("pending state")
} else if cfg!(feature = "broken-served-model") {
    Some("served model")
} else if cfg!(feature = "broken-one-model-per-version") {
    Some("one model per version")
} else if cfg!(feature = "broken-own-segments") {
    Some("own segments")
} else if cfg!(feature = "broken-plain-update") {
    Some("plain update")
} else if cfg!(feature = "broken-one-vector-per-key") {
    Some("one vector per key")
} else if cfg!(feature = "broken-within-budget") {
    Some("within budget")
} else if cfg!(feature = "broken-same-seed") {
    Some("same seed")
} else {
    None
};

#[test]
fn a_broken_build_is_caught_and_a_sound_one_is_not() {
    let run = |seed, faults: Faults| -> Outcome {
        match BROKEN {
            Some("same seed") => fleet::run_twice(|threads| spec(seed, threads, faults.clone()), &mut |_| {}).unwrap(),
            _ => Fleet::new(spec(seed, 1, faults)).unwrap().run(&mut |_| {}),
        }
    };
    match BROKEN {
        Some(name) => {
            let caught = |outcome: &Outcome| {
                outcome.counts(ROUNDS) && outcome.checks_broken.iter().any(|finding| finding.starts_with(name))
            };
            let faults = if name == "counted once" { moves() } else { usual() };
            let noticed = (0..SEEDS).any(|seed| caught(&run(seed, faults.clone())));
            assert!(noticed, "`{name}` was not noticed in {SEEDS} seeds");
        }
        None => {
            for faults in [usual(), moves()] {
                let mut counted = 0;
                for seed in 0..SEEDS {
                    let outcome = run(seed, faults.clone());
                    assert_eq!(outcome.checks_broken, [] as [String; 0], "seed {seed} of {faults:?}");
                    counted += usize::from(outcome.counts(ROUNDS));
                }
                assert!(counted >= 80, "only {counted} seeds count");
            }
        }
    }
}
