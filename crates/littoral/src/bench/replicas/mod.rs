//! `littoral bench replicas`: replicas of a cloud are killed and started again, at random from a seed, while devices train.
//!
//! Replicas over PostgreSQL and a bucket in a folder, edges, and devices with keys, stores and sockets of their own; some of
//! them have a process of their own, the others share a few. Jobs come three at a time (by default SCAFFOLD, masked, masked
//! with noise) until the time is up. Each replica lives for a while, dies by SIGKILL, loses its folder but for the key, and comes
//! back after a while; the others do the same, so that now and then none is there. Then the same jobs are run by a cloud of
//! one process that nobody kills.
//!
//! It fails unless every job came to its end, no device is in a version twice (by the records of what was kept), and every
//! version of every job has the bits that it has without kills. Noise is of the operating system: versions of private jobs
//! are counted and their lines of the ledger compared, not their bits.
//!
//! *Longest time without a version*: of all jobs together, while replicas were killed.

pub mod crowd;
mod ground;
mod postgres;
mod story;
mod work;

use super::Report;
use super::draws::Draws;
use super::machine::rss_of;
use crate::output::{Failure, talk};
use ground::{Ground, Replica, Shared, Size};
use littoral_fed::round::End;
use littoral_node::role::cloud::command::Command as Order;
use littoral_node::store::{Bucket, BucketOptions, PgPlace, PgStore};
use littoral_wire::JobId;
use postgres::Postgres;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use story::Story;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use work::Kind;

