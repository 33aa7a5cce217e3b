//! The head of a chain: it dials the machines, decides who has which layers, and steps the generation.
//!
//! What is decided is in [`littoral_infer::split::membership`]; this does it. [`Chain::step`] is called by the thread that
//! owns the engine, as [`Engine::step`](littoral_infer::engine::Engine::step) is: it waits for what arrives, and returns what
//! was written.

use super::beats::{self, Beat};
use super::supplies::Supplies;
use super::survey::{self, Turn};
use crate::peer::{self, greet};
use crate::transport::{Address, Identity, TcpOptions, TcpTransport, Transport, TransportError};
use littoral_infer::engine::{Engine, Event};
use littoral_infer::model::{Model, ModelError};
use littoral_infer::split::encoding::is_exact;
use littoral_infer::split::head::{Head, Link, Recovery};
use littoral_infer::split::measured::Measured;
use littoral_infer::split::membership::{self, Bounds, Decision, Membership};
pub use littoral_infer::split::place::HeadLayers;
use littoral_infer::split::planned::Planner;
use littoral_model::lm::{CacheType, Stage, StateError};
use littoral_tensor::Mapped;
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::{Activations, Offer};
use littoral_wire::{NodeId, Pipeline};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use thiserror::Error;

type Wire = peer::Link<Pipeline>;

/// A step returns after this long, so that its caller can look after others.
const PATIENCE: Duration = Duration::from_millis(20);
/// Losses that are kept until somebody asks.
const SURVIVED_MAX: usize = 1_024;
/// Of the memory that a machine has, what layers may have; the rest is for states, what was sent, and others.
const LAYERS_OF_MEMORY: f64 = 0.8;

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
    /// Layers of the head while other machines are up, where there is no plan.
    pub head_layers: HeadLayers,
    /// Layers lie as its plans say. Machines of which it knows nothing are measured when they come. `None`: evenly.
    pub planner: Option<Planner>,
    /// A folder for layers that machines without the file fetch from here, and how many bytes it may have; `None`: they get none.
    pub tiles: Option<(PathBuf, u64)>,
}

