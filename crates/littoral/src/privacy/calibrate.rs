//! `littoral privacy calibrate`: the noise for a target.

use super::number;
use super::setting::{Refused, Setting, above_zero};
use crate::output::{self, Failure};
use littoral_privacy::account::{AccountError, smallest_noise_multiplier};
use serde_json::json;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    setting: Setting,
    /// The target: what the noise is found for has an epsilon of at most this.
    #[arg(long, value_parser = above_zero)]
    epsilon: f64,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    args.setting.check()?;
    // A ring that is too small for a noise is no bound of the account: it is told if nothing else was found.
    let mut plan = None;
    let found = smallest_noise_multiplier(args.epsilon, |z| match args.setting.epsilon(z) {
        Ok(epsilon) => Ok(epsilon),
        Err(Refused::Account(error)) => Err(error),
        Err(Refused::Plan(error)) => {
            plan = Some(error);
            Err(AccountError::NoEpsilon { delta: args.setting.delta })
        }
    });
    let noise_multiplier = match (found, plan) {
        (Ok(z), _) => z,
        (Err(AccountError::Unreachable { .. }), Some(error)) => return Err(Refused::Plan(error).into()),
        (Err(error), _) => return Err(Refused::Account(error).into()),
    };
    let derived = args.setting.derived(noise_multiplier);
    if json {
        let mut object = json!({"noise_multiplier": noise_multiplier});
        derived.iter().for_each(|derived| derived.add_to(&mut object));
        output::object(&object);
    } else {
        let epsilon = args.setting.epsilon(noise_multiplier)?;
        output::line(&format!(
            "noise multiplier {noise_multiplier:.6}: epsilon {} at delta {}",
            number::epsilon(epsilon, 6),
            args.setting.delta
        ));
        derived.iter().for_each(|derived| output::line(&derived.line()));
    }
    Ok(())
}
