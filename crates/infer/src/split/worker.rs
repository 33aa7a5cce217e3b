//! What a machine does that has some of the layers and is not the head.
//!
//! Pure: it is told what arrived and says what is to be sent. Whoever calls it has the sockets, loads layers, and makes a
//! link to the next machine before [`Worker::ready`] is called.

use super::Holder;
use super::words::{self, Those, Unfit};
use crate::pass::{PassError, Slot};
use littoral_model::lm::{CacheType, Config, Stage, StateError};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::Kind;
use littoral_wire::NodeId;
use littoral_wire::pipeline::{Activations, Assign, Held, Neighbour, Pass, Pipeline};
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// Where a message is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    Head,
    Next,
}

/// Why an assignment cannot be met.
#[derive(Debug, Error)]
pub enum AssignError {
    #[error("layers next to each other of {layers} expected, got {got}")]
    Layers { layers: usize, got: String },
    #[error("a type of keys and values that is known here expected, got number {got}")]
    CacheType { got: u8 },
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a worker is at present.
struct Post {
    epoch: u32,
    ranges: Vec<Range<usize>>,
    activations: Activations,
    from: Option<NodeId>,
    to: Option<Neighbour>,
    /// Its layers are here and the next machine can be reached.
    ready: bool,
}

pub struct Worker {
    config: Config,
    cache_type: Option<CacheType>,
    holder: Holder,
    post: Option<Post>,
    log_bytes_max: usize,
    /// The number of the last pass that went through.
    done: u64,
}

impl Worker {
    /// For layers of this model; what it sends is kept up to so many bytes.
    pub fn new(config: Config, log_bytes_max: usize) -> Self {
        let holder = Holder::new(config.width, CacheType::F16, log_bytes_max);
        Self { config, cache_type: None, holder, post: None, log_bytes_max, done: 0 }
    }

    /// The ranges of layers that are to be loaded for this assignment. Passes of earlier epochs are not run any more.
    pub fn assign(&mut self, assign: &Assign) -> Result<Vec<Range<usize>>, AssignError> {
        let layers = self.config.layers;
        let ranges: Vec<Range<usize>> =
            assign.segments.iter().map(|part| part.start as usize..part.end as usize).collect();
        let whole = ranges.iter().all(|range| range.start < range.end && range.end <= layers);
        if ranges.is_empty() || !whole || ranges.windows(2).any(|pair| pair[0].end != pair[1].start) {
            return Err(AssignError::Layers { layers, got: format!("{ranges:?}") });
        }
        let known = |cache: &CacheType| cache_code(*cache) == assign.cache_type;
        let cache_type = CacheType::ALL.into_iter().find(known);
        let cache_type = cache_type.ok_or(AssignError::CacheType { got: assign.cache_type })?;
        if self.cache_type != Some(cache_type) {
            self.cache_type = Some(cache_type);
            self.holder = Holder::new(self.config.width, cache_type, self.log_bytes_max);
        }
        let lacking = self.holder.lacking(&ranges);
        self.post = Some(Post {
            epoch: assign.epoch,
            ranges,
            activations: assign.activations,
            from: assign.from,
            to: assign.to.clone(),
            ready: false,
        });
        self.done = 0;
        Ok(lacking)
    }

    /// The layers that [`Self::assign`] asked for are here, and the next machine can be reached.
    pub fn ready(&mut self, stages: Vec<Arc<Stage>>) -> Result<(), AssignError> {
        if let Some(post) = &mut self.post {
            self.holder.set(&post.ranges, stages)?;
            post.ready = true;
        }
        Ok(())
    }

    pub fn epoch(&self) -> Option<u32> {
        self.post.as_ref().map(|post| post.epoch)
    }

    /// Who may send it vectors: the head if `None`.
    pub fn from(&self) -> Option<NodeId> {
        self.post.as_ref().and_then(|post| post.from)
    }

    /// Whom it sends what comes out: the head if `None`.
    pub fn to(&self) -> Option<&Neighbour> {
        self.post.as_ref().and_then(|post| post.to.as_ref())
    }

    /// The last pass of this epoch that went through, counted from 1.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Sequences of which it has a state.
    pub fn slots(&self) -> usize {
        self.holder.slots().len()
    }

    /// Bytes of states and of what was sent.
    pub fn bytes(&self) -> usize {
        self.holder.bytes()
    }

    /// Nobody needs its layers any more.
    pub fn release(&mut self) {
        self.post = None;
        self.done = 0;
        self.cache_type = None;
        self.holder = Holder::new(self.config.width, CacheType::F16, self.log_bytes_max);
    }

