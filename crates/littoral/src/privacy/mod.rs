//! `littoral privacy`: what a guarantee costs, before a job runs.

mod secagg;

use crate::output::Failure;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Secure aggregation: how many neighbours a device needs, and how many of them open a secret.
    Secagg(secagg::Args),
}

pub fn run(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Secagg(args) => secagg::run(&args, json),
    }
}
