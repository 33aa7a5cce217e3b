//! The head of a chain: it dials the machines, decides who has which layers, and steps the generation.
//!
//! [`Chain::step`] is called by the thread that owns the engine, as [`Engine::step`](littoral_infer::engine::Engine::step)
//! is: it waits for what arrives, and returns what was written.

use super::beats::{self, Beat};
use crate::peer::{self, greet};
use crate::transport::{Address, Identity, TcpOptions, TcpTransport, Transport, TransportError};
use littoral_infer::engine::{Engine, Event};
use littoral_infer::model::{Model, ModelError};
use littoral_infer::split::encoding::is_exact;
use littoral_infer::split::head::{Head, Link, Recovery};
use littoral_infer::split::place;
use littoral_model::lm::{CacheType, Stage, StateError};
use littoral_tensor::Mapped;
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::{Activations, Offer};
use littoral_wire::{NodeId, Pipeline};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use thiserror::Error;

type Wire = peer::Link<Pipeline>;

/// A step returns after this long, so that its caller can look after others.
const PATIENCE: Duration = Duration::from_millis(20);
/// Machines of a new placement have this long to get ready; a cold disk is slow.
const FORMING_MAX: Duration = Duration::from_secs(120);
/// At a start: for machines to come up before those that are here are used.
const GATHERING: Duration = Duration::from_secs(5);
/// A machine that was too slow is not used again before.
const SHUNNED: Duration = Duration::from_secs(60);

#[derive(Debug, Error)]
pub enum ChainError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("no thread for beats: {0}")]
    Thread(std::io::Error),
    #[error("{tokens} tokens of a pass expected to fit into a message, {most} do")]
    TooWide { tokens: usize, most: usize },
}

pub struct Settings {
    /// The machines, where they listen.
    pub machines: Vec<Address>,
    /// BLAKE3 of the model's file.
    pub digest: [u8; 32],
    pub cache_type: CacheType,
    pub activations: Activations,
    /// What is sent is kept up to so many bytes.
    pub log_bytes_max: usize,
    /// Layers of the head while other machines are up.
    pub head_layers: HeadLayers,
}

/// How many layers the head has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadLayers {
    /// As many as each other machine.
    Even,
    /// So many; all, where no machine is up.
    Just(usize),
}

/// What the thread hears.
enum Input {
    Up { machine: NodeId, number: u64, link: Wire, offer: Box<Offer> },
    Heard { machine: NodeId, number: u64, said: Result<Pipeline, String> },
    Beat(Beat),
    Wake,
}

/// Makes a chain look at what it was asked.
#[derive(Clone)]
pub struct Waker(mpsc::Sender<Input>);

impl Waker {
    pub fn wake(&self) {
        let _ = self.0.send(Input::Wake);
    }
}

/// A loss that was survived, in seconds; for measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Survived {
    /// Since the beginning of the chain.
    pub at_s: f64,
    pub machine: NodeId,
    /// From the last that was heard of the machine until it was called lost.
    pub detect_s: f64,
    pub load_s: f64,
    pub replay_s: f64,
}

pub struct Chain {
    head: Head,
    bytes: Mapped,
    settings: Settings,
    inputs: mpsc::Sender<Input>,
    incoming: mpsc::Receiver<Input>,
    links: BTreeMap<NodeId, (u64, Wire)>,
    offers: BTreeMap<NodeId, Offer>,
    heard_at: BTreeMap<NodeId, Instant>,
    done: BTreeMap<NodeId, u64>,
    shunned: BTreeMap<NodeId, Instant>,
    /// The shortest of each machine's beats.
    round_trips: BTreeMap<NodeId, Duration>,
    begun: Instant,
    /// Since when the present placement is under way.
    forming_since: Option<Instant>,
    lost: Option<(NodeId, f64, f64)>,
    survived: Vec<Survived>,
    _dialling: tokio::task::JoinSet<()>,
}

impl Chain {
    /// Must run inside a runtime, which serves the sockets. `bytes`: the model's file; `engine`: over its ends.
    ///
    /// # Errors
    /// The engine's passes do not fit into messages.
    pub fn start(engine: Engine, bytes: Mapped, identity: &Identity, settings: Settings) -> Result<Self, ChainError> {
        let width = engine.model().stage.config().width;
        let (tokens, most) = (engine.tokens_max(), Head::tokens_max(width, settings.activations));
        if tokens > most {
            return Err(ChainError::TooWide { tokens, most });
        }
        let (inputs, incoming) = mpsc::channel();
        let transport = Arc::new(TcpTransport::dialler(identity, TcpOptions::default())?);
        let mut dialling = tokio::task::JoinSet::new();
        for machine in &settings.machines {
            let (transport, machine, inputs) = (transport.clone(), machine.clone(), inputs.clone());
            dialling.spawn(async move {
                peer::keep(&machine, |number| connect(&*transport, &machine, number, &inputs)).await;
            });
        }
        let (said, beats) = mpsc::channel();
        beats::watch(identity.clone(), settings.machines.clone(), said).map_err(ChainError::Thread)?;
        let forward = inputs.clone();
        std::thread::Builder::new()
            .name("beats heard".into())
            .spawn(move || {
                // Until the chain is gone; then the beats end, too, since nobody hears them.
                for beat in beats {
                    if forward.send(Input::Beat(beat)).is_err() {
                        return;
                    }
                }
            })
            .map_err(ChainError::Thread)?;
        let (digest, cache_type) = (settings.digest, settings.cache_type);
        let head = Head::new(engine, digest, cache_type, settings.activations, settings.log_bytes_max);
        Ok(Self {
            head,
            bytes,
            settings,
            inputs,
            incoming,
            links: BTreeMap::new(),
            offers: BTreeMap::new(),
            heard_at: BTreeMap::new(),
            done: BTreeMap::new(),
            shunned: BTreeMap::new(),
            round_trips: BTreeMap::new(),
            begun: Instant::now(),
            forming_since: None,
            lost: None,
            survived: Vec::new(),
            _dialling: dialling,
        })
    }

