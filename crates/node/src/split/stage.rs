//! A machine that lends its layers: it listens, and does what the heads say that it lets in.
//!
//! One head at a time has it. Layers come from files that are here, or are fetched; what they compute stays in memory and goes
//! when the head goes.

use super::disk;
use super::door::{Door, Progress};
use super::fetch::{Fetcher, Lack, Order, Told};
use super::packed::Stamp;
use super::rates::Rates;
use super::standby::Standby;
use super::supply::{self, Source};
use super::survey::Asked;
use crate::peer::{self, Greeted, greet};
use crate::transport::{Address, Transport, TransportError};
use littoral_infer::model::Model;
use littoral_infer::split::lender::{self, Act, Lender};
use littoral_model::lm::{Config, Stage};
use littoral_tensor::Mapped;
use littoral_tensor::pool::Pool;
use littoral_wire::message::{Name, Reason};
use littoral_wire::pipeline::{Neighbour, Offer, Profile};
use littoral_wire::{List, NodeId, Pipeline};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

type Link = peer::Link<Pipeline>;

/// To reach the next machine, which may be just starting.
const JOINING: Duration = Duration::from_secs(5);

pub struct Settings {
    pub name: String,
    /// Heads that may use this machine.
    pub allowed: Vec<NodeId>,
    /// Files of models by their BLAKE3.
    pub models: BTreeMap<[u8; 32], PathBuf>,
    /// Layers that are packed beforehand, or fetched; `None`: they are packed when they are wanted.
    pub standby: Option<Arc<Standby>>,
    /// What it sends is kept up to so many bytes.
    pub log_bytes_max: usize,
    /// Each thread that computes has a processor of its own.
    pub pin: bool,
    /// Told to heads, for their plans.
    pub memory_bytes: u64,
    /// The same: for layers that are packed beforehand.
    pub disk_free_bytes: u64,
    /// The same: processes that say the same share cores; zeros: nobody knows.
    pub host: [u8; 16],
}

/// What the thread with the layers hears.
pub(super) enum Input {
    /// A head's link is up; links are numbered.
    Head {
        number: u64,
        link: Link,
        place: OwnedSemaphorePermit,
    },
    Heard {
        number: u64,
        said: Result<Pipeline, String>,
        place: peer::Place,
    },
    /// Another stage is here.
    Before {
        number: u64,
        greeted: Greeted,
        place: OwnedSemaphorePermit,
    },
    Next {
        number: u64,
        epoch: u32,
        link: Result<Link, String>,
    },
    /// A head that is let in measures this machine.
    Survey {
        peer: NodeId,
        asked: Asked,
    },
    /// The head answers on this link.
    Supply(Greeted, OwnedSemaphorePermit),
    /// A stage asks for tiles; its place is held as long as it does.
    Fetch(Greeted, OwnedSemaphorePermit),
    Fetched(Told),
}

/// Serves until `stop`.
pub async fn run(
    transport: Arc<dyn Transport>,
    settings: Settings,
    pool: Pool,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let (inputs, incoming) = mpsc::channel();
    let progress = Arc::new(Progress::default());
    let settings = Arc::new(settings);
    let fetcher = match settings.standby.clone() {
        None => None,
        Some(standby) => {
            let told = inputs.clone();
            let fetcher =
                Fetcher::start(standby, transport.clone(), move |said| drop(told.send(Input::Fetched(said))))?;
            Some(Arc::new(fetcher))
        }
    };
    let at = transport.local_addresses().first().map(|address| address.host_port().unwrap_or_default());
    let layers = Layers {
        settings: settings.clone(),
        pool,
        progress: progress.clone(),
        transport: transport.clone(),
        runtime: tokio::runtime::Handle::current(),
        inputs: inputs.clone(),
        links: BTreeMap::new(),
        waiting: BTreeMap::new(),
        dialled: 0,
        lender: Lender::new(settings.log_bytes_max),
        files: Files { settings: settings.clone(), stamps: stamps(&settings), fetcher: fetcher.clone(), open: None },
        fetcher: fetcher.clone(),
        sent_away: None,
        begun: Instant::now(),
        at: at.unwrap_or_default(),
    };
    std::thread::Builder::new().name("layers".into()).spawn(move || layers.work(&incoming))?;
    let door = Door::new(settings, progress, inputs);
    let accepting = tokio::spawn(door.accept(transport.clone()));
    stop.await;
    accepting.abort();
    if let Some(fetcher) = fetcher {
        fetcher.end().await;
    }
    transport.close().await;
    Ok(())
}

