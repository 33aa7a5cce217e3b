//! `littoral privacy epsilon`: what a mechanism costs, or a job.

use super::number;
use super::setting::{Refused, Setting, above_zero};
use crate::job::{named, read_any_job};
use crate::output::{self, Failure};
use littoral_node::job::privacy;
use littoral_privacy::account::AccountError;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A job, accounted as it would run, for each viewer.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "mechanism", "noise_multiplier", "steps", "delta", "sampling_rate", "sampling", "accountant", "adjacency",
        "discretisation", "clients", "min_survivors", "colluding", "dim", "clip", "bits", "rounding_beta",
    ])]
    job: Option<PathBuf>,
    #[command(flatten)]
    setting: Setting,
    /// The noise's standard deviation over the sensitivity; for the discrete Gaussian its parameter sigma, which the deviation
    /// never passes. Of a distributed mechanism: of the honest survivors' shares together.
    #[arg(long, value_parser = above_zero, required_unless_present = "job")]
    noise_multiplier: Option<f64>,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    match (&args.job, args.noise_multiplier) {
        (Some(file), _) => of_job(file, json),
        (None, Some(noise_multiplier)) => of_mechanism(&args.setting, noise_multiplier, json),
        (None, None) => Err(Failure::usage("--noise-multiplier", "this argument, or --job", "neither")),
    }
}

fn of_mechanism(setting: &Setting, noise_multiplier: f64, json: bool) -> Result<(), Failure> {
    setting.check()?;
    let epsilon = setting.epsilon(noise_multiplier).map_err(|refused| match refused {
        Refused::Account(AccountError::NoEpsilon { delta }) => {
            let expected = format!("one whose epsilon is finite for delta {}", number::plain(delta));
            Failure::new("no account", "--noise-multiplier", expected, number::plain(noise_multiplier))
                .hint("more noise, fewer steps or a larger delta")
        }
        other => other.into(),
    })?;
    let derived = setting.derived(noise_multiplier);
    if json {
        let mut object = json!({"epsilon": epsilon});
        derived.iter().for_each(|derived| derived.add_to(&mut object));
        output::object(&object);
    } else {
        output::line(&format!("epsilon {} at delta {}", number::epsilon(epsilon, 6), setting.delta));
        derived.iter().for_each(|derived| output::line(&derived.line()));
    }
    Ok(())
}

/// Also of a job that costs more than it says, and would be refused.
fn of_job(file: &Path, json: bool) -> Result<(), Failure> {
    let (spec, _) = read_any_job(file)?;
    let guarantees = spec.guarantees();
    if spec.terms().is_some() && guarantees.is_empty() {
        spec.clone().within_epsilon().map_err(|e| named(file, e))?;
    }
    let (Some(terms), Some(model)) = (spec.terms(), guarantees.first()) else {
        let (expected, got) = ("a section [differential_privacy]", "none: nothing is guaranteed to anyone");
        return Err(Failure::new("no account", file.display().to_string(), expected, got));
    };
    if json {
        let viewers = guarantees.iter().map(|guarantee| {
            json!({"viewer": privacy::name(guarantee.viewer), "epsilon": guarantee.epsilon, "delta": guarantee.delta, "why": guarantee.why})
        });
        output::object(&json!({
            "epsilon": model.epsilon,
            "delta": terms.dp.delta,
            "budget": terms.dp.epsilon,
            "unit": terms.dp.unit(),
            "models": terms.models,
            "participations": terms.participations,
            "viewers": viewers.collect::<Vec<Value>>(),
        }));
        return Ok(());
    }
    output::line(&number::shortened(&privacy::sentences(spec.text(), guarantees)));
    for guarantee in guarantees {
        let epsilon = guarantee.epsilon.map_or("none".into(), |epsilon| number::epsilon(epsilon, 4));
        output::line(&format!("{}: epsilon {epsilon}; {}", privacy::name(guarantee.viewer), guarantee.why));
    }
    Ok(())
}
