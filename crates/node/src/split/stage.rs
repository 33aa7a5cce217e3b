//! A machine that lends its layers: it listens, and does what the heads say that it lets in.
//!
//! One head at a time has it. Layers come from files that are here; what they compute stays in memory and goes when the
//! head goes.

use crate::peer::{self, Greeted, greet};
use crate::transport::{Address, Transport, TransportError};
use littoral_infer::model::{Model, ModelError};
use littoral_infer::split::worker::{To, Worker};
use littoral_model::lm::Stage;
use littoral_tensor::Mapped;
use littoral_tensor::pool::Pool;
use littoral_wire::message::{Name, Reason};
use littoral_wire::pipeline::{Assign, Neighbour, Offer};
use littoral_wire::{List, NodeId, Pipeline, Wire};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

type Link = peer::Link<Pipeline>;

/// To reach the next machine, which may be just starting.
const JOINING: Duration = Duration::from_secs(5);

pub struct Settings {
    pub name: String,
    /// Heads that may use this machine.
    pub allowed: Vec<NodeId>,
    /// Files of models by their BLAKE3.
    pub models: BTreeMap<[u8; 32], PathBuf>,
    /// What it sends is kept up to so many bytes.
    pub log_bytes_max: usize,
    /// Each thread that computes has a processor of its own.
    pub pin: bool,
    /// Told to heads, for their plans.
    pub memory_bytes: u64,
}

/// How far it is, for beats.
#[derive(Default)]
struct Progress {
    epoch: AtomicU32,
    done: AtomicU64,
}

/// What the thread with the layers hears.
enum Input {
    /// A head's link is up; links are numbered.
    Head {
        number: u64,
        link: Link,
    },
    Heard {
        number: u64,
        said: Result<Pipeline, String>,
    },
    /// Another stage is here, and what it says once it is listened to.
    Before {
        number: u64,
        greeted: Greeted,
    },
    BeforeHeard {
        number: u64,
        said: Result<Pipeline, String>,
    },
    Next {
        epoch: u32,
        link: Result<Link, String>,
    },
    NextDown {
        why: String,
    },
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
    let at = transport.local_addresses().first().map(|address| address.host_port().unwrap_or_default());
    let layers = Layers {
        settings: settings.clone(),
        pool,
        progress: progress.clone(),
        transport: transport.clone(),
        runtime: tokio::runtime::Handle::current(),
        inputs: inputs.clone(),
        head: None,
        before: None,
        waiting_before: BTreeMap::new(),
        next: None,
        model: None,
        forming: None,
        begun: Instant::now(),
        at: at.unwrap_or_default(),
    };
    std::thread::Builder::new().name("layers".into()).spawn(move || layers.work(&incoming))?;
    let accepting = tokio::spawn(accept(transport.clone(), settings, progress, inputs));
    stop.await;
    accepting.abort();
    transport.close().await;
    Ok(())
}

async fn accept(
    transport: Arc<dyn Transport>,
    settings: Arc<Settings>,
    progress: Arc<Progress>,
    inputs: mpsc::Sender<Input>,
) {
    greet::accept(&*transport, move |number, connection, place| {
        let (settings, progress, inputs) = (settings.clone(), progress.clone(), inputs.clone());
        tokio::spawn(async move {
            let (_place, peer) = (place, connection.peer());
            if let Err(why) = welcome(connection, number, &settings, &progress, &inputs).await {
                tracing::info!("{peer} was not let in: {why}");
            }
        });
    })
    .await;
}

