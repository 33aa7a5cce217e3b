//! Hosts over real sockets on loopback, with roles that do one thing.

mod host_scratch;

use host_scratch::Scratch;
use littoral_node::host::{self, Handle, HostError, Settings, World};
use littoral_node::job::JobSpec;
use littoral_node::role::fetch::Fetch;
use littoral_node::role::{
    Effect, Event, LinkId, Millis, Peer, Report, Role, Row, RowKey, Table, Timer, WorkId, Write,
};
use littoral_node::store::{FileObjects, Lease, Shard, ShardLease, SqliteStore, Store, StoreError, StoreFuture};
use littoral_node::transport::{Address, Identity, QuicOptions, QuicTransport, TcpOptions, TcpTransport, Transport};
use littoral_node::work::{LocalData, Output, Rows, Work};
use littoral_tensor::quant::KERNELS;
use littoral_wire::hello::{Hello, PROTOCOL};
use littoral_wire::message::Collection;
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{JobId, Message, NodeId, ObjectId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, mpsc};

/// A role that is a function.
struct Scripted<F>(F);

impl<F: FnMut(Millis, Event, &mut Vec<Effect>) + Send> Role for Scripted<F> {
    fn step(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        (self.0)(now, event, effects);
    }

    fn needs(&self, _: ObjectId) -> bool {
        false
    }
}

struct NoData;

impl LocalData for NoData {
    fn rows(&self, _: &JobSpec) -> Result<Rows, String> {
        Err("no data".into())
    }
}

/// Commits take one permit each; what was committed is kept.
struct Gated {
    gate: Semaphore,
    commits: Mutex<Vec<Vec<Write>>>,
    refusal: Option<StoreError>,
}

impl Gated {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self { gate: Semaphore::new(permits), commits: Mutex::default(), refusal: None })
    }
}

impl Store for Gated {
    fn load(&self) -> StoreFuture<'_, Vec<Row>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn commit(&self, writes: Vec<Write>, _: Vec<Lease>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            self.commits.lock().unwrap().push(writes);
            self.refusal.clone().map_or(Ok(()), Err)
        })
    }

    fn acquire<'a>(&'a self, job: JobId, _: &'a str, _: Millis, _: u64, _: bool) -> StoreFuture<'a, Lease> {
        Box::pin(async move { Ok(Lease { job, token: 1, until: u64::MAX }) })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, _: Millis, _: u64) -> StoreFuture<'a, Lease> {
        Box::pin(async { Ok(lease.clone()) })
    }

    fn offer_shards(&self, _: Vec<Shard>, _: Vec<Lease>) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn take_shard<'a>(&'a self, _: &'a str, _: Millis, _: u64) -> StoreFuture<'a, Option<ShardLease>> {
        Box::pin(async { Ok(None) })
    }

    fn renew_shard<'a>(&'a self, lease: &'a ShardLease, _: Millis, _: u64) -> StoreFuture<'a, ShardLease> {
        Box::pin(async { Ok(lease.clone()) })
    }

    fn close_shard<'a>(&'a self, _: &'a ShardLease, _: Manifest) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn shards(&self, _: Collection) -> StoreFuture<'_, Vec<Shard>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn forget_shards(&self, _: JobId, _: Vec<Lease>) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_secret(&[seed; 32])
}

async fn listener(seed: u8) -> Arc<dyn Transport> {
    Arc::new(
        TcpTransport::listen(&identity(seed), "127.0.0.1:0".parse().unwrap(), TcpOptions::default()).await.unwrap(),
    )
}

fn dialler(seed: u8) -> Arc<dyn Transport> {
    Arc::new(TcpTransport::dialler(&identity(seed), TcpOptions::default()).unwrap())
}

fn world(transport: Arc<dyn Transport>, store: Arc<dyn Store>, dir: &Path) -> (World, UnboundedReceiver<String>) {
    let (said, reports) = unbounded_channel();
    let on_report = Arc::new(move |report: Report| {
        if let Report::Warning { what } | Report::Note { what } = report {
            let _ = said.send(what);
        }
    });
    let objects = Arc::new(FileObjects::open(dir).unwrap());
    (World { transport, store, objects, data: Arc::new(NoData), on_report }, reports)
}

fn start(
    role: impl FnMut(Millis, Event, &mut Vec<Effect>) + Send + 'static,
    world: World,
    settings: Settings,
) -> Handle {
    host::start(Box::new(Scripted(role)), world, settings)
}

