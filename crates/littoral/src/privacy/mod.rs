//! `littoral privacy`: what releases cost in (ε, δ), and the noise for a target.

mod calibrate;
mod epsilon;
mod setting;

use crate::output::Failure;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// The epsilon of a mechanism, run this often, for a delta.
    Epsilon(epsilon::Args),
    /// The smallest noise multiplier whose epsilon is at most the target.
    Calibrate(calibrate::Args),
}

pub fn run(command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Epsilon(args) => epsilon::run(args, json),
        Command::Calibrate(args) => calibrate::run(args, json),
    }
}
