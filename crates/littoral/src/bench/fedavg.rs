//! `littoral bench fedavg`: the MNIST work that peers were measured with, through the code that a fleet runs.
//!
//! 20 rounds of 50 clients with 60 images each (Dirichlet 0.3), one local epoch of batches of 10 at learning rate 0.05, a
//! 784-200-200-10 MLP with ReLU, uniform weights. A client trains ([`Training`]), rounds, packs and seals its update;
//! each thread absorbs its clients' updates into a partial sum; the partials are merged and the algorithm's cloud half makes
//! the next model. Nothing is sent: that is `bench deployed`.
//!
//! *A round* is all of this; evaluation on the 10,000 test images is timed apart and happens once, at the end.
//! *Accuracy* after 20 rounds still swings with the seed: seeds 1 to 7 gave .738, .762, .766, .742, .781, .769, .770 (mean
//! .761), which is where the peers are too.
//! *GFLOP/s* counts three products of the forward pass's size per example, 3.6 GFLOP per round, as is usual. (What is
//! computed is less: nobody needs the derivative by the images.) *The GEMM's peak* is the best of a few shapes, all threads
//! at once, right after the rounds; memory is read before it.

use super::mnist::{self, BATCH, Mnist};
use super::{Report, broken, machine, median, team};
use crate::output::{Failure, talk};
use littoral_fed::aggregate::Partial;
use littoral_fed::algorithm::fedavg::FedAvg;
use littoral_fed::algorithm::{Algorithm, Start, advance};
use littoral_fed::learner::Learner;
use littoral_fed::plan::{Plan, Resolution, Weighting};
use littoral_node::work::{Room, Training};
use littoral_tensor::{Matrix, gemm};
use littoral_wire::NodeId;
use littoral_wire::message::{Collection, JobId, Work};
use serde_json::json;
use std::time::{Duration, Instant};

/// No coordinate of an update is larger: a weight would have to move by 4 in six steps.
const RANGE: f32 = 4.0;
/// Coordinates that the cloud half takes at a time.
const CHUNK_LEN: usize = 8192;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Threads that train clients; all cores by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Rounds, up to the 20 whose cohorts are given.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=20))]
    rounds: u16,
    /// Of the first weights and the order of each client's images.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// What a thread has to itself.
struct Place {
    room: Option<Room>,
    partial: Partial,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let broken = broken("littoral bench fedavg");
    let threads = args.threads.map_or_else(machine::cores, usize::from);
    machine::keep_freed_memory();
    let mnist = Mnist::load()?;
    let (model, local) = (mnist::model()?, mnist::local());
    let mut w = model.init(args.seed);
    let algorithm = FedAvg {};
    let cohort_max = mnist.cohorts.iter().map(Vec::len).max().unwrap_or(1) as u32;
    let plan = plan(&algorithm, cohort_max, w.len()).map_err(|e| broken(&e))?;
    let mut places: Vec<Place> =
        (0..threads).map(|_| Place { room: None, partial: Partial::empty(plan.format()) }).collect();

    let mut seconds = Vec::new();
    let mut images = Vec::new();
    for (round, cohort) in mnist.cohorts.iter().take(args.rounds.into()).enumerate() {
        let start = Instant::now();
        let collection = collection(round);
        team::share(&mut places, cohort.len(), |place, index| {
            let client = cohort[index];
            let view = &mnist.clients[client];
            let room = Room::of(&mut place.room, &model, BATCH as usize);
            let seed = args.seed ^ ((round as u64) << 32 | client as u64);
            let mut training = Training::new(&model, view, &local, seed, room);
            participate(&algorithm, &plan, &w, &mut training, collection, device(client), &mut place.partial)?;
            match training.fault() {
                Some(fault) => Err(broken(&fault)),
                None => Ok(()),
            }
        })?;
        conclude(&algorithm, &plan, places.iter_mut().map(|place| &mut place.partial), &mut w)?;
        seconds.push(start.elapsed().as_secs_f64());
        images.push(cohort.iter().map(|&client| mnist.clients[client].len()).sum::<usize>() as f64);
        talk(&format!("round {} of {}: {:.1} ms", round + 1, args.rounds, 1e3 * seconds[round]));
    }

