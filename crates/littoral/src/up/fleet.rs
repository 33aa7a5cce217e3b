//! The trial fleet as its operator sees it: machines are let in with tickets, jobs are submitted and watched.
//!
//! The cloud may die and come back in between, so every question is asked again until it is answered.

use super::children::{Children, Kind};
use super::dataset::DataSet;
use super::share::Shares;
use crate::fleet::roster;
use crate::output::Failure;
use littoral_node::config::{CloudConfig, Config, EdgeConfig, Network, TransportName};
use littoral_node::deploy::replay::{RunRecord, VersionRecord};
use littoral_node::deploy::{self, OPERATOR_KEY_FILE, read_address};
use littoral_node::host::keys;
use littoral_node::job::JobSpec;
use littoral_node::operator::{Operator, OperatorError};
use littoral_node::role::cloud::command::Command;
use littoral_wire::message::Role;
use littoral_wire::ticket::Ticket;
use littoral_wire::{JobId, List, NodeId, SecretKey, Text};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A cloud that does not answer for this long will not.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A ticket is used at once.
const TICKET_VALID_MS: u64 = 10 * 60_000;

pub const CLOUD: &str = "cloud";
/// The key that signs rosters, in a folder that no machine of the fleet has.
pub const ROSTER_KEY: &str = "operator/roster.key";

pub struct Fleet {
    /// One folder per machine.
    pub dir: PathBuf,
    pub devices: Vec<String>,
    pub edges: Vec<String>,
}

impl Fleet {
    pub fn new(dir: &Path, data: &DataSet, devices: usize, edges: usize) -> Self {
        let numbered = |word: &str, count| (1..=count).map(|n| format!("{word}-{n}")).collect();
        Self { dir: dir.to_owned(), devices: numbered(data.site, devices), edges: numbered("edge", edges) }
    }

    /// Starts the cloud, then edges, then devices, each enrolled with a key of its own.
    pub async fn start(&self, data: &DataSet, shares: &Shares, children: &mut Children) -> Result<(), Failure> {
        let (listen, network) = ("127.0.0.1:0".to_owned(), on_one_machine());
        let cloud =
            CloudConfig { listen: listen.clone(), threads: 1, network: network.clone(), ..CloudConfig::default() };
        write_config(&self.dir.join(CLOUD), &cloud)?;
        let keys = self.dir.join(ROSTER_KEY);
        let keys = keys.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(keys)
            .map_err(|e| Failure::new("no folder for keys", keys.display().to_string(), "a folder", e))?;
        children.start(CLOUD, Kind::Cloud)?;
        for name in &self.edges {
            let (name_told, listen, network) = (name.clone(), listen.clone(), network.clone());
            let edge = EdgeConfig { name: name_told, listen, network, threads: 1, ..EdgeConfig::default() };
            write_config(&self.dir.join(name), &edge)?;
        }
        for (device, name) in self.devices.iter().enumerate() {
            shares.write(data, device, name, &self.dir.join(name))?;
        }
        self.enrol(Role::Edge, &self.edges).await?;
        for name in &self.edges {
            children.start(name, Kind::Edge)?;
        }
        // A device is told the edges that are there when it joins.
        self.wait_for(&self.edges).await?;
        self.enrol(Role::Device, &self.devices).await?;
        self.sign_roster().await?;
        for name in &self.devices {
            children.start(name, Kind::Device)?;
        }
        self.wait_for(&self.devices).await
    }

    fn roster_key(&self) -> Result<SecretKey, Failure> {
        Ok(keys::load_or_create(&self.dir.join(ROSTER_KEY))?)
    }

    /// All devices are real ones: this process let them in.
    async fn sign_roster(&self) -> Result<(), Failure> {
        let listed = self.ask(&Command::FleetList).await?;
        let (order, _) = roster::order(&self.roster_key()?, &listed, &roster::devices_of(&listed))?;
        self.ask(&order).await.map(drop)
    }

