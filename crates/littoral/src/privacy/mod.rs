//! `littoral privacy`: what a guarantee costs, before a job runs.

mod calibrate;
mod epsilon;
mod ledger;
mod number;
mod secagg;
mod setting;

pub use number::shortened;
pub use setting::above_zero;

use crate::output::Failure;
use crate::reach::Reach;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// The epsilon of a mechanism, run this often, for a delta; or that of a job, for each viewer.
    Epsilon(epsilon::Args),
    /// The smallest noise multiplier whose epsilon is at most the target.
    Calibrate(calibrate::Args),
    /// Secure aggregation: how many neighbours a device needs, and how many of them open a secret.
    Secagg(secagg::Args),
    /// Bound what all jobs together may tell of a data set.
    Budget(ledger::BudgetArgs),
    /// What jobs have told of each data set, and what budgets still have.
    Ledger {
        #[command(flatten)]
        reach: Reach,
    },
}

pub fn run(command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Epsilon(args) => epsilon::run(args, json),
        Command::Calibrate(args) => calibrate::run(args, json),
        Command::Secagg(args) => secagg::run(args, json),
        Command::Budget(args) => ledger::budget(args, json),
        Command::Ledger { reach } => ledger::ledger(reach, json),
    }
}
