//! The near side: a small model here, and links to machines whose large model verifies.
//!
//! While a link is up answers are the large model's, drafted here as a controller says; while none is they are the small
//! model's. Of several machines the first that is there verifies; if it is lost in the middle of an answer the next one goes on.
//! The small model may be a chain's, and may verify for smaller ones while it drafts: three tiers and more are made of that.
//! [`Edge::step`] is called by the thread that owns the engine: it hears, drafts, and otherwise waits a little.

use crate::peer::{self, Link, greet};
use crate::split::chain::{self, Chain, ChainError};
use crate::transport::{Address, Transport};
use littoral_infer::engine::{Engine, Event, Refused, Request, SequenceId};
use littoral_infer::route::decide;
use littoral_infer::speculate::asked::OTHER_VOCABULARY;
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::Costs;
use littoral_infer::speculate::drafter::{Mode, Patience, Policy, Sources};
use littoral_infer::speculate::drafting::{Drafting, Far};
use littoral_tensor::pool::Pool;
use littoral_wire::Speculation;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// A far machine that is gone for so long will not end the answers that it began.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// What is answered at once was not, for so long: a cable was pulled, or the machine stands still. A pass over a long prompt may take
/// this long too: then another verifier goes on, or the small model, and the next answers are asked over a new link.
const SILENT: Duration = Duration::from_secs(6);
/// A step returns after this long, so that its caller can look after others.
const PATIENCE: Duration = Duration::from_millis(20);

/// What has the small model: it answers, drafts, and may verify for others all at once.
pub enum Small {
    Engine(Box<Engine>),
    /// Its layers are on several machines.
    Chain(Box<Chain>),
}

impl Small {
    pub fn engine(&self) -> &Engine {
        match self {
            Self::Engine(engine) => engine,
            Self::Chain(chain) => chain.engine(),
        }
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        match self {
            Self::Engine(engine) => engine,
            Self::Chain(chain) => chain.engine_mut(),
        }
    }
}

enum Input {
    /// `machine`: in the order in which they were given. Links of each are numbered.
    Up {
        machine: usize,
        number: u64,
        line: Line,
        /// What is known of it before anything was asked.
        learnt: Option<Box<Controller>>,
    },
    Heard {
        machine: usize,
        number: u64,
        said: Result<Speculation, String>,
        /// Until it was looked at.
        place: peer::Place,
    },
    Wake,
}

/// Where to who verifies.
enum Line {
    Machine(Link<Speculation>),
    /// Whoever asks a server for us.
    Server(UnboundedSender<Speculation>),
}

impl Line {
    fn send(&self, said: &Speculation) {
        match self {
            Self::Machine(link) => link.send(said),
            Self::Server(line) => drop(line.send(said.clone())),
        }
    }
}

/// To an edge: what came, and a knock where it may be waiting for something else.
#[derive(Clone)]
struct Inputs {
    to: mpsc::Sender<Input>,
    chain: Option<chain::Waker>,
}

impl Inputs {
    /// False if nobody listens.
    fn send(&self, input: Input) -> bool {
        let listens = self.to.send(input).is_ok();
        if listens {
            self.chain.iter().for_each(chain::Waker::wake);
        }
        listens
    }
}

/// The other end, where a server is asked instead of a machine of ours.
pub struct Port(Inputs);

impl Port {
    /// It can be asked now, and hears of it there. `number`: greater than all before.
    pub fn up(&self, number: u64, line: UnboundedSender<Speculation>, learnt: Controller) {
        self.0.send(Input::Up { machine: 0, number, line: Line::Server(line), learnt: Some(Box::new(learnt)) });
    }

    /// What it says, or at last why it says no more.
    pub fn heard(&self, number: u64, said: Result<Speculation, String>) {
        self.0.send(Input::Heard { machine: 0, number, said, place: peer::Place::default() });
    }
}

/// A machine that verifies.
#[derive(Default)]
struct Verifier {
    link: Option<(u64, Line)>,
    /// It has let this machine in.
    there: bool,
    /// What it says of itself shows that it can never verify what is drafted here.
    foreign: bool,
    /// BLAKE3 of its model's file, as it said.
    model: Option<[u8; 32]>,
    /// While its answers wait for it.
    down_since: Option<Instant>,
    /// While nothing was heard since it was asked what is answered at once.
    asked_since: Option<Instant>,
    /// What was logged of it last: it comes and goes, and it is the same each time.
    told: Option<String>,
}

/// Makes an edge look at what it was asked.
#[derive(Clone)]
pub struct Waker(Inputs);

impl Waker {
    pub fn wake(&self) {
        self.0.send(Input::Wake);
    }
}

