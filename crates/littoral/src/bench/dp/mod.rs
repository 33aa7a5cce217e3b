//! `littoral bench dp`: what privacy costs in accuracy, on the MNIST work of `bench fedavg`.
//!
//! 100 rounds of 50 of 1,000 clients; the unit is a client with all its images. Neighbours differ by one client that is another
//! one, and cohorts are drawn without replacement. For each mechanism and each ε the noise is calibrated, then every clip and
//! server rate of the grid is run with every seed; the best is the one with the highest mean accuracy. `none` is plain federated
//! averaging.
//!
//! Where devices add the noise, every round is a session of secure aggregation of its own: keys, shares, masks, consents, opening.
//! With `--unmasked` it is left out and the sum has the same bits, sooner (a test holds this).
//!
//! *epsilon_model* is for whoever sees released models and does not know who took part: amplified by sampling, on the condition
//! that cohorts are drawn in secret. (Those of this bench are published, so that others can repeat it; a deployment's must not
//! be.) *epsilon_cloud* is for the cloud, which knows the cohorts: without amplification, for the client that takes part most
//! often. It counts the noise of all but the `--colluding` share. Under central noise the cloud sees the sums themselves, and
//! there is no such number.
//!
//! What the numbers do not cover: the best of a grid is chosen by accuracy on the test images. That choice looks at data and is not
//! itself private; nor is it held out. It is made the same way for every mechanism.

mod curve;
mod masked;
mod trial;

use super::mnist::{self, Mnist, ROUNDS_MAX};
use super::secagg::ThreatName;
use super::{Report, broken, machine};
use crate::output::{Failure, talk};
use crate::pending::Pending;
use crate::usage;
use curve::{Curve, Picture, Point};
use littoral_fed::dp::{DifferentialPrivacy, MechanismName, Noise, Sampling};
use littoral_fed::masks;
use littoral_privacy::account::{self, Accountant, Adjacency, Composition, Loss, Method};
use masked::Fleet;
use serde_json::{Value, json};
use std::path::PathBuf;
use trial::{Server, World};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Threads that train clients; all cores by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=i64::from(ROUNDS_MAX)))]
    rounds: u16,
    /// Of the first weights, the orders of images and all noise: one run each.
    #[arg(long, value_delimiter = ',', default_value = "7,8,9")]
    seeds: Vec<u64>,
    /// Mechanisms that are compared, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "none,central,distributed-discrete-gaussian")]
    mechanism: Vec<Name>,
    /// For the viewer of the released model.
    #[arg(long, value_delimiter = ',', default_value = "8", value_parser = positive)]
    epsilon: Vec<f64>,
    #[arg(long, default_value = "0.00001", value_parser = probability)]
    delta: f64,
    /// The grid's clips: L2 norms of a client's update.
    #[arg(long, value_delimiter = ',', default_value = "0.15", value_parser = positive)]
    clip: Vec<f64>,
    /// The grid's server rates.
    #[arg(long, value_delimiter = ',', default_value = "1.5,2", value_parser = finite)]
    server_rate: Vec<f32>,
    /// The grid's server momenta.
    #[arg(long, value_delimiter = ',', default_value = "0", value_parser = finite)]
    momentum: Vec<f32>,
    /// Where devices add the noise, run only so many settings of the grid: those that were best under central noise at the same
    /// epsilon. All by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    best_of_central: Option<u16>,
    /// Ring of sums that devices noise.
    #[arg(long, default_value_t = 20)]
    bits: u32,
    /// The share of a cohort that tells the cloud its noise.
    #[arg(long, default_value_t = 0.0, value_parser = usage::share)]
    colluding: f64,
    /// Instead of the one that epsilon asks for.
    #[arg(long, value_parser = positive)]
    noise_multiplier: Option<f64>,
    /// What the cloud may do in secure aggregation.
    #[arg(long, value_enum, default_value_t = ThreatName::Active)]
    threat: ThreatName,
    /// Leave masks away: the same sums, sooner.
    #[arg(long)]
    unmasked: bool,
    /// Write the curve of accuracy over epsilon here.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Name {
    None,
    Central,
    DistributedDiscreteGaussian,
    DistributedSkellam,
}

