//! Littoral: trains models where the data lives.
//!
//! This file is the table of contents: one line per command. Only this package prints, reads the environment or exits.

mod above;
mod bench;
mod doctor;
mod failure;
mod fleet;
mod input;
mod inspect;
mod job;
mod join;
mod key;
mod live;
mod llm;
mod memory;
mod models;
mod named;
mod output;
mod partition;
mod pending;
mod plan;
mod privacy;
mod pull;
mod reach;
mod role_serve;
mod roles;
mod route;
mod run;
mod score;
mod serve;
mod serve_cmd;
mod sim_cmd;
mod sim_data;
mod sim_dir;
mod sim_progress;
mod sim_serving;
mod sites;
mod sources;
mod stage;
mod sweep;
mod tokenize;
mod traces;
mod up;
mod usage;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use littoral_tensor::quant::KERNELS;
use littoral_wire::hello::PROTOCOL;
use serde_json::json;
use std::process::ExitCode;

/// Trains models where the data lives, over devices, edge servers and a cloud.
#[derive(Parser, Debug)]
#[command(name = "littoral", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    /// Print JSON on stdout, one object on one line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "LITTORAL_DIR is the default of --dir; models are kept in LITTORAL_HOME.\n\
    To begin: `littoral up` runs a whole fleet on this machine, `littoral run` a language model.";

#[derive(Subcommand, Debug)]
enum Command {
    /// A whole fleet on this machine: one cloud, edges and devices as real processes.
    Up(up::Args),
    /// Run a cloud: it enrols machines, takes jobs and runs their rounds.
    Cloud(roles::ListenerArgs),
    /// Run an edge: it sums what the devices around it send.
    Edge(roles::ListenerArgs),
    /// Run a device: it trains on its own files.
    Device(roles::DeviceArgs),
    /// Enrol this machine with a ticket.
    Join(join::Args),
    /// Machines, tickets and keys.
    #[command(subcommand)]
    Fleet(fleet::Command),
    /// Jobs: submit, follow, repeat.
    #[command(subcommand)]
    Job(job::Command),
    /// Thousands of virtual devices, virtual time, faults, a seed.
    Sim(Box<sim_cmd::Args>),
    /// A data set of your own as the folders of many devices: IID, or skewed in labels, sizes or features.
    Partition(partition::Args),
    /// Traces of devices that come and go, for `sim`: days and nights, outages, speeds.
    Traces(traces::Args),
    /// Text from a language model, here: an answer, or a chat in the terminal.
    Run(run::Args),
    /// Fetch a model: checked, resumable, kept under its name.
    Pull(pull::Args),
    /// The models that are known by name, and which of them are here; `rm` removes.
    Models(models::Args),
    /// The ids of a text in a model's vocabulary.
    Tokenize(tokenize::Args),
    /// How well a model expects a text: perplexity.
    Score(score::Args),
    /// Which of two models answers: thresholds with a bound.
    #[command(subcommand)]
    Route(route::Command),
    /// Answer programs that speak OpenAI's API: chat, completions, streams; and a page to chat.
    Serve(Box<serve_cmd::Args>),
    /// How a model would be split over a fleet: who has which layers, how fast that is, and why.
    Plan(plan::Args),
    /// Lend this machine to heads that share a model's layers: `littoral serve MODEL --stage …`.
    Stage(stage::Args),
    /// This machine's public key, by which others let it in.
    Key(key::Args),
    /// What a model file holds: architecture, kinds of weights, metadata, tensors.
    Inspect(inspect::Args),
    /// What releases cost in (epsilon, delta), and the noise for a target.
    #[command(subcommand)]
    Privacy(privacy::Command),
    /// Measurements, reproducible by anyone.
    Bench(bench::Args),
    /// What this machine is and what is missing.
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return refuse(&usage),
    };
    let json = cli.json;
    let done = match cli.command {
        Command::Up(args) => up::run(args),
        Command::Cloud(args) => roles::cloud(args, json),
        Command::Edge(args) => roles::edge(args, json),
        Command::Device(args) => roles::device(args, json),
        Command::Join(args) => join::run(args, json),
        Command::Fleet(command) => fleet::run(command, json),
        Command::Job(command) => job::run(command, json),
        Command::Sim(args) => sim_cmd::run(*args),
        Command::Partition(args) => partition::run(&args, json),
        Command::Traces(args) => traces::run(&args, json),
        Command::Run(args) => run::run(&args, json),
        Command::Pull(args) => pull::run(&args, json),
        Command::Models(args) => models::run(args, json),
        Command::Tokenize(args) => tokenize::run(&args, json),
        Command::Score(args) => score::run(&args, json),
        Command::Route(command) => route::run(&command, json),
        Command::Serve(args) => serve_cmd::run(*args, json),
        Command::Plan(args) => plan::run(&args, json),
        Command::Stage(args) => stage::run(args, json),
        Command::Key(args) => key::run(&args, json),
        Command::Inspect(args) => inspect::run(args, json),
        Command::Privacy(command) => privacy::run(&command, json),
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => doctor::run(args, json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Help and version are answers; anything else is wrong usage, said to people and with `--json` to programs too.
fn refuse(usage: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|arg| arg == "--json");
    if json && usage.kind() == ErrorKind::DisplayVersion {
        let version = env!("CARGO_PKG_VERSION");
        output::object(&json!({"version": version, "protocol": PROTOCOL, "kernels": KERNELS}));
        return ExitCode::SUCCESS;
    }
    let _ = usage.print();
    if !usage.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let failure = usage::failure_of(usage);
    if json {
        failure.print(true);
    }
    ExitCode::from(failure.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