    /// Something came from the head or from the machine before. `now_us`: a clock, for the time that a pass takes.
    ///
    /// # Errors
    /// It is no pass that fits this model: whoever sent it is not to be listened to.
    pub fn hear(
        &mut self,
        said: &Pipeline,
        pool: &Pool,
        now_us: &mut dyn FnMut() -> u64,
    ) -> Result<Vec<(To, Pipeline)>, Unfit> {
        match said {
            Pipeline::Pass { pass } => self.pass(pass, pool, now_us),
            Pipeline::Again { last, pass } => self.again(*last, pass, pool, now_us),
            Pipeline::Replay { epoch, states } => Ok(self.replay(*epoch, states, pool, now_us)),
            _ => Ok(Vec::new()),
        }
    }

    /// The post, if it is of this epoch and ready.
    fn post(&self, epoch: u32) -> Option<&Post> {
        self.post.as_ref().filter(|post| post.ready && post.epoch == epoch)
    }

    fn pass(
        &mut self,
        said: &Pass,
        pool: &Pool,
        now_us: &mut dyn FnMut() -> u64,
    ) -> Result<Vec<(To, Pipeline)>, Unfit> {
        let Some(post) = self.post(said.epoch) else { return Ok(Vec::new()) };
        let (activations, last) = (post.activations, post.to.is_none());
        let (pass, vectors) = words::hear(said, Those::All, activations, self.config.width, self.config.context)?;
        let begun = now_us();
        let mut vectors = match self.holder.run(&pass, vectors, pool) {
            Ok(vectors) => vectors,
            Err(PassError::Lacking { slot, got, .. }) => {
                let held = Held { slot: slot.0, positions: got as u32 };
                let lacking = Pipeline::Lacking { epoch: said.epoch, number: said.number, held };
                return Ok(vec![(To::Head, lacking)]);
            }
            Err(PassError::Other { expected, got, .. }) => {
                return Err(Unfit::Vectors { tokens: pass.tokens(), expected, got });
            }
        };
        if last {
            vectors = pass.select(&vectors, self.config.width);
        }
        self.done = said.number + 1;
        let mut times_us = said.times_us.to_vec();
        times_us.push((now_us() - begun).min(u64::from(u32::MAX)) as u32);
        // What came in fitted, and what goes out is no longer but for one time, which the head leaves room for.
        let told = words::tell(said.epoch, said.number, &pass, times_us, activations, &vectors);
        Ok(told
            .map(|told| (if last { To::Head } else { To::Next }, Pipeline::Pass { pass: told }))
            .into_iter()
            .collect())
    }

    fn again(
        &mut self,
        last: bool,
        said: &Pass,
        pool: &Pool,
        now_us: &mut dyn FnMut() -> u64,
    ) -> Result<Vec<(To, Pipeline)>, Unfit> {
        let Some(post) = self.post(said.epoch) else { return Ok(Vec::new()) };
        let activations = post.activations;
        let (pass, vectors) = words::hear(said, Those::All, activations, self.config.width, self.config.context)?;
        let begun = now_us();
        // What is lacking shows in what it says it has.
        let _ = self.holder.again(&pass, vectors, pool);
        if !last {
            return Ok(Vec::new());
        }
        Ok(vec![(To::Head, self.replayed(said.epoch, now_us() - begun))])
    }

    fn replay(
        &mut self,
        epoch: u32,
        states: &[Held],
        pool: &Pool,
        now_us: &mut dyn FnMut() -> u64,
    ) -> Vec<(To, Pipeline)> {
        let Some(post) = self.post(epoch) else { return Vec::new() };
        let activations = post.activations;
        let begun = now_us();
        let states: Vec<(Slot, usize)> = states.iter().map(|held| (Slot(held.slot), held.positions as usize)).collect();
        let own = self.holder.hears_itself();
        let passes = self.holder.replay(&states, pool).unwrap_or_default();
        if own {
            return vec![(To::Head, self.replayed(epoch, now_us() - begun))];
        }
        super::again(epoch, passes, activations).into_iter().map(|again| (To::Next, again)).collect()
    }

    /// What it has of each sequence.
    fn replayed(&self, epoch: u32, replay_us: u64) -> Pipeline {
        Pipeline::Replayed { epoch, replay_us, states: super::held(&self.holder) }
    }
}

/// The number of a type of keys and values: that of weights of the type in GGUF files.
pub fn cache_code(cache_type: CacheType) -> u8 {
    match cache_type {
        CacheType::F16 => Kind::F16.code() as u8,
        CacheType::Q8_0 => Kind::Q8_0.code() as u8,
    }
}
