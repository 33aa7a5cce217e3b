//! A fleet on this machine: a cloud of replicas or of one process, edges, devices, all enrolled with tickets. Of the devices
//! some have a process of their own, the others share a few ([`super::crowd`]).

use super::{PLACE, broken};
use crate::fleet::roster;
use crate::output::{Failure, talk};
use littoral_node::config::{CloudConfig, Config, DeviceConfig, EdgeConfig, Network, TransportName};
use littoral_node::data::Source;
use littoral_node::deploy::{self, KEY_FILE, OPERATOR_KEY_FILE, read_address};
use littoral_node::host::keys;
use littoral_node::operator::{Operator, OperatorError};
use littoral_node::role::cloud::command::Command as Order;
use littoral_node::transport::Address;
use littoral_wire::message::Role;
use littoral_wire::ticket::Ticket;
use littoral_wire::{List, NodeId, SecretKey, Text};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A cloud that does not answer for this long will not.
const PATIENCE: Duration = Duration::from_secs(120);
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Machines that join at a time.
const JOINS: usize = 16;
const TICKET_VALID_MS: u64 = 60 * 60_000;

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub edges: u32,
    pub devices: u32,
    /// Devices with a process of their own.
    pub own: u32,
    /// Processes that the others share.
    pub crowds: u32,
}

/// What replicas share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub database: String,
    pub bucket: String,
    pub lease_ms: u64,
    pub shard_sums: usize,
}

pub struct Ground {
    dir: PathBuf,
    program: PathBuf,
    pub replicas: Vec<Replica>,
    /// Edges and devices; the last one started stops first.
    machines: Vec<Child>,
    operator: SecretKey,
    clouds: Vec<Address>,
}

/// One process of the cloud.
pub struct Replica {
    dir: PathBuf,
    program: PathBuf,
    child: Option<Child>,
}

impl Replica {
    pub fn start(&mut self) -> Result<(), Failure> {
        self.child = Some(spawn(&self.program, &["cloud", "--tethered", "--dir"], &self.dir)?);
        Ok(())
    }

    /// With SIGKILL. What it had in its folder goes too, but for the key and the configuration: it needs no more.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.map_err(|e| broken(&e))?;
        }
        for entry in fs::read_dir(&self.dir).map_err(|e| broken(&e))?.flatten() {
            let keeps = [KEY_FILE, CloudConfig::FILE_NAME, LOG_FILE].iter().any(|name| entry.file_name() == *name);
            let gone = match entry.path() {
                _ if keeps => Ok(()),
                path if path.is_dir() => fs::remove_dir_all(path),
                path => fs::remove_file(path),
            };
            gone.map_err(|e| broken(&e))?;
        }
        Ok(())
    }

    /// Ended by itself since it was started?
    pub fn ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join(LOG_FILE)).unwrap_or_default()
    }
}

const LOG_FILE: &str = "log.txt";

