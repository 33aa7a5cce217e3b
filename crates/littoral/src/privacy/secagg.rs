//! `littoral privacy secagg`: degree and threshold of the neighbour graph.

use crate::output::{self, Failure};
use crate::usage;
use littoral_privacy::secagg::parameters::{CLIENTS_MAX, Parameters, ParametersError, Threat};
use serde_json::json;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Devices that are invited.
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..=CLIENTS_MAX as i64))]
    clients: u32,
    /// The share of them that colludes with the server.
    #[arg(long, default_value_t = 1.0 / 3.0, value_parser = usage::share)]
    adversary: f64,
    /// The share of them that may drop out.
    #[arg(long, default_value_t = 0.1, value_parser = usage::share)]
    dropout: f64,
    /// The server may lie to devices, too (threat `active`).
    #[arg(long)]
    malicious: bool,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let threat = if args.malicious { Threat::Active } else { Threat::Honest };
    let found = Parameters::find(args.clients, args.adversary, args.dropout, threat).map_err(|e| refused(&e))?;
    if json {
        output::object(&json!({"degree": found.degree, "threshold": found.threshold}));
    } else {
        output::line(&format!(
            "{} neighbours for each of {} devices, {} of them open a secret (threat {threat}: {} adversaries, {} dropouts)",
            found.degree, found.clients, found.threshold, found.adversaries, found.dropouts
        ));
    }
    Ok(())
}

fn refused(error: &ParametersError) -> Failure {
    let what = "there is no such secure aggregation";
    match error {
        ParametersError::None { clients, adversaries, dropouts, threat, would_do } => {
            let got = format!("{adversaries} adversaries and {dropouts} dropouts of {clients} (threat {threat})");
            Failure::new(what, "the neighbour graph", "numbers that a graph withstands", got).hint(would_do.to_string())
        }
        other => Failure::new(what, "the neighbour graph", "numbers that can be", other),
    }
}