fn peer_at(handle: &Handle) -> Peer {
    let Address { id, host, port } = handle.addresses().remove(0);
    Peer { id: NodeId(id.0), address: format!("{host}:{port}") }
}

fn note(what: &str) -> Effect {
    Effect::Report(Report::Note { what: what.into() })
}

fn row(version: u64) -> Write {
    Write::Put { key: RowKey { table: Table::Job, job: JobId(1), version, item: vec![] }, value: vec![] }
}

/// What the getting side of the test below tells.
enum Got {
    Kept(u32),
    Cut,
    Whole,
}

/// Serves chunks and hangs up after `chunks` of them, once.
fn serving(chunks: usize, asked: UnboundedSender<(LinkId, u32)>) -> impl FnMut(Millis, Event, &mut Vec<Effect>) + Send {
    let mut left = Some(chunks);
    move |_, event, effects| {
        let Event::Received { link, message: Message::GetChunk { object, index } } = event else { return };
        let _ = asked.send((link, index));
        effects.push(Effect::SendChunk { link, object, index });
        left = left.map(|left| left - 1);
        if left == Some(0) {
            left = None;
            effects.push(Effect::Hangup { link, reason: "the test cuts".into() });
        }
    }
}

/// Fetches an object, and dials again when cut.
fn getting(
    from: Peer,
    manifest: Manifest,
    told: UnboundedSender<Got>,
) -> impl FnMut(Millis, Event, &mut Vec<Effect>) + Send {
    let mut fetch: Option<Fetch> = None;
    move |now, event, effects| match (event, &mut fetch) {
        (Event::Start, _) => effects.push(Effect::Dial(from.clone())),
        (Event::Connected { link, .. }, None) => fetch = Some(Fetch::begin(manifest.clone(), link, 4, effects)),
        (Event::Connected { link, .. }, Some(fetch)) => fetch.resume(now, link, effects),
        (Event::Disconnected { link, .. }, Some(fetch)) => {
            fetch.lost(link);
            let _ = told.send(Got::Cut);
            effects.push(Effect::Dial(from.clone()));
        }
        (Event::Begun { missing, .. }, Some(fetch)) => drop(fetch.begun(now, missing, effects)),
        (Event::Received { message: Message::Chunk { index, bytes, .. }, .. }, Some(fetch)) => {
            fetch.chunk(index, bytes.into_bytes(), effects);
        }
        (Event::Kept { index, fault, .. }, Some(fetch)) => {
            let _ = told.send(Got::Kept(index));
            if fetch.kept(now, index, fault.is_none(), effects) {
                let _ = told.send(Got::Whole);
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_fetched_over_a_cut_and_a_restart() {
    let (here, there) = (Scratch::new("getter"), Scratch::new("server"));
    let bytes: Vec<u8> = (0..5 << 20).map(|i: u32| (i / 253 + i) as u8).collect();
    let manifest = Manifest::of(&bytes).unwrap();
    let (asked, mut asks) = unbounded_channel();
    let (served, _) = world(listener(1).await, Gated::new(0), there.path());
    served.objects.folder().put(&manifest, bytes.clone()).unwrap();
    let server = start(serving(15, asked), served, Settings::default());
    let (told, mut tells) = unbounded_channel();

    // Cut after 15 chunks were asked for; then the getter is stopped when it has 20, and started anew. The server sees
    // three links: one before the cut, one after it, one after the restart.
    let (mut kept, mut kept_before_cut) = (BTreeSet::new(), None);
    let (first, _) = world(dialler(2), Gated::new(0), here.path());
    let getter = start(getting(peer_at(&server), manifest.clone(), told.clone()), first, Settings::default());
    while kept.len() < 20 {
        match tells.recv().await.unwrap() {
            Got::Kept(index) => assert!(kept.insert(index), "chunk {index} came twice"),
            Got::Cut => kept_before_cut = Some(kept.clone()),
            Got::Whole => panic!("too early"),
        }
    }
    getter.stop().await.unwrap();
    while let Ok(tell) = tells.try_recv() {
        if let Got::Kept(index) = tell {
            kept.insert(index);
        }
    }

    let (second, _) = world(dialler(2), Gated::new(0), here.path());
    let objects = second.objects.clone();
    let getter = start(getting(peer_at(&server), manifest.clone(), told), second, Settings::default());
    while !matches!(tells.recv().await.unwrap(), Got::Whole) {}
    let mut asked_on: BTreeMap<LinkId, BTreeSet<u32>> = BTreeMap::new();
    while let Ok((link, index)) = asks.try_recv() {
        assert!(asked_on.entry(link).or_default().insert(index));
    }
    let asked_on: Vec<BTreeSet<u32>> = asked_on.into_values().collect();
    let [before_cut, after_cut, again] = &asked_on[..] else { panic!("{} links", asked_on.len()) };
    assert_eq!(before_cut.len(), 15);
    assert!(after_cut.is_disjoint(&kept_before_cut.unwrap()), "kept before the cut, asked again after it");
    assert!(again.is_disjoint(&kept), "kept before the restart, asked again after it");
    // Up to 4 were being written when the getter was stopped: kept, and not told.
    let (all, known) = (manifest.chunks() as usize, again.len() + kept.len());
    assert!((all - 4..=all).contains(&known), "{known} of {all}");
    let mut read = vec![0; bytes.len()];
    objects.read(manifest.id(), 0, &mut read).unwrap();
    assert!(read == bytes);

    let received = getter.bytes_of(peer_at(&server).id).received as usize;
    assert_eq!(received, getter.bytes_total().received as usize);
    let payload = again.len() * CHUNK_BYTES;
    assert!((payload..payload + payload / 100 + 8_192).contains(&received), "{received} bytes for {payload}");
    getter.stop().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_slow_store_delays_what_stands_behind_it_and_nothing_else() {
    let dir = Scratch::new("barrier");
    let store = Gated::new(0);
    let (world, mut reports) = world(dialler(1), store.clone(), dir.path());
    let (stepped, mut steps) = mpsc::unbounded_channel();
    let role = move |_, event: Event, effects: &mut Vec<Effect>| match event {
        Event::Start => {
            let neighbours = [Effect::Store(vec![row(1)]), Effect::Store(vec![row(2)])];
            effects.push(note("before"));
            effects.extend(neighbours);
            effects.push(note("behind"));
        }
        Event::Timer(_) => {
            effects.push(note("later"));
            stepped.send(()).unwrap();
        }
        _ => {}
    };
    let handle = start(role, world, Settings::default());
    handle.send(Event::Timer(Timer::Tick));
    // The role goes on while the store does not.
    steps.recv().await.unwrap();
    assert_eq!(reports.recv().await.unwrap(), "before");
    assert!(reports.try_recv().is_err(), "an effect overtook the store");
    store.gate.add_permits(1);
    assert_eq!(reports.recv().await.unwrap(), "behind");
    assert_eq!(reports.recv().await.unwrap(), "later");
    assert_eq!(*store.commits.lock().unwrap(), [vec![row(1), row(2)]], "neighbours share a commit");
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_put_is_there_for_what_stands_behind() {
    let dir = Scratch::new("put");
    let store = Arc::new(SqliteStore::open(&dir.path().join("store")).await.unwrap());
    let objects = store.objects();
    let (world, mut reports) = world(dialler(1), store.clone(), dir.path());
    let world = World { objects, ..world };
    let (manifest, id) = {
        let manifest = Manifest::of(&[5; 1_000]).unwrap();
        (manifest.clone(), manifest.id())
    };
    let role = move |_, event: Event, effects: &mut Vec<Effect>| match event {
        Event::Start => {
            effects.push(Effect::Put { manifest: manifest.clone(), bytes: vec![5; 1_000] });
            effects.push(Effect::Store(vec![row(1), Write::Object(id)]));
            effects.push(Effect::Drop(id));
            effects.push(Effect::Begin(manifest.clone()));
        }
        Event::Begun { missing, .. } => effects.push(note(&format!("missing {missing:?}"))),
        _ => {}
    };
    let settings = Settings { holder: Some("cloud".into()), ..Settings::default() };
    let handle = start(role, world, settings);
    assert_eq!(reports.recv().await.unwrap(), "missing [0]");
    handle.stop().await.unwrap();
    assert_eq!(store.load().await.unwrap().len(), 1);
    let taken = store.acquire(JobId(1), "cloud", 0, 1, true).await.unwrap();
    assert_eq!(taken.token, 2, "the row was written under a lease");
}

/// One job drops an object that the work of another one is about to make again.
struct TwoJobs {
    spec: Arc<JobSpec>,
    store: Arc<Gated>,
    /// The object that the job under way refers to.
    held: Option<ObjectId>,
}

impl Role for TwoJobs {
    fn step(&mut self, _: Millis, event: Event, effects: &mut Vec<Effect>) {
        let work = |id| Effect::Work { id: WorkId(id), work: Box::new(Work::Initial { spec: self.spec.clone() }) };
        match event {
            Event::Start => effects.push(work(1)),
            Event::Worked { id: WorkId(1), result: Ok(Output::Initial { model, .. }) } => {
                effects.push(work(2));
                // Not durable before the second work has made the same bytes.
                effects.push(Effect::Store(vec![row(1)]));
                effects.push(Effect::Drop(model.id()));
            }
            Event::Worked { id: WorkId(2), result: Ok(Output::Initial { model, .. }) } => {
                self.held = Some(model.id());
                effects.push(Effect::Load { object: model.id(), index: 0 });
                self.store.gate.add_permits(1);
            }
            Event::Worked { id: WorkId(3), result: Ok(Output::Initial { .. }) } => {
                effects.push(note("made in vain"));
                effects.push(Effect::Store(vec![row(2)]));
                self.store.gate.add_permits(1);
            }
            Event::Loaded { bytes, .. } => {
                effects.push(note(if bytes.is_some() { "here" } else { "gone" }));
                self.held = None;
                effects.push(work(3));
            }
            other => panic!("{other:?}"),
        }
    }

    fn needs(&self, object: ObjectId) -> bool {
        self.held == Some(object)
    }
}

#[tokio::test]
async fn a_drop_takes_nothing_that_is_needed_when_its_turn_comes() {
    let dir = Scratch::new("equal");
    let store = Gated::new(0);
    let (world, mut reports) = world(dialler(1), store.clone(), dir.path());
    let spec = Arc::new(JobSpec::parse(littoral_node::job::SAMPLE_TOML).unwrap());
    let role = Box::new(TwoJobs { spec, store, held: None });
    let handle = host::start(role, world, Settings::default());
    assert_eq!(reports.recv().await.unwrap(), "here");
    assert_eq!(reports.recv().await.unwrap(), "made in vain");
    handle.stop().await.unwrap();
    let left = std::fs::read_dir(dir.path().join("objects")).unwrap().count();
    assert_eq!(left, 0, "what the role does not want goes");
}

/// One step drops the bytes, a later one has made them again and stores them, and before the drop's turn comes nobody needs
/// them any more.
#[tokio::test]
async fn a_drop_takes_nothing_that_a_store_behind_relies_on() {
    let dir = Scratch::new("relied-on");
    let store = Arc::new(SqliteStore::open(&dir.path().join("store")).await.unwrap());
    let objects = store.objects();
    let (world, mut reports) = world(dialler(1), store, dir.path());
    let manifest = Manifest::of(&[5; 1_000]).unwrap();
    let role = move |_, event: Event, effects: &mut Vec<Effect>| {
        if let Event::Start = event {
            effects.push(Effect::Put { manifest: manifest.clone(), bytes: vec![5; 1_000] });
            effects.push(Effect::Drop(manifest.id()));
            effects.push(Effect::Store(vec![Write::Object(manifest.id())]));
            effects.push(note("stored"));
        }
    };
    let handle = start(role, World { objects, ..world }, Settings::default());
    assert_eq!(reports.recv().await.as_deref(), Some("stored"));
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn stop_performs_what_is_queued() {
    let (here, there) = (Scratch::new("stop"), Scratch::new("stop"));
    let (heard, mut hears) = unbounded_channel();
    let listening = move |_: Millis, event: Event, _: &mut Vec<Effect>| match event {
        Event::Received { message, .. } => heard.send(message.name().to_owned()).unwrap(),
        Event::Disconnected { reason, .. } => heard.send(reason).unwrap(),
        _ => {}
    };
    let (other, _) = world(listener(1).await, Gated::new(0), there.path());
    let other = start(listening, other, Settings::default());
    let store = Gated::new(9);
    let (world, mut reports) = world(dialler(2), store.clone(), here.path());
    let mut up = None;
    let to = peer_at(&other);
    let role = move |_, event: Event, effects: &mut Vec<Effect>| match event {
        Event::Start => effects.push(Effect::Dial(to.clone())),
        Event::Connected { link, .. } => {
            up = Some(link);
            effects.push(note("up"));
        }
        Event::Timer(_) => {
            effects.push(Effect::Store(vec![row(1)]));
            effects.push(Effect::Send { link: up.unwrap(), message: Message::Ping { nonce: 1 } });
        }
        _ => {}
    };
    let handle = start(role, world, Settings::default());
    assert_eq!(reports.recv().await.unwrap(), "up");
    handle.send(Event::Timer(Timer::Tick));
    handle.stop().await.unwrap();
    assert_eq!(store.commits.lock().unwrap().len(), 1);
    assert_eq!(hears.recv().await.unwrap(), "Ping");
    assert!(hears.recv().await.unwrap().contains("this machine stops"));
    other.stop().await.unwrap();
}

#[tokio::test]
async fn a_fenced_host_ends_and_does_nothing_more() {
    let dir = Scratch::new("fenced");
    let fenced = StoreError::Fenced { job: JobId(1), ours: 1, current: 2 };
    let store = Arc::new(Gated { refusal: Some(fenced.clone()), gate: Semaphore::new(9), commits: Mutex::default() });
    let (world, mut reports) = world(dialler(1), store, dir.path());
    let role = |_, event: Event, effects: &mut Vec<Effect>| {
        if matches!(event, Event::Start) {
            effects.push(Effect::Store(vec![row(1)]));
            effects.push(note("done although fenced"));
        }
    };
    let mut handle = start(role, world, Settings::default());
    let ended = handle.ended().await;
    assert!(matches!(&ended, Err(HostError::Store(e)) if *e == fenced), "{ended:?}");
    assert!(reports.try_recv().is_err());
}

fn silent(_: Millis, _: Event, _: &mut Vec<Effect>) {}

/// A listener and a dialler, over TCP and over QUIC.
async fn both_ways() -> [(Arc<dyn Transport>, Arc<dyn Transport>); 2] {
    let at = "127.0.0.1:0".parse().unwrap();
    let (listens, dials) = (
        QuicTransport::listen(&identity(1), at, QuicOptions::default()).await.unwrap(),
        QuicTransport::dialler(&identity(2), Some(at), QuicOptions::default()).await.unwrap(),
    );
    [(listener(1).await, dialler(2)), (Arc::new(listens), Arc::new(dials))]
}

#[tokio::test]
async fn an_old_client_and_a_new_server_name_both_versions() {
    for (listener, dialler) in both_ways().await {
        let dir = Scratch::new("versions");
        let (world, mut reports) = world(listener, Gated::new(0), dir.path());
        let handle = start(silent, world, Settings::default());
        let connection = dialler.connect(&handle.addresses()[0]).await.unwrap();
        let (mut sender, mut receiver) = connection.split();
        sender
            .send(Hello { protocol: 0, software: "littoral 0.0.9".into(), kernels: "".into() }.encode().into())
            .await
            .unwrap();
        sender.flush().await.unwrap();
        assert!(receiver.recv().await.unwrap().is_some(), "its hello");
        let goodbye = receiver.recv().await.unwrap_err().to_string();
        let theirs = reports.recv().await.unwrap();
        for text in [goodbye, theirs] {
            assert!(
                text.contains(&format!("speaks {PROTOCOL}")) && text.contains("(littoral 0.0.9) speaks 0"),
                "{text}"
            );
        }
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_new_client_of_an_old_server_names_both_versions() {
    for (listener, dialler) in both_ways().await {
        let dir = Scratch::new("versions");
        let (world, mut reports) = world(dialler, Gated::new(0), dir.path());
        let Address { id, host, port } = listener.local_addresses().remove(0);
        let role = move |_, event: Event, effects: &mut Vec<Effect>| match event {
            Event::Start => effects.push(Effect::Dial(Peer { id, address: format!("{host}:{port}") })),
            Event::DialFailed { reason, .. } => effects.push(note(&reason)),
            _ => {}
        };
        let handle = start(role, world, Settings::default());
        let (mut sender, mut receiver) = listener.accept().await.unwrap().split();
        sender
            .send(Hello { protocol: 0, software: "littoral 0.0.9".into(), kernels: "".into() }.encode().into())
            .await
            .unwrap();
        sender.flush().await.unwrap();
        assert!(receiver.recv().await.unwrap().is_some(), "its hello");
        for text in [receiver.recv().await.unwrap_err().to_string(), reports.recv().await.unwrap()] {
            assert!(
                text.contains(&format!("speaks {PROTOCOL}")) && text.contains("(littoral 0.0.9) speaks 0"),
                "{text}"
            );
        }
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_sends_no_message_is_cut_off_with_the_reason() {
    let dir = Scratch::new("garbage");
    let (world, mut reports) = world(listener(1).await, Gated::new(0), dir.path());
    let handle = start(silent, world, Settings::default());
    let connection = dialler(2).connect(&handle.addresses()[0]).await.unwrap();
    let (mut sender, mut receiver) = connection.split();
    sender.send(Hello::new("x", KERNELS).encode().into()).await.unwrap();
    sender.send(vec![0xff; 9].into()).await.unwrap();
    sender.flush().await.unwrap();
    assert!(receiver.recv().await.unwrap().is_some(), "its hello");
    assert!(receiver.recv().await.unwrap_err().to_string().contains("255 is not one of the known values"));
    assert!(reports.recv().await.unwrap().contains("255 is not one of the known values"));
    handle.stop().await.unwrap();
}

/// It may train: sums do not depend on it. But who plans exact work can see why there is none.
#[tokio::test]
async fn a_peer_with_other_kernels_is_let_in_and_named() {
    let dir = Scratch::new("kernels");
    let (world, mut reports) = world(listener(1).await, Gated::new(0), dir.path());
    let role = |_, event: Event, effects: &mut Vec<Effect>| {
        if let Event::Connected { kernels, .. } = event {
            effects.push(note(&format!("let in with {kernels}")));
        }
    };
    let handle = start(role, world, Settings::default());
    let connection = dialler(2).connect(&handle.addresses()[0]).await.unwrap();
    let (mut sender, mut receiver) = connection.split();
    sender.send(Hello::new("x", "kernels-of-mars").encode().into()).await.unwrap();
    sender.flush().await.unwrap();
    let hello = receiver.recv().await.unwrap().unwrap();
    assert_eq!(&*Hello::decode(&hello).unwrap().kernels, KERNELS);
    let told = reports.recv().await.unwrap();
    let expected = format!("has kernels kernels-of-mars, this machine {KERNELS}: no exact work between them");
    assert!(told.ends_with(&expected), "{told}");
    assert_eq!(reports.recv().await.unwrap(), "let in with kernels-of-mars");
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_silent_stranger_is_dropped_after_a_while() {
    let dir = Scratch::new("silent");
    let (world, mut reports) = world(listener(1).await, Gated::new(0), dir.path());
    let handle = start(silent, world, Settings { hello_timeout_ms: 50, ..Settings::default() });
    let _connection = dialler(2).connect(&handle.addresses()[0]).await.unwrap();
    assert!(reports.recv().await.unwrap().contains("no hello within 50 ms"));
    handle.stop().await.unwrap();
}

/// Dials and says hello; the rest is up to the test.
async fn greeted(seed: u8, handle: &Handle) -> littoral_node::transport::FrameReceiver {
    let connection = dialler(seed).connect(&handle.addresses()[0]).await.unwrap();
    let (mut sender, receiver) = connection.split();
    sender.send(Hello::new("x", KERNELS).encode().into()).await.unwrap();
    sender.flush().await.unwrap();
    // Dropping it would cut the link.
    std::mem::forget(sender);
    receiver
}

#[tokio::test]
async fn one_link_too_many_is_refused_and_a_peers_newest_counts() {
    let dir = Scratch::new("limits");
    let (world, mut reports) = world(listener(1).await, Gated::new(0), dir.path());
    let role = |_, event: Event, effects: &mut Vec<Effect>| match event {
        Event::Connected { link, .. } => effects.push(note(&format!("up {link:?}"))),
        Event::Disconnected { link, reason } => effects.push(note(&format!("down {link:?}: {reason}"))),
        _ => {}
    };
    let handle = start(role, world, Settings { links_max: 2, links_per_peer_max: 1, ..Settings::default() });
    let mut first = greeted(2, &handle).await;
    assert!(reports.recv().await.unwrap().starts_with("up"));
    let _newer = greeted(2, &handle).await;
    let said = [reports.recv().await.unwrap(), reports.recv().await.unwrap()];
    assert!(said[0].contains("replaced by a newer connection") && said[1].starts_with("up"), "{said:?}");
    assert!(first.recv().await.unwrap().is_some(), "its hello");
    assert!(first.recv().await.unwrap_err().to_string().contains("replaced"));

    // The replaced link's place is free once its goodbye has left.
    let mut others = Vec::new();
    let mut refused = None;
    for seed in 3..9 {
        let mut receiver = greeted(seed, &handle).await;
        match receiver.recv().await {
            Ok(_) => others.push(receiver),
            Err(e) => refused = refused.or(Some(e.to_string())),
        }
    }
    assert_eq!(others.len(), 1);
    assert!(refused.unwrap().contains("already has its 2 links"));
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_link_that_takes_nothing_is_dropped() {
    let dir = Scratch::new("overflow");
    let (world, mut reports) = world(listener(1).await, Gated::new(0), dir.path());
    // More than the sockets' buffers hold goes to a peer that reads nothing.
    let role = |_, event: Event, effects: &mut Vec<Effect>| match event {
        Event::Connected { link, .. } => {
            let bytes = littoral_wire::Blob::new(vec![0; CHUNK_BYTES]).unwrap();
            let message = Message::Chunk { object: ObjectId([0; 32]), index: 0, bytes };
            effects.extend((0..256).map(|_| Effect::Send { link, message: message.clone() }));
        }
        Event::Disconnected { reason, .. } => effects.push(note(&reason)),
        _ => {}
    };
    let handle = start(role, world, Settings { queue_bytes_max: 2 << 20, ..Settings::default() });
    let _peer = greeted(2, &handle).await;
    assert!(reports.recv().await.unwrap().contains("bytes wait to be sent, at most 2097152 may"));
    assert!(reports.recv().await.unwrap().contains("bytes wait to be sent"));
    handle.stop().await.unwrap();

    // And one that stalls without filling the queue.
    let dir = Scratch::new("stall");
    let (world, mut reports) = self::world(listener(1).await, Gated::new(0), dir.path());
    let role = |_, event: Event, effects: &mut Vec<Effect>| match event {
        Event::Connected { link, .. } => {
            let bytes = littoral_wire::Blob::new(vec![0; CHUNK_BYTES]).unwrap();
            let message = Message::Chunk { object: ObjectId([0; 32]), index: 0, bytes };
            effects.extend((0..256).map(|_| Effect::Send { link, message: message.clone() }));
        }
        Event::Disconnected { reason, .. } => effects.push(note(&reason)),
        _ => {}
    };
    let handle = start(role, world, Settings { stall_ms: 100, ..Settings::default() });
    let _peer = greeted(2, &handle).await;
    assert!(reports.recv().await.unwrap().contains("the peer took no byte for 100ms"));
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn timers_run_out_in_order_and_time_does_not_go_back() {
    let dir = Scratch::new("timers");
    let (world, mut reports) = world(dialler(1), Gated::new(0), dir.path());
    let mut last = 0;
    let role = move |now: Millis, event: Event, effects: &mut Vec<Effect>| {
        assert!(now >= last);
        last = now;
        match event {
            Event::Start => {
                effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + 1 });
                effects.push(Effect::SetTimer { timer: Timer::Redial, at: now + 20 });
                effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + 40 });
            }
            Event::Timer(timer) => effects.push(note(&format!("{timer:?}"))),
            _ => {}
        }
    };
    let handle = start(role, world, Settings::default());
    assert_eq!(reports.recv().await.unwrap(), "Redial");
    assert_eq!(reports.recv().await.unwrap(), "Tick");
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_dial_that_fails_says_why() {
    let dir = Scratch::new("dial");
    let (world, mut reports) = world(dialler(1), Gated::new(0), dir.path());
    let role = |_, event: Event, effects: &mut Vec<Effect>| match event {
        Event::Start => {
            let id = NodeId(identity(2).id().0);
            effects.extend(["no port", "127.0.0.1:1"].map(|at| Effect::Dial(Peer { id, address: at.into() })));
        }
        Event::DialFailed { peer, reason } => effects.push(note(&format!("{}: {reason}", peer.address))),
        _ => {}
    };
    let handle = start(role, world, Settings::default());
    let mut said = [reports.recv().await.unwrap(), reports.recv().await.unwrap()];
    said.sort();
    assert!(said[0].starts_with("127.0.0.1:1: ") && said[1].contains("hex-id@host:port"), "{said:?}");
    handle.stop().await.unwrap();
}