/// Files of models, of which one is mapped in, and layers that were fetched.
struct Files {
    settings: Arc<Settings>,
    /// As they were when they were hashed, or soon after.
    stamps: BTreeMap<PathBuf, Stamp>,
    fetcher: Option<Arc<Fetcher>>,
    open: Option<Open>,
}

/// What layers are loaded from.
enum Open {
    File(PathBuf, Mapped),
    Fetched([u8; 32]),
}

fn stamps(settings: &Settings) -> BTreeMap<PathBuf, Stamp> {
    let stamp = |path: &PathBuf| Some((path.clone(), Stamp::of(&std::fs::metadata(path).ok()?)));
    settings.models.values().filter_map(stamp).collect()
}

impl Files {
    /// With layers of the model, if its file is here.
    fn rates(&self, model: &[u8; 32], pool: &Pool) -> Result<Rates, String> {
        let memory_bytes = self.settings.memory_bytes;
        let Some(path) = self.settings.models.get(model) else {
            return Rates::of_matrix(memory_bytes, pool).map_err(|e| e.to_string());
        };
        let bytes = std::fs::File::open(path).and_then(|file| Mapped::new(&file));
        let bytes = bytes.map_err(|e| format!("{}: {e}", path.display()))?;
        let disk_read_bytes_per_s = disk::read_bytes_per_s(path).unwrap_or_default();
        let rates = Rates::of_layers(&bytes, memory_bytes, pool).map_err(|e| e.to_string())?;
        Ok(Rates { disk_read_bytes_per_s, ..rates })
    }
}

impl lender::Layers for Files {
    fn open(&mut self, model: [u8; 32]) -> Result<Config, String> {
        let Some(path) = self.settings.models.get(&model) else {
            let config = self.fetched(model)?;
            self.open = Some(Open::Fetched(model));
            return Ok(config);
        };
        let file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let stamp = file.metadata().map(|metadata| Stamp::of(&metadata)).map_err(|e| e.to_string())?;
        if self.stamps.get(path).is_some_and(|before| *before != stamp) {
            return Err(format!("{} is another file than when this stage was started: start it anew", path.display()));
        }
        let bytes = Mapped::new(&file).map_err(|e| format!("{}: {e}", path.display()))?;
        let config = Model::config(&bytes).map_err(|e| e.to_string())?;
        self.open = Some(Open::File(path.clone(), bytes));
        Ok(config)
    }

    fn load(&mut self, ranges: Vec<Range<usize>>, pool: &Pool) -> Result<Vec<Arc<Stage>>, String> {
        let (path, bytes) = match self.open.as_ref().ok_or("no model is open")? {
            Open::File(path, bytes) => (path, bytes),
            Open::Fetched(model) => return self.load_fetched(*model, ranges),
        };
        let standby = self.settings.standby.as_ref();
        if let (Some(standby), Some(own)) = (standby, ranges.first()) {
            standby.prepare(path, own.clone());
        }
        let load = |range: Range<usize>| {
            match standby.and_then(|standby| standby.mapped(path, &range)) {
                Some(Ok(stage)) => return Ok(Arc::new(stage)),
                Some(Err(why)) => tracing::warn!("layers {range:?} are not mapped in but packed: {why}"),
                None => {}
            }
            Model::load_layers(bytes, range, pool).map(Arc::new).map_err(|e| e.to_string())
        };
        ranges.into_iter().map(load).collect()
    }
}

impl Files {
    /// The numbers of a model of which layers were fetched.
    fn fetched(&self, model: [u8; 32]) -> Result<Config, String> {
        let any = self.fetcher.as_ref().and_then(|fetcher| fetcher.held().any(model));
        let (Some(object), Some(standby)) = (any, &self.settings.standby) else {
            return Err("this machine has neither the model's file nor layers of it".into());
        };
        standby.tiles().tile(object).map(|tile| tile.config().clone()).map_err(|e| e.to_string())
    }