async fn welcome(
    connection: crate::transport::Connection,
    number: u64,
    settings: &Settings,
    progress: &Arc<Progress>,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), String> {
    let mut greeted = greet::greet(connection).await?;
    let allowed = settings.allowed.contains(&greeted.peer);
    let heard = inputs.clone();
    match greet::first(&mut greeted).await? {
        Pipeline::Hello {} if allowed => {
            let link = Link::spawn(greeted, move |said| drop(heard.send(Input::Heard { number, said })));
            let _ = inputs.send(Input::Head { number, link });
            Ok(())
        }
        Pipeline::Watch {} if allowed => {
            tokio::spawn(answer_beats(greeted, progress.clone()));
            Ok(())
        }
        // Whether it is the one that the head named shows when the head has named it.
        Pipeline::Join { .. } => {
            let _ = inputs.send(Input::Before { number, greeted });
            Ok(())
        }
        Pipeline::Hello {} | Pipeline::Watch {} => {
            let (_, key) = (greeted.sender.close(1, "this machine does not know your key").await, greeted.peer);
            Err(format!("its key is not among those allowed; let it in with --allow {key}"))
        }
        other => Err(format!("Hello, Watch or Join expected first, got {}", other.name())),
    }
}

/// Says that this machine lives, and how far it is.
async fn answer_beats(greeted: Greeted, progress: Arc<Progress>) {
    let Greeted { mut sender, mut receiver, .. } = greeted;
    while let Ok(Some(frame)) = receiver.recv().await {
        let Ok(Pipeline::Beat { count, .. }) = Pipeline::from_bytes(&frame) else { return };
        let (epoch, done) = (progress.epoch.load(Relaxed), progress.done.load(Relaxed));
        let beat = Pipeline::Beat { count, epoch, done }.to_bytes();
        if sender.send(beat.into()).await.is_err() || sender.flush().await.is_err() {
            return;
        }
    }
}

/// An assignment that waits for the link to the next machine.
struct Forming {
    epoch: u32,
    stages: Vec<Arc<Stage>>,
    load_us: u64,
}

/// A model whose layers are here.
struct Loaded {
    digest: [u8; 32],
    bytes: Mapped,
    worker: Worker,
}

/// The thread with the layers.
struct Layers {
    settings: Arc<Settings>,
    pool: Pool,
    progress: Arc<Progress>,
    transport: Arc<dyn Transport>,
    runtime: tokio::runtime::Handle,
    inputs: mpsc::Sender<Input>,
    head: Option<(u64, Link)>,
    before: Option<(u64, Link)>,
    /// Stages that nobody named yet, by the numbers of their connections. Whoever has some key may be one of them, so that not a
    /// byte is read of them before they are named.
    waiting_before: BTreeMap<u64, Greeted>,
    next: Option<(Neighbour, Link)>,
    model: Option<Loaded>,
    forming: Option<Forming>,
    begun: Instant,
    at: String,
}

/// Stages that may wait to be named.
const WAITING_MAX: usize = 16;

impl Layers {
    fn work(mut self, incoming: &mpsc::Receiver<Input>) {
        if self.settings.pin {
            self.pool.pin();
        }
        while let Ok(input) = incoming.recv() {
            match input {
                Input::Head { number, link } => self.head_up(number, link),
                Input::Heard { number, said } if self.head.as_ref().is_some_and(|(head, _)| *head == number) => {
                    match said {
                        Ok(said) => self.hear_head(said),
                        Err(why) => {
                            tracing::info!("the head is gone: {why}");
                            self.release();
                        }
                    }
                }
                Input::Before { number, greeted } => {
                    // Of one machine the newest counts.
                    self.waiting_before.retain(|_, other| other.peer != greeted.peer);
                    if self.waiting_before.len() >= WAITING_MAX {
                        self.waiting_before.pop_first();
                    }
                    self.waiting_before.insert(number, greeted);
                    self.adopt();
                }
                Input::BeforeHeard { number, said } => self.hear_before(number, said),
                Input::Next { epoch, link } => self.next_up(epoch, link),
                Input::NextDown { why } => tracing::info!("the next machine is gone: {why}"),
                Input::Heard { .. } => {}
            }
        }
    }

    fn tell_head(&self, said: &Pipeline) {
        if let Some((_, link)) = &self.head {
            link.send(said);
        }
    }

