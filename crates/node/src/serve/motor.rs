//! What writes: an engine here, one with drafts, a chain of machines, or a small model whose answers a large one verifies.
//!
//! They differ in where a request goes and in how a step is made; what happens to a request is told in the same events.

use super::writer::{By, Share};
use crate::speculate::edge::{self, Edge, Small, Way};
use crate::split::chain::{self, Chain};
use littoral_infer::engine::{Engine, Event, Refused, Request, SequenceId};
use littoral_infer::route::decide::Link;
use littoral_infer::speculate::drafting::Far;
use littoral_infer::speculate::pair::Pair;
use littoral_tensor::pool::Pool;
use std::time::{Duration, Instant};

pub enum Motor {
    Engine(Box<Engine>),
    /// A small model or the text itself drafts.
    Pair(Box<Pair>, Instant),
    /// The model's layers are on several machines.
    Chain(Box<Chain>),
    /// A machine above has a larger model than this one, or the same; this one's layers may be on several machines.
    Edge(Box<Edge>),
}

/// Makes a motor look at its engine before its time.
#[derive(Clone)]
pub enum Waker {
    Chain(chain::Waker),
    Edge(edge::Waker),
}

impl Waker {
    pub fn wake(&self) {
        match self {
            Self::Chain(waker) => waker.wake(),
            Self::Edge(waker) => waker.wake(),
        }
    }
}

/// What came of a step.
pub struct Step {
    pub events: Vec<Event>,
    /// There was nothing to do, and it did not wait.
    pub idle: bool,
}

impl Motor {
    pub fn pair(pair: Pair) -> Self {
        Self::Pair(Box::new(pair), Instant::now())
    }

    /// The engine that takes requests in.
    pub fn engine(&self) -> &Engine {
        match self {
            Self::Engine(engine) => engine,
            Self::Pair(pair, _) => pair.engine(),
            Self::Chain(chain) => chain.engine(),
            Self::Edge(edge) => edge.engine(),
        }
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        match self {
            Self::Engine(engine) => engine,
            Self::Pair(pair, _) => pair.engine_mut(),
            Self::Chain(chain) => chain.engine_mut(),
            Self::Edge(edge) => edge.engine_mut(),
        }
    }

    fn chain(&self) -> Option<&Chain> {
        match self {
            Self::Chain(chain) => Some(chain),
            Self::Edge(edge) => match edge.small() {
                Small::Chain(chain) => Some(chain),
                Small::Engine(_) => None,
            },
            Self::Engine(_) | Self::Pair(..) => None,
        }
    }

    /// Does it write the text that its model would write on one machine?
    pub fn exact(&self) -> bool {
        self.chain().is_none_or(Chain::exact)
    }

    /// Is all of its model here, or on machines that are?
    pub fn is_whole(&self) -> bool {
        self.chain().is_none_or(Chain::is_whole)
    }

    /// The engine that tries what others draft; one that drafts for itself has none.
    pub fn verifies(&mut self) -> Option<&mut Engine> {
        match self {
            Self::Engine(engine) => Some(engine),
            Self::Chain(chain) => Some(chain.engine_mut()),
            Self::Edge(edge) => Some(edge.engine_mut()),
            Self::Pair(..) => None,
        }
    }

    pub fn waker(&self) -> Option<Waker> {
        match self {
            Self::Engine(_) | Self::Pair(..) => None,
            Self::Chain(chain) => Some(Waker::Chain(chain.waker())),
            Self::Edge(edge) => Some(Waker::Edge(edge.waker())),
        }
    }

    /// What the last pass took, where that is not a step: several passes of a chain are on their way at a time.
    pub fn pass_time(&self) -> Option<Duration> {
        self.chain()?.head().pace().last_us().map(Duration::from_micros)
    }

    /// Is it to be stepped although nobody asks for anything?
    pub fn restless(&self) -> bool {
        matches!(self, Self::Chain(_) | Self::Edge(_))
    }

    /// The link to machines above whose large model this one drafts for.
    pub fn link(&self) -> Option<Link> {
        match self {
            Self::Edge(edge) => {
                Some(Link { up: edge.linked().is_some(), model: edge.model(), drafting: edge.drafting() })
            }
            Self::Engine(_) | Self::Pair(..) | Self::Chain(_) => None,
        }
    }