    fn load_fetched(&self, model: [u8; 32], ranges: Vec<Range<usize>>) -> Result<Vec<Arc<Stage>>, String> {
        let load = |range: Range<usize>| {
            let tiles = self.fetcher.as_ref().and_then(|fetcher| fetcher.held().tiles(model, range.clone()));
            let (Some(objects), Some(standby)) = (tiles, &self.settings.standby) else {
                return Err(format!("layers {range:?} are not all here"));
            };
            standby.tiles().loaded(range, &objects).map(Arc::new).map_err(|e| e.to_string())
        };
        ranges.into_iter().map(load).collect()
    }
}

/// Numbers of links that were dialled here begin with this; those that came in count from 0.
const DIALLED: u64 = 1 << 63;

/// The thread with the layers.
struct Layers {
    settings: Arc<Settings>,
    pool: Pool,
    progress: Arc<Progress>,
    transport: Arc<dyn Transport>,
    runtime: tokio::runtime::Handle,
    inputs: mpsc::Sender<Input>,
    links: BTreeMap<u64, Link>,
    /// Stages that nobody named yet: not a byte is read of them.
    waiting: BTreeMap<u64, Greeted>,
    dialled: u64,
    lender: Lender,
    files: Files,
    fetcher: Option<Arc<Fetcher>>,
    /// The last head that was not let in.
    sent_away: Option<NodeId>,
    begun: Instant,
    at: String,
}