    let start = Instant::now();
    let accuracy = mnist::accuracy(&model, &w, &mnist, places.iter_mut().map(|place| &mut place.room))?;
    let eval_s = start.elapsed().as_secs_f64();
    let peak_rss_mb = machine::peak_rss_bytes()? as f64 / 1e6;
    let s_per_round = median(&seconds);
    let gflop = 3e-9 * model.forward_flops() as f64 * median(&images);
    let gemm_peak_gflop_s = gemm_peak(threads);
    let first_round_s = seconds[0];
    let gflop_s = gflop / s_per_round;
    let rows = vec![
        ["seconds per round (median)".into(), format!("{s_per_round:.4}")],
        ["first round, seconds".into(), format!("{first_round_s:.4}")],
        ["evaluation, seconds".into(), format!("{eval_s:.4}")],
        ["peak memory, MB".into(), format!("{peak_rss_mb:.0}")],
        ["accuracy on 10,000 test images".into(), format!("{accuracy:.4}")],
        [format!("GFLOP/s ({gflop:.2} GFLOP per round)"), format!("{gflop_s:.0}")],
        [format!("GEMM's peak on {threads} threads, GFLOP/s"), format!("{gemm_peak_gflop_s:.0}")],
    ];
    let numbers = json!({
        "s_per_round": s_per_round, "first_round_s": first_round_s, "eval_s": eval_s, "peak_rss_mb": peak_rss_mb,
        "accuracy": accuracy, "gflop_s": gflop_s, "gemm_peak_gflop_s": gemm_peak_gflop_s,
    });
    Ok(Report { numbers, rows })
}

/// Uniform weights and as many levels as 32-bit words hold.
pub fn plan(algorithm: &dyn Algorithm, cohort_max: u32, params: usize) -> Result<Plan, littoral_fed::plan::PlanError> {
    let (sections, wholes) = (algorithm.sections(params, RANGE), algorithm.wholes());
    Plan::new(cohort_max, Weighting::Uniform, Resolution::Fit32, sections, wholes)
}

pub fn collection(round: usize) -> Collection {
    Collection { job: JobId(1), version: round as u64, work: Work::Train, attempt: 0 }
}

pub fn device(client: usize) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(client as u64).to_le_bytes());
    NodeId(id)
}

/// A device's part of a round, and its absorption.
pub fn participate(
    algorithm: &dyn Algorithm,
    plan: &Plan,
    w: &[f32],
    learner: &mut dyn Learner,
    collection: Collection,
    device: NodeId,
    partial: &mut Partial,
) -> Result<(), Failure> {
    let broken = broken("a device's part");
    let start = Start { w, broadcast: &[], device_state: None, population: 1, plan };
    let raw = algorithm.local(&start, learner).map_err(|e| broken(&e))?;
    let sealed = raw.unclipped().round(plan).map_err(|e| broken(&e))?.pack().seal(collection);
    partial.absorb(device, sealed.bytes()).map_err(|e| broken(&e))
}

/// The end of a round: the threads' sums become one, and that the next model. The partials begin anew.
pub fn conclude<'a>(
    algorithm: &dyn Algorithm,
    plan: &Plan,
    partials: impl Iterator<Item = &'a mut Partial>,
    w: &mut [f32],
) -> Result<(), Failure> {
    let broken = broken("the cloud's part");
    let mut partials = partials.map(|partial| std::mem::replace(partial, Partial::empty(plan.format())));
    let Some(mut total) = partials.next() else { return Ok(()) };
    for partial in partials {
        total.merge(&partial).map_err(|e| broken(&e))?;
    }
    advance(algorithm, plan, &total, w, &mut [], CHUNK_LEN).map_err(|e| broken(&e))?;
    Ok(())
}

/// GFLOP/s of the matrix product at its best shape of a few, all threads at once.
fn gemm_peak(threads: usize) -> f64 {
    // Rows, inner size, columns: squares that fit the second and the third cache, and what evaluation does.
    let shapes = [(256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (256, 784, 200)];
    shapes.into_iter().map(|shape| gemm_gflop_s(threads, shape)).fold(0.0, f64::max)
}

fn gemm_gflop_s(threads: usize, (rows, inner, columns): (usize, usize, usize)) -> f64 {
    const REPEATS: usize = 7;
    let flop = 2.0 * (rows * inner * columns) as f64;
    let products = (2e8 / flop).ceil() as usize;
    let mut places: Vec<_> = (0..threads)
        .map(|_| (vec![0.5f32; rows * inner], vec![0.25f32; inner * columns], vec![0f32; rows * columns]))
        .collect();
    let mut best = Duration::MAX;
    for _ in 0..REPEATS {
        let start = Instant::now();
        // One index per thread.
        let done = team::share(&mut places, threads, |(a, b, c), _| {
            for _ in 0..products {
                gemm(0.0, c, 1.0, Matrix::new(a, rows, inner), Matrix::new(b, inner, columns));
            }
            Ok::<(), ()>(())
        });
        best = best.min(start.elapsed());
        debug_assert_eq!(done, Ok(()));
    }
    flop * (products * threads) as f64 / best.as_secs_f64() * 1e-9
}