impl Ground {
    /// Starts everybody, and waits until all are connected. `shared`: the cloud is so many replicas; else one process.
    pub async fn start(dir: &Path, size: Size, shared: Option<(Shared, u32)>) -> Result<Self, Failure> {
        fs::create_dir_all(dir).map_err(|e| broken(&e))?;
        let program = std::env::current_exe().map_err(|e| broken(&e))?;
        let count = shared.as_ref().map_or(1, |(_, replicas)| *replicas);
        let places: Vec<String> = (0..count).map(|_| free_place()).collect::<Result<_, _>>()?;
        let mut replicas = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let mut config =
                CloudConfig { listen: place.clone(), threads: 1, network: tcp(), ..CloudConfig::default() };
            if let Some((shared, _)) = &shared {
                config.shared.database.clone_from(&shared.database);
                config.shared.bucket.clone_from(&shared.bucket);
                config.shared.lease_ms = shared.lease_ms;
                config.shared.shard_sums = shared.shard_sums;
                config.shared.replicas.clone_from(&places);
            }
            let folder = dir.join(format!("cloud-{}", number + 1));
            configure(&folder, &config)?;
            replicas.push(Replica { dir: folder, program: program.clone(), child: None });
        }
        let first = replicas[0].dir.clone();
        replicas[0].start()?;
        let cloud = until("the cloud is not up", || {
            read_address(&first).ok().flatten().filter(|_| first.join(OPERATOR_KEY_FILE).exists())
        })
        .await?;
        let operator = keys::load(&first.join(OPERATOR_KEY_FILE))?;
        for replica in &mut replicas[1..] {
            fs::copy(first.join(KEY_FILE), replica.dir.join(KEY_FILE)).map_err(|e| broken(&e))?;
            replica.start()?;
        }
        let address = |place: &String| format!("{}@{place}", cloud.id).parse::<Address>().map_err(|e| broken(&e));
        let clouds = places.iter().map(address).collect::<Result<_, _>>()?;
        let mut ground = Self { dir: dir.to_owned(), program, replicas, machines: Vec::new(), operator, clouds };
        ground.start_edges(size.edges, &places).await?;
        ground.start_devices(size).await?;
        Ok(ground)
    }

    async fn start_edges(&mut self, edges: u32, places: &[String]) -> Result<(), Failure> {
        let names: Vec<String> = (1..=edges).map(|n| format!("edge-{n}")).collect();
        for name in &names {
            let replicas = if places.len() > 1 { places.to_vec() } else { Vec::new() };
            let edge = EdgeConfig {
                listen: "127.0.0.1:0".into(),
                replicas,
                threads: 1,
                network: tcp(),
                ..EdgeConfig::default()
            };
            configure(&self.dir.join(name), &edge)?;
        }
        self.enrol(Role::Edge, &names).await?;
        for name in &names {
            let edge = spawn(&self.program, &["edge", "--tethered", "--dir"], &self.dir.join(name))?;
            self.machines.push(edge);
        }
        self.wait_for(&names).await
    }

    async fn start_devices(&mut self, size: Size) -> Result<(), Failure> {
        let names: Vec<String> = (1..=size.devices).map(|n| format!("device-{n}")).collect();
        for (number, name) in names.iter().enumerate() {
            let data = [(super::work::DATA.into(), Source::of("rows.csv"))].into();
            let device = DeviceConfig { network: tcp(), threads: 1, data, ..DeviceConfig::default() };
            let folder = self.dir.join(name);
            configure(&folder, &device)?;
            fs::write(folder.join("rows.csv"), super::work::rows(number)).map_err(|e| broken(&e))?;
        }
        let begun = Instant::now();
        self.enrol(Role::Device, &names).await?;
        talk(&format!("{} devices are enrolled after {:.1} s", names.len(), begun.elapsed().as_secs_f64()));
        self.sign_roster().await?;
        let (own, shared) = names.split_at(size.own.min(size.devices) as usize);
        for name in own {
            self.machines.push(spawn(&self.program, &["device", "--tethered", "--dir"], &self.dir.join(name))?);
        }
        let each = shared.len().div_ceil(size.crowds.max(1) as usize).max(1);
        for (number, crowd) in shared.chunks(each).enumerate() {
            let folder = self.dir.join(format!("crowd-{}", number + 1));
            fs::create_dir_all(&folder).map_err(|e| broken(&e))?;
            let list: Vec<String> = crowd.iter().map(|name| self.dir.join(name).display().to_string()).collect();
            fs::write(folder.join("folders"), list.join("\n")).map_err(|e| broken(&e))?;
            let child = start(&self.program, &["bench", "crowd"], &folder.join("folders"), &folder)?;
            self.machines.push(child);
        }
        self.wait_for(&names).await?;
        talk(&format!("all are here after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// One ticket for all machines of a role.
    async fn enrol(&self, role: Role, names: &[String]) -> Result<(), Failure> {
        let secret = keys::random()?;
        let order = Order::Ticket {
            role: if role == Role::Edge { "edge" } else { "device" }.into(),
            uses: names.len() as u32,
            valid_ms: TICKET_VALID_MS,
            secret: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        self.ask(&order).await?;
        let cloud = NodeId(self.clouds[0].id.0);
        let place = |address: &Address| Text::new(address.to_string().split_once('@').map_or("", |(_, place)| place));
        let addresses = List::new(self.clouds.iter().map(place).collect()).map_err(|e| broken(&e))?;
        let ticket = Ticket { cloud, secret, role, addresses, roster: Some(self.roster_key()?.id()) };
        let (at_a_time, mut joining) = (Arc::new(Semaphore::new(JOINS)), JoinSet::new());
        for name in names {
            let (ticket, name, folder, turn) = (ticket.clone(), name.clone(), self.dir.join(name), at_a_time.clone());
            joining.spawn(async move {
                let _turn = turn.acquire_owned().await;
                let begun = Instant::now();
                // A replica that does not look after the fleet lets few join at a time.
                loop {
                    match deploy::join(&ticket, &name, &folder, &tcp()).await {
                        Ok(_) => return Ok(()),
                        Err(e) if begun.elapsed() > PATIENCE => return Err(Failure::from(e)),
                        Err(_) => sleep(AGAIN_AFTER).await,
                    }
                }
            });
        }
        while let Some(joined) = joining.join_next().await {
            joined.map_err(|e| broken(&e))??;
        }
        Ok(())
    }

    fn roster_key(&self) -> Result<SecretKey, Failure> {
        Ok(keys::load_or_create(&self.dir.join("roster.key"))?)
    }

    async fn sign_roster(&self) -> Result<(), Failure> {
        let listed = self.ask(&Order::FleetList).await?;
        let (order, _) = roster::order(&self.roster_key()?, &listed, &roster::devices_of(&listed))?;
        self.ask(&order).await.map(drop)
    }

    async fn wait_for(&self, names: &[String]) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let listed = self.ask(&Order::FleetList).await?;
            let machines = listed["machines"].as_array().map_or(&[][..], Vec::as_slice);
            let here = machines.iter().filter(|m| m["state"] == "here").filter_map(|m| m["name"].as_str());
            let here: std::collections::BTreeSet<&str> = here.collect();
            let missing: Vec<&String> = names.iter().filter(|name| !here.contains(name.as_str())).collect();
            let Some(first) = missing.first() else { return Ok(()) };
            if begun.elapsed() > PATIENCE {
                let got = format!("{} are missing, {first} among them", missing.len());
                return Err(Failure::new("the fleet is not complete", PLACE, "all machines connected", got));
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// An answer of any replica. For commands that may come twice.
    pub async fn ask(&self, order: &Order) -> Result<Value, Failure> {
        let begun = Instant::now();
        loop {
            let mut why = String::new();
            for cloud in &self.clouds {
                match ask_at(&self.operator, cloud, order).await {
                    Ok(said) => return Ok(said),
                    Err(e @ (OperatorError::Session(_) | OperatorError::Gone { .. })) => why = e.to_string(),
                    Err(e) => return Err(e.into()),
                }
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new("no answer", PLACE, "an answer of any replica", why));
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Submits a job once: if the answer is lost, the job is found by its name.
    pub async fn submit(&self, name: &str, toml: &str) -> Result<u64, Failure> {
        let begun = Instant::now();
        for cloud in self.clouds.iter().cycle() {
            let listed = self.ask(&Order::JobList).await?;
            let jobs = listed["jobs"].as_array().map_or(&[][..], Vec::as_slice);
            if let Some(known) = jobs.iter().find(|job| job["name"] == name).and_then(|job| job["job"].as_u64()) {
                return Ok(known);
            }
            match ask_at(&self.operator, cloud, &Order::JobSubmit { toml: toml.to_owned() }).await {
                Ok(said) => return Ok(said["job"].as_u64().unwrap_or_default()),
                // What was asked may yet be carried out.
                Err(OperatorError::Session(_)) if begun.elapsed() < PATIENCE => sleep(AGAIN_AFTER).await,
                Err(e) => return Err(e.into()),
            }
        }
        Err(Failure::new("no answer", PLACE, "a cloud", "none"))
    }

    /// Asks all to stop, and waits for it.
    pub async fn stop(&mut self) {
        let clouds = self.replicas.iter_mut().filter_map(|replica| replica.child.take());
        let all: Vec<Child> = clouds.chain(self.machines.drain(..)).collect();
        for mut child in all.into_iter().rev() {
            drop(child.stdin.take());
            let _ = tokio::time::timeout(PATIENCE, child.wait()).await;
        }
    }
}

async fn ask_at(key: &SecretKey, cloud: &Address, order: &Order) -> Result<Value, OperatorError> {
    let mut operator = Operator::dial(key, cloud, &tcp()).await?;
    let said = operator.ask(order).await;
    operator.close().await;
    said
}

/// TLS over TCP: on one machine the kernel says at once that the other process is dead.
fn tcp() -> Network {
    Network { transport: TransportName::Tcp, ..Network::default() }
}

fn free_place() -> Result<String, Failure> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|at| at.to_string()).map_err(|e| broken(&e))
}

fn configure<C: Config + serde::Serialize>(dir: &Path, config: &C) -> Result<(), Failure> {
    let text = toml::to_string(config).map_err(|e| broken(&e))?;
    fs::create_dir_all(dir).and_then(|()| fs::write(dir.join(C::FILE_NAME), text)).map_err(|e| broken(&e))
}

fn spawn(program: &Path, words: &[&str], dir: &Path) -> Result<Child, Failure> {
    start(program, words, dir, dir)
}

/// A process that runs until its standard input ends, and so no longer than this one.
fn start(program: &Path, words: &[&str], of: &Path, dir: &Path) -> Result<Child, Failure> {
    let log = fs::File::options().create(true).append(true).open(dir.join(LOG_FILE)).map_err(|e| broken(&e))?;
    let mut command = Command::new(program);
    command.args(words).arg(of).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().map_err(|e| broken(&e))
}

async fn until<T>(what: &'static str, mut ask: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let begun = Instant::now();
    loop {
        match ask() {
            Some(answer) => return Ok(answer),
            None if begun.elapsed() > PATIENCE => {
                return Err(Failure::new(what, PLACE, format!("within {} s", PATIENCE.as_secs()), "nothing"));
            }
            None => sleep(AGAIN_AFTER).await,
        }
    }
}
