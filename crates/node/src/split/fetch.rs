//! A machine without a copy of the model's file: it fetches the layers that its head names, and keeps them.
//!
//! A thread of its own asks for them, layer by layer, over the link that the head has dialled for that; where the head's bytes
//! are no good, it dials the stages that the head named. **What is believed?** The head's word which tile a layer is, since the
//! head was let in by its key; of everybody only chunks whose hashes are those of that tile. Which tiles a head named is noted
//! under the head's key and the model's digest, so no head can give another one's model its own layers.
//!
//! What has arrived stays, also after a crash: only chunks that are not here are asked for.

use super::standby::Standby;
use super::tiles::TilesError;
use crate::models::Digest;
use crate::peer::{Greeted, greet};
use crate::store::KeepFault;
use crate::transport::{Address, Transport};
use littoral_tensor::Mapped;
use littoral_wire::pipeline::{Get, Neighbour};
use littoral_wire::{Manifest, NodeId, ObjectId, Pipeline, Wire};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// Chunks that are asked for at a time: 2 MB, what a link of 1 Gbit/s with 16 ms there and back holds.
const IN_FLIGHT: usize = 16;
/// The head has to make a tile first, from a cold disk perhaps.
const TILE: Duration = Duration::from_secs(120);
const CHUNK: Duration = Duration::from_secs(30);
/// For the head to dial.
const SUPPLY: Duration = Duration::from_secs(15);
/// Before a layer is asked for again that did not come; it waits longer each time, up to the second.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Between two lines on how far it is.
const SAY: Duration = Duration::from_secs(5);
/// More layers than any model has here.
const LAYERS_MAX: usize = 4_096;

/// What a head wants this machine to have.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub head: NodeId,
    pub get: Get,
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Told {
    pub head: NodeId,
    pub model: [u8; 32],
    pub layers: BTreeSet<usize>,
    pub why: Option<Lack>,
}

/// Why a layer is not here.
#[derive(Debug)]
pub(super) enum Lack {
    /// It did not come; it is asked for again.
    NotYet(String),
    /// All that is wanted can never be here at once.
    Never(String),
}

impl From<String> for Lack {
    fn from(why: String) -> Self {
        Self::NotYet(why)
    }
}

impl From<TilesError> for Lack {
    fn from(why: TilesError) -> Self {
        Self::NotYet(why.to_string())
    }
}

/// Layers of one model that are here.
#[derive(Default)]
pub(super) struct Held {
    name: Option<(NodeId, [u8; 32])>,
    /// All that are known, also those that are not wanted any more.
    tiles: BTreeMap<usize, ObjectId>,
    /// Those that are wanted, whole and checked; nothing takes their room.
    pinned: BTreeMap<usize, Arc<Mapped>>,
}

impl Held {
    /// The tiles of these layers, if all are known.
    pub fn tiles(&self, model: [u8; 32], layers: impl IntoIterator<Item = usize>) -> Option<Vec<ObjectId>> {
        self.name.filter(|(_, held)| *held == model)?;
        layers.into_iter().map(|layer| self.tiles.get(&layer).copied()).collect()
    }

    /// The tile of some layer that is here.
    pub fn any(&self, model: [u8; 32]) -> Option<ObjectId> {
        self.name.filter(|(_, held)| *held == model)?;
        self.pinned.keys().chain(self.tiles.keys()).find_map(|layer| self.tiles.get(layer).copied())
    }
}

/// The newest link on which a head answers, until it is used.
#[derive(Default)]
struct Slot {
    link: Mutex<Option<Greeted>>,
    came: Notify,
}

/// What the thread is to do.
#[derive(Clone, Default)]
enum Todo {
    #[default]
    Nothing,
    Fetch(Order),
    End,
}

