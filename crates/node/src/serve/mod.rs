//! A language model for programs that speak HTTP, in the words of OpenAI's API.
//!
//! One request, followed from end to end: `door` lets a connection in, `connections` reads requests from it; `routes` finds
//! what its path means, under which name (`hosts`) and who asks (`keys`); `ask` reads the body, renders the chat template,
//! cuts the prompt into tokens, and makes a constraint of the form that the text must have; `writer` hands it to the one
//! thread that owns the engine, `desk`, which puts it into `line` and, when its turn comes, writes it along with all others; `words` makes text of its
//! tokens; `reply` gives that the form that the client expects, with calls of `tools` taken out. What goes wrong is a
//! `refusal`. Who else may answer is `routed`'s; `upstream` is a server above, and `echo` drafts for it.
//!
//! A client that leaves drops its end of a channel, and its place is free before the next token. The same seed gives the
//! same text whatever else runs: the engine sees to that, and nothing here depends on who else is there.
//!
//! Not here: several models.

mod ask;
mod audit;
mod connections;
mod desk;
mod door;
mod drafters;
mod echo;
mod hosts;
mod keys;
mod line;
mod load;
mod metrics;
mod motor;
mod refusal;
mod reply;
mod routed;
mod routes;
mod tools;
mod trial;
mod upstream;
mod words;
mod writer;

pub use door::tls;
pub use keys::{Keys, KeysError, secret_file};
pub use motor::Motor;
pub use reply::Names;
pub use upstream::{Upstream, UpstreamError};
pub use writer::Room;

/// What fuzz targets call and nobody else sees: `cargo fuzz` sets this.
#[cfg(fuzzing)]
pub mod fuzzed {
    pub use super::ask::{Ask, Kind, Vectors};
    pub use super::refusal::Refusal;
    pub use super::tools::{Calls, Form, Heard};
    pub use super::writer::Asked;
}

use crate::speculate::edge::Port;
use crate::speculate::verify;
use crate::transport::{NodeId, Transport};
use door::Door;
use hosts::Hosts;
use littoral_infer::engine::{Engine, Limits};
use littoral_infer::model::Model;
use littoral_infer::route::routing::Routing;
use littoral_infer::route::rule::Policy;
use littoral_model::lm::{CacheType, StateError};
use littoral_tensor::pool::Pool;
use metrics::Metrics;
use routed::Routed;
use routes::Served;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use upstream::Drafts;
use writer::Writer;

/// After answers were cut short: time to tell their readers.
const FAREWELL: Duration = Duration::from_secs(2);

pub struct Settings {
    pub listen: SocketAddr,
    /// Clients ask for the model by it.
    pub name: String,
    pub keys: Keys,
    /// Others than this machine may ask without a key.
    pub open: bool,
    /// Names beside those of this machine under which a listener on loopback may be asked where there is no key.
    pub hosts: Vec<String>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// In which sequences keep their keys and values.
    pub cache_type: CacheType,
    pub room: Room,
    /// How long answers that have begun may take when the server is to stop.
    pub grace: Duration,
}

/// Who else may answer, and what decides.
#[derive(Default)]
pub struct Above {
    /// What must not leave this machine.
    pub policy: Policy,
    pub routing: Routing,
    /// A server of OpenAI's API; `None`: nobody, or whom the motor has a link to.
    pub upstream: Option<Arc<Upstream>>,
    /// The edge that drafts for that server; `None`: it is asked for whole answers.
    pub port: Option<Port>,
    /// Where the watch over the router's calibration is kept.
    pub watch: Option<PathBuf>,
    pub names: Names,
}

impl Settings {
    /// What can be known before a model is loaded.
    pub fn check(&self) -> Result<(), ServeError> {
        let at = self.listen;
        if self.keys.is_empty() && !self.open && !at.ip().is_loopback() { Err(ServeError::Open { at }) } else { Ok(()) }
    }

    /// The names under which the server may be asked, if it matters.
    fn named(&mut self) -> Option<Hosts> {
        let matters = self.keys.is_empty() && !self.open && self.listen.ip().is_loopback();
        matters.then(|| Hosts::new(std::mem::take(&mut self.hosts)))
    }
}

