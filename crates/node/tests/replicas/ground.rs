//! The fleet below the cloud, in this process; and what becomes of it with a cloud that nobody disturbs.

use super::host_scratch::Scratch;
use super::{DEVICES, JOB, LIMIT};
use littoral_fed::round::Record;
use littoral_model::{Examples, Features, Labels};
use littoral_node::config::{CloudConfig, Network, TransportName};
use littoral_node::deploy::{DeployError, KEY_FILE, start_cloud};
use littoral_node::host::{self, Handle, World};
use littoral_node::job::JobSpec;
use littoral_node::operator::Operator;
use littoral_node::role::cloud::command::Command;
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::{Entropy, Peer, Report, Role, Row, RowKey, Table, Write};
use littoral_node::store::{SqliteStore, Store, StoreError};
use littoral_node::transport::{Address, Identity, TcpOptions, TcpTransport, Transport};
use littoral_node::work::{LocalData, Rows};
use littoral_wire::codec::Wire;
use littoral_wire::message::{DataOffer, Incarnation, Name, Work};
use littoral_wire::{JobId, NodeId, ObjectId, SecretKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// Edges that are enrolled.
const EDGES: usize = 4;

pub fn key(name: &str) -> SecretKey {
    SecretKey::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}

/// Rows whose class is the sign of a sum, shifted for each device.
pub struct MadeUp(u8);

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
pub fn job(rounds: u32) -> String {
    littoral_node::job::SAMPLE_TOML
        .replace("name = \"fedavg\"", "name = \"scaffold\"")
        .replace("target = 8", &format!("target = {DEVICES}"))
        .replace("min = 6", &format!("min = {DEVICES}"))
        .replace("count = 10", &format!("count = {rounds}"))
        .replace("learning_rate = 0.1", "learning_rate = 0.05")
}

/// Who is enrolled, and the operator.
pub fn fleet() -> Vec<Write> {
    let row = |table, item: NodeId, value: Value| Write::Put {
        key: RowKey { table, job: JobId(0), version: 0, item: item.0.to_vec() },
        value: serde_json::to_vec(&value).unwrap(),
    };
    let machine = |role: &str, name: String| {
        row(Table::Node, key(&name).id(), json!({"role": role, "name": name, "revoked": false, "since_ms": 0}))
    };
    let edges = (0..EDGES).map(|i| machine("edge", format!("edge-{i}")));
    let devices = (0..DEVICES).map(|i| machine("device", format!("device-{i}")));
    let operator = row(Table::Operator, key("operator").id(), json!({"name": "admin", "right": "administer"}));
    edges.chain(devices).chain([operator]).collect()
}

pub fn write_key(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(dir.join(KEY_FILE)).unwrap();
    writeln!(file, "{}", NodeId(key("cloud").to_bytes())).unwrap();
}

pub async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub fn tcp() -> Network {
    Network { transport: TransportName::Tcp, ..Network::default() }
}

/// Edges and devices, in this process.
pub struct Ground {
    edges: Vec<Handle>,
    devices: Vec<Handle>,
}

impl Ground {
    /// Two edges.
    pub async fn start(dir: &Path, clouds: &[SocketAddr]) -> Self {
        Self::of_edges(2, dir, clouds).await
    }

    /// At most [`EDGES`].
    pub async fn of_edges(count: usize, dir: &Path, clouds: &[SocketAddr]) -> Self {
        let peer = |name: &str, at: &SocketAddr| Peer { id: key(name).id(), address: at.to_string() };
        let mut edges_at = Vec::new();
        for _ in 0..count {
            edges_at.push(free_address().await);
        }
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
            let mut upstreams: Vec<Peer> = (0..count).map(|e| peer(&format!("edge-{e}"), &edges_at[e])).collect();
            upstreams.rotate_left(usize::from(i) % count);
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

    pub async fn stop(self) {
        for handle in self.devices.into_iter().chain(self.edges) {
            handle.stop().await.unwrap();
        }
    }
}

pub async fn host_of(
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

pub async fn operator(at: SocketAddr) -> Option<Operator> {
    let address: Address = format!("{}@{at}", key("cloud").id()).parse().unwrap();
    Operator::dial(&key("operator"), &address, &tcp()).await.ok()
}

/// What the job's records say.
#[derive(Debug, Default)]
pub struct Story {
    pub versions: u64,
    pub model: Option<ObjectId>,
    pub finished: bool,
    /// Of each version that training made, how often each device is in it.
    pub counted: Vec<BTreeMap<NodeId, usize>>,
}

pub fn story(rows: &[Row]) -> Story {
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
pub async fn alone(toml: &str) -> Story {
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
    let cloud = loop {
        match start_cloud(&config, on_report.clone()).await {
            Ok(cloud) => break cloud,
            // A process that another test has just forked has the lock until it becomes another program.
            Err(DeployError::Store(StoreError::InUse { .. })) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    };
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