    /// The machine above that is asked now.
    pub fn linked(&self) -> Option<usize> {
        match self {
            Self::Edge(edge) => edge.linked(),
            Self::Engine(_) | Self::Pair(..) | Self::Chain(_) => None,
        }
    }

    fn far(&self, id: SequenceId) -> Far {
        match self {
            Self::Edge(edge) => edge.far(id).unwrap_or_default(),
            Self::Engine(_) | Self::Pair(..) | Self::Chain(_) => Far::default(),
        }
    }

    /// Who wrote an answer of so many tokens.
    pub fn share(&self, id: SequenceId, written: u64) -> Share {
        let (far, mut parts, mut left) = (self.far(id), Vec::new(), written);
        let above = far.parts.iter().map(|(machine, tokens)| (By::Upstream(*machine), *tokens));
        for (by, tokens) in [(By::Here, far.before)].into_iter().chain(above).chain([(By::Here, u64::MAX)]) {
            // What was written behind a stop string is not told.
            let tokens = tokens.min(left);
            left -= tokens;
            if tokens > 0 {
                parts.push((by, tokens));
            }
        }
        Share { parts, passes: far.passes, yields: far.yields }
    }

    /// Nobody will ask who wrote this answer.
    pub fn forget(&mut self, id: SequenceId) {
        if let Self::Edge(edge) = self {
            edge.forget(id);
        }
    }

    /// Who wrote the last of so many tokens.
    pub fn writer(&self, id: SequenceId, written: u64) -> By {
        self.share(id, written).parts.last().map_or(By::Here, |(by, _)| *by)
    }

    /// `way`: only a motor with a link to a machine above can ask it.
    pub fn submit(&mut self, request: Request, way: Way) -> Result<SequenceId, Refused> {
        match self {
            Self::Engine(engine) => engine.submit(request),
            Self::Pair(pair, _) => pair.engine_mut().submit(request),
            Self::Chain(chain) => chain.engine_mut().submit(request),
            Self::Edge(edge) => edge.submit(request, way),
        }
    }

    /// The machine above, which has the model that is here, goes on with an answer. False: it cannot.
    pub fn hand_over(&mut self, id: SequenceId) -> bool {
        match self {
            Self::Edge(edge) => edge.hand_over(id),
            Self::Engine(_) | Self::Pair(..) | Self::Chain(_) => false,
        }
    }

    pub fn submit_texts(&mut self, texts: Vec<Vec<u32>>) -> Result<SequenceId, Refused> {
        match self {
            Self::Engine(engine) => engine.submit_texts(texts),
            Self::Pair(pair, _) => pair.engine_mut().submit_texts(texts),
            Self::Chain(chain) => chain.engine_mut().submit_texts(texts),
            Self::Edge(edge) => edge.submit_texts(texts),
        }
    }

    pub fn cancel(&mut self, id: SequenceId) {
        match self {
            Self::Engine(engine) => engine.cancel(id),
            Self::Pair(pair, _) => pair.engine_mut().cancel(id),
            Self::Chain(chain) => chain.engine_mut().cancel(id),
            Self::Edge(edge) => edge.cancel(id),
        }
    }

    /// # Errors
    /// It cannot go on.
    pub fn step(&mut self, pool: &Pool) -> Result<Step, String> {
        Ok(match self {
            Self::Engine(engine) => {
                let before = engine.planned();
                let events = engine.step(pool);
                Step { idle: events.is_empty() && engine.planned() == before, events }
            }
            Self::Pair(pair, begun) => {
                let before = pair.engine().planned();
                let events = pair.step(pool, &mut || begun.elapsed().as_micros() as u64);
                Step { idle: events.is_empty() && pair.engine().planned() == before, events }
            }
            Self::Chain(chain) => Step { events: chain.step(pool).map_err(|why| why.to_string())?, idle: false },
            Self::Edge(edge) => Step { events: edge.step(pool).map_err(|why| why.to_string())?, idle: false },
        })
    }
}