    pub fn waker(&self) -> Waker {
        Waker(self.inputs.clone())
    }

    pub fn engine(&self) -> &Engine {
        self.head.engine()
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        self.head.engine_mut()
    }

    /// Do vectors travel with all their bits?
    pub fn exact(&self) -> bool {
        is_exact(self.settings.activations)
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What machines said of themselves that are up.
    pub fn offers(&self) -> &BTreeMap<NodeId, Offer> {
        &self.offers
    }

    /// There and back of a message without a body, at its shortest so far.
    pub fn round_trip(&self, machine: NodeId) -> Option<Duration> {
        self.round_trips.get(&machine).copied()
    }

    /// Losses since this was last asked.
    pub fn survived(&mut self) -> Vec<Survived> {
        std::mem::take(&mut self.survived)
    }

    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// Hears what came, does what there is to do, and otherwise waits a little. Returns what was written.
    pub fn step(&mut self, pool: &Pool) -> Result<Vec<Event>, ChainError> {
        while let Ok(input) = self.incoming.try_recv() {
            self.hear(input, pool);
        }
        self.look_after(pool)?;
        let begun = self.begun;
        let busy = self.head.pump(pool, &mut || begun.elapsed().as_micros() as u64);
        self.send();
        let events = self.head.engine_mut().events();
        if !busy && events.is_empty() {
            match self.incoming.recv_timeout(PATIENCE) {
                Ok(input) => self.hear(input, pool),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.send();
            return Ok(self.head.engine_mut().events());
        }
        Ok(events)
    }

    fn send(&mut self) {
        for (machine, said) in self.head.outbox() {
            // A link that is down says so itself.
            if let Some((_, link)) = self.links.get(&machine) {
                link.send(&said);
            }
        }
    }

    fn hear(&mut self, input: Input, pool: &Pool) {
        let now_us = self.now_us();
        match input {
            Input::Wake => {}
            Input::Up { machine, number, link, offer } => {
                tracing::info!("{} ({machine}) is here", offer.name);
                // Its process is another one, or it has forgotten: what it had is gone.
                self.down(machine, "it was started again");
                self.head.up(machine, offer.at.clone());
                self.offers.insert(machine, *offer);
                self.heard_at.insert(machine, Instant::now());
                link.listen();
                self.links.insert(machine, (number, link));
            }
            // Of a link that was given up nothing is wanted.
            Input::Heard { machine, number, .. }
                if self.links.get(&machine).is_none_or(|(link, _)| *link != number) => {}
            Input::Heard { machine, said, .. } => {
                self.heard_at.insert(machine, Instant::now());
                match said {
                    // Of an earlier placement it says nothing any more. Else it is as if it were not there, until it has been
                    // dialled again and some time has passed.
                    Ok(Pipeline::Refused { epoch, .. }) if epoch != self.head.epoch() => {}
                    Ok(Pipeline::Refused { reason, .. }) => {
                        self.shun(machine);
                        self.down(machine, &reason);
                    }
                    Ok(said) => {
                        let running = !self.head.broken();
                        self.head.hear(machine, &said, pool, now_us);
                        if running && self.head.broken() {
                            self.shun(machine);
                            self.down(machine, "what it sent does not fit");
                        }
                    }
                    Err(why) => self.down(machine, &why),
                }
            }
            Input::Beat(Beat::Lives { machine, epoch, done, round_trip }) => {
                let least = self.round_trips.entry(machine).or_insert(round_trip);
                *least = round_trip.min(*least);
                self.heard_at.insert(machine, Instant::now());
                if epoch == self.head.epoch() {
                    self.done.insert(machine, done);
                }
            }
            Input::Beat(Beat::Lost { machine, why, .. }) => self.down(machine, &why),
        }
    }

    fn down(&mut self, machine: NodeId, why: &str) {
        if self.offers.remove(&machine).is_none() {
            return;
        }
        tracing::warn!("{machine} is lost: {why}");
        self.links.remove(&machine);
        self.done.remove(&machine);
        let running = !self.head.broken();
        self.head.down(machine);
        if running && self.head.broken() {
            let silent = self.heard_at.get(&machine).map_or(0.0, |at| at.elapsed().as_secs_f64());
            self.lost = Some((machine, self.begun.elapsed().as_secs_f64(), silent));
        }
    }

    fn shun(&mut self, machine: NodeId) {
        self.shunned.insert(machine, Instant::now());
    }

    /// Machines that may have layers.
    fn usable(&self) -> BTreeSet<NodeId> {
        let shunned = |machine: &NodeId| self.shunned.get(machine).is_some_and(|at| at.elapsed() < SHUNNED);
        self.offers.keys().copied().filter(|machine| !shunned(machine)).collect()
    }

    /// Decides who has which layers, where that is to be decided.
    fn look_after(&mut self, pool: &Pool) -> Result<(), ChainError> {
        if let Some(machine) = self.head.late(&self.done, self.now_us()) {
            self.shun(machine);
            self.down(machine, "it is far slower than it was");
        }
        if self.head.running() {
            self.note_recovery();
            self.forming_since = None;
            // Who came, or came back, is taken in between requests.
            let machines = |chain: &[Link]| chain.iter().filter_map(|link| link.machine).collect::<BTreeSet<_>>();
            if self.head.engine().idle() {
                let chain = self.spread();
                if machines(&chain) != machines(self.head.chain()) {
                    self.place(chain, pool)?;
                }
            }
            return Ok(());
        }
        if !self.head.broken() {
            if self.forming_since.is_some_and(|since| since.elapsed() > FORMING_MAX) {
                for machine in self.head.awaited() {
                    self.shun(machine);
                    self.down(machine, "it did not get ready");
                }
            }
            return Ok(());
        }
        let all = self.offers.len() == self.settings.machines.len();
        let first = self.head.epoch() == 0;
        if first && !all && self.begun.elapsed() < GATHERING {
            return Ok(());
        }
        let usable = self.usable();
        let chain = if first { self.spread() } else { place::without_lost(self.head.chain(), &usable) };
        self.place(chain, pool)
    }

    fn spread(&self) -> Vec<Link> {
        // In the order in which they were given.
        let usable = self.usable();
        let machines: Vec<NodeId> =
            self.settings.machines.iter().map(|at| at.id).filter(|id| usable.contains(id)).collect();
        let layers = self.head.engine().model().stage.config().layers;
        let own = match self.settings.head_layers {
            HeadLayers::Even => layers.div_ceil(machines.len() + 1),
            HeadLayers::Just(own) => own.min(layers),
        };
        place::spread(layers, own, &machines)
    }

    fn place(&mut self, chain: Vec<Link>, pool: &Pool) -> Result<(), ChainError> {
        for link in &chain {
            let name = link
                .machine
                .map_or("here".into(), |id| self.offers.get(&id).map_or(id.to_string(), |o| o.name.to_string()));
            tracing::info!("layers {:?} on {name}", link.ranges);
        }
        self.done.clear();
        self.forming_since = Some(Instant::now());
        let lacking = self.head.place(chain, self.now_us());
        // Others load meanwhile.
        self.send();
        let stages = self.load(lacking, pool)?;
        let now_us = self.now_us();
        self.head.loaded(stages, pool, now_us)?;
        Ok(())
    }

    fn load(&self, ranges: Vec<Range<usize>>, pool: &Pool) -> Result<Vec<Arc<Stage>>, ModelError> {
        ranges.into_iter().map(|range| Model::load_layers(&self.bytes, range, pool).map(Arc::new)).collect()
    }

    fn note_recovery(&mut self) {
        let Some((machine, at_s, detect_s)) = self.lost.take() else { return };
        let Recovery { load_us, replay_us } = self.head.recovery();
        let (load_s, replay_s) = (load_us as f64 / 1e6, replay_us as f64 / 1e6);
        tracing::info!(
            "went on without {machine}: lost {detect_s:.3} s, loading {load_s:.3} s, hearing again {replay_s:.3} s"
        );
        self.survived.push(Survived { at_s, machine, detect_s, load_s, replay_s });
    }
}

/// A link to one machine.
async fn connect(
    transport: &dyn Transport,
    address: &Address,
    number: u64,
    inputs: &mpsc::Sender<Input>,
) -> Result<tokio::sync::oneshot::Receiver<()>, String> {
    let mut greeted = greet::dial_for(transport, address, Pipeline::Hello {}).await?;
    let offer = match greet::first(&mut greeted).await? {
        Pipeline::Offer { offer } => Box::new(offer),
        Pipeline::Refused { reason, .. } => return Err(reason.to_string()),
        other => return Err(format!("an offer expected, got {}", other.name())),
    };
    let machine = address.id;
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let (heard, mut ended) = (inputs.clone(), Some(ended));
    // What the machine says of itself may name an address that only it knows; this one works.
    let mut offer = offer;
    offer.at = address.host_port().map_err(|e| e.to_string())?.into();
    let link = Wire::spawn(greeted, move |said| {
        let down = said.is_err();
        let _ = heard.send(Input::Heard { machine, number, said });
        if down {
            drop(ended.take());
        }
    });
    inputs.send(Input::Up { machine, number, link, offer }).map_err(|_| "nobody listens".to_owned())?;
    Ok(end)
}