#[derive(Debug, Error)]
pub enum ServeError {
    #[error("{at} is open to other machines, and there is no API key")]
    Open { at: SocketAddr },
    #[error("nothing listens at {at}: {source}")]
    Bind { at: SocketAddr, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
    #[error("no thread for the model: {0}")]
    Thread(io::Error),
    #[error("the thread of the model ended")]
    Writer,
}

/// A model that can be reached.
pub struct Server {
    door: Door,
    served: Arc<Served>,
    writer_ended: oneshot::Receiver<()>,
    grace: Duration,
}

impl Server {
    /// Of a model that is here as a whole.
    pub async fn start(model: Arc<Model>, pool: Pool, settings: Settings) -> Result<Self, ServeError> {
        let limits = Limits { running_max: settings.room.running_max, ..Limits::default() };
        let engine = Engine::new(model, settings.cache_type, limits)?;
        Self::start_with(Motor::Engine(Box::new(engine)), Above::default(), pool, settings).await
    }

    /// Of whatever writes; `above`: who else may answer.
    pub async fn start_with(
        motor: Motor,
        above: Above,
        pool: Pool,
        mut settings: Settings,
    ) -> Result<Self, ServeError> {
        settings.check()?;
        let hosts = settings.named();
        let Settings { listen: at, name, keys, tls, cache_type, room, grace, .. } = settings;
        let model = motor.engine().model().clone();
        let exact = motor.exact();
        let door = Door::open(at, tls).await.map_err(|source| ServeError::Bind { at, source })?;
        let metrics = Arc::new(Metrics::new());
        let Above { policy, routing, upstream, port, watch, names } = above;
        let guarded = !policy.is_empty() || routing.has_budget() || keys.any_local_only();
        let routed = upstream.is_some() || motor.link().is_some();
        let deciding = routed.then(|| Routed::new(routing, upstream.clone(), watch));
        let (writer, writer_ended) =
            Writer::start(motor, deciding, pool, room, metrics.clone()).map_err(ServeError::Thread)?;
        if let Some(upstream) = &upstream {
            tokio::spawn(upstream.clone().watch());
            match port {
                Some(port) => drop(tokio::spawn(echo::run(upstream.clone(), model.clone(), port))),
                None => upstream.set_drafts(Drafts::Off("this machine's model does not draft for it".into())),
            }
        }
        let served = Arc::new(Served {
            model,
            cache_type,
            exact,
            name: name.into(),
            since: routes::now(),
            keys,
            hosts,
            room,
            policy,
            routed,
            guarded,
            names: Arc::new(names),
            upstream,
            writer,
            metrics,
            closing: AtomicBool::new(false),
            busy: watch::Sender::new(()),
            auditing: Arc::new(Semaphore::new(1)),
        });
        Ok(Self { door, served, writer_ended, grace })
    }

    /// Lets machines in whose keys are allowed, to verify their drafts, until the transport is closed. `model`: BLAKE3 of the
    /// model's file.
    pub fn verify(&self, transport: Arc<dyn Transport>, allowed: Vec<NodeId>, model: [u8; 32]) {
        let writer = self.served.writer.clone();
        tokio::spawn(verify::accept(transport, allowed, model, move |said| writer.hear(said)));
    }

    pub fn address(&self) -> SocketAddr {
        self.door.address()
    }

    /// Serves until `stop`, and then on until what has begun is done, at most for the time of grace.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { door, served, mut writer_ended, grace } = self;
        let (close, closed) = watch::channel(false);
        let mut serving = JoinSet::new();
        serving.spawn(connections::serve(door, routes::router(served.clone()), closed));
        tokio::select! {
            () = stop => {}
            _ = &mut writer_ended => return Err(ServeError::Writer),
        }
        // The door stays open a while, so that those who come hear why they cannot be served.
        served.closing.store(true, SeqCst);
        if tokio::time::timeout(grace, served.busy.closed()).await.is_err() {
            tracing::warn!("answers were not done within {grace:?}, and are cut short");
            served.writer.cut();
            served.upstream.iter().for_each(|upstream| upstream.cut());
            let _ = tokio::time::timeout(FAREWELL, served.busy.closed()).await;
        }
        // What is known of the traffic outlives the server.
        let _ = tokio::time::timeout(FAREWELL, served.writer.keep()).await;
        let _ = close.send(true);
        // Whoever is still connected then has had time enough.
        let _ = tokio::time::timeout(FAREWELL, serving.join_next()).await;
        Ok(())
    }
}
