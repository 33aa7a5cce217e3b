//! A cloud, edges and devices as processes of this program, each with a folder and a key of its own, enrolled with
//! tickets, over TLS on TCP: what a person would do by hand, through the same commands.

use crate::output::{Failure, talk};
use crate::serve::{Moved, moved};
use littoral_node::config::{CloudConfig, Config, DeviceConfig, EdgeConfig, Network, TransportName};
use littoral_node::data::Source;
use serde_json::Value;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For a fleet to be complete, a process to end, counters to be written down.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Counters are written down four times a second; what has not changed for so long is final.
const SETTLED_AFTER: Duration = Duration::from_millis(750);
pub const CLOUD: &str = "cloud";
const PLACE: &str = "the processes of this measurement";

/// A device's rows. No two devices have the same: equal updates would have one name and travel once.
fn csv(device: usize) -> String {
    let x = device as f32 / 256.0;
    format!("a,b,c,d,label\n{x},0.2,0.3,0.4,no\n-0.4,{x},-0.2,-0.1,yes\n")
}

/// A job of so many rounds of all devices, in 32-bit words, over an MLP with two equal hidden layers: width² + 8 width + 2
/// parameters.
pub fn job(name: &str, params: u32, nodes: u32, rounds: u32, seed: u64) -> String {
    let width = (f64::from(params + 14).sqrt() - 4.0).round().max(1.0) as u32;
    format!(
        r#"
name = "{name}"
seed = {seed}
model = {{ kind = "mlp", hidden = [{width}, {width}] }}
algorithm = {{ name = "fedavg" }}
local = {{ epochs = 1, batch = 0, optimiser = {{ name = "sgd", learning_rate = 0.01 }} }}
cohort = {{ target = {nodes}, min = {nodes} }}
rounds = {{ count = {rounds}, deadline_ms = 600000, close_ms = 600000 }}
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

fn broken(why: &dyn std::fmt::Display) -> Failure {
    super::broken(PLACE)(why)
}

/// A running fleet in one folder, which goes with it.
pub struct Fleet {
    // Before the folder goes, the processes do.
    processes: Processes,
    folder: Folder,
    program: PathBuf,
    devices: Vec<String>,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Fleet {
    /// Starts and enrols everybody, and waits until all are connected; with no edges, devices come to the cloud.
    pub fn start(edges: u32, devices: u32) -> Result<Self, Failure> {
        talk(&format!("starting a cloud, {edges} edges, {devices} devices"));
        let named = |role: &str, count| (1..=count).map(|n| format!("{role}-{n}")).collect::<Vec<_>>();
        let (edges, devices) = (named("edge", edges), named("device", devices));
        let program = std::env::current_exe().map_err(|e| broken(&e))?;
        let dir = std::env::temp_dir().join(format!("littoral-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| broken(&e))?;
        let mut fleet = Self { processes: Processes::default(), folder: Folder(dir), program, devices };
        let network = Network { transport: TransportName::Tcp, ..Network::default() };
        let listen = "127.0.0.1:0".to_owned();
        let cloud = CloudConfig { listen: listen.clone(), network: network.clone(), ..CloudConfig::default() };
        fleet.configure(CLOUD, &cloud)?;
        fleet.spawn("cloud", CLOUD)?;
        for edge in &edges {
            let config = EdgeConfig { listen: listen.clone(), network: network.clone(), ..EdgeConfig::default() };
            fleet.configure(edge, &config)?;
        }
        fleet.admit("edge", &edges)?;
        for (number, device) in fleet.devices.iter().enumerate() {
            let data = [("tiny".into(), Source::of("tiny.csv"))].into();
            let config = DeviceConfig { network: network.clone(), threads: 1, data, ..DeviceConfig::default() };
            fleet.configure(device, &config)?;
            fs::write(fleet.dir(device).join("tiny.csv"), csv(number)).map_err(|e| broken(&e))?;
        }
        fleet.admit("device", &fleet.devices.clone())?;
        Ok(fleet)
    }

    /// Enrols machines of one role, starts them, and waits for them.
    fn admit(&mut self, role: &str, names: &[String]) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        let uses = names.len().to_string();
        let ticket = until("the cloud is not up", || {
            self.littoral(&["fleet", "ticket", "--role", role, "--uses", &uses, "--dir"], CLOUD).ok()
        })?;
        let ticket = ticket.get("ticket").and_then(Value::as_str).unwrap_or_default();
        for name in names {
            self.littoral(&["join", ticket, "--name", name, "--dir"], name)?;
            self.spawn(role, name)?;
        }
        until("the fleet is not complete", || {
            let list = self.littoral(&["fleet", "ls", "--dir"], CLOUD).ok()?;
            let machines = list.get("machines")?.as_array()?;
            let has = |m: &Value, field: &str, text: &str| m.get(field).and_then(Value::as_str) == Some(text);
            let here = |name: &String| machines.iter().any(|m| has(m, "name", name) && has(m, "state", "here"));
            names.iter().all(here).then_some(())
        })
    }

    /// The process of this machine.
    pub fn pid(&self, machine: &str) -> Option<u32> {
        self.processes.0.iter().find(|(name, _)| name == machine).map(|(_, child)| child.id())
    }

    fn dir(&self, machine: &str) -> PathBuf {
        self.folder.0.join(machine)
    }

    /// Runs a job to its end; returns its versions' lines, first one first.
    pub fn train(&self, toml: &str) -> Result<Vec<Value>, Failure> {
        let file = self.folder.0.join("job.toml");
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
    pub fn settled(&self) -> Moved {
        let total = || {
            self.devices.iter().map(|device| moved(&self.dir(device))).fold(Moved::default(), |sum, one| Moved {
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
        let dir = self.dir(name);
        let text = toml::to_string(config).map_err(|e| broken(&e))?;
        fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join(C::FILE_NAME), text)).map_err(|e| broken(&e))
    }

    /// A role that runs until its standard input ends, and so no longer than this process.
    fn spawn(&mut self, role: &str, name: &str) -> Result<(), Failure> {
        let dir = self.dir(name);
        let log = fs::File::create(dir.join("log.txt")).map_err(|e| broken(&e))?;
        let child = Command::new(&self.program)
            .args([role, "--tethered", "--dir"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.processes.0.push((name.to_owned(), child.map_err(|e| broken(&e))?));
        Ok(())
    }

    /// A command of this program in the folder of one machine, and the last object that it says.
    fn littoral(&self, words: &[&str], machine: &str) -> Result<Value, Failure> {
        let dir: &Path = &self.dir(machine);
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
                return Err(Failure::new(what, PLACE, expected, "nothing"));
            }
            None => sleep(AGAIN_AFTER),
        }
    }
}

/// The roles' processes; the last one started stops first.
#[derive(Default)]
struct Processes(Vec<(String, Child)>);

impl Drop for Processes {
    fn drop(&mut self) {
        while let Some((_, mut child)) = self.0.pop() {
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
