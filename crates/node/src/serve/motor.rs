//! What writes: an engine here, or a chain of machines.
//!
//! All have an engine that takes requests in and says what was written; they differ in how a step is made.

use crate::split::chain::{self, Chain};
use littoral_infer::engine::{Engine, Event};
use littoral_tensor::pool::Pool;

pub enum Motor {
    Engine(Box<Engine>),
    /// The model's layers are on several machines.
    Chain(Box<Chain>),
}

pub use chain::Waker;

impl Motor {
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

    /// What makes it look at its engine before its time, if it waits for other things.
    pub fn waker(&self) -> Option<Waker> {
        match self {
            Self::Engine(_) => None,
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
            Self::Chain(chain) => chain.step(pool).map_err(|why| why.to_string()),
        }
    }
}