impl Name {
    /// In files for programs, as in a job.
    fn text(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Central => "central",
            Self::DistributedDiscreteGaussian => "distributed-discrete-gaussian",
            Self::DistributedSkellam => "distributed-skellam",
        }
    }

    fn on_devices(self) -> bool {
        matches!(self, Self::DistributedDiscreteGaussian | Self::DistributedSkellam)
    }
}

/// A point of the grid.
#[derive(Clone, Copy, Debug)]
struct Setting {
    clip: f64,
    server: Server,
}

/// What a mechanism's noise is and tells.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// The one that was asked for.
    epsilon: f64,
    epsilon_model: f64,
    /// `None`: the cloud sees sums without noise.
    epsilon_cloud: Option<f64>,
    noise_multiplier: f64,
}

/// A setting that was run with every seed.
struct Tried {
    name: Name,
    setting: Setting,
    /// `None` without privacy.
    cost: Option<Cost>,
    accuracies: Vec<f64>,
    clipped: f64,
    masked: bool,
    /// Of one run.
    seconds: f64,
    masking_seconds: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a finite number above 0 expected".into()),
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1.0 => Ok(number),
        _ => Err("a number between 0 and 1 expected".into()),
    }
}

fn finite(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
        _ => Err("a finite number from 0 on expected".into()),
    }
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let central_first = args.mechanism.iter().take_while(|name| !name.on_devices()).any(|name| *name == Name::Central);
    if args.best_of_central.is_some() && args.mechanism.iter().any(|name| name.on_devices()) && !central_first {
        return Err(Failure::usage("--best-of-central", "--mechanism central before those on devices", "none"));
    }
    let svg = args.svg.as_deref().map(Pending::at).transpose()?;
    let threads = args.threads.map_or_else(machine::cores, usize::from);
    machine::keep_freed_memory();
    let mut world = World::new(Mnist::load()?, mnist::model()?, threads);
    let threat = match args.threat {
        ThreatName::Honest => masks::ThreatName::Honest,
        ThreatName::Active => masks::ThreatName::Active,
    };
    let fleet = (!args.unmasked).then(|| Fleet::new(world.mnist.clients.len(), threat)).transpose()?;
    let mut tried: Vec<Tried> = Vec::new();
    for &name in &args.mechanism {
        let targets = if name == Name::None { &[f64::INFINITY][..] } else { &args.epsilon };
        for &epsilon in targets {
            let mut private: Option<(Noise, Cost)> = None;
            for setting in grid(args, name, epsilon, &tried) {
                let same = private.take().filter(|(noise, _)| noise.spec.clip == setting.clip);
                private = match same {
                    None if name != Name::None => Some(calibrate(args, &world, name, epsilon, setting.clip)?),
                    same => same,
                };
                let done = try_out(args, &mut world, fleet.as_ref(), name, setting, private.as_ref())?;
                talk(&format!("{}: {} ({:.0} s a run)", done.setting(), done.result(), done.seconds));
                tried.push(done);
            }
        }
    }
    let best = best(&tried);
    if let Some(file) = svg {
        file.write(draw(args, &best))?;
    }
    let central_at = |epsilon| best.iter().find(|tried| tried.name == Name::Central && tried.epsilon() == epsilon);
    let best_numbers = best.iter().map(|tried| {
        let mut numbers = tried.numbers();
        if let (true, Some(central)) = (tried.name.on_devices(), central_at(tried.epsilon())) {
            numbers["behind_central"] = (central.accuracy() - tried.accuracy()).into();
        }
        numbers
    });
    let numbers = json!({
        "best": best_numbers.collect::<Vec<_>>(),
        "runs": tried.iter().map(Tried::numbers).collect::<Vec<_>>(),
        "rounds": args.rounds, "seeds": args.seeds, "delta": args.delta,
        "participations_max": world.participations_max(args.rounds.into()),
    });
    Ok(Report { numbers, rows: best.iter().map(|tried| [tried.setting(), tried.result()]).collect() })
}

/// Settings to run.
fn grid(args: &Args, name: Name, epsilon: f64, tried: &[Tried]) -> Vec<Setting> {
    if name == Name::None {
        return vec![Setting { clip: args.clip[0], server: Server { rate: 1.0, momentum: 0.0 } }];
    }
    if let (Some(count), true) = (args.best_of_central, name.on_devices()) {
        let mut central: Vec<&Tried> =
            tried.iter().filter(|tried| tried.name == Name::Central && tried.epsilon() == epsilon).collect();
        central.sort_by(|a, b| b.accuracy().total_cmp(&a.accuracy()));
        return central.into_iter().take(count.into()).map(|tried| tried.setting).collect();
    }
    let mut settings = Vec::new();
    for &clip in &args.clip {
        for &rate in &args.server_rate {
            for &momentum in &args.momentum {
                settings.push(Setting { clip, server: Server { rate, momentum } });
            }
        }
    }
    settings
}

