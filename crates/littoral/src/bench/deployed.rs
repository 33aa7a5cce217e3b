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

use super::{Report, median};
use crate::output::{Failure, talk};
use crate::serve::{Moved, moved};
use littoral_model::{Descent, Examples, Features, Labels, View, Worker};
use littoral_node::config::{CloudConfig, Config, DeviceConfig, Network, TransportName};
use littoral_node::data::Source;
use littoral_node::job::JobSpec;
use littoral_wire::message::Work;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For a fleet to be complete, a process to end, counters to be written down.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Counters are written down four times a second; what has not changed for so long is final.
const SETTLED_AFTER: Duration = Duration::from_millis(750);
const CLOUD: &str = "cloud";

/// A device's rows. No two devices have the same: equal updates would have one name and travel once.
fn csv(device: usize) -> String {
    let x = device as f32 / 256.0;
    format!("a,b,c,d,label\n{x},0.2,0.3,0.4,no\n-0.4,{x},-0.2,-0.1,yes\n")
}

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
    let bench = Bench::new()?;
    let devices: Vec<String> = (1..=args.nodes).map(|n| format!("device-{n}")).collect();
    let mut processes = Processes(Vec::new());
    bench.start(&devices, &mut processes)?;

    bench.train(&job("short", args, 1, 1))?;
    let short = bench.settled(&devices);
    // Other first weights: a version that devices have is not sent again.
    let toml = job("measured", args, args.rounds + 1, 2);
    let versions = bench.train(&toml)?;
    let both = bench.settled(&devices);
    talk(&format!("bytes of all devices: {short:?} after one round, {both:?} after {} more", args.rounds + 1));
    drop(processes);

    let spec = JobSpec::parse(&toml).map_err(|e| broken(&e))?;
    let ends: Vec<f64> = versions.iter().filter_map(|line| Some(line.get("at_ms")?.as_u64()? as f64 / 1e3)).collect();
    let rounds: Vec<f64> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    if rounds.len() != args.rounds as usize {
        let expected = format!("{} versions", args.rounds + 1);
        return Err(Failure::new("the measurement failed", "the cloud's record", expected, ends.len()));
    }
    let s_per_round = median(&rounds);
    let per_round = |total: u64| total as f64 / f64::from(args.rounds);
    // The first counts hold one round and a job's begin and end; so do the second ones, twice, and the rounds.
    let beside = |both: u64, short: u64| per_round(both.saturating_sub(2 * short));
    let (bytes_up, bytes_down) = (beside(both.sent, short.sent), beside(both.received, short.received));
    let nodes = u64::from(args.nodes);
    let payload_up = nodes * spec.plan(Work::Train).format().bytes() as u64;
    let payload_down = nodes * spec.version().model_bytes() as u64;
    let training_s = training_alone(&spec)?;
    let over = |bytes: f64, payload: u64| format!("{:+.2} %", 100.0 * (bytes / payload as f64 - 1.0));
    let rows = vec![
        [format!("seconds per round (median of {})", rounds.len()), format!("{s_per_round:.4}")],
        ["  slowest".into(), format!("{:.4}", rounds.iter().copied().fold(0.0, f64::max))],
        [format!("bytes up per round, {nodes} devices"), format!("{bytes_up:.0}")],
        ["  over the payload".into(), over(bytes_up, payload_up)],
        [format!("bytes down per round, {nodes} devices"), format!("{bytes_down:.0}")],
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

fn broken(why: &dyn std::fmt::Display) -> Failure {
    super::broken("littoral bench deployed")(why)
}

/// A job of so many rounds over an MLP with two equal hidden layers: width² + 8 width + 2 parameters.
fn job(name: &str, args: &Args, rounds: u32, seed: u64) -> String {
    let width = (f64::from(args.params + 14).sqrt() - 4.0).round().max(1.0) as u32;
    let nodes = args.nodes;
    format!(
        r#"
name = "{name}"
seed = {seed}
model = {{ kind = "mlp", hidden = [{width}, {width}] }}
algorithm = {{ name = "fedavg" }}
local = {{ epochs = 1, batch = 0, optimiser = {{ name = "sgd", learning_rate = 0.01 }} }}
cohort = {{ target = {nodes}, min = {nodes} }}
rounds = {{ count = {rounds} }}
precision = {{ resolution = "fit32", weighting = "uniform" }}

[data]
set = "tiny"
held_out = 0.0
standardise = false
schema.label = {{ name = "label", classes = ["no", "yes"] }}
schema.fields = [{{ name = "a" }}, {{ name = "b" }}, {{ name = "c" }}, {{ name = "d" }}]
"#
    )
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

/// A folder for all machines, and this program. The folder goes with it.
struct Bench {
    dir: PathBuf,
    program: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Bench {
    fn new() -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|e| broken(&e))?;
        let dir = std::env::temp_dir().join(format!("littoral-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| broken(&e))?;
        Ok(Self { dir, program })
    }

    /// Starts and enrols everybody, and waits until all are connected.
    fn start(&self, devices: &[String], processes: &mut Processes) -> Result<(), Failure> {
        talk("starting a cloud and its devices");
        let network = Network { transport: TransportName::Tcp, ..Network::default() };
        let listen = "127.0.0.1:0".into();
        self.configure(CLOUD, &CloudConfig { listen, network: network.clone(), ..CloudConfig::default() })?;
        self.spawn("cloud", CLOUD, processes)?;
        let nodes = devices.len().to_string();
        let ticket = until("the cloud is not up", || {
            self.littoral(&["fleet", "ticket", "--role", "device", "--uses", &nodes, "--dir"], CLOUD).ok()
        })?;
        let ticket = ticket.get("ticket").and_then(Value::as_str).unwrap_or_default();
        for (number, device) in devices.iter().enumerate() {
            let data = [("tiny".into(), Source::of("tiny.csv"))].into();
            let config = DeviceConfig { network: network.clone(), threads: 1, data, ..DeviceConfig::default() };
            self.configure(device, &config)?;
            fs::write(self.dir.join(device).join("tiny.csv"), csv(number)).map_err(|e| broken(&e))?;
            self.littoral(&["join", ticket, "--name", device, "--dir"], device)?;
            self.spawn("device", device, processes)?;
        }
        until("the fleet is not complete", || {
            let list = self.littoral(&["fleet", "ls", "--dir"], CLOUD).ok()?;
            let machines = list.get("machines")?.as_array()?;
            let here = machines.iter().filter(|m| m.get("state").and_then(Value::as_str) == Some("here"));
            (here.count() >= devices.len()).then_some(())
        })
    }

    /// Runs a job to its end; returns its versions' lines, first one first.
    fn train(&self, toml: &str) -> Result<Vec<Value>, Failure> {
        let file = self.dir.join("job.toml");
        fs::write(&file, toml).map_err(|e| broken(&e))?;
        let file = file.display().to_string();
        let job = self.littoral(&["job", "submit", &file, "--dir"], CLOUD)?;
        let job = job.get("job").and_then(Value::as_u64).unwrap_or_default().to_string();
        talk(&format!("job {job} runs"));
        self.littoral(&["job", "watch", &job, "--dir"], CLOUD)?;
        let shown = self.littoral(&["job", "show", &job, "--dir"], CLOUD)?;
        let mut lines = shown.get("versions").and_then(Value::as_array).cloned().unwrap_or_default();
        lines.retain(|line| line.get("work").and_then(Value::as_str) == Some("train"));
        lines.sort_by_key(|line| line.get("version").and_then(Value::as_u64));
        Ok(lines)
    }

    /// What all devices have moved, once they have moved all they will.
    fn settled(&self, devices: &[String]) -> Moved {
        let total = || {
            devices.iter().map(|device| moved(&self.dir.join(device))).fold(Moved::default(), |sum, one| Moved {
                sent: sum.sent + one.sent,
                received: sum.received + one.received,
            })
        };
        let (mut last, mut since, begun) = (total(), Instant::now(), Instant::now());
        while since.elapsed() < SETTLED_AFTER && begun.elapsed() < PATIENCE {
            sleep(AGAIN_AFTER);
            let now = total();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    fn configure<C: Config + serde::Serialize>(&self, name: &str, config: &C) -> Result<(), Failure> {
        let dir = self.dir.join(name);
        let text = toml::to_string(config).map_err(|e| broken(&e))?;
        fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join(C::FILE_NAME), text)).map_err(|e| broken(&e))
    }

    /// A role that runs until its standard input ends, and so no longer than this process.
    fn spawn(&self, role: &str, name: &str, processes: &mut Processes) -> Result<(), Failure> {
        let dir = self.dir.join(name);
        let log = fs::File::create(dir.join("log.txt")).map_err(|e| broken(&e))?;
        let child = Command::new(&self.program)
            .args([role, "--tethered", "--dir"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        processes.0.push(child.map_err(|e| broken(&e))?);
        Ok(())
    }

    /// A command of this program in the folder of one machine, and the last object that it says.
    fn littoral(&self, words: &[&str], machine: &str) -> Result<Value, Failure> {
        let dir: &Path = &self.dir.join(machine);
        let said = Command::new(&self.program).arg("--json").args(words).arg(dir).stderr(Stdio::null()).output();
        let said = said.map_err(|e: io::Error| broken(&e))?;
        let text = String::from_utf8_lossy(&said.stdout);
        let last = text.lines().last().unwrap_or_default();
        match serde_json::from_str(last) {
            Ok(value) if said.status.success() => Ok(value),
            _ => Err(Failure::new("a command failed", words.join(" "), "an answer", last)),
        }
    }
}

/// Asks again until there is an answer.
fn until<T>(what: &'static str, mut ask: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let begun = Instant::now();
    loop {
        match ask() {
            Some(answer) => return Ok(answer),
            None if begun.elapsed() > PATIENCE => {
                let expected = format!("within {} s", PATIENCE.as_secs());
                return Err(Failure::new(what, "littoral bench deployed", expected, "nothing"));
            }
            None => sleep(AGAIN_AFTER),
        }
    }
}

/// The roles' processes; the last one started stops first.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        while let Some(mut child) = self.0.pop() {
            // The end of its input asks it to stop.
            drop(child.stdin.take());
            let stopped = until("a process does not stop", || child.try_wait().ok().flatten());
            if stopped.is_err() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
