//! `littoral bench edge`: how much memory an edge takes while devices send it large updates, and the cloud with it.
//!
//! A cloud, one edge and its devices as processes; a job of `--rounds` rounds of all devices over a model of about
//! `--params` parameters in 32-bit words.
//!
//! *Baseline*: what the process has in memory of its own when everybody is connected and no job was ever there; pages of
//! files are not counted, as the program's come in when its code first runs. *Peak*: the most it has had since, by the
//! kernel's own count. *Ratio*: (peak - baseline) / bytes of one sealed update. *Allowed* to an edge: its baseline, 1.5
//! updates, and 200 KB per connection.

use super::Report;
use super::machine::{forget_peak, own_of, peak_own_of};
use super::processes::{CLOUD, Fleet, job};
use crate::output::Failure;
use littoral_node::job::JobSpec;
use littoral_wire::message::Work;
use serde_json::json;

const EDGE: &str = "edge-1";
const PER_CONNECTION_BYTES: u64 = 200_000;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Device processes; each takes several times the model.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    nodes: u32,
    /// Parameters of the model, about.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    params: u32,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Updates go unmerged, as a robust rule needs them
    #[arg(long)]
    unmerged: bool,
}

/// Bytes in memory, of its own.
struct Taken {
    baseline: u64,
    peak: u64,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let fleet = Fleet::start(1, args.nodes)?;
    let pids = [EDGE, CLOUD].map(|machine| fleet.pid(machine).unwrap_or_default());
    pids.iter().try_for_each(|pid| forget_peak(*pid))?;
    let baselines = pids.map(own_of);
    let mut toml = job("large", args.params, args.nodes, args.rounds, 1);
    if args.unmerged {
        toml += "\n[robust]\nrule = \"median\"\n";
    }
    fleet.train(&toml)?;
    let [edge, cloud] = [0, 1].map(|at| {
        let baseline = baselines[at].clone()?;
        Ok::<_, Failure>(Taken { baseline, peak: peak_own_of(pids[at])? })
    });
    let (edge, cloud) = (edge?, cloud?);
    drop(fleet);

    let spec = JobSpec::parse(&toml).map_err(|e| super::broken("littoral bench edge")(&e))?;
    let update = spec.plan(Work::Train).format().bytes() as u64;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let allowed = edge.baseline + 3 * update / 2 + PER_CONNECTION_BYTES * (u64::from(args.nodes) + 1);
    let ratio = |taken: &Taken| taken.peak.saturating_sub(taken.baseline) as f64 / update as f64;
    let row = |what: &str, value: f64| [what.to_owned(), format!("{value:.2}")];
    let rows = vec![
        row("one sealed update, MB", mb(update)),
        row("edge: baseline, MB", mb(edge.baseline)),
        row("edge: peak, MB", mb(edge.peak)),
        row("edge: allowed, MB", mb(allowed)),
        row("edge: (peak - baseline) / update", ratio(&edge)),
        row("cloud: baseline, MB", mb(cloud.baseline)),
        row("cloud: peak, MB", mb(cloud.peak)),
        row("cloud: (peak - baseline) / update", ratio(&cloud)),
    ];
    let numbers = json!({
        "nodes": args.nodes, "unmerged": args.unmerged, "update_mb": mb(update),
        "baseline_mb": mb(edge.baseline), "peak_mb": mb(edge.peak), "allowed_mb": mb(allowed), "ratio": ratio(&edge),
        "cloud_baseline_mb": mb(cloud.baseline), "cloud_peak_mb": mb(cloud.peak), "cloud_ratio": ratio(&cloud),
    });
    Ok(Report { numbers, rows })
}