/// How answers of the far machine are made.
pub type Policies = Box<dyn FnMut(&Controller) -> Policy + Send>;

/// Who writes an answer, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The small model, here.
    Here,
    /// The far one, drafted for as is fastest by what is measured, now and while it is written.
    Fastest,
    /// The far one, always drafted for.
    Drafted,
    /// The far one, without drafts.
    Alone,
}

pub struct Edge {
    small: Small,
    drafting: Drafting,
    inputs: Inputs,
    incoming: mpsc::Receiver<Input>,
    verifiers: Vec<Verifier>,
    /// Of answers by each verifier, whose links and machines differ.
    learnt: Vec<Controller>,
    /// Somebody else's than what is measured.
    policies: Option<Policies>,
    begun: Instant,
    _dialling: Vec<tokio::task::JoinHandle<()>>,
}

impl Edge {
    /// Must run inside a runtime, which serves the sockets. `first`: a random number for the first session. `upstream`: machines
    /// with the same large model, the nearest first.
    pub fn start(small: Small, first: u64, transport: Arc<dyn Transport>, upstream: Vec<Address>) -> Self {
        let mut edge = Self::of(small, first, upstream.len());
        let inputs = edge.inputs.clone();
        let dial = |(machine, address): (usize, Address)| {
            let (transport, inputs) = (transport.clone(), inputs.clone());
            tokio::spawn(async move {
                let connect = |number| connect(&*transport, &address, machine, number, &inputs);
                peer::keep(&address, connect).await;
            })
        };
        edge._dialling = upstream.into_iter().enumerate().map(dial).collect();
        edge
    }

    /// Below a server that somebody asks for us.
    pub fn below_server(small: Small, first: u64) -> (Self, Port) {
        let edge = Self::of(small, first, 1);
        let port = Port(edge.inputs.clone());
        (edge, port)
    }

    fn of(small: Small, first: u64, verifiers: usize) -> Self {
        let (to, incoming) = mpsc::channel();
        let chain = match &small {
            Small::Engine(_) => None,
            Small::Chain(chain) => Some(chain.waker()),
        };
        Self {
            drafting: Drafting::new(small.engine(), first, Patience::default()),
            small,
            inputs: Inputs { to, chain },
            incoming,
            verifiers: (0..verifiers).map(|_| Verifier::default()).collect(),
            learnt: vec![Controller::new(Costs::GUESS); verifiers.max(1)],
            policies: None,
            begun: Instant::now(),
            _dialling: Vec::new(),
        }
    }

    /// How the next answers that are drafted for are, whatever is measured.
    pub fn set_policies(&mut self, policies: Policies) {
        self.policies = Some(policies);
    }

    /// Who drafts for the next answers.
    pub fn set_sources(&mut self, sources: Sources) {
        self.drafting.set_sources(sources);
    }

    /// What drafting the next answer would be worth; `None`: nobody verifies it.
    pub fn drafting(&self) -> Option<decide::Drafting> {
        self.linked()?;
        let measured = decide::Drafting::of(self.learnt());
        Some(decide::Drafting { pays: measured.pays || self.policies.is_some(), ..measured })
    }

    pub fn waker(&self) -> Waker {
        Waker(self.inputs.clone())
    }

    pub fn small(&self) -> &Small {
        &self.small
    }

    pub fn engine(&self) -> &Engine {
        self.small.engine()
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        self.small.engine_mut()
    }

    /// The machine that verifies new answers, if one is there.
    pub fn linked(&self) -> Option<usize> {
        self.verifiers.iter().position(|verifier| verifier.there && !verifier.foreign)
    }

    /// BLAKE3 of the file of the model that verifies new answers, as the machine said.
    pub fn model(&self) -> Option<[u8; 32]> {
        self.verifiers[self.linked()?].model
    }

    /// What answers taught of the machine that verifies new ones, or of the nearest while none is there.
    pub fn learnt(&self) -> &Controller {
        &self.learnt[self.linked().unwrap_or(0)]
    }

    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// Takes a request in. What must stay here does; so does what the far machine cannot be asked, or while it is not there.
    pub fn submit(&mut self, request: Request, way: Way) -> Result<SequenceId, Refused> {
        let here = way == Way::Here || request.constraint.is_some() || self.linked().is_none();
        if here {
            return self.small.engine_mut().submit(request);
        }
        let (policy, now_us) = (self.policy(way), self.now_us());
        let id = self.drafting.submit(self.small.engine_mut(), request, policy, now_us);
        self.send();
        id
    }

