//! A cloud, edges and devices over real sockets, each with its own store, train to the end; machines die on the way.

mod blocked_port;
mod connect_proxy;

use blocked_port::blocked_port;
use connect_proxy::ConnectProxy;
use littoral_model::{Examples, Features, Labels};
use littoral_node::host::{self, Handle, World};
use littoral_node::job::JobSpec;
use littoral_node::role::cloud::{Cloud, CloudIdentity};
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::whole_cloud::WholeCloud;
use littoral_node::role::{Effect, Entropy, Peer, Report, Role};
use littoral_node::store::{SqliteStore, Store};
use littoral_node::transport::{AutoOptions, AutoTransport, Identity, TcpOptions, TcpTransport, Transport};
use littoral_node::work::{LocalData, Rows};
use littoral_wire::message::{DataOffer, Name, Role as Kind};
use littoral_wire::{JobId, ObjectId, SecretKey};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

const DEVICES: u8 = 4;

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

fn job(algorithm: &str, rounds: u32) -> String {
    littoral_node::job::SAMPLE_TOML
        .replace("name = \"fedavg\"", &format!("name = \"{algorithm}\""))
        .replace("target = 8", &format!("target = {DEVICES}"))
        .replace("min = 6", &format!("min = {DEVICES}"))
        .replace("count = 10", &format!("count = {rounds}"))
        .replace("learning_rate = 0.1", "learning_rate = 0.05")
}

/// One fleet in one folder.
struct Fleet {
    dir: PathBuf,
    cloud_at: SocketAddr,
    edges_at: Vec<SocketAddr>,
    site: Option<Site>,
    toml: String,
    reports: mpsc::UnboundedSender<Report>,
    reported: mpsc::UnboundedReceiver<Report>,
    log: Arc<Mutex<Vec<String>>>,
}

/// Where the devices are, if not in the open: a proxy is the only way out.
struct Site {
    proxy: ConnectProxy,
    /// What the devices are told of edge 0 and of the cloud: dialled directly, nobody answers.
    edge_shown: SocketAddr,
    cloud_shown: SocketAddr,
}

async fn free_address() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    listener.local_addr().expect("bound")
}

