//! A fleet in a world: one cloud, edges, devices, and a job that runs to its end.
//!
//! ```text
//! FleetSpec ──> Fleet::new ──> run ── every version ──> progress
//!                               └── the job ends, all heals, verdicts arrive ──> Outcome
//! ```

use crate::attack::{Attack, Liars};
use crate::checkers::{self, Checker};
use crate::faults::{Blow, Faults, Kind};
use crate::field::Field;
use crate::network::NodeIndex;
use crate::queue::Micros;
use crate::report::{Outcome, VersionLine};
use crate::stream::derive;
use crate::workers::{Kept, Lender, Runner};
use crate::world::{Boot, Costs, Factory, Load, MachineSpec, Settings, World};
use littoral_fed::check_in::CheckIn;
use littoral_fed::roster::{self, Register};
use littoral_node::job::{JobError, JobSpec};
use littoral_node::role::cloud::{Cloud, CloudIdentity};
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::whole_cloud::WholeCloud;
use littoral_node::role::{Entropy, Peer, Report, Role, Row, RowKey, Table};
use littoral_node::work::{LocalData, Rows};
use littoral_wire::message::{COHORT_MAX, DataOffer, Name, Role as Part, Work};
use littoral_wire::{JobId, NodeId, SecretKey};
use std::sync::Arc;

/// Virtual time for verdicts to arrive after everything has healed.
const SETTLE_MS: u64 = 180_000;

/// A device's rows, and how many there are.
pub type DeviceData = Arc<dyn Fn(usize) -> (Arc<dyn LocalData>, u64)>;

pub struct FleetSpec {
    pub seed: u64,
    pub devices: usize,
    /// What devices are called; without names, device-1 and so on. What a device trains depends on its name.
    pub names: Vec<String>,
    /// 0: devices come straight to the cloud.
    pub edges: usize,
    /// The job, as it is submitted.
    pub job_toml: String,
    /// By the device's number, from 0.
    pub data: DeviceData,
    pub faults: Faults,
    pub costs: Costs,
    /// How works are computed: [`littoral_node::work::run`], or [`crate::drill::run`].
    pub runner: Runner,
    /// Real threads; no result depends on it.
    pub threads: usize,
    /// Whether the checkers watch.
    pub check: bool,
    /// Virtual time after which a job that has not ended is left.
    pub limit_ms: u64,
}

pub struct Fleet {
    world: World,
    name: String,
    algorithm: &'static str,
    faulty: bool,
    limit_us: Micros,
}

struct NoData;

impl LocalData for NoData {
    fn rows(&self, _: &JobSpec) -> Result<Rows, String> {
        Err("only devices have data".into())
    }
}

/// `names`: of devices.
pub(crate) fn machine_name(names: &[String], kind: Kind, number: usize) -> String {
    match (kind, names.get(number)) {
        (Kind::Cloud, _) => "cloud".into(),
        (Kind::Device, Some(name)) => name.clone(),
        _ => format!("{}-{}", kind.name(), number + 1),
    }
}

impl Fleet {
    pub fn new(fleet: FleetSpec) -> Result<Self, JobError> {
        Self::among(fleet, &Field::default(), None)
    }

    /// The same, where some devices lie.
    pub fn under(attack: Option<&Attack>, fleet: FleetSpec) -> Result<Self, JobError> {
        Self::among(fleet, &Field::default(), attack)
    }

    /// A fleet whose devices come and go, and differ in speed.
    pub fn in_field(fleet: FleetSpec, field: &Field) -> Result<Self, JobError> {
        Self::among(fleet, field, None)
    }