const PLACE: &str = "littoral bench replicas";
/// A job without a new version for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(900);
/// Jobs that run side by side.
const AT_A_TIME: usize = 3;
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(12..=10_000))]
    devices: u32,
    /// Devices with a process of their own.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    own: u32,
    /// Processes that the other devices share.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    crowds: u32,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    edges: u32,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=8))]
    replicas: u32,
    /// Replicas are killed for so long; then what has begun comes to its end.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Of each job.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Units in the model's hidden layer; it has seven parameters for each.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    width: u32,
    /// Milliseconds that a replica lives and is gone, at most.
    #[arg(long, default_value_t = 12_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    lives_ms: u64,
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    gone_ms: u64,
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(500..=60_000))]
    lease_ms: u64,
    /// A round of more sums than these is added up in shards by all replicas; 0: by its own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    shard_sums: u32,
    /// Kinds of jobs, by turns. Masks cost devices much more than training does.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Plain, Kind::Masked, Kind::Private])]
    kinds: Vec<Kind>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An empty database of your own, postgres://…; otherwise a server is started.
    #[arg(long)]
    database: Option<String>,
    /// For all folders; it must not exist, and stays if the measurement fails.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn broken(why: &dyn std::fmt::Display) -> Failure {
    super::broken(PLACE)(why)
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let dir = args.dir.clone();
    let dir = dir.unwrap_or_else(|| std::env::temp_dir().join(format!("littoral-replicas-{}", std::process::id())));
    if dir.exists() {
        return Err(Failure::usage("--dir", "a folder that does not exist", dir.display()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| broken(&e))?;
    let report = runtime.block_on(soak(args, &dir));
    match &report {
        Ok(_) => drop(std::fs::remove_dir_all(&dir)),
        Err(_) => talk(&format!("folders of all machines: {}", dir.display())),
    }
    report
}

/// A job that was submitted.
struct Job {
    id: JobId,
    kind: Kind,
    name: String,
    toml: String,
}

async fn soak(args: &Args, dir: &Path) -> Result<Report, Failure> {
    let (server, database) = match &args.database {
        Some(url) => (None, url.clone()),
        None => {
            let server = Postgres::start()?;
            let url = server.url();
            (Some(server), url)
        }
    };
    let bucket = format!("file://{}", dir.join("bucket").display());
    let shard_sums = args.shard_sums as usize;
    let shared = Shared { database: database.clone(), bucket: bucket.clone(), lease_ms: args.lease_ms, shard_sums };
    let size = Size { edges: args.edges, devices: args.devices, own: args.own, crowds: args.crowds };
    talk(&format!(
        "{} replicas, {} edges, {} devices ({} with a process of their own)",
        args.replicas, args.edges, args.devices, args.own
    ));
    std::fs::create_dir_all(dir).map_err(|e| broken(&e))?;
    let store = observer(&database, bucket, &dir.join("observer")).await?;
    let mut ground = Ground::start(&dir.join("killed"), size, Some((shared, args.replicas))).await?;

    let begun = Instant::now();
    let until = begun + Duration::from_secs(args.seconds.into());
    let (tell_over, over) = watch::channel(false);
    let mut killers = Vec::new();
    for (number, replica) in ground.replicas.drain(..).enumerate() {
        let draws = Draws(args.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        killers.push(tokio::spawn(torment(replica, draws, args.lives_ms, args.gone_ms, until, over.clone())));
    }
    let mut jobs: Vec<Job> = Vec::new();
    let mut silence = Duration::ZERO;
    while Instant::now() < until {
        for _ in 0..AT_A_TIME {
            let kind = args.kinds[jobs.len() % args.kinds.len()];
            let name = format!("{}-{}", kind.name(), jobs.len() + 1);
            let toml = kind.job(&name, args.devices, args.width, args.rounds, args.seed + jobs.len() as u64);
            let id = JobId(ground.submit(&name, &toml).await?);
            jobs.push(Job { id, kind, name, toml });
        }
        let last = &jobs[jobs.len() - AT_A_TIME..];
        silence = silence.max(to_the_end(&store, last).await?);
    }
    tell_over.send_replace(true);
    let (mut kills, mut ended_alone) = (0, 0);
    for killer in killers {
        let (replica, tormented) = killer.await.map_err(|e| broken(&e))??;
        kills += tormented.kills;
        ended_alone += tormented.ended;
        ground.replicas.push(replica);
    }
    let took = begun.elapsed();
    let logs = ground.replicas.iter().map(Replica::log).collect::<String>();
    let takeovers = logs.matches("this replica runs job").count();
    let helped = logs.matches("are added up, as shard").count();

    let mut stories = Vec::new();
    for job in &jobs {
        stories.push(Story::of(&store.load_job(job.id).await.map_err(|e| broken(&e))?)?);
    }
    let ledger = settled(&ground).await?;
    let twice: u64 = stories.iter().map(|story| story.counted_twice).sum();
    if twice > 0 {
        return Err(Failure::new("a device was counted twice", PLACE, "never", format!("{twice} times")));
    }
    for (job, story) in jobs.iter().zip(&stories) {
        check_end(job, story, args.rounds)?;
    }
    let resident: u64 = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(ours).sum();
    talk(&format!(
        "{} jobs of {} rounds came to their end; {kills} kills, {takeovers} times a job or the fleet was taken over; all \
         processes have {:.0} MB",
        jobs.len(),
        args.rounds,
        resident as f64 / 1e6
    ));
    ground.stop().await;
    drop(ground);
    store.close().await;
    drop(server);

    talk("the same jobs, without kills");
    let calm_begun = Instant::now();
    let mut calm = Ground::start(&dir.join("calm"), size, None).await?;
    let trained_from = Instant::now();
    let mut calm_jobs = Vec::new();
    for batch in jobs.chunks(AT_A_TIME) {
        for job in batch {
            calm_jobs.push(JobId(calm.submit(&job.name, &job.toml).await?));
        }
        for job in &calm_jobs[calm_jobs.len() - batch.len()..] {
            finished(&calm, *job).await?;
        }
    }
    let (calm_took, calm_trained) = (calm_begun.elapsed(), trained_from.elapsed());
    for ((job, story), calm_job) in jobs.iter().zip(&stories).zip(calm_jobs) {
        if job.kind == Kind::Private {
            continue;
        }
        let models = models_of(&calm, calm_job).await?;
        let ours: Vec<String> = story.models.iter().map(ToString::to_string).collect();
        if let Some(at) = (0..models.len().max(ours.len())).find(|at| models.get(*at) != ours.get(*at)) {
            let expected = format!("{:?} as without kills", models.get(at));
            return Err(Failure::new(
                "other bits",
                format!("job {}, step {at}", job.id),
                expected,
                format!("{:?}", ours.get(at)),
            ));
        }
    }
    let calm_ledger = settled(&calm).await?;
    calm.stop().await;
    same_accounts(&ledger, &calm_ledger)?;

    let versions: usize = stories.iter().map(|story| story.models.len()).sum();
    let trained: u32 = stories.iter().map(|story| story.trained).sum();
    let counted: u64 = stories.iter().map(|story| story.counted).sum();
    let aborts: u32 = stories.iter().map(|story| story.aborts).sum();
    let s = |duration: Duration| (duration.as_secs_f64() * 10.0).round() / 10.0;
    let rows = vec![
        ["devices, with a process of their own".into(), format!("{}, {}", args.devices, args.own)],
        ["seconds with kills".into(), s(took).to_string()],
        ["kills by SIGKILL".into(), kills.to_string()],
        ["runs of replicas that ended by themselves".into(), ended_alone.to_string()],
        ["leases of jobs taken".into(), takeovers.to_string()],
        ["shards added up for another replica".into(), helped.to_string()],
        ["jobs, lost".into(), format!("{}, 0", jobs.len())],
        ["versions, attempts given up".into(), format!("{versions}, {aborts}")],
        ["updates in versions of training, counted twice".into(), format!("{counted}, 0")],
        ["longest time without a version, seconds".into(), s(silence).to_string()],
        ["the same work without kills, seconds".into(), s(calm_trained).to_string()],
        ["versions with other bits than without kills".into(), "0".into()],
    ];
    let numbers = json!({
        "devices": args.devices, "own_processes": args.own, "replicas": args.replicas, "edges": args.edges,
        "seconds": s(took), "kills": kills, "ended_alone": ended_alone, "takeovers": takeovers, "shards_for_others": helped,
        "jobs": jobs.len(), "jobs_lost": 0, "versions": versions, "rounds_trained": trained, "aborts": aborts,
        "updates_counted": counted, "counted_twice": twice, "longest_silence_s": s(silence),
        "calm_s": s(calm_trained), "calm_with_start_s": s(calm_took), "same_bits": true,
    });
    Ok(Report { numbers, rows })
}

/// Looks into what the replicas share.
async fn observer(database: &str, bucket: String, dir: &Path) -> Result<PgStore, Failure> {
    let options = BucketOptions { url: bucket, ..BucketOptions::default() };
    let begun = Instant::now();
    loop {
        let place = PgPlace::parse(database)?;
        match PgStore::open(&place, Bucket::new(&options)?, dir).await {
            Ok(store) => return Ok(store),
            // A server that was just started.
            Err(e) if begun.elapsed() > Duration::from_secs(30) => return Err(e.into()),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

#[derive(Default)]
struct Tormented {
    kills: u32,
    ended: u32,
}

/// Kills a replica and starts it again until `until`. One that ends by itself is started again, as a supervisor would, until
/// `over`.
async fn torment(
    mut replica: Replica,
    mut draws: Draws,
    lives_ms: u64,
    gone_ms: u64,
    until: Instant,
    over: watch::Receiver<bool>,
) -> Result<(Replica, Tormented), Failure> {
    let mut tormented = Tormented::default();
    loop {
        let dies_at = Instant::now() + Duration::from_millis(lives_ms / 4 + draws.below(lives_ms * 3 / 4 + 1));
        while Instant::now() < dies_at || dies_at >= until {
            if *over.borrow() {
                return Ok((replica, tormented));
            }
            if replica.ended() {
                tormented.ended += 1;
                replica.start()?;
            }
            sleep(LOOK_EVERY).await;
        }
        replica.kill().await?;
        tormented.kills += 1;
        sleep(Duration::from_millis(draws.below(gone_ms + 1))).await;
        replica.start()?;
    }
}

/// Until these jobs have ended. The longest time in which none of them made a version.
async fn to_the_end(store: &PgStore, jobs: &[Job]) -> Result<Duration, Failure> {
    let (mut last, mut silence, mut versions) = (Instant::now(), Duration::ZERO, 0);
    loop {
        let (mut made, mut open) = (0, Vec::new());
        for job in jobs {
            let story = match store.load_job(job.id).await {
                Ok(rows) => Story::of(&rows)?,
                Err(e) if e.may_pass() => continue,
                Err(e) => return Err(e.into()),
            };
            made += story.models.len();
            if story.ended.is_none() {
                open.push(format!("job {} with {} versions", job.id, story.models.len()));
            }
        }
        silence = silence.max(last.elapsed());
        if made > versions {
            (versions, last) = (made, Instant::now());
        }
        if open.is_empty() {
            return Ok(silence);
        }
        if last.elapsed() > LOST_AFTER {
            let expected = format!("a new version within {} s", LOST_AFTER.as_secs());
            return Err(Failure::new("jobs were lost", PLACE, expected, open.join(", ")));
        }
        sleep(LOOK_EVERY).await;
    }
}

fn check_end(job: &Job, story: &Story, rounds: u32) -> Result<(), Failure> {
    match &story.ended {
        Some((End::Done, _)) if story.trained == rounds => Ok(()),
        ended => {
            let got = format!("{ended:?} after {} rounds", story.trained);
            Err(Failure::new("a job did not do its work", format!("job {}", job.id), format!("{rounds} rounds"), got))
        }
    }
}

async fn finished(calm: &Ground, job: JobId) -> Result<(), Failure> {
    let mut last = (Instant::now(), Value::Null);
    loop {
        let shown = calm.ask(&Order::JobShow { job: job.0 }).await?;
        match shown["state"].as_str() {
            Some("finished") => return Ok(()),
            Some("failed" | "stopped") => {
                return Err(Failure::new("a job did not do its work", format!("job {job}"), "its end", &shown["why"]));
            }
            _ if shown["version"] != last.1 => last = (Instant::now(), shown["version"].clone()),
            _ if last.0.elapsed() > LOST_AFTER => {
                return Err(Failure::new("a job was lost", format!("job {job}"), "its end", &shown["why"]));
            }
            _ => {}
        }
        sleep(LOOK_EVERY).await;
    }
}

/// All models that a job made, by the cloud's record.
async fn models_of(ground: &Ground, job: JobId) -> Result<Vec<String>, Failure> {
    let mut models = Vec::new();
    loop {
        let page = ground.ask(&Order::JobRecord { job: job.0, from: models.len() }).await?;
        let versions = page["versions"].as_array().map_or(&[][..], Vec::as_slice);
        models.extend(versions.iter().filter_map(|version| Some(version["model"].as_str()?.to_owned())));
        if versions.is_empty() || page.get("next").is_none() {
            return Ok(models);
        }
    }
}

/// The ledger, once whoever is asked has heard of all ends.
async fn settled(ground: &Ground) -> Result<Value, Failure> {
    let begun = Instant::now();
    loop {
        let ledger = ground.ask(&Order::PrivacyLedger).await?;
        let lines = ledger["lines"].as_array().map_or(&[][..], Vec::as_slice);
        if lines.iter().all(|line| line["state"] == "spent") || begun.elapsed() > LOOK_EVERY * 40 {
            return Ok(ledger);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What private jobs cost is the same: so many models, and no more participations than were allowed.
fn same_accounts(killed: &Value, calm: &Value) -> Result<(), Failure> {
    // By name: a job whose submission was carried out twice, since its answer was lost, has two numbers.
    let lines = |ledger: &Value| -> BTreeMap<String, Value> {
        let lines = ledger["lines"].as_array().cloned().unwrap_or_default();
        let line = |line: &Value| (line["name"].to_string(), json!([line["models"], line["state"]]));
        lines.iter().map(line).collect()
    };
    let (killed, calm) = (lines(killed), lines(calm));
    if killed.is_empty() || killed != calm {
        return Err(Failure::new("other accounts", PLACE, json!(calm).to_string(), json!(killed)));
    }
    Ok(())
}

/// Memory of a process that this one or its children started.
fn ours(entry: std::fs::DirEntry) -> Option<u64> {
    let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    if program != std::env::current_exe().ok()? {
        return None;
    }
    rss_of(pid).ok()
}