    /// The far machine, which has the model that is here, goes on with an answer of this one. False: it is not there, or cannot be
    /// asked.
    pub fn hand_over(&mut self, id: SequenceId) -> bool {
        if self.linked().is_none() {
            return false;
        }
        let (policy, now_us) = (self.policy(Way::Fastest), self.now_us());
        let handed = self.drafting.hand_over(self.small.engine_mut(), id, policy, now_us);
        self.send();
        handed
    }

    fn policy(&mut self, way: Way) -> Policy {
        let learnt = &self.learnt[self.linked().unwrap_or(0)];
        let next = learnt.next_answer();
        let learning = match (way, &mut self.policies) {
            // What its passes and the link cost is still learnt.
            (Way::Alone, _) => next.pinned_to(Mode::Stream),
            (_, Some(policies)) => return policies(learnt),
            (Way::Drafted, None) => next.always_drafting(),
            (Way::Fastest | Way::Here, None) => next,
        };
        Policy::Learning(Box::new(learning))
    }

    pub fn submit_texts(&mut self, texts: Vec<Vec<u32>>) -> Result<SequenceId, Refused> {
        self.small.engine_mut().submit_texts(texts)
    }

    pub fn cancel(&mut self, id: SequenceId) {
        self.drafting.cancel(self.small.engine_mut(), id);
        self.send();
    }

    /// How an answer that the far model writes, or wrote, stands.
    pub fn far(&self, id: SequenceId) -> Option<Far> {
        self.drafting.far(id)
    }

    /// Nobody will ask how this answer came about.
    pub fn forget(&mut self, id: SequenceId) {
        self.drafting.forget(id);
    }