    /// All of it: devices that come and go, differ in speed, and some of which lie.
    pub fn among(fleet: FleetSpec, field: &Field, attack: Option<&Attack>) -> Result<Self, JobError> {
        let job = JobSpec::parse(&fleet.job_toml)?.within_epsilon()?;
        let seed = fleet.seed;
        let mut settings = Settings::new(seed, fleet.faults.clone());
        settings.costs = fleet.costs;
        settings.threads = fleet.threads;
        settings.runner = fleet.runner;
        let mut rows = Vec::with_capacity(fleet.devices);
        let mut data: Vec<(String, Arc<dyn LocalData>)> = Vec::with_capacity(fleet.devices);
        for number in 0..fleet.devices {
            let (own, count) = (fleet.data)(number);
            rows.push(count);
            data.push((machine_name(&fleet.names, Kind::Device, number), own));
        }
        settings.liars = attack.map(|attack| Liars::new(attack, &job, seed, &mut data)).transpose()?;
        let mut world = World::new(settings);
        if fleet.check {
            checkers::all().into_iter().for_each(|checker| world.watch(checker));
        }
        let keys = |kind, count| keys(seed, kind, count, fleet.threads);
        let (cloud_keys, edge_keys) = (keys(Kind::Cloud, 1), keys(Kind::Edge, fleet.edges));
        let device_keys = keys(Kind::Device, fleet.devices);
        let ids = |kind, part, keys: &[SecretKey]| {
            let name = |(number, key): (usize, &SecretKey)| (key.id(), part, machine_name(&fleet.names, kind, number));
            keys.iter().enumerate().map(name).collect::<Vec<_>>()
        };
        let cloud = Peer { id: cloud_keys[0].id(), address: machine_name(&fleet.names, Kind::Cloud, 0) };
        // Who signs the roster is no machine of the fleet.
        let roster_key = SecretKey::from_bytes(derive(seed, "roster", 0));
        let devices: Vec<NodeId> = device_keys.iter().map(SecretKey::id).collect();
        // A roster is as long as a cohort at most; with more devices there is none, and no sum under `threat = "active"`.
        let listed = devices.len() <= COHORT_MAX;
        let sign = || Register::new(roster::sign(&roster_key, cloud.id, 1, &devices), &devices).ok();
        let register = listed.then(sign).flatten();
        let mut machines = ids(Kind::Edge, Part::Edge, &edge_keys);
        let edges: Vec<Peer> = machines.iter().map(|(id, _, name)| Peer { id: *id, address: name.clone() }).collect();
        machines.extend(ids(Kind::Device, Part::Device, &device_keys));
        let mut add = |kind, number, secret: &SecretKey, rows, data, factory| {
            let secret = secret.clone();
            let name = machine_name(&fleet.names, kind, number);
            world.add(MachineSpec { kind, address: name.clone(), name, secret, rows, data, factory })
        };
        let first_row = vec![submitted(&fleet.job_toml)];
        add(
            Kind::Cloud,
            0,
            &cloud_keys[0],
            first_row,
            Arc::new(NoData),
            cloud_factory(machines, register, field.check_in.clone()),
        );
        for (number, key) in edge_keys.iter().enumerate() {
            add(
                Kind::Edge,
                number,
                key,
                Vec::new(),
                Arc::new(NoData),
                edge_factory(cloud.clone(), field.check_in.clone()),
            );
        }
        let mut loads = Vec::with_capacity(fleet.devices);
        let around = Arc::new(Surroundings { edges, cloud, set: job.data_set().into(), roster: roster_key.id() });
        for (number, key) in device_keys.iter().enumerate() {
            loads.push(load_of(&job, rows[number]));
            let data = Arc::clone(&data[number].1);
            let factory = device_factory(Arc::clone(&around), number, rows[number]);
            add(Kind::Device, number, key, Vec::new(), data, factory);
        }
        let algorithm = job.algorithm().name();
        let (name, limit_us) = (job.name().to_owned(), fleet.limit_ms.saturating_mul(1_000));
        let names: Vec<String> =
            (0..fleet.devices).map(|number| machine_name(&fleet.names, Kind::Device, number)).collect();
        for (number, load) in loads.into_iter().enumerate() {
            world.load(number, load);
        }
        world.place(field, &names);
        world.with_conditions(job.text().eligibility.is_some());
        world.begin(1_000_000);
        // Whoever is away comes back before the last verdicts.
        let faulty = fleet.faults != Faults::default() || field.availability.is_some();
        Ok(Self { world, name, algorithm, faulty, limit_us })
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// Does this to a machine before the fleet runs: the `number`-th of its kind, from 0.
    pub fn strike(&mut self, kind: Kind, number: usize, blow: Blow) {
        if let Some(node) = self.world.of_kind(kind).get(number).copied() {
            self.faulty = true;
            self.world.strike(node, blow);
        }
    }

    /// Results of devices' works are looked for among these, and kept there.
    pub fn keep(&mut self, kept: Kept) {
        self.world.keep(kept);
    }

    /// For who takes works off this fleet's hands, and for who counts them.
    pub fn lender(&self) -> Lender {
        self.world.lender()
    }

    /// One more watcher, beside those that the spec asked for.
    pub fn watch(&mut self, checker: Box<dyn Checker>) {
        self.world.watch(checker);
    }

    /// Runs the job to its end, or to the time limit. `progress` hears of every version.
    pub fn run(mut self, progress: &mut dyn FnMut(&VersionLine)) -> Outcome {
        let mut outcome = Outcome {
            job: std::mem::take(&mut self.name),
            algorithm: self.algorithm,
            seed: self.world.seed(),
            ..Outcome::default()
        };
        while outcome.ended.is_none() && self.world.run(self.limit_us) {
            self.listen(&mut outcome, progress);
        }
        self.listen(&mut outcome, progress);
        outcome.virtual_ms = self.world.now_ms();
        self.settle(&mut outcome, progress);
        outcome.events = self.world.events();
        outcome.faults_injected = self.world.injected().clone();
        outcome.state_hash = self.world.fingerprint().to_string();
        if let Some(breach) = self.world.breaches().first() {
            outcome.checks_broken.push(format!("contract with the host: {breach}"));
        }
        for checker in self.world.into_checkers() {
            let first = checker.broken().first().map(|finding| format!("{}: {finding}", checker.name()));
            outcome.checks_broken.extend(first);
        }
        outcome
    }

    fn listen(&mut self, outcome: &mut Outcome, progress: &mut dyn FnMut(&VersionLine)) {
        for said in self.world.take_reports() {
            match said.report {
                Report::Version { collection, version, model, included, line } => {
                    if collection.work == Work::Train {
                        outcome.rounds_completed += 1;
                        outcome.device_rounds += included.len() as u64;
                    }
                    let line = VersionLine { work: collection.work, version, model, at_ms: said.at, line: *line };
                    outcome.accuracy = line.line.accuracy.or(outcome.accuracy);
                    outcome.worst_decile_accuracy = line.line.worst_decile_accuracy.or(outcome.worst_decile_accuracy);
                    outcome.drift = line.line.drift.clone().or(outcome.drift.take());
                    progress(&line);
                    outcome.lines.push(line);
                }
                Report::Aborted { .. } => outcome.aborts += 1,
                Report::Finished { why, .. } => outcome.ended = Some(why),
                Report::Warning { what } => {
                    outcome.warnings += 1;
                    outcome.last_warning = Some(format!("{}: {what}", self.world.machine(said.node).name));
                }
                Report::Note { .. } | Report::Settled { .. } => {}
            }
        }
    }

    /// Ends all faults and lets the last verdicts arrive.
    fn settle(&mut self, outcome: &mut Outcome, progress: &mut dyn FnMut(&VersionLine)) {
        if self.faulty {
            self.world.heal();
        }
        let end_us = (outcome.virtual_ms + SETTLE_MS) * 1_000;
        let mut next_us = outcome.virtual_ms * 1_000;
        while next_us < end_us && self.world.of_kind(Kind::Device).iter().any(|device| self.waits(*device)) {
            next_us += 250_000;
            while self.world.run(next_us) {
                self.listen(outcome, progress);
            }
        }
    }

    /// Does this device keep a sealed update whose end it does not know?
    fn waits(&self, device: NodeIndex) -> bool {
        let machine = self.world.machine(device);
        !machine.is_up() || machine.disk.holds(Table::Sealed)
    }
}

/// Runs a fleet twice, with one thread and with several: the same seed must give the same bits. `make` is given the
/// number of threads. The second run's outcome is the one that comes back; `progress` hears of it only.
pub fn run_twice(
    make: impl Fn(usize) -> FleetSpec,
    progress: &mut dyn FnMut(&VersionLine),
) -> Result<Outcome, JobError> {
    let first = Fleet::new(make(1))?.run(&mut |_| {});
    let mut second = Fleet::new(make(2))?.run(progress);
    if first != second {
        let finding = format!("same seed, same bits: {} and {}", first.state_hash, second.state_hash);
        second.checks_broken.push(finding);
    }
    Ok(second)
}

/// What a device with so many rows has to do for a job: a step for each batch of each epoch, or as many as its privacy says. A
/// look without training costs a third of an epoch: the way back through the model is twice the way there.
fn load_of(job: &JobSpec, rows: u64) -> Load {
    let local = &job.text().local;
    // Texts are offered by their characters.
    let rows = job.text().data.schema.text.as_ref().map_or(rows, |text| rows / u64::from(text.window.max(1)));
    let train = rows - (rows as f64 * job.text().data.held_out).round() as u64;
    let epoch = match local.batch {
        0 => 1,
        batch => train.div_ceil(batch.into()),
    };
    let train = match job.example_noise() {
        Some(noise) => noise.steps,
        None => epoch * u64::from(local.epochs),
    };
    Load { train: train.max(1), look: epoch.div_ceil(3).max(1), time_ms: local.time_ms.unwrap_or(0) }
}

/// The job's row, as the cloud stores it at submission.
fn submitted(toml: &str) -> Row {
    let value = serde_json::json!({ "toml": toml, "submitted_by": "sim", "at_ms": 0 });
    let key = RowKey { table: Table::Job, job: JobId(1), version: 0, item: Vec::new() };
    Row { key, value: value.to_string().into_bytes() }
}

fn cloud_factory(machines: Vec<(NodeId, Part, String)>, register: Option<Register>, check_in: CheckIn) -> Factory {
    Arc::new(move |boot: Boot<'_>| {
        let key = boot.secret.clone();
        let id = key.id();
        let identity = CloudIdentity {
            key,
            name: boot.name.into(),
            listen: boot.address.into(),
            epoch: boot.life,
            replicas: Vec::new(),
            entropy: Entropy::new(boot.entropy),
        };
        let mut cloud = Cloud::new(identity, boot.rows);
        for (key, role, name) in &machines {
            cloud.install_machine(*key, *role, name);
        }
        register.iter().for_each(|register| cloud.install_roster(register.clone()));
        let whole = WholeCloud::new(id, boot.address, cloud).checking_in(check_in.clone());
        Ok(Box::new(whole) as Box<dyn Role>)
    })
}

