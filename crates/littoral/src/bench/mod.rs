//! `littoral bench`: the measurements, reproducible by anyone.
//!
//! Each runs the code that a fleet runs, says how it counts, and measures what it is compared with in the same run:
//!
//! | file | question |
//! |---|---|
//! | `fedavg` | seconds per round of training and summing on MNIST, and what is learnt |
//! | `algorithms` | which algorithm bears which unevenness, and what papers say of it |
//! | `compress` | bytes that compression saves, and accuracy that it costs |
//! | `round` | what a round costs per device when training costs nothing |
//! | `aggregate` | how fast updates are summed, and in how much memory |
//! | `deployed` | seconds and bytes of a round between real processes |
//! | `llm` | a language model's tokens per second, and its memory |
//! | `secagg` | what secure aggregation costs devices and the server |
//! | `dp` | accuracy at an epsilon, with noise of the cloud or of the devices under masks |
//! | `membership` | what epsilon buys against membership inference |
//! | `edge` | memory of an edge and of the cloud while large updates arrive |
//! | `replicas` | does a cloud of replicas that are killed all the time lose anything |
//! | `draft` | what drafts of a small model are worth |
//! | `split` | what a model's layers on several processes cost, against one |
//! | `soak` | do three tiers serve people while their machines are killed |
//! | `survive` | does a text go on, the same, when a machine with some of the layers is lost |
//!
//! Peers written by others are measured by `bench/peers/compare.py`. `team`, `machine`, `processes`, `draws` and `mnist` are shared.

mod aggregate;
mod algorithms;
mod compress;
mod deployed;
mod dp;
mod draft;
mod draft_far;
mod draft_prompts;
mod draws;
mod edge;
mod fedavg;
mod llm;
pub mod machine;
mod membership;
mod mnist;
mod processes;
mod replicas;
mod round;
mod route;
mod secagg;
mod soak;
mod split;
mod stages;
mod survive;
mod team;

use crate::output::{self, Failure};
use serde_json::Value;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(from_global)]
    pub json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Federated averaging on MNIST: seconds per round, memory, accuracy.
    Fedavg(fedavg::Args),
    /// Algorithms on uneven data, in the simulator: a table with intervals, and which of the literature's signs appear.
    Algorithms(algorithms::Args),
    /// Routing between a small and a large model: what it gains over chance, and whether its bound holds.
    Route(route::Args),
    /// What a round costs per device beside training.
    Round(round::Args),
    /// Sums of large updates: bytes per second, memory.
    Aggregate(aggregate::Args),
    /// Privacy: accuracy at an epsilon, central and distributed noise.
    Dp(dp::Args),
    /// A round between real processes over loopback sockets: seconds, bytes.
    Deployed(deployed::Args),
    /// A language model: tokens per second, memory, bytes per second beside what the machine reads.
    Llm(llm::Args),
    /// Secure aggregation: all devices and the server, through the messages of the protocol.
    Secagg(secagg::Args),
    /// Membership inference on small models, without privacy and at some epsilons: advantage, its bound, accuracy.
    Membership(membership::Args),
    /// Memory of an edge process and of the cloud while devices send large updates.
    Edge(edge::Args),
    /// Compressed updates on MNIST: bytes per device and round, accuracy against plain fixed point.
    Compress(compress::Args),
    /// Replicas of a cloud over PostgreSQL are killed while devices train: what is lost, which bits change.
    Replicas(replicas::Args),
    /// Drafts of a small model: tokens per second, acceptance, passes of the large one, prompt by prompt.
    Draft(draft::Args),
    /// A model's layers over several processes: tokens per second, and what a hop costs.
    Split(split::Args),
    /// A machine with some of a model's layers is lost while text is written: the pause, and whether the text is the same.
    Survive(survive::Args),
    /// A device, an edge and a cloud serve people while machines are killed: wrong texts, broken replies, leaks.
    Soak(soak::Args),
    /// Devices that share a process, for `replicas`.
    #[command(hide = true)]
    Crowd(replicas::crowd::Args),
}

/// What was measured: numbers by name for programs, and what people read, line by line.
struct Report {
    numbers: Value,
    rows: Vec<[String; 2]>,
}

pub fn run(args: Args) -> Result<(), Failure> {
    output::talk(&machine::facts());
    let report = match &args.what {
        What::Fedavg(args) => fedavg::run(args),
        What::Compress(args) => compress::run(args),
        What::Algorithms(args) => algorithms::run(args),
        What::Route(args) => route::run(args),
        What::Round(args) => round::run(args),
        What::Aggregate(args) => aggregate::run(args),
        What::Dp(args) => dp::run(args),
        What::Deployed(args) => deployed::run(args),
        What::Llm(args) => llm::run(args),
        What::Secagg(args) => secagg::run(args),
        What::Membership(args) => membership::run(args),
        What::Edge(args) => edge::run(args),
        What::Replicas(args) => replicas::run(args),
        What::Draft(args) => draft::run(args),
        What::Split(args) => split::run(args),
        What::Survive(args) => survive::run(args),
        What::Soak(args) => soak::run(args),
        What::Crowd(args) => return replicas::crowd::run(args),
    }?;
    if args.json {
        output::object(&report.numbers);
    } else {
        let rows: Vec<Vec<String>> = report.rows.into_iter().map(Vec::from).collect();
        output::table(&["measured", ""], &rows);
    }
    Ok(())
}

/// The middle one, or the mean of the two in the middle; 0 of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len => (sorted[(len - 1) / 2] + sorted[len / 2]) / 2.0,
    }
}

/// A failure of the code under measurement: none is expected.
fn broken(place: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |why| Failure::new("the measurement failed", place, "an end without an error", why)
}