/// The thread that fetches; it ends with this.
pub(super) struct Fetcher {
    todo: watch::Sender<Todo>,
    slot: Arc<Slot>,
    held: Arc<Mutex<Held>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Fetcher {
    /// Must run inside a runtime, which serves the sockets. `told` hears of each layer that came.
    pub fn start(
        standby: Arc<Standby>,
        transport: Arc<dyn Transport>,
        told: impl Fn(Told) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (todo, mut told_to) = watch::channel(Todo::Nothing);
        let (slot, held) = (Arc::<Slot>::default(), Arc::<Mutex<Held>>::default());
        let mut fetching =
            Fetching { standby, transport, told: Box::new(told), slot: slot.clone(), supply: None, held: held.clone() };
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("fetch".into()).spawn(move || {
            runtime.block_on(async {
                while told_to.changed().await.is_ok() {
                    loop {
                        let order = match told_to.borrow_and_update().clone() {
                            Todo::Fetch(order) => order,
                            Todo::Nothing => break,
                            Todo::End => return,
                        };
                        tokio::select! {
                            () = fetching.fulfil(&order) => break,
                            changed = told_to.changed() => if changed.is_err() { return },
                        }
                    }
                }
            });
        })?;
        Ok(Self { todo, slot, held, thread: Mutex::new(Some(thread)) })
    }

    /// Instead of whatever was wanted before.
    pub fn order(&self, order: Order) {
        let _ = self.todo.send(Todo::Fetch(order));
    }

    /// Waits for the thread's end: while the runtime ends it must not wait for anything of it.
    pub async fn end(&self) {
        let _ = self.todo.send(Todo::End);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// A link over which its head answers. An older one that nobody used is hung up.
    pub fn supplied(&self, link: Greeted) {
        *lock(&self.slot.link) = Some(link);
        self.slot.came.notify_one();
    }

    pub fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Fetching {
    standby: Arc<Standby>,
    transport: Arc<dyn Transport>,
    told: Box<dyn Fn(Told) + Send>,
    slot: Arc<Slot>,
    /// A link on which nothing is waited for.
    supply: Option<Greeted>,
    held: Arc<Mutex<Held>>,
}

/// What came of one tile.
#[derive(Default)]
struct Came {
    chunks: u32,
    fetched: u32,
    bytes: u64,
}

impl Fetching {
    async fn fulfil(&mut self, order: &Order) {
        let count: usize = order.get.layers.iter().map(|part| part.end.saturating_sub(part.start) as usize).sum();
        if count > LAYERS_MAX {
            let why = format!("at most {LAYERS_MAX} layers expected, got {count}");
            return self.tell(order, Some(Lack::Never(why)));
        }
        let wanted: Vec<usize> =
            order.get.layers.iter().flat_map(|part| part.start as usize..part.end as usize).collect();
        self.hold(order, &wanted);
        self.tell(order, None);
        let lacking: Vec<usize> =
            wanted.into_iter().filter(|layer| !lock(&self.held).pinned.contains_key(layer)).collect();
        if lacking.is_empty() {
            return;
        }
        tracing::info!("{} of {count} layers are to be fetched", lacking.len());
        let (begun, mut said, mut bytes) = (Instant::now(), Instant::now(), 0);
        for (done, layer) in lacking.iter().enumerate() {
            let mut again = AGAIN;
            let came = loop {
                match self.layer(order, *layer).await {
                    Ok(came) => break came,
                    Err(Lack::Never(why)) => {
                        let why = format!("layer {layer}: {why}");
                        tracing::warn!("what the head wants cannot be here: {why}");
                        return self.tell(order, Some(Lack::Never(why)));
                    }
                    Err(Lack::NotYet(why)) => {
                        if again == AGAIN {
                            tracing::warn!("layer {layer} does not come, and is asked for again and again: {why}");
                            self.tell(order, Some(Lack::NotYet(format!("layer {layer}: {why}"))));
                        }
                        tokio::time::sleep(again).await;
                        again = (2 * again).min(AGAIN_MAX);
                    }
                }
            };
            let Came { chunks, fetched, .. } = came;
            tracing::debug!("layer {layer}: {fetched} of {chunks} chunks fetched, {} were here", chunks - fetched);
            bytes += came.bytes;
            if said.elapsed() > SAY {
                tracing::info!("{} of {} layers fetched, {} MB", done + 1, lacking.len(), bytes / 1_000_000);
                said = Instant::now();
            }
            self.tell(order, None);
        }
        let (mb, took_s) = (bytes as f64 / 1e6, begun.elapsed().as_secs_f64());
        tracing::info!("{} layers fetched: {mb:.1} MB in {took_s:.1} s", lacking.len());
    }

    fn tell(&self, order: &Order, why: Option<Lack>) {
        let layers = lock(&self.held).pinned.keys().copied().collect();
        (self.told)(Told { head: order.head, model: order.get.model, layers, why });
    }

    /// What is here already of what is wanted; the rest may go when room is needed.
    fn hold(&self, order: &Order, wanted: &[usize]) {
        let (name, tiles) = ((order.head, order.get.model), self.standby.tiles());
        let noted = tiles.of_model(&noted(order)).into_iter().enumerate();
        let here: BTreeMap<usize, ObjectId> =
            noted.filter_map(|(layer, object)| Some((layer, object.filter(|object| tiles.has(*object))?))).collect();
        let mut pinned = BTreeMap::new();
        for (layer, object) in wanted.iter().filter_map(|layer| Some((*layer, *here.get(layer)?))) {
            match tiles.open(object) {
                Ok(map) => drop(pinned.insert(layer, map)),
                Err(why) => tracing::warn!("layer {layer} is fetched again: {why}"),
            }
        }
        *lock(&self.held) = Held { name: Some(name), tiles: here, pinned };
    }

    /// One layer, from whoever has it.
    async fn layer(&mut self, order: &Order, layer: usize) -> Result<Came, Lack> {
        let standby = self.standby.clone();
        let tiles = standby.tiles();
        let mut link = self.supply(order.head).await?;
        let manifest = which(&mut link, order.get.model, layer).await?;
        let mut head = Some(link);
        let arrival = tiles.begin(&manifest).map_err(|why| self.lack(why))?;
        let mut missing = arrival.missing()?;
        let mut came = Came { chunks: manifest.chunks(), fetched: missing.len() as u32, ..Came::default() };
        came.bytes = missing.iter().map(|chunk| manifest.chunk_bytes(*chunk) as u64).sum();
        let mut keep = |chunk: u32, bytes: &[u8]| arrival.keep(chunk, bytes);
        let mut refused = Vec::new();
        let others = order.get.sources.iter().map(Some);
        for source in std::iter::once(None).chain(others) {
            if missing.is_empty() {
                break;
            }
            let (name, link) = match source {
                None => ("the head".to_owned(), head.take().ok_or_else(String::new)),
                Some(at) => (at.id.to_string(), self.dial(at).await),
            };
            let pulled = match link {
                Ok(mut link) => pull(&mut link, manifest.id(), &missing, &mut keep).await.map(|()| link),
                Err(why) => Err(why),
            };
            match pulled {
                Ok(link) if source.is_none() => head = Some(link),
                Ok(_) => {}
                Err(why) => refused.push(format!("{name}: {why}")),
            }
            missing = arrival.missing()?;
        }
        // Nothing more is waited for on it.
        self.supply = head;
        let refused = refused.join("; ");
        if !missing.is_empty() {
            return Err(refused.into());
        }
        if !refused.is_empty() {
            tracing::warn!("layer {layer} came from another machine: {refused}");
        }
        self.keep(order, layer, manifest.id())?;
        Ok(came)
    }

    /// A folder in which only wanted layers are, and which is full all the same, is too small.
    fn lack(&self, why: TilesError) -> Lack {
        match &why {
            TilesError::Full { bytes, bytes_max, .. } => {
                let wanted: u64 = lock(&self.held).pinned.values().map(|tile| tile.len() as u64).sum();
                let hint = format!("{why}: start this machine with a greater --standby-mb");
                if wanted + bytes > *bytes_max { Lack::Never(hint) } else { why.into() }
            }
            _ => why.into(),
        }
    }

    /// The tile must be what the head said that it is.
    fn keep(&self, order: &Order, layer: usize, object: ObjectId) -> Result<(), TilesError> {
        let tiles = self.standby.tiles();
        let tile = tiles.tile(object)?;
        let layers = tile.config().layers;
        if tile.index() != layer {
            return Err(TilesError::Layer { layer: tile.index(), layers });
        }
        let map = tiles.open(object)?;
        tiles.note(&noted(order), layer, layers, object)?;
        let mut held = lock(&self.held);
        held.tiles.insert(layer, object);
        held.pinned.insert(layer, map);
        Ok(())
    }

    /// The newest link on which the head answers.
    async fn supply(&mut self, head: NodeId) -> Result<Greeted, String> {
        let comes = async {
            loop {
                let newest = lock(&self.slot.link).take();
                let link = newest.or_else(|| self.supply.take());
                if let Some(link) = link.filter(|link| link.peer == head) {
                    return link;
                }
                self.slot.came.notified().await;
            }
        };
        timeout(SUPPLY, comes).await.map_err(|_| format!("the head did not dial within {SUPPLY:?}"))
    }

    async fn dial(&self, source: &Neighbour) -> Result<Greeted, String> {
        let address: Address = format!("{}@{}", source.id, &*source.at)
            .parse()
            .map_err(|e: crate::transport::TransportError| e.to_string())?;
        greet::dial_for(&*self.transport, &address, Pipeline::Fetch {}).await
    }
}

/// Under which name it is noted which tiles this head's model has.
fn noted(order: &Order) -> Digest {
    let name = blake3::Hasher::new().update(&order.head.0).update(&order.get.model).finalize();
    Digest::of_hash(*name.as_bytes())
}

/// What the head says which tile the layer is.
async fn which(link: &mut Greeted, model: [u8; 32], layer: usize) -> Result<Manifest, String> {
    ask(link, &Pipeline::Which { model, layer: layer as u32 }).await?;
    match hear(link, TILE).await? {
        Pipeline::Tile { model: same, layer: of, manifest } if same == model && of as usize == layer => Ok(manifest),
        Pipeline::Cannot { reason } => Err(format!("the head cannot give it: {reason}")),
        other => Err(format!("its tile expected, got {}", other.name())),
    }
}

/// All these chunks, several on their way at a time.
async fn pull(
    link: &mut Greeted,
    object: ObjectId,
    missing: &[u32],
    keep: &mut impl FnMut(u32, &[u8]) -> Result<(), TilesError>,
) -> Result<(), String> {
    let (mut next, mut waited) = (missing.iter(), BTreeSet::new());
    loop {
        while waited.len() < IN_FLIGHT
            && let Some(chunk) = next.next()
        {
            ask(link, &Pipeline::Want { object, chunk: *chunk }).await?;
            waited.insert(*chunk);
        }
        if waited.is_empty() {
            return Ok(());
        }
        match hear(link, CHUNK).await? {
            Pipeline::Chunk { object: same, chunk, bytes } if same == object && waited.remove(&chunk) => {
                keep(chunk, &bytes).map_err(|e| match e {
                    TilesError::Chunk(KeepFault::Chunk(e)) => format!("it is not to be trusted: {e}"),
                    e => e.to_string(),
                })?;
            }
            Pipeline::Cannot { reason } => return Err(reason.to_string()),
            other => return Err(format!("a chunk that was asked for expected, got {}", other.name())),
        }
    }
}

async fn ask(link: &mut Greeted, said: &Pipeline) -> Result<(), String> {
    let sent = async {
        link.sender.send(said.to_bytes().into()).await?;
        link.sender.flush().await
    };
    sent.await.map_err(|e| e.to_string())
}

async fn hear(link: &mut Greeted, patience: Duration) -> Result<Pipeline, String> {
    let frame = timeout(patience, link.receiver.recv()).await.map_err(|_| format!("no answer within {patience:?}"))?;
    let frame = frame.map_err(|e| e.to_string())?.ok_or("it said goodbye")?;
    Pipeline::from_bytes(&frame).map_err(|e| e.to_string())
}
