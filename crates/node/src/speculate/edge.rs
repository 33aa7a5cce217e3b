//! The near side: a small model here, and a link to the machine whose large model verifies.
//!
//! While the link is up answers are the large model's, drafted here as a controller says; while it is down they are the small
//! model's. [`Edge::step`] is called by the thread that owns the engine: it drafts, hears, and otherwise waits a little.

use crate::peer::{self, Link, greet};
use crate::transport::{Address, Transport};
use littoral_infer::engine::{Engine, Event, Refused, Request, SequenceId};
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::{Affine, Costs};
use littoral_infer::speculate::drafter::{Patience, Policy};
use littoral_infer::speculate::drafting::{Drafting, Far, Place};
use littoral_tensor::pool::Pool;
use littoral_wire::Speculation;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A far machine that is gone for so long will not end the answers that it began.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// A step returns after this long, so that its caller can look after others.
const PATIENCE: Duration = Duration::from_millis(20);
/// Before anything was measured: a drafted token, a pass over there, the way there and back.
const GUESS: Costs = Costs { draft_s: 0.01, verify: Affine { fixed_s: 0.03, per_token_s: 0.001 }, round_trip_s: 0.02 };

enum Input {
    Up { number: u64, link: Link<Speculation> },
    Heard { number: u64, said: Result<Speculation, String> },
    Wake,
}

/// Makes an edge look at what it was asked.
#[derive(Clone)]
pub struct Waker(mpsc::Sender<Input>);

impl Waker {
    pub fn wake(&self) {
        let _ = self.0.send(Input::Wake);
    }
}

/// How answers of the far machine are made.
pub type Policies = Box<dyn FnMut(&Controller) -> Policy + Send>;

pub struct Edge {
    drafting: Drafting,
    inputs: mpsc::Sender<Input>,
    incoming: mpsc::Receiver<Input>,
    link: Option<(u64, Link<Speculation>)>,
    down_since: Option<Instant>,
    learnt: Controller,
    policies: Policies,
    begun: Instant,
    _dialling: tokio::task::JoinHandle<()>,
}

impl Edge {
    /// Must run inside a runtime, which serves the socket. `first`: a random number for the first session.
    pub fn start(small: Engine, first: u64, transport: Arc<dyn Transport>, upstream: Address) -> Self {
        let (inputs, incoming) = mpsc::channel();
        let to_link = inputs.clone();
        let dialling = tokio::spawn(async move {
            peer::keep(&upstream, |number| connect(&*transport, &upstream, number, &to_link)).await;
        });
        Self {
            drafting: Drafting::new(small, first, Patience::default()),
            inputs,
            incoming,
            link: None,
            down_since: None,
            learnt: Controller::new(GUESS),
            policies: Box::new(|learnt| Policy::Learning(Box::new(learnt.next_answer()))),
            begun: Instant::now(),
            _dialling: dialling,
        }
    }

    /// How the next answers are made; for measurements.
    pub fn set_policies(&mut self, policies: Policies) {
        self.policies = policies;
    }

    pub fn waker(&self) -> Waker {
        Waker(self.inputs.clone())
    }

    pub fn engine(&self) -> &Engine {
        self.drafting.engine()
    }

    /// Is the far machine there?
    pub fn linked(&self) -> bool {
        self.link.is_some()
    }

    pub fn learnt(&self) -> &Controller {
        &self.learnt
    }

    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// Takes a request in. What must stay here does; so does what the far machine cannot be asked, or while it is not there.
    pub fn submit(&mut self, request: Request, local_only: bool) -> Result<SequenceId, Refused> {
        let here = local_only || request.constraint.is_some() || self.link.is_none();
        let place = if here { Place::Here } else { Place::Far((self.policies)(&self.learnt)) };
        let now_us = self.now_us();
        let id = self.drafting.submit(request, place, now_us);
        self.send();
        id
    }

    pub fn submit_texts(&mut self, texts: Vec<Vec<u32>>) -> Result<SequenceId, Refused> {
        self.drafting.engine_mut().submit_texts(texts)
    }

    pub fn cancel(&mut self, id: SequenceId) {
        self.drafting.cancel(id);
        self.send();
    }

    /// How an answer that the far model writes, or wrote, stands.
    pub fn far(&self, id: SequenceId) -> Option<Far> {
        self.drafting.far(id)
    }

    /// Hears what came, drafts what there is to draft, and otherwise waits a little. Returns what was written.
    pub fn step(&mut self, pool: &Pool) -> Vec<Event> {
        while let Ok(input) = self.incoming.try_recv() {
            self.hear(input);
        }
        let begun = self.begun;
        let busy = self.drafting.step(pool, &mut || begun.elapsed().as_micros() as u64);
        let now_us = self.now_us();
        self.drafting.tick(now_us);
        if self.down_since.is_some_and(|since| since.elapsed() > GIVEN_UP) {
            self.down_since = None;
            self.drafting.lost();
        }
        self.send();
        let events = self.drafting.events();
        if busy || !events.is_empty() {
            return events;
        }
        match self.incoming.recv_timeout(PATIENCE) {
            Ok(input) => self.hear(input),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.send();
        self.drafting.events()
    }

    fn hear(&mut self, input: Input) {
        let now_us = self.now_us();
        match input {
            Input::Wake => {}
            Input::Up { number, link } => {
                tracing::info!("{} verifies", link.peer);
                link.listen();
                (self.link, self.down_since) = (Some((number, link)), None);
                self.drafting.reconnected(now_us);
            }
            Input::Heard { number, said } if self.link.as_ref().is_some_and(|(link, _)| *link == number) => {
                match said {
                    Ok(said) => {
                        // What an answer taught outlives it.
                        if let Speculation::Commit { session, .. } = &said
                            && let Some(learnt) = self.drafting.learnt(*session)
                        {
                            self.learnt = learnt.clone();
                        }
                        self.drafting.hear(said, now_us);
                    }
                    Err(why) => {
                        tracing::warn!("the far machine is gone: {why}");
                        (self.link, self.down_since) = (None, Some(Instant::now()));
                    }
                }
            }
            Input::Heard { .. } => {}
        }
    }

    fn send(&mut self) {
        let said = self.drafting.outbox();
        if let Some((_, link)) = &self.link {
            // What is lost with a link is said again over the next one.
            said.iter().for_each(|said| link.send(said));
        }
    }
}

/// A link to the far machine.
async fn connect(
    transport: &dyn Transport,
    address: &Address,
    number: u64,
    inputs: &mpsc::Sender<Input>,
) -> Result<oneshot::Receiver<()>, String> {
    let greeted = greet::dial(transport, address).await?;
    let (ended, end) = oneshot::channel::<()>();
    let (heard, mut ended) = (inputs.clone(), Some(ended));
    let link = Link::spawn(greeted, move |said| {
        let down = said.is_err();
        let _ = heard.send(Input::Heard { number, said });
        if down {
            drop(ended.take());
        }
    });
    inputs.send(Input::Up { number, link }).map_err(|_| "nobody listens".to_owned())?;
    Ok(end)
}