    fn head_up(&mut self, number: u64, link: Link) {
        if let Some((_, head)) = &self.head
            && head.peer != link.peer
        {
            link.send(&Pipeline::Refused { epoch: 0, reason: "another head has this machine".into() });
            return;
        }
        tracing::info!("head {} is here", link.peer);
        let settings = &self.settings;
        let models = settings.models.keys().copied().collect();
        let offer = Offer {
            name: Name::new(settings.name.clone()),
            memory_bytes: settings.memory_bytes,
            threads: self.pool.threads() as u16,
            at: self.at.as_str().into(),
            models: List::new(models).unwrap_or_default(),
        };
        link.send(&Pipeline::Offer { offer });
        // The same head again: it has lost its link, and will say anew what is to be.
        self.release();
        link.listen();
        self.head = Some((number, link));
    }

    /// The head is gone, or another.
    fn release(&mut self) {
        self.head = None;
        self.vacate();
    }

    /// It has no layers any more.
    fn vacate(&mut self) {
        self.before = None;
        self.next = None;
        self.forming = None;
        if let Some(loaded) = &mut self.model {
            loaded.worker.release();
        }
        self.progress.done.store(0, Relaxed);
    }

    fn hear_head(&mut self, said: Pipeline) {
        match said {
            Pipeline::Assign { assign } => {
                let epoch = assign.epoch;
                if let Err(why) = self.assign(assign) {
                    tracing::warn!("epoch {epoch}: {why}");
                    self.tell_head(&Pipeline::Refused { epoch, reason: Reason::new(why) });
                }
            }
            Pipeline::Release {} => self.vacate(),
            other => {
                // The head is the one before, if no other was named.
                let from_head = self.model.as_ref().is_some_and(|loaded| loaded.worker.from().is_none());
                if from_head || matches!(other, Pipeline::Replay { .. }) {
                    self.hear(&other);
                }
            }
        }
    }

    fn hear_before(&mut self, number: u64, said: Result<Pipeline, String>) {
        if self.before.as_ref().is_none_or(|(before, _)| *before != number) {
            return;
        }
        match said {
            Ok(said @ (Pipeline::Pass { .. } | Pipeline::Again { .. })) => self.hear(&said),
            Ok(other) => tracing::warn!("Pass or Again expected from the machine before, got {}", other.name()),
            Err(why) => tracing::info!("the machine before is gone: {why}"),
        }
    }

    /// Takes the link of the machine that the head named, if it is here.
    fn adopt(&mut self) {
        let from = self.model.as_ref().and_then(|loaded| loaded.worker.from());
        if self.before.as_ref().is_some_and(|(_, link)| Some(link.peer) != from) {
            self.before = None;
        }
        let Some(from) = from else { return };
        // The newest: an older one may be dead without knowing.
        let found =
            self.waiting_before.iter().rev().find(|(_, greeted)| greeted.peer == from).map(|(number, _)| *number);
        if let Some((number, greeted)) = found.and_then(|number| self.waiting_before.remove_entry(&number)) {
            let (_runtime, heard) = (self.runtime.enter(), self.inputs.clone());
            let link = Link::spawn(greeted, move |said| drop(heard.send(Input::BeforeHeard { number, said })));
            link.listen();
            self.before = Some((number, link));
        }
    }

    fn assign(&mut self, assign: Assign) -> Result<(), String> {
        let begun = Instant::now();
        if self.model.as_ref().is_none_or(|loaded| loaded.digest != assign.model) {
            self.model = None;
            self.model = Some(self.open(assign.model)?);
        }
        let Some(loaded) = &mut self.model else { return Ok(()) };
        let lacking = loaded.worker.assign(&assign).map_err(|e| e.to_string())?;
        self.progress.epoch.store(assign.epoch, Relaxed);
        self.progress.done.store(0, Relaxed);
        let next = assign.to.clone();
        match (&next, &self.next) {
            (Some(next), Some((known, link))) if next == known && link.alive() => {}
            (Some(next), _) => {
                self.next = None;
                self.dial_next(assign.epoch, next.clone());
            }
            (None, _) => self.next = None,
        }
        let Some(loaded) = &self.model else { return Ok(()) };
        let stages = load(&loaded.bytes, lacking, &self.pool).map_err(|e| e.to_string())?;
        let load_us = begun.elapsed().as_micros() as u64;
        self.forming = Some(Forming { epoch: assign.epoch, stages, load_us });
        if next.is_none() || self.next.is_some() {
            self.formed(assign.epoch);
        }
        self.adopt();
        Ok(())
    }