/// What the thread hears.
enum Input {
    Up {
        machine: NodeId,
        number: u64,
        link: Wire,
        offer: Box<Offer>,
    },
    Measured {
        machine: NodeId,
        measured: Box<Measured>,
    },
    Heard {
        machine: NodeId,
        number: u64,
        said: Result<Pipeline, String>,
        place: peer::Place,
    },
    Beat(Beat),
    Wake,
    /// All that came before a step began is before this.
    Begun,
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
    bytes: Arc<Mapped>,
    supplies: Supplies,
    inputs: mpsc::Sender<Input>,
    incoming: mpsc::Receiver<Input>,
    links: BTreeMap<NodeId, (u64, Wire)>,
    offers: BTreeMap<NodeId, Offer>,
    membership: Membership,
    /// The shortest of each machine's beats.
    round_trips: BTreeMap<NodeId, Duration>,
    survived: Vec<Survived>,
    /// Events of requests that no machine has layers for.
    failed: Vec<Event>,
    /// Of the file, for one layer.
    layer_bytes: u64,
    begun: Instant,
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
        let turn = Turn::default();
        for machine in &settings.machines {
            let (transport, machine, inputs) = (transport.clone(), machine.clone(), inputs.clone());
            let unknown = settings.planner.as_ref().is_some_and(|planner| !planner.knows(machine.id));
            let measure = unknown.then(|| (turn.clone(), settings.digest));
            dialling.spawn(async move {
                // Before it is told what to do, so that nothing else is done there meanwhile.
                if let Some((turn, model)) = measure {
                    let measured = Box::new(survey::until_measured(&*transport, &machine, model, &turn).await);
                    let _ = inputs.send(Input::Measured { machine: machine.id, measured });
                }
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
        let bytes = Arc::new(bytes);
        let supplies = Supplies::new(transport, settings.machines.clone(), settings.tiles, bytes.clone());
        let (digest, cache_type) = (settings.digest, settings.cache_type);
        let head = Head::new(engine, digest, cache_type, settings.activations, settings.log_bytes_max);
        let layers = head.engine().model().stage.config().layers.max(1) as u64;
        let mut membership = Membership::new(membership::Settings {
            machines: settings.machines.iter().map(|at| at.id).collect(),
            head_layers: settings.head_layers,
            head_room: usize::MAX,
            bounds: Bounds::default(),
        });
        if let Some(planner) = settings.planner {
            membership.follow(planner);
        }
        Ok(Self {
            head,
            layer_bytes: (bytes.len() as u64 / layers).max(1),
            bytes,
            supplies,
            inputs,
            incoming,
            links: BTreeMap::new(),
            offers: BTreeMap::new(),
            membership,
            round_trips: BTreeMap::new(),
            survived: Vec::new(),
            failed: Vec::new(),
            begun: Instant::now(),
            _dialling: dialling,
        })
    }

    /// The head has so much memory, of which layers get a part; unbounded where this is not said. Before the first step.
    pub fn limit_memory(&mut self, memory_bytes: u64) {
        self.membership.set_head_room(room(memory_bytes, self.layer_bytes));
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

    /// Does some machine have each layer, or is about to?
    pub fn is_whole(&self) -> bool {
        !self.membership.is_unplaced()
    }

    /// Do vectors travel with all their bits?
    pub fn exact(&self) -> bool {
        is_exact(self.head.activations())
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
        // Not what comes meanwhile: there may be no end of that.
        let _ = self.inputs.send(Input::Begun);
        let mut woken = false;
        while let Ok(input) = self.incoming.try_recv()
            && !matches!(input, Input::Begun)
        {
            woken |= matches!(input, Input::Wake);
            self.hear(input, pool);
        }
        self.look_after(pool)?;
        let begun = self.begun;
        let busy = self.head.pump(pool, &mut || begun.elapsed().as_micros() as u64);
        self.send();
        let mut events = std::mem::take(&mut self.failed);
        events.extend(self.head.events());
        // Who woke it may have come too late for what was done before this step.
        if !busy && !woken && events.is_empty() {
            match self.incoming.recv_timeout(PATIENCE) {
                Ok(input) => self.hear(input, pool),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.send();
            return Ok(self.head.events());
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
            Input::Wake | Input::Begun => {}
            Input::Measured { machine, measured } => self.membership.know(machine, *measured),
            Input::Up { machine, number, link, offer } => {
                tracing::info!("{} ({machine}) is here", offer.name);
                // Its process is another one, or it has forgotten: what it had is gone.
                self.down(machine, "it was started again");
                let room = room(offer.memory_bytes, self.layer_bytes);
                self.membership.up(&mut self.head, machine, offer.at.clone(), room, now_us);
                if !offer.models.contains(&self.head.digest()) {
                    self.membership.lacks_file(machine);
                }
                self.offers.insert(machine, *offer);
                link.listen();
                self.links.insert(machine, (number, link));
            }
            // Of a link that was given up nothing is wanted.
            Input::Heard { machine, number, .. }
                if self.links.get(&machine).is_none_or(|(link, _)| *link != number) => {}
            Input::Heard { machine, said: Ok(said), place: _place, .. } => {
                let could = self.membership.holdings().cannot(machine).is_none();
                // It is as if it were not there, until it has been dialled again and some time has passed.
                if let Some(why) = self.membership.hear(&mut self.head, machine, &said, pool, now_us) {
                    self.hang_up(machine, &why);
                }
                if let (Pipeline::Has { why, .. }, Some(offer)) = (&said, self.offers.get(&machine)) {
                    let progress = self.membership.holdings().progress(machine);
                    self.supplies.heard(machine, &offer.name, progress, why.as_deref());
                    if why.is_some() && !self.supplies.can() {
                        self.membership.cannot_get(machine, "this head keeps no layers to give (--standby-mb)");
                    }
                }
                if let (true, Some(why)) = (could, self.membership.holdings().cannot(machine)) {
                    let name = self.offers.get(&machine).map_or("a machine", |offer| &*offer.name);
                    let (name, why) = (name.escape_debug(), why.escape_debug());
                    tracing::warn!("{name} ({machine}) is out of all plans, it lacks the model's file: {why}");
                }
            }
            Input::Heard { machine, said: Err(why), .. } => self.down(machine, &why),
            Input::Beat(Beat::Lives { machine, epoch, done, round_trip }) => {
                let least = self.round_trips.entry(machine).or_insert(round_trip);
                *least = round_trip.min(*least);
                self.membership.beat(&self.head, machine, epoch, done, now_us);
            }
            Input::Beat(Beat::Lost { machine, why, .. }) => self.down(machine, &why),
        }
    }

    fn down(&mut self, machine: NodeId, why: &str) {
        let now_us = self.now_us();
        if self.membership.down(&mut self.head, machine, now_us) {
            self.hang_up(machine, why);
        }
    }

    fn hang_up(&mut self, machine: NodeId, why: &str) {
        tracing::warn!("{machine} is lost: {why}");
        self.offers.remove(&machine);
        self.links.remove(&machine);
        self.supplies.gone(machine);
    }

    /// Does what is decided.
    fn look_after(&mut self, pool: &Pool) -> Result<(), ChainError> {
        while let Some(decision) = self.membership.decide(&self.head, self.now_us()) {
            match decision {
                Decision::GiveUp { machines, why } => machines.into_iter().for_each(|machine| self.down(machine, why)),
                Decision::Get { machine, layers, sources } => {
                    for (to, said) in self.supplies.get(self.head.digest(), machine, &layers, &sources) {
                        if let Some((_, link)) = self.links.get(&to) {
                            link.send(&said);
                        }
                    }
                    // As below: a folder may have been opened meanwhile.
                    break;
                }
                Decision::Place(chain) => {
                    self.place(chain, pool)?;
                    // While layers were loaded here nobody was heard: that is to be made up for before somebody is called silent.
                    break;
                }
                Decision::Hold(hold) => self.head.engine_mut().hold(hold),
                Decision::Fail(why) => {
                    tracing::warn!("{why}");
                    self.failed.extend(self.head.fail_requests(&why));
                }
            }
        }
        for survived in self.membership.survived() {
            self.note(&survived);
        }
        Ok(())
    }

    fn note(&mut self, survived: &membership::Survived) {
        let membership::Survived { at_us, machine, detect_us, recovery: Recovery { load_us, replay_us } } = *survived;
        let [at_s, detect_s, load_s, replay_s] = [at_us, detect_us, load_us, replay_us].map(|us| us as f64 / 1e6);
        tracing::info!(
            "went on without {machine}: lost {detect_s:.3} s, loading {load_s:.3} s, hearing again {replay_s:.3} s"
        );
        // Where nobody asks they are not kept for ever.
        self.survived.truncate(SURVIVED_MAX - 1);
        self.survived.push(Survived { at_s, machine, detect_s, load_s, replay_s });
    }

    fn place(&mut self, chain: Vec<Link>, pool: &Pool) -> Result<(), ChainError> {
        for link in &chain {
            let name = link
                .machine
                .map_or("here".into(), |id| self.offers.get(&id).map_or(id.to_string(), |o| o.name.to_string()));
            tracing::info!("layers {:?} on {name}", link.ranges);
        }
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
}

/// Layers for which there is room; any number, where nobody knows.
fn room(memory_bytes: u64, layer_bytes: u64) -> usize {
    if memory_bytes == 0 {
        usize::MAX
    } else {
        (memory_bytes as f64 * LAYERS_OF_MEMORY) as usize / layer_bytes as usize
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
    let link = Wire::spawn(greeted, move |said, place| {
        let down = said.is_err();
        let _ = heard.send(Input::Heard { machine, number, said, place });
        if down {
            drop(ended.take());
        }
    });
    inputs.send(Input::Up { machine, number, link, offer }).map_err(|_| "nobody listens".to_owned())?;
    Ok(end)
}