fn edge_factory(cloud: Peer, check_in: CheckIn) -> Factory {
    Arc::new(move |boot: Boot<'_>| {
        let identity = EdgeIdentity {
            id: boot.secret.id(),
            name: boot.name.into(),
            cloud: cloud.clone(),
            replicas: Vec::new(),
            listen: boot.address.into(),
        };
        Ok(Box::new(Edge::new(identity).checking_in(check_in.clone())) as Box<dyn Role>)
    })
}

/// What all devices know.
struct Surroundings {
    edges: Vec<Peer>,
    cloud: Peer,
    /// The data set's name.
    set: Name,
    roster: NodeId,
}

/// `rows`: that the device offers.
fn device_factory(around: Arc<Surroundings>, number: usize, rows: u64) -> Factory {
    Arc::new(move |boot: Boot<'_>| {
        let Surroundings { edges, cloud, set, roster } = &*around;
        // Its own edge first, then the next ones, the cloud last.
        let turned = (0..edges.len()).map(|i| &edges[(number + i) % edges.len()]);
        let identity = DeviceIdentity {
            key: boot.secret.clone(),
            name: boot.name.into(),
            cloud: cloud.id,
            upstreams: turned.chain([cloud]).cloned().collect(),
            data: vec![DataOffer { name: set.clone(), rows }],
            roster: Some(*roster),
            masks: None,
            group_min: 2,
            entropy: Entropy::new(boot.entropy),
        };
        Ok(Box::new(Device::new(identity, boot.rows)) as Box<dyn Role>)
    })
}

/// The keys of all machines of a kind, made on several threads: a key costs some 15 microseconds.
fn keys(seed: u64, kind: Kind, count: usize, threads: usize) -> Vec<SecretKey> {
    let numbers: Vec<usize> = (0..count).collect();
    let mut keys = Vec::with_capacity(count);
    std::thread::scope(|scope| {
        let parts = numbers.chunks(count.div_ceil(threads.max(1)).max(1_000));
        let make = |part: &[usize]| part.iter().map(|number| World::key(seed, kind, *number)).collect::<Vec<_>>();
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || make(part))).collect();
        for part in parts {
            match part.join() {
                Ok(made) => keys.extend(made),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    keys
}

#[cfg(test)]
mod check_in_tests;
#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod tests;
