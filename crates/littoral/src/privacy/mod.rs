//! `littoral privacy`: what a guarantee costs, before a job runs.

mod calibrate;
mod epsilon;
mod secagg;
mod setting;

pub use setting::above_zero;

use crate::output::Failure;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// The epsilon of a mechanism, run this often, for a delta.
    Epsilon(epsilon::Args),
    /// The smallest noise multiplier whose epsilon is at most the target.
    Calibrate(calibrate::Args),
    /// Secure aggregation: how many neighbours a device needs, and how many of them open a secret.
    Secagg(secagg::Args),
}

pub fn run(command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Epsilon(args) => epsilon::run(args, json),
        Command::Calibrate(args) => calibrate::run(args, json),
        Command::Secagg(args) => secagg::run(args, json),
    }
}