    /// One ticket for all machines of a role.
    async fn enrol(&self, role: Role, names: &[String]) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        let ticket = self.ticket(role, names.len() as u32).await?;
        let mut joining = JoinSet::new();
        for name in names {
            let (ticket, name, dir) = (ticket.clone(), name.clone(), self.dir.join(name));
            joining.spawn(
                async move { deploy::join(&ticket, &name, &dir, &on_one_machine()).await.map_err(|e| (name, e)) },
            );
        }
        while let Some(joined) = joining.join_next().await {
            let joined = joined.map_err(|e| Failure::new("not enrolled", "join", "an end", e))?;
            joined.map_err(|(name, e)| Failure::new("not enrolled", name, "an enrolment", e))?;
        }
        Ok(())
    }

    async fn ticket(&self, role: Role, uses: u32) -> Result<Ticket, Failure> {
        let failed = |got: String| Failure::new("no ticket", "the cloud", "its key and address", got);
        let secret = keys::random()?;
        let role_name = if role == Role::Edge { "edge" } else { "device" };
        let command = Command::Ticket {
            role: role_name.into(),
            uses,
            valid_ms: TICKET_VALID_MS,
            secret: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let said = self.ask(&command).await?;
        let part = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let cloud: NodeId = part("cloud").parse().map_err(|_| failed(part("cloud")))?;
        let addresses = List::new(vec![Text::new(part("address"))]).map_err(|_| failed(part("address")))?;
        Ok(Ticket { cloud, secret, role, addresses, roster: Some(self.roster_key()?.id()) })
    }

    /// Until all of these are connected.
    async fn wait_for(&self, names: &[String]) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let list = self.ask(&Command::FleetList).await?;
            let machines = list.get("machines").and_then(Value::as_array).cloned().unwrap_or_default();
            let here = |name: &&String| {
                let named = |m: &&Value| m.get("name").and_then(Value::as_str) == Some(name.as_str());
                machines.iter().find(named).is_some_and(|m| m.get("state").and_then(Value::as_str) == Some("here"))
            };
            let missing: Vec<&str> = names.iter().filter(|name| !here(name)).map(String::as_str).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                let expected = format!("all machines connected within {} s", PATIENCE.as_secs());
                return Err(Failure::new("the fleet is not complete", "the cloud", expected, missing.join(", "))
                    .hint(format!("see {}", self.dir.join(missing[0]).join(super::children::LOG_FILE).display())));
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn dial(&self) -> Result<Operator, OperatorOrFailure> {
        let dir = self.dir.join(CLOUD);
        // Both files appear when the cloud is up; after a restart the address may be another.
        let absent = || OperatorOrFailure::Later("the cloud is not up yet".into());
        let address = read_address(&dir).map_err(|e| OperatorOrFailure::Later(e.to_string()))?.ok_or_else(absent)?;
        let key_file = dir.join(OPERATOR_KEY_FILE);
        if !key_file.exists() {
            return Err(absent());
        }
        let key = keys::load(&key_file).map_err(|e| OperatorOrFailure::Failure(e.into()))?;
        Ok(Operator::dial(&key, &address, &on_one_machine()).await?)
    }

    /// One command, one answer, whatever happens to the cloud in between. For commands that may come twice.
    pub async fn ask(&self, command: &Command) -> Result<Value, Failure> {
        self.persist(async || {
            let mut operator = self.dial().await?;
            let said = operator.ask(command).await?;
            operator.close().await;
            Ok(said)
        })
        .await
    }

    /// Submits a job once: if the answer is lost, the job is found by its name.
    pub async fn submit(&self, name: &str, toml: &str) -> Result<u64, Failure> {
        self.persist(async || {
            let mut operator = self.dial().await?;
            let list = operator.ask(&Command::JobList).await?;
            let jobs = list.get("jobs").and_then(Value::as_array).cloned().unwrap_or_default();
            let known = jobs.into_iter().find(|job| job.get("name").and_then(Value::as_str) == Some(name));
            let said = match known {
                Some(job) => job,
                None => operator.ask(&Command::JobSubmit { toml: toml.to_owned() }).await?,
            };
            operator.close().await;
            let lost = || OperatorOrFailure::Later("an answer without a job".into());
            said.get("job").and_then(Value::as_u64).ok_or_else(lost)
        })
        .await
    }

    /// Tells `on_change` whenever something changes, until the job has ended.
    pub async fn watch(&self, job: u64, mut on_change: impl FnMut(&Value)) -> Result<(), Failure> {
        let (command, mut heard) = (Command::JobWatch { job }, Instant::now());
        loop {
            let watched: Result<(), OperatorOrFailure> = async {
                let mut watch = self.dial().await?.watch(&command).await?;
                while let Some(said) = watch.next().await? {
                    heard = Instant::now();
                    on_change(&said);
                }
                Ok(())
            }
            .await;
            match watched {
                Ok(()) => return Ok(()),
                Err(OperatorOrFailure::Failure(failure)) => return Err(failure),
                Err(OperatorOrFailure::Later(why)) if heard.elapsed() > PATIENCE => return Err(silent(&why)),
                Err(OperatorOrFailure::Later(_)) => sleep(AGAIN_AFTER).await,
            }
        }
    }

    /// Fetches the job's last version and writes it as safetensors.
    pub async fn export(&self, job: u64, spec: &JobSpec, path: &Path) -> Result<(), Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new("no model", path.display().to_string(), "a file", e);
        let objects = self
            .persist(async || {
                let (mut operator, mut objects) = (self.dial().await?, Vec::new());
                let (_, manifest, before) = operator.model(JobId(job)).await?;
                for manifest in before.iter().chain([&manifest]) {
                    let mut object = Vec::new();
                    operator.fetch(manifest, &mut object).await?;
                    objects.push(object);
                }
                operator.close().await;
                Ok(objects)
            })
            .await?;
        let object = deploy::whole(spec, objects).map_err(|e| failed(&e))?;
        let write = || {
            let mut file = BufWriter::new(File::create(path)?);
            deploy::safetensors(spec, &mut Cursor::new(object), &mut file).map_err(io::Error::other)?;
            file.flush()
        };
        write().map_err(|e| failed(&e))
    }

    /// The record of a run.
    pub async fn record(&self, job: u64) -> Result<RunRecord, Failure> {
        let malformed = |e: serde_json::Error| Failure::new("no record", "the cloud's answer", "a run's record", e);
        let mut record = RunRecord { job, spec: String::new(), cloud: String::new(), versions: Vec::new() };
        loop {
            let page = self.ask(&Command::JobRecord { job, from: record.versions.len() }).await?;
            let part = |name: &str| page.get(name).cloned().unwrap_or_default();
            record.spec = serde_json::from_value(part("spec")).map_err(malformed)?;
            record.cloud = serde_json::from_value(part("cloud")).map_err(malformed)?;
            let versions: Vec<VersionRecord> = serde_json::from_value(part("versions")).map_err(malformed)?;
            let last = versions.is_empty() || page.get("next").is_none();
            record.versions.extend(versions);
            if last {
                return Ok(record);
            }
        }
    }

    async fn persist<T>(&self, deed: impl AsyncFn() -> Result<T, OperatorOrFailure>) -> Result<T, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            match deed().await {
                Ok(done) => return Ok(done),
                Err(OperatorOrFailure::Failure(failure)) => return Err(failure),
                Err(OperatorOrFailure::Later(why)) if Instant::now() > until => return Err(silent(&why)),
                Err(OperatorOrFailure::Later(_)) => sleep(AGAIN_AFTER).await,
            }
        }
    }
}

/// TLS over TCP: where both ends are on one machine, its kernel says at once that the other process is dead. QUIC would
/// wait in silence first.
pub fn on_one_machine() -> Network {
    Network { transport: TransportName::Tcp, ..Network::default() }
}

/// Whether it makes sense to ask again.
enum OperatorOrFailure {
    Later(String),
    Failure(Failure),
}

impl From<OperatorError> for OperatorOrFailure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Session(_) | OperatorError::Gone { .. } => Self::Later(error.to_string()),
            other => Self::Failure(other.into()),
        }
    }
}

fn silent(why: &str) -> Failure {
    Failure::new("the cloud does not answer", CLOUD, format!("an answer within {} s", PATIENCE.as_secs()), why)
}

fn write_config<C: Config + serde::Serialize>(dir: &Path, config: &C) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::new("no folder for a machine", dir.display().to_string(), "room to write", e);
    fs::create_dir_all(dir).map_err(failed)?;
    let text = toml::to_string(config).map_err(io::Error::other).map_err(failed)?;
    fs::write(dir.join(C::FILE_NAME), text).map_err(failed)
}
