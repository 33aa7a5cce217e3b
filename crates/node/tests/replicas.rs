//! Three replicas of a cloud as processes of their own, over PostgreSQL and S3, and edges and devices that train through
//! them. Replicas are killed; the model is that of a run in one process without kills, bit for bit.

mod host_scratch;
mod shared_store;

use host_scratch::Scratch;
use littoral_fed::round::Record;
use littoral_model::{Examples, Features, Labels};
use littoral_node::config::{CloudConfig, Network, TransportName};
use littoral_node::deploy::{KEY_FILE, Running, join, start_cloud};
use littoral_node::host::{self, Handle, World};
use littoral_node::job::JobSpec;
use littoral_node::operator::Operator;
use littoral_node::role::cloud::command::Command;
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::{Entropy, Peer, Report, Role, Row, RowKey, Table, Write};
use littoral_node::store::{PgStore, SqliteStore, Store};
use littoral_node::transport::{Address, Identity, TcpOptions, TcpTransport, Transport};
use littoral_node::work::{LocalData, Rows};
use littoral_wire::codec::Wire;
use littoral_wire::message::{DataOffer, Incarnation, Name, Work};
use littoral_wire::ticket::Ticket;
use littoral_wire::{JobId, List, NodeId, ObjectId, SecretKey};
use serde_json::{Value, json};
use shared_store::{Postgres, bucket, open, s3::S3};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const DEVICES: u8 = 4;
const REPLICAS: usize = 3;
const LEASE_MS: u64 = 1_000;
const JOB: JobId = JobId(1);
const LIMIT: Duration = Duration::from_secs(240);
/// A replica's configuration, as TOML.
const CONFIG: &str = "LITTORAL_TEST_REPLICA";

fn key(name: &str) -> SecretKey {
    SecretKey::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}

/// Rows whose class is the sign of a sum, shifted for each device.
struct MadeUp(u8);

impl LocalData for MadeUp {
    fn rows(&self, _: &JobSpec) -> Result<Rows, String> {
        let (mut values, mut ids) = (Vec::new(), Vec::new());
        for row in 0..40u32 {
            let x: Vec<f32> = (0..3).map(|c| ((row * 7 + c * 13 + u32::from(self.0) * 5) % 11) as f32 - 5.0).collect();
            ids.push(u32::from(x.iter().sum::<f32>() > 0.0));
            values.extend(x);
        }
        let examples = Examples::new(Features::F32 { width: 3, values }, Labels::Classes { ids, classes: 2 });
        let examples = Arc::new(examples.map_err(|e| e.to_string())?);
        Ok(Rows { examples, train: (0..32).collect(), held_out: (32..40).collect() })
    }
}

/// SCAFFOLD: devices and cloud keep state, so that a device which is counted twice, or not, changes every bit.
fn job(rounds: u32) -> String {
    littoral_node::job::SAMPLE_TOML
        .replace("name = \"fedavg\"", "name = \"scaffold\"")
        .replace("target = 8", &format!("target = {DEVICES}"))
        .replace("min = 6", &format!("min = {DEVICES}"))
        .replace("count = 10", &format!("count = {rounds}"))
        .replace("learning_rate = 0.1", "learning_rate = 0.05")
}

/// Who is enrolled, and the operator.
fn fleet() -> Vec<Write> {
    let row = |table, item: NodeId, value: Value| Write::Put {
        key: RowKey { table, job: JobId(0), version: 0, item: item.0.to_vec() },
        value: serde_json::to_vec(&value).unwrap(),
    };
    let machine = |role: &str, name: String| {
        row(Table::Node, key(&name).id(), json!({"role": role, "name": name, "revoked": false, "since_ms": 0}))
    };
    let edges = (0..2).map(|i| machine("edge", format!("edge-{i}")));
    let devices = (0..DEVICES).map(|i| machine("device", format!("device-{i}")));
    let operator = row(Table::Operator, key("operator").id(), json!({"name": "admin", "right": "administer"}));
    edges.chain(devices).chain([operator]).collect()
}

fn write_key(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(dir.join(KEY_FILE)).unwrap();
    writeln!(file, "{}", NodeId(key("cloud").to_bytes())).unwrap();
}