/// The least noise that keeps epsilon, and what everybody sees through it.
fn calibrate(args: &Args, world: &World, name: Name, epsilon: f64, clip: f64) -> Result<(Noise, Cost), Failure> {
    let fault = |e: &dyn std::fmt::Display| broken("littoral bench dp")(e);
    let (cohort, population) = (world.cohort(), world.mnist.clients.len() as u32);
    let rounds = u64::from(args.rounds);
    let noise = |noise_multiplier| {
        let spec = DifferentialPrivacy {
            mechanism: match name {
                Name::None | Name::Central => MechanismName::Central,
                Name::DistributedDiscreteGaussian => MechanismName::DistributedDiscreteGaussian,
                Name::DistributedSkellam => MechanismName::DistributedSkellam,
            },
            clip,
            noise_multiplier,
            epsilon,
            delta: args.delta,
            unit: Some("all images of one client".into()),
            sampling_rate: None,
            attempts_max: None,
            adaptive_clip: None,
            bands: None,
            restart_rounds: None,
            sampling: Sampling::Fixed(population),
            participations_max: 0,
            colluding: args.colluding,
            bits: args.bits,
            rounding_beta: (-0.5f64).exp(),
        };
        let summed = spec.summed(world.params(), cohort, rounds, None)?;
        spec.noise(cohort, cohort, cohort, summed, rounds)
    };
    let cost = |z: f64, sampling, count| {
        let mechanism = noise(z).map_err(|e| e.to_string())?.mechanism();
        let mut all = Composition::new();
        all.add(Loss { mechanism, sampling, count }).map_err(|e| e.to_string())?;
        // Skellam noise has Rényi bounds only.
        let accountant = if name == Name::DistributedSkellam { Accountant::Rdp } else { Accountant::Pld };
        let method = Method { accountant, adjacency: Adjacency::ReplaceOne, ..Method::default() };
        all.epsilon(args.delta, method).map_err(|e| e.to_string())
    };
    let fixed = account::Sampling::Fixed { rate: f64::from(cohort) / f64::from(population) };
    let z = match args.noise_multiplier {
        Some(z) => z,
        // Noise that is too small for the mechanism's account is as good as none.
        None => account::smallest_noise_multiplier(epsilon, |z| Ok(cost(z, fixed, rounds).unwrap_or(f64::INFINITY)))
            .map_err(|e| fault(&e))?,
    };
    let participations = world.participations_max(rounds as usize);
    let cloud = name.on_devices().then(|| cost(z, account::Sampling::ALL, participations)).transpose();
    let paid = Cost {
        epsilon,
        epsilon_model: cost(z, fixed, rounds).map_err(|e| fault(&e))?,
        epsilon_cloud: cloud.map_err(|e| fault(&e))?,
        noise_multiplier: z,
    };
    Ok((noise(z).map_err(|e| fault(&e))?, paid))
}

fn try_out(
    args: &Args,
    world: &mut World,
    fleet: Option<&Fleet>,
    name: Name,
    setting: Setting,
    private: Option<&(Noise, Cost)>,
) -> Result<Tried, Failure> {
    let noise = private.map(|(noise, _)| noise);
    let runs = args.seeds.iter().map(|&seed| world.run(noise, fleet, setting.server, seed, args.rounds.into()));
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    let mean = |of: fn(&trial::Outcome) -> f64| runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64;
    Ok(Tried {
        name,
        setting,
        cost: private.map(|(_, cost)| *cost),
        accuracies: runs.iter().map(|run| run.accuracy).collect(),
        clipped: mean(|run| run.clipped),
        masked: fleet.is_some() && name.on_devices(),
        seconds: mean(|run| run.seconds),
        masking_seconds: mean(|run| run.masking_seconds),
    })
}

impl Tried {
    fn accuracy(&self) -> f64 {
        self.accuracies.iter().sum::<f64>() / self.accuracies.len().max(1) as f64
    }

