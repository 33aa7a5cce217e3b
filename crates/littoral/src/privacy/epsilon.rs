//! `littoral privacy epsilon`: what a mechanism costs.

use super::setting::{Setting, above_zero};
use crate::output::{self, Failure};
use serde_json::json;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    setting: Setting,
    /// The noise's standard deviation over the sensitivity; for the discrete Gaussian its parameter sigma, which the deviation
    /// never passes. Of a distributed mechanism: of the honest survivors' shares together.
    #[arg(long, value_parser = above_zero)]
    noise_multiplier: f64,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    args.setting.check()?;
    let epsilon = args.setting.epsilon(args.noise_multiplier)?;
    let derived = args.setting.derived(args.noise_multiplier);
    if json {
        let mut object = json!({"epsilon": epsilon});
        derived.iter().for_each(|derived| derived.add_to(&mut object));
        output::object(&object);
    } else {
        output::line(&format!("epsilon {epsilon:.6} at delta {}", args.setting.delta));
        derived.iter().for_each(|derived| output::line(&derived.line()));
    }
    Ok(())
}