impl Layers {
    fn work(mut self, incoming: &mpsc::Receiver<Input>) {
        if self.settings.pin {
            self.pool.pin();
        }
        while let Ok(input) = incoming.recv() {
            self.hear(input);
            let (epoch, done) = self.lender.progress();
            self.progress.epoch.store(epoch, Relaxed);
            self.progress.done.store(done, Relaxed);
            // What is performed may lead to more.
            loop {
                let acts = self.lender.acts();
                if acts.is_empty() {
                    break;
                }
                acts.into_iter().for_each(|act| self.perform(act));
            }
        }
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Head { number, link, place: _place } => {
                let peer = link.peer;
                match self.lender.head().filter(|head| *head != peer) {
                    None => {
                        self.sent_away = None;
                        tracing::info!("head {peer} is here");
                    }
                    // It comes again and again; that is told once.
                    Some(head) if self.sent_away.replace(peer) != Some(peer) => {
                        tracing::info!("head {peer} is sent away: {head} has this machine");
                    }
                    Some(_) => {}
                }
                self.lender.head_up(number, link.peer, self.offer());
                link.listen();
                self.links.insert(number, link);
            }
            Input::Before { number, greeted, place: _place } => {
                let peer = greeted.peer;
                self.waiting.insert(number, greeted);
                self.lender.joined(number, peer);
            }
            Input::Heard { number, said: Ok(said), place: _place } => {
                let begun = self.begun;
                let mut now_us = || begun.elapsed().as_micros() as u64;
                self.lender.hear(number, said, &mut self.files, &self.pool, &mut now_us);
            }
            Input::Heard { number, said: Err(why), .. } => {
                if let Some(link) = self.links.remove(&number) {
                    tracing::info!("{} is gone: {why}", link.peer);
                }
                self.lender.down(number);
            }
            Input::Next { number, epoch, link } => {
                let next = link.map(|link| {
                    let peer = link.peer;
                    link.listen();
                    self.links.insert(number, link);
                    (number, peer)
                });
                self.lender.next_up(epoch, next);
            }
            // Who asked may have gone: nobody is to be measured for nobody.
            Input::Survey { asked, .. } if asked.answer.is_closed() => {}
            Input::Survey { peer, asked } => drop(asked.answer.send(self.profile(peer, asked.model))),
            Input::Supply(greeted, _place) => {
                // A head that does not have this machine has nothing to answer.
                let own = self.lender.head() == Some(greeted.peer);
                if let Some(fetcher) = self.fetcher.as_ref().filter(|_| own) {
                    fetcher.supplied(greeted);
                }
            }
            Input::Fetch(greeted, place) => self.answer(greeted, place),
            Input::Fetched(Told { head, model, layers, why }) => match why {
                Some(Lack::Never(why)) => self.lender.cannot_fetch(head, why),
                Some(Lack::NotYet(why)) => self.lender.fetched(head, model, &layers, Some(why)),
                None => self.lender.fetched(head, model, &layers, None),
            },
        }
    }

    /// What it measures of itself, unless a head has it.
    fn profile(&self, peer: NodeId, model: [u8; 32]) -> Pipeline {
        if let Some(head) = self.lender.head() {
            // To compute something else would hold up its text.
            let whose =
                if head == peer { "this head has this machine already" } else { "another head has this machine" };
            return Pipeline::Refused { epoch: 0, reason: whose.into() };
        }
        let settings = &self.settings;
        match self.files.rates(&model, &self.pool) {
            Ok(Rates { read_bytes_per_s, prefill_flops_per_s, timed_bytes, disk_read_bytes_per_s }) => {
                Pipeline::Profiled {
                    profile: Profile {
                        name: Name::new(settings.name.clone()),
                        host: settings.host,
                        memory_bytes: settings.memory_bytes,
                        disk_free_bytes: settings.disk_free_bytes,
                        disk_read_bytes_per_s,
                        read_bytes_per_s,
                        prefill_flops_per_s,
                        timed_bytes,
                    },
                }
            }
            Err(why) => Pipeline::Refused { epoch: 0, reason: Reason::new(why) },
        }
    }

    /// A stage asks for tiles, over a link of its own.
    fn answer(&self, greeted: Greeted, place: OwnedSemaphorePermit) {
        let named = self.lender.shares_with(greeted.peer);
        let (Some(standby), true) = (&self.settings.standby, named) else {
            return tracing::info!("{} gets no layers from here: the head did not name it", greeted.peer);
        };
        let source: Arc<dyn Source> = standby.clone();
        self.runtime.spawn(async move {
            supply::answer(greeted, &source).await;
            drop(place);
        });
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Tell { link, said } => {
                // Before any epoch a head was sent away.
                if let Pipeline::Refused { epoch: epoch @ 1.., reason } = &said {
                    tracing::warn!("epoch {epoch}: {reason}");
                }
                // A link that is down says so itself.
                if let Some(link) = self.links.get(&link) {
                    link.send(&said);
                }
            }
            Act::HangUp { link } => {
                self.links.remove(&link);
                self.waiting.remove(&link);
            }
            Act::Listen { link } => {
                let Some(greeted) = self.waiting.remove(&link) else { return };
                let (_runtime, heard) = (self.runtime.enter(), self.inputs.clone());
                let number = link;
                let link =
                    Link::spawn(greeted, move |said, place| drop(heard.send(Input::Heard { number, said, place })));
                link.listen();
                self.links.insert(number, link);
            }
            Act::Fetch { head, get } => match &self.fetcher {
                Some(fetcher) => fetcher.order(Order { head, get }),
                None => {
                    let why = "it has no folder for layers: start it with --standby-mb".to_owned();
                    tracing::warn!("head {head} wants layers of a model that is not here: {why}");
                    self.lender.cannot_fetch(head, why);
                }
            },
            Act::Dial { epoch, to } => {
                let (transport, inputs, number) = (self.transport.clone(), self.inputs.clone(), DIALLED + self.dialled);
                self.dialled += 1;
                self.runtime.spawn(async move {
                    let link = join(&*transport, epoch, number, &to, &inputs).await;
                    let _ = inputs.send(Input::Next { number, epoch, link });
                });
            }
        }
    }

    fn offer(&self) -> Offer {
        let settings = &self.settings;
        let models = settings.models.keys().copied().collect();
        Offer {
            name: Name::new(settings.name.clone()),
            memory_bytes: settings.memory_bytes,
            threads: self.pool.threads() as u16,
            at: self.at.as_str().into(),
            models: List::new(models).unwrap_or_default(),
        }
    }
}

async fn join(
    transport: &dyn Transport,
    epoch: u32,
    number: u64,
    next: &Neighbour,
    inputs: &mpsc::Sender<Input>,
) -> Result<Link, String> {
    let address: Address = format!("{}@{}", next.id, &*next.at).parse().map_err(|e: TransportError| e.to_string())?;
    let dialled = tokio::time::timeout(JOINING, greet::dial_for(transport, &address, Pipeline::Join { epoch })).await;
    let greeted = dialled.map_err(|_| format!("no answer from {address} within {JOINING:?}"))??;
    let heard = inputs.clone();
    Ok(Link::spawn(greeted, move |said, place| {
        // What it says is nothing to us, but for that it is gone.
        if said.is_err() {
            let _ = heard.send(Input::Heard { number, said, place });
        }
    }))
}