impl Fleet {
    async fn new(name: &str, toml: String) -> Self {
        let dir = std::env::temp_dir().join(format!("littoral-fleet-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let (reports, reported) = mpsc::unbounded_channel();
        let edges_at = vec![free_address().await, free_address().await];
        Self { dir, cloud_at: free_address().await, edges_at, toml, site: None, reports, reported, log: Arc::default() }
    }

    async fn host(
        &self,
        name: &str,
        listen: Option<SocketAddr>,
        data: u8,
        role: impl FnOnce(Vec<littoral_node::role::Row>) -> Box<dyn Role>,
    ) -> Handle {
        let identity = Identity::from_secret(&key(name).to_bytes());
        let transport: Arc<dyn Transport> = match (listen, &self.site) {
            (Some(at), None) => Arc::new(listen_again(&identity, at).await),
            (None, None) => Arc::new(TcpTransport::dialler(&identity, TcpOptions::default()).expect("dials")),
            (Some(at), Some(_)) => {
                Arc::new(AutoTransport::listen(&identity, at, AutoOptions::default()).await.expect("listens"))
            }
            (None, Some(site)) => {
                let tcp = TcpOptions { proxy: Some(site.proxy.login("s3cret")), ..TcpOptions::default() };
                let options = AutoOptions { tcp, ..AutoOptions::default() };
                Arc::new(AutoTransport::dialler(&identity, None, options).await.expect("dials"))
            }
        };
        let dir: PathBuf = Path::new(&self.dir).join(name);
        let store = open(&dir).await;
        let rows = store.load().await.expect("loads");
        let (reports, log, who) = (self.reports.clone(), self.log.clone(), name.to_string());
        let on_report: host::OnReport = Arc::new(move |report| {
            log.lock().expect("log").push(format!("{who}: {report:?}"));
            let _ = reports.send(report);
        });
        let objects = store.objects();
        let world = World { transport, store: Arc::new(store), objects, data: Arc::new(MadeUp(data)), on_report };
        let holder = (name == "cloud").then(|| "cloud".to_string());
        host::start(role(rows), world, host::Settings { threads: 1, holder, ..Default::default() })
    }

    async fn cloud(&self, epoch: u32) -> Handle {
        let toml = self.toml.clone();
        let listen = self.site.as_ref().map_or(self.cloud_at, |site| site.cloud_shown).to_string();
        self.host("cloud", Some(self.cloud_at), 0, move |rows| {
            let identity = CloudIdentity {
                key: key("cloud"),
                name: "cloud".into(),
                listen: listen.clone(),
                epoch,
                replicas: Vec::new(),
                entropy: Entropy::new([epoch as u8; 32]),
            };
            let fresh = rows.is_empty();
            let mut cloud = Cloud::new(identity, rows);
            for edge in 0..2 {
                cloud.install_machine(key(&format!("edge-{edge}")).id(), Kind::Edge, &format!("edge-{edge}"));
            }
            for device in 0..DEVICES {
                cloud.install_machine(key(&format!("device-{device}")).id(), Kind::Device, &format!("device-{device}"));
            }
            let mut first = Vec::new();
            if fresh {
                cloud.submit(0, &toml, &mut first).expect("a good job");
            }
            let whole = WholeCloud::new(key("cloud").id(), &listen, cloud);
            Box::new(Primed { first, role: whole })
        })
        .await
    }

    async fn edge(&self, i: usize) -> Handle {
        let name = format!("edge-{i}");
        let identity = EdgeIdentity {
            id: key(&name).id(),
            name: name.clone(),
            cloud: Peer { id: key("cloud").id(), address: self.cloud_at.to_string() },
            replicas: Vec::new(),
            listen: self.site.as_ref().map_or(self.edges_at[i], |site| site.edge_shown).to_string(),
        };
        self.host(&name, Some(self.edges_at[i]), 0, |_| Box::new(Edge::new(identity))).await
    }

    async fn device(&self, i: u8) -> Handle {
        let mut upstreams: Vec<Peer> = (0..2)
            .map(|e| Peer { id: key(&format!("edge-{e}")).id(), address: self.edges_at[e].to_string() })
            .collect();
        upstreams.rotate_left(usize::from(i) % 2);
        upstreams.push(Peer { id: key("cloud").id(), address: self.cloud_at.to_string() });
        self.device_of(i, upstreams).await
    }

    async fn device_of(&self, i: u8, upstreams: Vec<Peer>) -> Handle {
        let name = format!("device-{i}");
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
        self.host(&name, None, i, |rows| Box::new(Device::new(identity, rows))).await
    }

    /// Reports until one fits; what came instead is shown if the time runs out.
    async fn wait<T>(&mut self, what: &str, fits: impl Fn(&Report) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let report = self.reported.recv().await.expect("hosts run");
                if let Some(found) = fits(&report) {
                    return found;
                }
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await {
            Ok(found) => found,
            Err(_) => panic!("no {what}; the log:\n{}", self.log.lock().expect("log").join("\n")),
        }
    }

    async fn version(&mut self, at_least: u64) -> (u64, ObjectId) {
        self.wait("version", |report| match report {
            Report::Version { version, model, .. } if *version >= at_least => Some((*version, *model)),
            _ => None,
        })
        .await
    }

    async fn finished(&mut self) -> String {
        self.wait("end", |report| match report {
            Report::Finished { job: JobId(1), why } => Some(why.clone()),
            _ => None,
        })
        .await
    }
}

/// A port that a host has just left may take a moment.
async fn listen_again(identity: &Identity, at: SocketAddr) -> TcpTransport {
    loop {
        match TcpTransport::listen(identity, at, TcpOptions::default()).await {
            Ok(transport) => return transport,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// So may a store's lock.
async fn open(dir: &Path) -> SqliteStore {
    loop {
        match SqliteStore::open(dir).await {
            Ok(store) => return store,
            Err(littoral_node::store::StoreError::InUse { .. }) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    }
}

/// A role whose first step also performs effects that were decided while it was made.
struct Primed<R> {
    first: Vec<Effect>,
    role: R,
}

impl<R: Role> Role for Primed<R> {
    fn step(&mut self, now: u64, event: littoral_node::role::Event, effects: &mut Vec<Effect>) {
        effects.append(&mut self.first);
        self.role.step(now, event, effects);
    }

    fn needs(&self, object: ObjectId) -> bool {
        self.role.needs(object)
    }
}

async fn undisturbed(name: &str, toml: &str) -> (u64, ObjectId) {
    let mut fleet = Fleet::new(name, toml.into()).await;
    let cloud = fleet.cloud(1).await;
    let edges = [fleet.edge(0).await, fleet.edge(1).await];
    let mut devices = Vec::new();
    for i in 0..DEVICES {
        devices.push(fleet.device(i).await);
    }
    let mut last = (0, ObjectId([0; 32]));
    while last.0 < 4 {
        last = fleet.version(last.0 + 1).await;
    }
    assert_eq!(fleet.finished().await, "3 rounds are done");
    for handle in devices.into_iter().chain(edges).chain([cloud]) {
        handle.stop().await.expect("stops");
    }
    let _ = std::fs::remove_dir_all(&fleet.dir);
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_trains_to_the_end() {
    let (version, _) = undisturbed("plain", &job("fedavg", 3)).await;
    assert_eq!(version, 4, "one round of statistics and three of training");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_stop_and_come_back_change_no_bit() {
    let toml = job("scaffold", 3);
    let (_, expected) = undisturbed("scaffold-plain", &toml).await;
    let mut fleet = Fleet::new("scaffold-stops", toml).await;
    let mut cloud = fleet.cloud(1).await;
    let mut edges = vec![fleet.edge(0).await, fleet.edge(1).await];
    let mut devices = Vec::new();
    for i in 0..DEVICES {
        devices.push(fleet.device(i).await);
    }
    fleet.version(1).await;
    edges.remove(0).stop().await.expect("stops");
    devices.remove(0).stop().await.expect("stops");
    devices.insert(0, fleet.device(0).await);
    fleet.version(2).await;
    cloud.stop().await.expect("stops");
    cloud = fleet.cloud(2).await;
    fleet.version(3).await;
    edges.insert(0, fleet.edge(0).await);
    let (_, model) = fleet.version(4).await;
    assert_eq!(model, expected);
    fleet.finished().await;
    for handle in devices.into_iter().chain(edges).chain([cloud]) {
        handle.stop().await.expect("stops");
    }
    let _ = std::fs::remove_dir_all(&fleet.dir);
}

/// A hospital's firewall: UDP is swallowed, TCP refused, `Auto` finds the way through the proxy by
/// itself, for devices of an edge and for those of the cloud.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_only_a_proxy_lets_out_train_to_the_end() {
    let mut fleet = Fleet::new("proxy", job("fedavg", 1)).await;
    let ((edge_shown, _edge_held), (cloud_shown, _cloud_held)) = (blocked_port(), blocked_port());
    let proxy = ConnectProxy::start(&[(edge_shown, fleet.edges_at[0]), (cloud_shown, fleet.cloud_at)]).await;
    fleet.site = Some(Site { proxy, edge_shown, cloud_shown });
    let (cloud, edge) = (fleet.cloud(1).await, fleet.edge(0).await);
    let mut devices = Vec::new();
    for i in 0..DEVICES {
        let (name, at) = if i % 2 == 0 { ("edge-0", edge_shown) } else { ("cloud", cloud_shown) };
        devices.push(fleet.device_of(i, vec![Peer { id: key(name).id(), address: at.to_string() }]).await);
    }
    assert_eq!(fleet.finished().await, "1 rounds are done");
    let tunnels = fleet.site.as_ref().expect("a site").proxy.tunnels();
    for (shown, reached) in [(edge_shown, "an edge"), (cloud_shown, "the cloud")] {
        let through = tunnels.iter().filter(|target| **target == shown.to_string()).count();
        assert!(through >= usize::from(DEVICES) / 2, "{reached} only through the proxy, got {tunnels:?}");
    }
    for handle in devices.into_iter().chain([edge, cloud]) {
        handle.stop().await.expect("stops");
    }
    let _ = std::fs::remove_dir_all(&fleet.dir);
}