    fn open(&self, digest: [u8; 32]) -> Result<Loaded, String> {
        let path = self.settings.models.get(&digest).ok_or("this machine does not have the model's file")?;
        let file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let bytes = Mapped::new(&file).map_err(|e| format!("{}: {e}", path.display()))?;
        let config = Model::config(&bytes).map_err(|e| e.to_string())?;
        Ok(Loaded { digest, bytes, worker: Worker::new(config, self.settings.log_bytes_max) })
    }

    fn dial_next(&self, epoch: u32, next: Neighbour) {
        let (transport, inputs) = (self.transport.clone(), self.inputs.clone());
        self.runtime.spawn(async move {
            let link = join(&*transport, epoch, &next, &inputs).await;
            let _ = inputs.send(Input::Next { epoch, link });
        });
    }

    fn next_up(&mut self, epoch: u32, link: Result<Link, String>) {
        let Some(Loaded { worker, .. }) = &self.model else { return };
        if worker.epoch() != Some(epoch) {
            return;
        }
        match link {
            // Dialled for an earlier head.
            Ok(link) if worker.to().is_none_or(|to| to.id != link.peer) => {}
            Ok(link) => {
                link.listen();
                let at = worker.to().cloned();
                self.next = at.map(|at| (at, link));
                if self.forming.is_some() {
                    self.formed(epoch);
                }
            }
            Err(why) => {
                let reason = Reason::new(format!("the next machine was not reached: {why}"));
                self.tell_head(&Pipeline::Refused { epoch, reason });
            }
        }
    }

    fn formed(&mut self, epoch: u32) {
        let Some(Forming { stages, load_us, .. }) = self.forming.take_if(|forming| forming.epoch == epoch) else {
            return;
        };
        let Some(loaded) = &mut self.model else { return };
        match loaded.worker.ready(stages) {
            Ok(()) => self.tell_head(&Pipeline::Ready { epoch, load_us }),
            Err(why) => self.tell_head(&Pipeline::Refused { epoch, reason: Reason::new(why.to_string()) }),
        }
    }

    fn hear(&mut self, said: &Pipeline) {
        let Some(Loaded { worker, .. }) = &mut self.model else { return };
        let begun = self.begun;
        let heard = worker.hear(said, &self.pool, &mut || begun.elapsed().as_micros() as u64);
        self.progress.done.store(worker.done(), Relaxed);
        match heard {
            Ok(told) => {
                for (to, said) in told {
                    match to {
                        To::Head => self.tell_head(&said),
                        // A link that is down is the head's to notice.
                        To::Next => {
                            if let Some((_, link)) = &self.next {
                                link.send(&said);
                            }
                        }
                    }
                }
            }
            Err(why) => {
                // Whoever it came from, the head would wait for it.
                let (epoch, reason) =
                    (self.progress.epoch.load(Relaxed), Reason::new(format!("{}: {why}", said.name())));
                self.tell_head(&Pipeline::Refused { epoch, reason });
            }
        }
    }
}

async fn join(
    transport: &dyn Transport,
    epoch: u32,
    next: &Neighbour,
    inputs: &mpsc::Sender<Input>,
) -> Result<Link, String> {
    let address: Address = format!("{}@{}", next.id, &*next.at).parse().map_err(|e: TransportError| e.to_string())?;
    let dialled = tokio::time::timeout(JOINING, greet::dial_for(transport, &address, Pipeline::Join { epoch })).await;
    let greeted = dialled.map_err(|_| format!("no answer from {address} within {JOINING:?}"))??;
    let down = inputs.clone();
    Ok(Link::spawn(greeted, move |said| {
        if let Err(why) = said {
            let _ = down.send(Input::NextDown { why });
        }
    }))
}

fn load(bytes: &Mapped, ranges: Vec<Range<usize>>, pool: &Pool) -> Result<Vec<Arc<Stage>>, ModelError> {
    ranges.into_iter().map(|range| Model::load_layers(bytes, range, pool).map(Arc::new)).collect()
}
