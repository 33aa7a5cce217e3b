//! The processes: a device, an edge of a head and two stages, a cloud.

use super::super::machine::own_of;
use super::super::stages::broken;
use super::Sample;
use crate::output::Failure;
use crate::stage::identity;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A machine that may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Cloud,
    FirstStage,
    SecondStage,
    Edge,
}

impl Place {
    pub const ALL: [Self; 4] = [Self::Cloud, Self::FirstStage, Self::SecondStage, Self::Edge];
}

/// A process, and how to start it where it was.
struct Machine {
    name: &'static str,
    /// What it is started with; places that it takes for itself stand as port 0 at first.
    args: Vec<String>,
    child: Child,
    killed: Option<Instant>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Machines {
    /// Where the device and the cloud are asked.
    pub device: String,
    pub cloud: String,
    /// In the order of [`Place::ALL`], and the device last.
    machines: Vec<Machine>,
    dir: PathBuf,
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.machines.clear();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

const ANY: &str = "127.0.0.1:0";

impl Machines {
    pub fn start(large: &Path, small: &Path) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("littoral-soak-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| broken(&e))?;
        let mut all = Self { device: String::new(), cloud: String::new(), machines: Vec::new(), dir: dir.clone() };
        let [large, small] = [large, small].map(|model| crate::named::here(model).map(|named| named.path));
        let [large, small] = [large?, small?].map(|path| fs::canonicalize(path).map(|path| path.display().to_string()));
        let (large, small) = (large.map_err(|e| broken(&e))?, small.map_err(|e| broken(&e))?);
        let folder = |name: &str| dir.join(name).display().to_string();
        let key = |name: &str| Ok::<_, Failure>(identity(&dir.join(name))?.id().to_string());
        let (edge_key, device_key) = (key("edge")?, key("device")?);
        let serve = |tier: &str, model: &str, rest: &[&str]| {
            let own = ["serve", model, "--tethered", "--listen", ANY, "--tier", tier, "--dir", &folder(tier)];
            [&own[..], rest].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let verifies = ["--verify", ANY, "--allow", &device_key];
        let cloud = all.add("cloud", serve("cloud", &large, &verifies))?;
        all.cloud = said(&cloud, "url");
        let mut stages = Vec::new();
        for name in ["stage-1", "stage-2"] {
            let own = folder(name);
            let args = ["stage", "--tethered", "--listen", ANY, "--dir", &own, "--allow", &edge_key, "--model", &large];
            stages.push(said(&all.add(name, args.map(str::to_owned).to_vec())?, "address"));
        }
        let chain = stages.iter().flat_map(|stage| ["--stage", stage]).chain(["--place", "even"]);
        let chain: Vec<&str> = chain.chain(verifies).collect();
        let edge = all.add("edge", serve("edge", &large, &chain))?;
        let above =
            [("edge", &edge), ("cloud", &cloud)].map(|(name, ready)| format!("{name}={}", said(ready, "verifies")));
        let above: Vec<&str> = above.iter().flat_map(|above| ["--upstream", above]).collect();
        let device = all.add("device", serve("device", &small, &above))?;
        all.device = said(&device, "url");
        Ok(all)
    }

    /// Starts a machine; what it says when it is ready. Where it listens then it will listen again.
    fn add(&mut self, name: &'static str, mut args: Vec<String>) -> Result<Value, Failure> {
        let mut child = spawn(&self.dir, name, &args)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(|e| broken(&e))?;
        }
        let ready: Value = serde_json::from_str(&line).map_err(|e| broken(&format!("{name}: {e}: {line}")))?;
        let flags = [("--listen", if args[0] == "stage" { "address" } else { "url" }), ("--verify", "verifies")];
        for (flag, field) in flags {
            let at = args.iter().position(|arg| arg == flag);
            if let (Some(at), Some(place)) = (at, said(&ready, field).rsplit(['/', '@']).next()) {
                args[at + 1] = place.to_owned();
            }
        }
        self.machines.push(Machine { name, args, child, killed: None });
        Ok(ready)
    }

    /// SIGKILL; false if it is away already.
    pub fn kill(&mut self, place: Place) -> bool {
        let at = Place::ALL.iter().position(|other| *other == place).unwrap_or(0);
        let machine = &mut self.machines[at];
        let here = machine.killed.is_none();
        if here {
            let _ = machine.child.kill();
            let _ = machine.child.wait();
            machine.killed = Some(Instant::now());
        }
        here
    }

    /// Starts those again that were away for so long.
    pub fn return_those_away(&mut self, away: Duration) -> Result<(), Failure> {
        for machine in &mut self.machines {
            if machine.killed.is_some_and(|killed| killed.elapsed() >= away) {
                machine.child = spawn(&self.dir, machine.name, &machine.args)?;
                machine.killed = None;
            }
        }
        Ok(())
    }

    /// What the device has open and in memory.
    pub fn sample(&self) -> Result<Sample, Failure> {
        let Some(device) = self.machines.last() else { return Err(broken(&"no device")) };
        let pid = device.child.id();
        let files = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|e| broken(&e))?.count();
        Ok(Sample { files: files as f64, own_mb: own_of(pid)? as f64 / 1e6 })
    }
}

fn spawn(dir: &Path, name: &str, args: &[String]) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(|e| broken(&e))?;
    fs::create_dir_all(dir.join(name)).map_err(|e| broken(&e))?;
    let log = File::options().create(true).append(true).open(dir.join(name).join("log.txt")).map_err(|e| broken(&e))?;
    let child =
        Command::new(program).arg("--json").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
    child.map_err(|e| broken(&e))
}

fn said(ready: &Value, field: &str) -> String {
    ready[field].as_str().unwrap_or_default().to_owned()
}