async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn tcp() -> Network {
    Network { transport: TransportName::Tcp, ..Network::default() }
}

/// Edges and devices, in this process.
struct Ground {
    edges: Vec<Handle>,
    devices: Vec<Handle>,
}

impl Ground {
    async fn start(dir: &Path, clouds: &[SocketAddr]) -> Self {
        let peer = |name: &str, at: &SocketAddr| Peer { id: key(name).id(), address: at.to_string() };
        let edges_at = [free_address().await, free_address().await];
        let (mut edges, mut devices) = (Vec::new(), Vec::new());
        for (i, at) in edges_at.iter().enumerate() {
            let name = format!("edge-{i}");
            let identity = EdgeIdentity {
                id: key(&name).id(),
                name: name.clone(),
                cloud: peer("cloud", &clouds[0]),
                replicas: clouds[1..].iter().map(|at| peer("cloud", at)).collect(),
                listen: at.to_string(),
            };
            edges.push(host_of(dir, &name, Some(*at), 0, |_| Box::new(Edge::new(identity))).await);
        }
        for i in 0..DEVICES {
            let name = format!("device-{i}");
            let mut upstreams: Vec<Peer> = (0..2).map(|e| peer(&format!("edge-{e}"), &edges_at[e])).collect();
            upstreams.rotate_left(usize::from(i) % 2);
            let identity = DeviceIdentity {
                key: key(&name),
                roster: None,
                masks: None,
                group_min: 3,
                entropy: Entropy::new([i; 32]),
                name: name.clone(),
                cloud: key("cloud").id(),
                upstreams,
                data: vec![DataOffer { name: Name::from("hospitals"), rows: 40 }],
            };
            devices.push(host_of(dir, &name, None, i, |rows| Box::new(Device::new(identity, rows))).await);
        }
        Self { edges, devices }
    }

    async fn stop(self) {
        for handle in self.devices.into_iter().chain(self.edges) {
            handle.stop().await.unwrap();
        }
    }
}

async fn host_of(
    dir: &Path,
    name: &str,
    listen: Option<SocketAddr>,
    data: u8,
    role: impl FnOnce(Vec<Row>) -> Box<dyn Role>,
) -> Handle {
    let identity = Identity::from_secret(&key(name).to_bytes());
    let transport: Arc<dyn Transport> = match listen {
        Some(at) => Arc::new(TcpTransport::listen(&identity, at, TcpOptions::default()).await.unwrap()),
        None => Arc::new(TcpTransport::dialler(&identity, TcpOptions::default()).unwrap()),
    };
    let store = SqliteStore::open(&dir.join(name)).await.unwrap();
    let (rows, objects) = (store.load().await.unwrap(), store.objects());
    let said = std::env::var_os("LITTORAL_TEST_SHOW").is_some();
    let name = name.to_owned();
    let on_report: host::OnReport = Arc::new(move |report| {
        if said {
            println!("{name}: {report:?}");
        }
    });
    let world = World { transport, store: Arc::new(store), objects, data: Arc::new(MadeUp(data)), on_report };
    host::start(role(rows), world, host::Settings { threads: 1, ..Default::default() })
}

async fn operator(at: SocketAddr) -> Option<Operator> {
    let address: Address = format!("{}@{at}", key("cloud").id()).parse().unwrap();
    Operator::dial(&key("operator"), &address, &tcp()).await.ok()
}

/// What the job's records say.
#[derive(Debug, Default)]
struct Story {
    versions: u64,
    model: Option<ObjectId>,
    finished: bool,
    /// Of each version that training made, how often each device is in it.
    counted: Vec<BTreeMap<NodeId, usize>>,
}

