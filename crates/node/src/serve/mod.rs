//! A language model for programs that speak HTTP, in the words of OpenAI's API.
//!
//! One request, followed from end to end: `door` lets a connection in; `routes` finds what its path means and who asks
//! (`keys`); `ask` reads the body, renders the chat template, and cuts the prompt into tokens; `writer`, the one thread
//! that owns the engine, puts it into `line` and, when its turn comes, writes it along with all others; `words` makes
//! text of its tokens; `reply` gives that the form that the client expects. What goes wrong is a `refusal`.
//!
//! A client that leaves drops its end of a channel, and its place is free before the next token. The same seed gives the
//! same text whatever else runs: the engine sees to that, and nothing here depends on who else is there.
//!
//! Not here: several models, embeddings, text that must follow a grammar (`tools`, JSON mode). They are refused by name.

mod ask;
mod door;
mod keys;
mod line;
mod metrics;
mod refusal;
mod reply;
mod routes;
mod words;
mod writer;

pub use door::tls;
pub use keys::{Keys, KeysError};
pub use writer::Room;

use door::{Door, Peer};
use littoral_infer::engine::{Engine, Limits};
use littoral_infer::model::Model;
use littoral_tensor::pool::Pool;
use metrics::Metrics;
use routes::Served;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
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
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub room: Room,
    /// How long answers that have begun may take when the server is to stop.
    pub grace: Duration,
}

#[derive(Debug, Error)]
pub enum ServeError {
    #[error("{at} is open to other machines, and there is no API key")]
    Open { at: SocketAddr },
    #[error("nothing listens at {at}: {source}")]
    Bind { at: SocketAddr, source: io::Error },
    #[error("no thread for the model: {0}")]
    Thread(io::Error),
    #[error("the thread of the model ended")]
    Writer,
    #[error("the server ended: {0}")]
    Http(io::Error),
}

/// A model that can be reached.
pub struct Server {
    door: Door,
    served: Arc<Served>,
    writer_ended: oneshot::Receiver<()>,
    grace: Duration,
}

impl Server {
    pub async fn start(model: Arc<Model>, pool: Pool, settings: Settings) -> Result<Self, ServeError> {
        let Settings { listen: at, name, keys, open, tls, room, grace } = settings;
        if keys.is_empty() && !open && !at.ip().is_loopback() {
            return Err(ServeError::Open { at });
        }
        let door = Door::open(at, tls).await.map_err(|source| ServeError::Bind { at, source })?;
        let metrics = Arc::new(Metrics::new());
        let limits = Limits { running_max: room.running_max, ..Limits::default() };
        let engine = Engine::new(model.clone(), limits);
        let (writer, writer_ended) = Writer::start(engine, pool, room, metrics.clone()).map_err(ServeError::Thread)?;
        let served = Arc::new(Served {
            model,
            name: name.into(),
            since: routes::now(),
            keys,
            room,
            writer,
            metrics,
            closing: AtomicBool::new(false),
            busy: watch::Sender::new(()),
        });
        Ok(Self { door, served, writer_ended, grace })
    }

    pub fn address(&self) -> SocketAddr {
        self.door.address()
    }

    /// Serves until `stop`, and then on until what has begun is done, at most for the time of grace.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { door, served, mut writer_ended, grace } = self;
        let router = routes::router(served.clone()).into_make_service_with_connect_info::<Peer>();
        let (close, closed) = oneshot::channel::<()>();
        let serving = axum::serve(door, router).with_graceful_shutdown(async {
            let _ = closed.await;
        });
        let serving = tokio::spawn(serving.into_future());
        tokio::select! {
            () = stop => {}
            _ = &mut writer_ended => return Err(ServeError::Writer),
        }
        // The door stays open a while, so that those who come hear why they cannot be served.
        served.closing.store(true, SeqCst);
        if tokio::time::timeout(grace, served.busy.closed()).await.is_err() {
            tracing::warn!("answers were not done within {grace:?}, and are cut short");
            served.writer.cut();
            let _ = tokio::time::timeout(FAREWELL, served.busy.closed()).await;
        }
        let _ = close.send(());
        match tokio::time::timeout(FAREWELL, serving).await {
            Ok(Ok(done)) => done.map_err(ServeError::Http),
            // Whoever is still connected has had time enough.
            _ => Ok(()),
        }
    }
}
