//! What writes: an engine here, one with drafts, or a chain of machines.
//!
//! All have an engine that takes requests in and says what was written; they differ in how a step is made.

use crate::split::chain::{self, Chain};
use littoral_infer::engine::{Engine, Event};
use littoral_infer::speculate::pair::Pair;
use littoral_tensor::pool::Pool;
use std::time::Instant;

pub enum Motor {
    Engine(Box<Engine>),
    /// A small model or the text itself drafts.
    Pair(Box<Pair>, Instant),
    /// The model's layers are on several machines.
    Chain(Box<Chain>),
}

pub use chain::Waker;

impl Motor {
    pub fn pair(pair: Pair) -> Self {
        Self::Pair(Box::new(pair), Instant::now())
    }

    pub fn engine(&self) -> &Engine {
        match self {
            Self::Engine(engine) => engine,
            Self::Pair(pair, _) => pair.engine(),
            Self::Chain(chain) => chain.engine(),
        }
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        match self {
            Self::Engine(engine) => engine,
            Self::Pair(pair, _) => pair.engine_mut(),
            Self::Chain(chain) => chain.engine_mut(),
        }
    }

    /// What makes it look at its engine before its time, if it waits for other things.
    pub fn waker(&self) -> Option<Waker> {
        match self {
            Self::Engine(_) | Self::Pair(..) => None,
            Self::Chain(chain) => Some(chain.waker()),
        }
    }

    /// Is it to be stepped although nobody asks for anything?
    pub fn restless(&self) -> bool {
        matches!(self, Self::Chain(_))
    }

    /// # Errors
    /// It cannot go on.
    pub fn step(&mut self, pool: &Pool) -> Result<Vec<Event>, String> {
        match self {
            Self::Engine(engine) => Ok(engine.step(pool)),
            Self::Pair(pair, begun) => Ok(pair.step(pool, &mut || begun.elapsed().as_micros() as u64)),
            Self::Chain(chain) => chain.step(pool).map_err(|why| why.to_string()),
        }
    }
}