fn story(rows: &[Row]) -> Story {
    let mut story = Story::default();
    let mut kept: BTreeMap<Incarnation, Vec<NodeId>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.key.table == Table::Record && row.key.job == JOB) {
        match Record::from_bytes(&row.value).unwrap() {
            Record::Kept(of) => drop(kept.insert(of.incarnation, of.devices.to_vec())),
            Record::Applied { collection, version, model, .. } => {
                (story.versions, story.model) = (version, Some(model.id()));
                let mut counted = BTreeMap::new();
                for (_, devices) in kept.iter().filter(|(incarnation, _)| incarnation.collection == collection) {
                    devices.iter().for_each(|device| *counted.entry(*device).or_default() += 1);
                }
                if collection.work == Work::Train {
                    story.counted.push(counted);
                }
            }
            Record::Finished { .. } => story.finished = true,
            _ => {}
        }
    }
    story
}

/// The same fleet with a cloud of one process, undisturbed.
async fn alone(toml: &str) -> Story {
    let dir = Scratch::new("alone");
    let cloud_dir = dir.path().join("cloud");
    write_key(&cloud_dir);
    let store = SqliteStore::open(&cloud_dir).await.unwrap();
    store.commit(fleet(), vec![]).await.unwrap();
    store.close().await;
    let at = free_address().await;
    let config =
        CloudConfig { dir: cloud_dir.clone(), listen: at.to_string(), network: tcp(), ..CloudConfig::default() };
    let finished = Arc::new(tokio::sync::Notify::new());
    let tell = finished.clone();
    let on_report: host::OnReport = Arc::new(move |report| {
        if matches!(report, Report::Finished { .. }) {
            tell.notify_one();
        }
    });
    let cloud = start_cloud(&config, on_report).await.unwrap();
    let ground = Ground::start(dir.path(), &[at]).await;
    let mut operator = operator(at).await.unwrap();
    operator.ask(&Command::JobSubmit { toml: toml.into() }).await.unwrap();
    tokio::time::timeout(LIMIT, finished.notified()).await.expect("it finishes");
    cloud.stop().await.unwrap();
    ground.stop().await;
    let store = loop {
        match SqliteStore::open(&cloud_dir).await {
            Ok(store) => break store,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    story(&store.load().await.unwrap())
}

/// Not a test: what a replica's process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_child() {
    let Ok(config) = std::env::var(CONFIG) else { return };
    let config: CloudConfig = toml::from_str(&config).unwrap();
    let say = |what: String| writeln!(std::io::stdout(), "\nsaid {}", what.replace('\n', " ")).unwrap();
    // As a supervisor would.
    loop {
        let on_report: host::OnReport = Arc::new(move |report| say(format!("{report:?}")));
        match start_cloud(&config, on_report).await {
            Ok(running) => {
                say("up".into());
                let ended = Running::until(running, std::future::pending()).await;
                say(format!("ended {ended:?}"));
            }
            Err(e) => {
                say(format!("not started: {e}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Replica {
    config: CloudConfig,
    at: SocketAddr,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Replica {
    fn start(&mut self) {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "replica_child", "--nocapture"])
            .env(CONFIG, toml::to_string(&self.config).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, log) = (BufReader::new(child.stdout.take().unwrap()).lines(), self.log.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(said) = line.strip_prefix("said ") {
                    log.lock().unwrap().push(said.to_owned());
                }
            }
        });
        self.child = Some(child);
    }

    /// With SIGKILL. Its folder goes too: a replica needs nothing of it but the key.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.log.lock().unwrap().push("killed".into());
        std::fs::remove_dir_all(&self.config.dir).unwrap();
        write_key(&self.config.dir);
    }

    fn said(&self, what: &str) -> bool {
        let log = self.log.lock().unwrap();
        log.iter().rev().take_while(|line| *line != "killed").any(|line| line.contains(what))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Tier {
    dir: Scratch,
    store: PgStore,
    replicas: Vec<Replica>,
    _s3: S3,
}

impl Tier {
    async fn start(name: &str) -> Option<Self> {
        let url = Postgres::here().await?.database().await;
        let (dir, s3) = (Scratch::new(name), S3::start().await);
        let options = bucket(Some(&s3.endpoint), "models", dir.path());
        let store = open(&url, &options, &dir.path().join("observer")).await;
        store.commit(fleet(), vec![]).await.unwrap();
        let mut addresses = Vec::new();
        for _ in 0..REPLICAS {
            addresses.push(free_address().await);
        }
        let replica = |at: &SocketAddr| {
            let folder: PathBuf = dir.path().join(format!("replica-{}", at.port()));
            write_key(&folder);
            let mut config = CloudConfig {
                dir: folder,
                listen: at.to_string(),
                network: tcp(),
                threads: 1,
                ..CloudConfig::default()
            };
            config.shared.database = url.clone();
            config.shared.bucket = options.url.clone();
            config.shared.endpoint = options.endpoint.clone();
            config.shared.access_key = options.access_key.clone();
            config.shared.secret_key = options.secret_key.clone();
            config.shared.replicas = addresses.iter().map(ToString::to_string).collect();
            config.shared.lease_ms = LEASE_MS;
            Replica { config, at: *at, child: None, log: Arc::default() }
        };
        let mut replicas: Vec<Replica> = addresses.iter().map(replica).collect();
        replicas.iter_mut().for_each(Replica::start);
        let tier = Self { dir, store, replicas, _s3: s3 };
        tier.wait("all replicas up", |tier| tier.replicas.iter().all(|replica| replica.said("up"))).await;
        Some(tier)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.at).collect()
    }

    async fn wait(&self, what: &str, fits: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !fits(self) {
            assert!(started.elapsed() < LIMIT, "no {what}; {}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn story(&self) -> Story {
        story(&self.store.load_job(JOB).await.unwrap())
    }

    async fn until(&self, what: &str, fits: impl Fn(&Story) -> bool) -> Story {
        let started = Instant::now();
        loop {
            let story = self.story().await;
            if fits(&story) {
                return story;
            }
            assert!(started.elapsed() < LIMIT, "no {what} but {story:?}; {}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Who runs the job, or looks after the fleet.
    fn holder(&self, what: &str) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.child.is_some() && replica.said(what))
    }

    fn logs(&self) -> String {
        let log = |replica: &Replica| {
            let log = replica.log.lock().unwrap();
            format!("{}:\n  {}", replica.at, log[log.len().saturating_sub(30)..].join("\n  "))
        };
        self.replicas.iter().map(log).collect::<Vec<_>>().join("\n")
    }
}

const RUNS_JOB: &str = "this replica runs job 1 now";
const HAS_FLEET: &str = "this replica looks after the fleet now";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_killed_lose_no_job_and_change_no_bit() {
    let rounds = 24;
    let Some(mut tier) = Tier::start("killed").await else { return };
    let expected = alone(&job(rounds)).await;
    assert!(expected.finished);

    tier.wait("holder of the fleet", |tier| tier.holder(HAS_FLEET).is_some()).await;
    let ground = Ground::start(tier.dir.path(), &tier.addresses()).await;
    // Submitted where it has to be passed on.
    let elsewhere = (tier.holder(HAS_FLEET).unwrap() + 1) % REPLICAS;
    let mut asked = operator(tier.replicas[elsewhere].at).await.unwrap();
    let answer = asked.ask(&Command::JobSubmit { toml: job(rounds) }).await;
    assert_eq!(answer.unwrap_or_else(|e| panic!("{e}; {}", tier.logs())), json!({"job": 1}));
    asked.close().await;

    // The replica that runs the job is killed, again and again, and comes back with an empty folder.
    for version in [2, 6, 10, 14] {
        tier.until("version", |story| story.versions >= version).await;
        tier.wait("holder of the job", |tier| tier.holder(RUNS_JOB).is_some()).await;
        let holder = tier.holder(RUNS_JOB).unwrap();
        tier.replicas[holder].kill();
        tier.until("version of another", |story| story.versions > version).await;
        tier.replicas[holder].start();
    }
    let story = tier.until("end", |story| story.finished).await;
    assert_eq!(story.versions, expected.versions);
    assert_eq!(story.model, expected.model, "the model of a run without kills");
    let everyone: BTreeSet<NodeId> = (0..DEVICES).map(|i| key(&format!("device-{i}")).id()).collect();
    for counted in story.counted.iter().chain(&expected.counted) {
        assert_eq!(counted.keys().copied().collect::<BTreeSet<_>>(), everyone);
        assert!(counted.values().all(|times| *times == 1), "{counted:?}");
    }
    // Everybody can say how it ended, whoever runs it.
    tier.wait("all replicas up", |tier| tier.replicas.iter().all(|replica| replica.said("up"))).await;
    for replica in &tier.replicas {
        let mut asked = operator(replica.at).await.unwrap();
        let shown = asked.ask(&Command::JobShow { job: 1 }).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
        assert_eq!(shown["model"], story.model.unwrap().to_string());
        let listed = asked.ask(&Command::JobList).await.unwrap();
        assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
        let (_, manifest, _) = asked.model(JOB).await.unwrap();
        let mut model = Vec::new();
        asked.fetch(&manifest, &mut model).await.unwrap();
        assert_eq!(model.len() as u64, manifest.bytes());
        asked.close().await;
    }
    ground.stop().await;
}

fn signal(child: &Child, name: &str) {
    assert!(Process::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// It believes to run the job, and to have all the time in the world.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stood_still_changes_nothing_when_it_goes_on() {
    let rounds = 12;
    let Some(tier) = Tier::start("stalled").await else { return };
    let expected = alone(&job(rounds)).await;
    let ground = Ground::start(tier.dir.path(), &tier.addresses()).await;
    let mut asked = operator(tier.replicas[0].at).await.unwrap();
    asked.ask(&Command::JobSubmit { toml: job(rounds) }).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
    asked.close().await;
    tier.until("version", |story| story.versions >= 3).await;
    tier.wait("holder of the job", |tier| tier.holder(RUNS_JOB).is_some()).await;
    let holder = tier.holder(RUNS_JOB).unwrap();
    let child = tier.replicas[holder].child.as_ref().unwrap();
    signal(child, "-STOP");
    let stopped_at = tier.story().await.versions;
    tier.until("version of another", |story| story.versions > stopped_at + 1).await;
    signal(child, "-CONT");
    tier.wait("end of its run", |tier| tier.replicas[holder].said("ended Err")).await;
    let story = tier.until("end", |story| story.finished).await;
    assert_eq!(story.versions, expected.versions);
    assert_eq!(story.model, expected.model);
    ground.stop().await;
}

/// What all share is changed by one of them, whoever is asked, and all hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_counts_once_whichever_replica_is_asked() {
    let Some(tier) = Tier::start("tickets").await else { return };
    let mut asked = operator(tier.replicas[0].at).await.unwrap();
    let ticket = Command::Ticket { role: "device".into(), uses: 1, valid_ms: 60_000, secret: "07".repeat(16) };
    asked.ask(&ticket).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
    let join = |n: usize| {
        let ticket = Ticket {
            cloud: key("cloud").id(),
            secret: [7; 16],
            role: littoral_wire::message::Role::Device,
            addresses: List::new(vec![tier.replicas[n].at.to_string().as_str().into()]).unwrap(),
            roster: None,
        };
        let dir = tier.dir.path().join(format!("joins-{n}"));
        async move { join(&ticket, "ward", &dir, &tcp()).await }
    };
    let (a, b, c) = tokio::join!(join(0), join(1), join(2));
    let joined: Vec<_> = [a, b, c].into_iter().filter_map(Result::ok).collect();
    assert_eq!(joined.len(), 1, "{}", tier.logs());
    // It is known everywhere, and so is its end.
    for state in ["away", "revoked"] {
        for replica in &tier.replicas {
            let mut asked = operator(replica.at).await.unwrap();
            let started = Instant::now();
            loop {
                let listed = asked.ask(&Command::FleetList).await.unwrap();
                let ward = listed["machines"].as_array().unwrap().iter().find(|machine| machine["name"] == "ward");
                if ward.is_some_and(|ward| ward["state"] == state) {
                    break;
                }
                assert!(started.elapsed() < LIMIT, "not {state}: {listed}; {}", tier.logs());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            asked.close().await;
        }
        if state == "away" {
            asked.ask(&Command::FleetRevoke { node: "ward".into() }).await.unwrap();
        }
    }
    let rows = tier.store.load_job(JobId(0)).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.key.table == Table::Ticket).count(), 0);
    assert_eq!(rows.iter().filter(|row| row.key.table == Table::Command).count(), 2);
}
