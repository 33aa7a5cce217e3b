//! `littoral bench round --empty`: what a round costs per device when training costs nothing.
//!
//! A device's part with a learner that makes no step: a copy of the model, the difference to it, rounding to 32-bit words,
//! sealing; its absorption into the thread's partial; and the device's share of the round's end: merging the threads' partials,
//! opening the sum, and the algorithm's cloud half. Not in it: sending, storing, hashing.
//!
//! *ms per device* is a round's time divided by the cohort, on all threads; median over rounds.

use super::fedavg::{collection, conclude, device, participate, plan};
use super::{Report, broken, machine, median, team};
use crate::output::Failure;
use littoral_fed::aggregate::Partial;
use littoral_fed::algorithm::fedavg::FedAvg;
use littoral_fed::learner::{Batch, Correct, Learner};
use serde_json::json;
use std::time::Instant;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Training makes no step. The only kind there is; with training it is `bench fedavg`.
    #[arg(long, required = true)]
    empty: bool,
    /// Parameters of the model; by default those of a 784-200-200-10 MLP.
    #[arg(long, default_value_t = 199_210, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    params: u32,
    /// Devices per round.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    cohort: u32,
    /// Rounds that count; three before them do not.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Threads; all cores by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Rounds before those that count.
const WARM_UP: usize = 3;

struct Idle;

impl Learner for Idle {
    fn examples(&self) -> u64 {
        1
    }

    fn steps(&self) -> usize {
        0
    }

    fn loss(&mut self, _: &[f32]) -> f64 {
        0.0
    }
    fn learning_rate(&self) -> f32 {
        0.05
    }

    fn momentum(&self) -> f32 {
        0.0
    }

    fn step(&mut self, _: &mut [f32], _: Option<Correct<'_>>) -> f32 {
        0.0
    }

    fn gradient(&mut self, _: &[f32], _: Batch, gradient: &mut [f32]) -> f32 {
        gradient.fill(0.0);
        0.0
    }

    fn descend(&mut self, _: &mut [f32], _: &mut [f32]) {}

    fn restart(&mut self) {}
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let broken = broken("littoral bench round");
    let threads = args.threads.map_or_else(machine::cores, usize::from);
    machine::keep_freed_memory();
    let algorithm = FedAvg {};
    let mut w = vec![0.01f32; args.params as usize];
    let plan = plan(&algorithm, args.cohort, w.len()).map_err(|e| broken(&e))?;
    let mut partials: Vec<Partial> = (0..threads).map(|_| Partial::empty(plan.format())).collect();
    let mut ms_per_device = Vec::new();
    for round in 0..WARM_UP + args.rounds as usize {
        let start = Instant::now();
        team::share(&mut partials, args.cohort as usize, |partial, index| {
            participate(&algorithm, &plan, &w, &mut Idle, collection(round), device(index), partial)
        })?;
        conclude(&algorithm, &plan, partials.iter_mut(), &mut w)?;
        if round >= WARM_UP {
            ms_per_device.push(1e3 * start.elapsed().as_secs_f64() / f64::from(args.cohort));
        }
    }
    let median = median(&ms_per_device);
    let rows = vec![
        [format!("ms per device (median of {} rounds, {threads} threads)", args.rounds), format!("{median:.4}")],
        ["cohort".into(), args.cohort.to_string()],
        ["parameters".into(), args.params.to_string()],
    ];
    Ok(Report { numbers: json!({"ms_per_device": median}), rows })
}
