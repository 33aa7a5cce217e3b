//! `littoral bench dp`: what privacy costs in accuracy, on the MNIST work of `bench fedavg`.
//!
//! 100 rounds of 50 of 1,000 clients, drawn without replacement, so the law is sampling of a fixed size and neighbours differ by
//! one client that is another one. The unit is a client with all its images.

mod trial;

use super::mnist::{self, Mnist, ROUNDS_MAX};
use super::{Report, broken, machine};
use crate::output::{Failure, talk};
use littoral_fed::dp::{DifferentialPrivacy, MechanismName, Sampling};
use littoral_privacy::account::{self, Accountant, Adjacency, Composition, Loss, Method};
use serde_json::json;
use std::time::Instant;
use trial::{Server, World};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Threads that train clients; all cores by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=i64::from(ROUNDS_MAX)))]
    rounds: u16,
    #[arg(long, value_delimiter = ',', default_value = "7,8,9")]
    seeds: Vec<u64>,
    /// Mechanisms that are compared.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "none,central,distributed-discrete-gaussian")]
    mechanism: Vec<Name>,
    /// For the viewer of the released model.
    #[arg(long, default_value_t = 8.0)]
    epsilon: f64,
    #[arg(long, default_value_t = 1e-5)]
    delta: f64,
    /// Clips that are tried.
    #[arg(long, value_delimiter = ',', default_value = "0.2")]
    clip: Vec<f64>,
    /// Server rates that are tried.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    server_rate: Vec<f32>,
    /// Server momentum.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    momentum: Vec<f32>,
    /// Ring of sums that devices noise.
    #[arg(long, default_value_t = 20)]
    bits: u32,
    /// Instead of the one that epsilon asks for.
    #[arg(long)]
    noise_multiplier: Option<f64>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Name {
    None,
    Central,
    DistributedDiscreteGaussian,
    DistributedSkellam,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let fault = |e: &dyn std::fmt::Display| broken("littoral bench dp")(e);
    let threads = args.threads.map_or_else(machine::cores, usize::from);
    machine::keep_freed_memory();
    let mut world = World::new(Mnist::load()?, mnist::model()?, threads);
    let (cohort, population) = (50, world.mnist.clients.len() as u32);
    let rate = f64::from(cohort) / f64::from(population);
    let mut rows = Vec::new();
    let mut results = Vec::new();
    for &name in &args.mechanism {
        for &clip in &args.clip {
            let spec = |noise_multiplier| DifferentialPrivacy {
                mechanism: match name {
                    Name::None | Name::Central => MechanismName::Central,
                    Name::DistributedDiscreteGaussian => MechanismName::DistributedDiscreteGaussian,
                    Name::DistributedSkellam => MechanismName::DistributedSkellam,
                },
                clip,
                noise_multiplier,
                adaptive_clip: None,
                bands: None,
                restart_rounds: None,
                epsilon: args.epsilon,
                delta: args.delta,
                unit: Some("all images of one client".into()),
                sampling_rate: None,
                attempts_max: None,
                sampling: Sampling::Fixed(population),
                participations_max: 0,
                colluding: 0.0,
                bits: args.bits,
                rounding_beta: (-0.5f64).exp(),
            };
            let params = world.params();
            let noise = |z: f64| {
                let (spec, rounds) = (spec(z), u64::from(args.rounds));
                let summed = spec.summed(params, cohort, rounds)?;
                spec.noise(cohort, cohort, cohort, summed, rounds)
            };
            let account = |z: f64, sampling, count| {
                let noise = noise(z).map_err(|e| e.to_string())?;
                let mut all = Composition::new();
                all.add(Loss { mechanism: noise.mechanism(), sampling, count }).map_err(|e| e.to_string())?;
                // Skellam noise has Rényi bounds only.
                let accountant = if name == Name::DistributedSkellam { Accountant::Rdp } else { Accountant::Pld };
                let method = Method { accountant, adjacency: Adjacency::ReplaceOne, ..Method::default() };
                all.epsilon(args.delta, method).map_err(|e| e.to_string())
            };
            let rounds = u64::from(args.rounds);
            let fixed = account::Sampling::Fixed { rate };
            let z = match args.noise_multiplier {
                Some(z) => z,
                None => account::smallest_noise_multiplier(args.epsilon, |z| {
                    Ok(account(z, fixed, rounds).unwrap_or(f64::INFINITY))
                })
                .map_err(|e| fault(&e))?,
            };
            let noise = (name != Name::None).then(|| noise(z)).transpose();
            let noise = noise.map_err(|e| fault(&e))?;
            let participations = world.participations_max(args.rounds.into());
            let seen = account(z, fixed, rounds).map_err(|e| fault(&e))?;
            let cloud = account(z, account::Sampling::ALL, participations).map_err(|e| fault(&e))?;
            for &server_rate in &args.server_rate {
                for &momentum in &args.momentum {
                    let start = Instant::now();
                    let server = Server { rate: server_rate, momentum };
                    let runs =
                        args.seeds.iter().map(|&seed| world.run(noise.as_ref(), server, seed, args.rounds.into()));
                    let runs = runs.collect::<Result<Vec<_>, _>>()?;
                    let accuracies: Vec<f64> = runs.iter().map(|run| run.accuracy).collect();
                    let accuracy = accuracies.iter().sum::<f64>() / accuracies.len().max(1) as f64;
                    let clipped = runs.iter().map(|run| run.clipped).sum::<f64>() / runs.len().max(1) as f64;
                    let text = format!("{name:?} z {z:.4} clip {clip} rate {server_rate} momentum {momentum}");
                    let line = format!("accuracy {accuracy:.4} (ε {seen:.2}, cloud {cloud:.1}; clipped {clipped:.2})");
                    talk(&format!("{text}: {line} ({:.0} s)", start.elapsed().as_secs_f64()));
                    results.push(json!({"mechanism": format!("{name:?}"), "noise_multiplier": z, "clip": clip,
                        "server_rate": server_rate, "momentum": momentum, "accuracy": accuracy, "accuracies": accuracies,
                        "epsilon_model": seen, "epsilon_cloud": cloud}));
                    rows.push([text, line]);
                }
            }
        }
    }
    Ok(Report { numbers: json!({"runs": results}), rows })
}