    /// Infinite without privacy.
    fn epsilon(&self) -> f64 {
        self.cost.map_or(f64::INFINITY, |cost| cost.epsilon)
    }

    fn setting(&self) -> String {
        let Setting { clip, server } = self.setting;
        match self.cost {
            None => "none".into(),
            Some(Cost { epsilon, noise_multiplier, .. }) => {
                let momentum =
                    if server.momentum == 0.0 { String::new() } else { format!(" momentum {}", server.momentum) };
                let (name, rate) = (self.name.text(), server.rate);
                format!("{name} ε {epsilon}: clip {clip} rate {rate}{momentum} z {noise_multiplier:.4}")
            }
        }
    }

    fn result(&self) -> String {
        let accuracy = format!("accuracy {:.4} {:?}", self.accuracy(), self.accuracies);
        let cost = self.cost.map_or_else(String::new, |Cost { epsilon_model, epsilon_cloud, .. }| {
            let cloud = epsilon_cloud.map_or_else(|| "none".into(), |cloud| format!("{cloud:.2}"));
            format!(", ε {epsilon_model:.3} for the model's viewers, {cloud} for the cloud")
        });
        let masks = match self.masked {
            true => format!(", masks {:.1} of {:.1} s", self.masking_seconds, self.seconds),
            false => String::new(),
        };
        format!("{accuracy}{cost}{masks}")
    }

    fn numbers(&self) -> Value {
        let mut numbers = json!({
            "mechanism": self.name.text(), "accuracy": self.accuracy(), "accuracies": self.accuracies,
            "server_rate": self.setting.server.rate, "momentum": self.setting.server.momentum,
            "masked": self.masked, "s_per_run": self.seconds,
        });
        if let Some(cost) = self.cost {
            numbers["epsilon"] = cost.epsilon.into();
            numbers["epsilon_model"] = cost.epsilon_model.into();
            numbers["noise_multiplier"] = cost.noise_multiplier.into();
            numbers["clip"] = self.setting.clip.into();
            numbers["clipped_share"] = self.clipped.into();
            if let Some(cloud) = cost.epsilon_cloud {
                numbers["epsilon_cloud"] = cloud.into();
            }
        }
        if self.masked {
            numbers["masking_s_per_run"] = self.masking_seconds.into();
        }
        numbers
    }
}

/// Of each mechanism and epsilon the one with the highest accuracy, in the order in which they were run.
fn best(tried: &[Tried]) -> Vec<&Tried> {
    let mut best: Vec<&Tried> = Vec::new();
    for candidate in tried {
        match best.iter_mut().find(|b| b.name == candidate.name && b.epsilon() == candidate.epsilon()) {
            Some(kept) if candidate.accuracy() > kept.accuracy() => *kept = candidate,
            Some(_) => {}
            None => best.push(candidate),
        }
    }
    best
}

fn draw(args: &Args, best: &[&Tried]) -> String {
    let curves = [
        (Name::Central, "central noise"),
        (Name::DistributedDiscreteGaussian, "on devices: discrete Gaussian"),
        (Name::DistributedSkellam, "on devices: Skellam"),
    ];
    let curves = curves.map(|(name, shown)| {
        let mut points: Vec<Point> = best
            .iter()
            .filter(|tried| tried.name == name)
            .map(|tried| Point {
                epsilon: tried.epsilon(),
                accuracy: tried.accuracy(),
                accuracies: tried.accuracies.clone(),
            })
            .collect();
        points.sort_by(|a, b| a.epsilon.total_cmp(&b.epsilon));
        Curve { name: shown, points }
    });
    let curves: Vec<Curve<'_>> = curves.into_iter().filter(|curve| !curve.points.is_empty()).collect();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let description = format!(
        "littoral {}\nAccuracy on 10,000 test images after {} rounds of 50 of 1,000 clients, mean and each of {} seeds, the best of \
         a grid of clips and server rates for each mechanism and epsilon. That choice is by accuracy and not itself private.",
        command.join(" "),
        args.rounds,
        args.seeds.len()
    );
    curve::svg(&Picture {
        title: "What privacy costs: MNIST, 1,000 clients",
        description: &description,
        x_name: &format!("ε for viewers of the released model (δ = {}), per client", args.delta),
        y_name: "accuracy on test images",
        curves: &curves,
        without_privacy: best.iter().find(|tried| tried.name == Name::None).map(|tried| tried.accuracy()),
    })
}
