//! `littoral route`: which model answers, with a bound on how often that is the worse choice.
//!
//! [`prompts`] are read, [`ask`] lets a model answer them ([`kept`]: once), [`label`] says who was right, [`calibrate`] is the
//! command. The router itself is `littoral_infer::route`.

pub mod ask;
mod calibrate;
pub mod kept;
pub mod label;
pub mod prompts;

use crate::output::Failure;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// When may a small model answer alone? Both answer labelled prompts; the threshold comes with a bound.
    Calibrate(calibrate::Args),
}

pub fn run(command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Calibrate(args) => calibrate::run(args, json),
    }
}

/// A number within 0..1, ends excluded.
pub fn part(text: &str) -> Result<f64, String> {
    let within = |part: &f64| *part > 0.0 && *part < 1.0;
    text.parse().ok().filter(within).ok_or_else(|| "a number above 0 and below 1 expected".to_owned())
}