    /// Hears what came, makes a pass of the small model if there is one to make, and otherwise waits a little. Returns what was
    /// written.
    ///
    /// # Errors
    /// The small model's machines cannot go on.
    pub fn step(&mut self, pool: &Pool) -> Result<Vec<Event>, ChainError> {
        let mut woken = false;
        while let Ok(input) = self.incoming.try_recv() {
            woken |= matches!(input, Input::Wake);
            self.hear(input);
        }
        // Before anything is drafted, which may take long: what came meanwhile was not heard.
        self.look_for_silence();
        let (begun, now_us) = (self.begun, self.now_us());
        self.drafting.before(self.small.engine_mut(), now_us);
        self.send();
        // A chain waits for what arrives by itself.
        let (busy, events) = match &mut self.small {
            Small::Chain(chain) => (true, chain.step(pool)?),
            Small::Engine(engine) => {
                let before = engine.planned();
                let events = engine.step(pool);
                (engine.planned() > before, events)
            }
        };
        let now_us = begun.elapsed().as_micros() as u64;
        let mut events = self.drafting.after(self.small.engine_mut(), events, now_us);
        self.drafting.tick(self.small.engine_mut(), now_us);
        for (machine, verifier) in self.verifiers.iter_mut().enumerate() {
            if verifier.down_since.is_some_and(|since| since.elapsed() > GIVEN_UP) {
                verifier.down_since = None;
                self.drafting.lost(self.small.engine_mut(), machine);
            }
        }
        self.send();
        events.extend(self.drafting.events());
        // Who woke it may have come too late for what was done before this step.
        if busy || woken || !events.is_empty() {
            return Ok(events);
        }
        match self.incoming.recv_timeout(PATIENCE) {
            Ok(input) => self.hear(input),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.send();
        Ok(self.drafting.events())
    }

    fn hear(&mut self, input: Input) {
        let now_us = self.now_us();
        match input {
            Input::Wake => {}
            Input::Up { machine, number, line, learnt } => {
                if let Line::Machine(link) = &line {
                    link.listen();
                }
                if let Some(learnt) = learnt {
                    self.learnt[machine] = *learnt;
                }
                let lets_in = matches!(line, Line::Server(_));
                let Verifier { told, down_since, .. } = std::mem::take(&mut self.verifiers[machine]);
                self.verifiers[machine] =
                    Verifier { link: Some((number, line)), told, down_since, ..Verifier::default() };
                if lets_in {
                    self.there(machine, now_us);
                }
            }
            Input::Heard { machine, number, said, place: _place } => {
                let verifier = &mut self.verifiers[machine];
                if verifier.link.as_ref().is_none_or(|(link, _)| *link != number) {
                    return;
                }
                verifier.asked_since = None;
                match said {
                    Ok(Speculation::Model { blake3 }) => {
                        self.let_in(machine, blake3);
                        self.there(machine, now_us);
                    }
                    Ok(said) => {
                        self.note_refusal(machine, &said);
                        // What an answer taught outlives it.
                        if let Speculation::Commit { session, .. } = &said
                            && let Some(learnt) = self.drafting.learnt(*session)
                        {
                            self.learnt[machine] = learnt.clone();
                        }
                        self.drafting.hear_from(self.small.engine_mut(), machine, said, now_us);
                    }
                    Err(why) => self.down(machine, &why, Instant::now(), now_us),
                }
            }
        }
    }

    fn look_for_silence(&mut self) {
        let now_us = self.now_us();
        for machine in 0..self.verifiers.len() {
            if let Some(since) = self.verifiers[machine].asked_since.filter(|since| since.elapsed() > SILENT) {
                let why = format!("nothing was heard for {} seconds", SILENT.as_secs());
                self.down(machine, &why, since, now_us);
            }
        }
    }

    /// It can be asked now.
    fn there(&mut self, machine: usize, now_us: u64) {
        let verifier = &mut self.verifiers[machine];
        (verifier.there, verifier.down_since) = (true, None);
        self.drafting.reconnected_to(self.small.engine_mut(), machine, now_us);
        self.arrange(now_us);
    }

    /// It says what it has: it has let this machine in.
    fn let_in(&mut self, machine: usize, blake3: [u8; 32]) {
        let others = self.verifiers.iter().enumerate().filter(|(other, _)| *other != machine);
        let differs = others.filter_map(|(_, other)| other.model).any(|other| other != blake3);
        let verifier = &mut self.verifiers[machine];
        (verifier.model, verifier.told) = (Some(blake3), None);
        if let Some((_, Line::Machine(link))) = &verifier.link {
            tracing::info!("{} verifies", link.peer);
            if differs {
                tracing::warn!(
                    "{} has another model than a machine before it: texts depend on who is there",
                    link.peer
                );
            }
        }
    }

    fn note_refusal(&mut self, machine: usize, said: &Speculation) {
        let verifier = &mut self.verifiers[machine];
        // What a server says is for who asked.
        let (Speculation::Refused { reason, .. }, Some((_, Line::Machine(link)))) = (said, &verifier.link) else {
            return;
        };
        let reason = reason.to_string();
        verifier.foreign |= reason == OTHER_VOCABULARY;
        if verifier.told.as_ref() != Some(&reason) {
            tracing::warn!("{} does not verify, this machine answers by itself: {}", link.peer, reason.escape_debug());
            verifier.told = Some(reason);
        }
    }

    /// `since`: nothing was heard of it.
    fn down(&mut self, machine: usize, why: &str, since: Instant, now_us: u64) {
        let told = self.verifiers[machine].told.take();
        if told.as_deref() != Some(why) {
            tracing::warn!("a machine that verifies is gone: {why}");
        }
        let told = Some(why.to_owned());
        self.verifiers[machine] = Verifier { down_since: Some(since), told, ..Verifier::default() };
        self.arrange(now_us);
    }

    /// The first machine that is there verifies what comes, and what waits for others that are not.
    fn arrange(&mut self, now_us: u64) {
        let Some(here) = self.linked() else { return };
        self.drafting.set_verifier(here);
        for (machine, verifier) in self.verifiers.iter_mut().enumerate() {
            if verifier.down_since.take().is_some() {
                let learnt = Some(&self.learnt[here]);
                self.drafting.moved(self.small.engine_mut(), machine, here, learnt, now_us);
            }
        }
    }

    fn send(&mut self) {
        for (machine, said) in self.drafting.addressed() {
            // What is lost with a link is said again over the next one.
            let Some(verifier) = self.verifiers.get_mut(machine) else { continue };
            let Some((_, line)) = &verifier.link else { continue };
            line.send(&said);
            let at_once = matches!(said, Speculation::Open { .. } | Speculation::Resume { .. });
            if at_once && matches!(line, Line::Machine(_)) {
                verifier.asked_since.get_or_insert_with(Instant::now);
            }
        }
    }
}

/// A link to a machine that verifies.
async fn connect(
    transport: &dyn Transport,
    address: &Address,
    machine: usize,
    number: u64,
    inputs: &Inputs,
) -> Result<oneshot::Receiver<()>, String> {
    let greeted = greet::dial(transport, address).await?;
    let (ended, end) = oneshot::channel::<()>();
    let (heard, mut ended) = (inputs.clone(), Some(ended));
    let link = Link::spawn(greeted, move |said, place| {
        let down = said.is_err();
        heard.send(Input::Heard { machine, number, said, place });
        if down {
            drop(ended.take());
        }
    });
    let up = Input::Up { machine, number, line: Line::Machine(link), learnt: None };
    if inputs.send(up) { Ok(end) } else { Err("nobody listens".into()) }
}
