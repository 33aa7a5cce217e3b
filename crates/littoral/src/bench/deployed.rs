//! `littoral bench deployed`: a round between real processes over loopback sockets.
//!
//! A cloud and its devices, each a process of this program with a folder and a key of its own, enrolled with a ticket, over
//! TLS on TCP: what a person would do by hand, through the same commands. A job trains a model of about `--params`
//! parameters in 32-bit words, all devices in every round. Each device has two rows of four columns, so that a round is
//! sending, hashing, storing and summing; how long training takes alone is printed beside it.
//!
//! *Seconds per round*: the median time from one version to the next, by the cloud's own record.
//!
//! *Bytes*: of all devices together, per round, from the counters on their sockets: TLS, TCP's payload, every message. A job
//! of one round is run before, and subtracted: connecting, the job's description and its end are no part of a round.
//! *Payload*: what must travel: a version of the model down to each device, a sealed update up from each.

use super::processes::{Fleet, job};
use super::{Report, median};
use crate::output::{Failure, talk};
use littoral_model::{Descent, Examples, Features, Labels, View, Worker};
use littoral_node::job::JobSpec;
use littoral_wire::message::Work;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Device processes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    nodes: u32,
    /// Parameters of the model, about.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    params: u32,
    /// Rounds that count.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let fleet = Fleet::start(0, args.nodes)?;
    fleet.train(&job("short", args.params, args.nodes, 1, 1))?;
    let short = fleet.settled();
    // Other first weights: a version that devices have is not sent again.
    let toml = job("measured", args.params, args.nodes, args.rounds + 1, 2);
    let versions = fleet.train(&toml)?;
    let both = fleet.settled();
    talk(&format!("bytes of all devices: {short:?} after one round, {both:?} after {} more", args.rounds + 1));
    drop(fleet);

    let spec = JobSpec::parse(&toml).map_err(|e| broken(&e))?;
    let ends: Vec<f64> = versions.iter().filter_map(|line| Some(line.get("at_ms")?.as_u64()? as f64 / 1e3)).collect();
    let rounds: Vec<f64> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    if rounds.len() != args.rounds as usize {
        let expected = format!("{} versions", args.rounds + 1);
        return Err(Failure::new("the measurement failed", "the cloud's record", expected, ends.len()));
    }
    let s_per_round = median(&rounds);
    let bytes_up = per_round(both.sent, short.sent, args.rounds.into());
    let bytes_down = per_round(both.received, short.received, args.rounds.into());
    let nodes = u64::from(args.nodes);
    let payload_up = nodes * spec.plan(Work::Train).format().bytes() as u64;
    let payload_down = nodes * spec.version().model_bytes() as u64;
    let training_s = training_alone(&spec)?;
    let over = |bytes: u64, payload: u64| format!("{:+.2} %", 100.0 * (bytes as f64 / payload as f64 - 1.0));
    let rows = vec![
        [format!("seconds per round (median of {})", rounds.len()), format!("{s_per_round:.4}")],
        ["  slowest".into(), format!("{:.4}", rounds.iter().copied().fold(0.0, f64::max))],
        [format!("bytes up per round, {nodes} devices"), bytes_up.to_string()],
        ["  over the payload".into(), over(bytes_up, payload_up)],
        [format!("bytes down per round, {nodes} devices"), bytes_down.to_string()],
        ["  over the payload".into(), over(bytes_down, payload_down)],
        ["parameters".into(), spec.version().params.to_string()],
        ["bits per word".into(), spec.plan(Work::Train).bits().to_string()],
        ["a device's training alone, seconds".into(), format!("{training_s:.4}")],
    ];
    let numbers = json!({
        "s_per_round": s_per_round, "bytes_up": bytes_up, "bytes_down": bytes_down,
        "payload_bytes_up": payload_up, "payload_bytes_down": payload_down,
    });
    Ok(Report { numbers, rows })
}

/// To the nearest byte. `short` holds one round and a job's begin and end; `both` has these twice, and the rounds.
fn per_round(both: u64, short: u64, rounds: u64) -> u64 {
    (both.saturating_sub(2 * short) + rounds / 2) / rounds.max(1)
}

fn broken(why: &dyn std::fmt::Display) -> Failure {
    super::broken("littoral bench deployed")(why)
}

/// Seconds of the fastest of a few participations of one device.
fn training_alone(spec: &JobSpec) -> Result<f64, Failure> {
    let features = Features::F32 { width: 4, values: vec![0.1, 0.2, 0.3, 0.4, -0.4, -0.3, -0.2, -0.1] };
    let labels = Labels::Classes { ids: vec![0, 1], classes: 2 };
    let view = View::all(Arc::new(Examples::new(features, labels).map_err(|e| broken(&e))?));
    let (model, mut w) = (spec.model(), spec.model().init(1));
    let mut worker = Worker::new(model, view.len());
    let descent = Descent { epochs: 1, batch: 0, learning_rate: 0.01, seed: 1 };
    let mut fastest = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        worker.descend(model, &mut w, &view, &descent).map_err(|e| broken(&e))?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_whole() {
        assert_eq!(json!({"bytes_up": per_round(1_000, 100, 3)}).to_string(), "{\"bytes_up\":267}");
    }
}
