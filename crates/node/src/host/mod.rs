//! The host: runs one [`Role`] in the real world. Sockets, files, threads and the clock are touched here and nowhere
//! else in the deployed system; what a role may expect of it stands in [`crate::role`].
//!
//! One task ([`machine`]) owns the role, feeds it events one at a time and performs effects in their order. While a
//! store is in progress events are still stepped; their effects queue up behind it.
//!
//! | what | where | bounded by |
//! |---|---|---|
//! | dial, accept, versions | [`greet`] | [`Settings::links_max`], [`Settings::greetings_max`], time |
//! | frames in and out | [`link`] | one message per link in; [`Settings::queue_bytes_max`] out; stalls |
//! | objects | [`disk`] | a few threads; operations on one object in order |
//! | durable writes | [`journal`] | one at a time, under leases, repeated while the disk is full |
//! | other replicas | [`tier`] | a few jobs, changes and messages at a time |
//! | rounds of many sums | [`shards`] | one shard at a time, of [`Settings::shard_sums`] |
//! | works | [`pool`] | [`Settings::threads`] |
//!
//! Not here: decisions. If the host must choose, it drops a link and says why.

mod clock;
mod disk;
mod greet;
mod journal;
pub mod keys;
mod link;
mod machine;
mod mail;
mod pool;
mod shards;
mod tier;
mod traffic;

pub use clock::Clock;
pub use mail::MailKey;
pub use tier::{Needs, Replica};
pub use traffic::{PeerBytes, Traffic};

use crate::role::{Event, Report, Role};
use crate::store::{ObjectStore, Store, StoreError};
use crate::transport::{Address, Transport};
use crate::work::LocalData;
use littoral_wire::NodeId;
use littoral_wire::hello::Hello;
use machine::{Input, Machine};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Where reports go. Called from the host's task: it must not block.
pub type OnReport = Arc<dyn Fn(Report) + Send + Sync>;

/// What the role acts on.
pub struct World {
    pub transport: Arc<dyn Transport>,
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn ObjectStore>,
    pub data: Arc<dyn LocalData>,
    pub on_report: OnReport,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Told to peers, e.g. `littoral 0.1.0`.
    pub software: String,
    /// Told to peers: how this machine computes language models.
    pub kernels: String,
    /// Works that run at a time, at least 1.
    pub threads: usize,
    /// Accepted links; one more is told so and dropped.
    pub links_max: usize,
    /// Accepted connections that have not said which protocol they speak.
    pub greetings_max: usize,
    /// Links that one key may hold; one more drops its oldest.
    pub links_per_peer_max: usize,
    pub hello_timeout_ms: u64,
    /// A link that could not send a byte for this long is dropped.
    pub stall_ms: u64,
    /// Bytes that may wait to be sent on one link; more drop it.
    pub queue_bytes_max: usize,
    /// Under which name rows of jobs are leased; none: without leases, as devices do.
    pub holder: Option<String>,
    pub lease_ttl_ms: u64,
    /// This host is one of several, and writes what it has leased from them.
    pub replica: Option<Replica>,
    /// A round of more sums is cut into shards of so many, which whoever shares the store adds up; 0: never.
    pub shard_sums: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            software: concat!("littoral ", env!("CARGO_PKG_VERSION")).into(),
            kernels: littoral_tensor::quant::KERNELS.into(),
            threads: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            links_max: 10_000,
            greetings_max: 256,
            links_per_peer_max: 4,
            hello_timeout_ms: 10_000,
            stall_ms: 30_000,
            queue_bytes_max: 64 << 20,
            holder: None,
            lease_ttl_ms: 60_000,
            replica: None,
            shard_sums: 0,
        }
    }
}

impl Settings {
    /// What a peer is told first.
    pub fn hello(&self) -> Hello {
        Hello::new(&self.software, &self.kernels)
    }
}

/// Why a run ended although nobody stopped it. Nothing behind the failed write was performed.
#[derive(Clone, Debug, Error)]
pub enum HostError {
    #[error("the run ends: {0}")]
    Store(#[from] StoreError),
    #[error("stopped although the disk still refused to store what was queued; it is as if it had not happened")]
    NotFlushed,
    #[error("the run ends: the role panicked, which is a bug; what is stored is consistent, start again")]
    Panicked,
}

/// A running host. Dropping it stops the run, too, but waits for nothing.
pub struct Handle {
    inputs: mpsc::UnboundedSender<Input>,
    transport: Arc<dyn Transport>,
    traffic: Arc<Traffic>,
    task: JoinHandle<Result<(), HostError>>,
}

/// Starts the role with [`Event::Start`], inside a tokio runtime.
pub fn start(role: Box<dyn Role>, world: World, settings: Settings) -> Handle {
    let (inputs, inbox) = mpsc::unbounded_channel();
    let traffic = Arc::new(Traffic::default());
    let transport = world.transport.clone();
    let machine = Machine::new(role, world, settings, inputs.clone(), traffic.clone());
    Handle { inputs, transport, traffic, task: tokio::spawn(machine.run(inbox)) }
}

impl Handle {
    /// Hands the role an event, as if it had happened.
    pub fn send(&self, event: Event) {
        // A run that has ended takes no events.
        let _ = self.inputs.send(Input::Event(event));
    }

    /// The same, for somebody who outlives the handle. Tells whether the run goes on.
    pub fn sender(&self) -> impl Fn(Event) -> bool + Send + 'static {
        let inputs = self.inputs.clone();
        move |event| inputs.send(Input::Event(event)).is_ok()
    }

    /// Where others can dial this host.
    pub fn addresses(&self) -> Vec<Address> {
        self.transport.local_addresses()
    }

    /// Bytes to and from one peer, over all links there were.
    pub fn bytes_of(&self, peer: NodeId) -> PeerBytes {
        self.traffic.of(peer)
    }

    pub fn bytes_total(&self) -> PeerBytes {
        self.traffic.total()
    }

    /// Counts on after the run has ended.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Takes no more events, performs what is queued, hangs up, and returns.
    pub async fn stop(mut self) -> Result<(), HostError> {
        let _ = self.inputs.send(Input::Stop);
        self.ended().await
    }

    /// Returns when the run ends by itself: its store failed for good.
    pub async fn ended(&mut self) -> Result<(), HostError> {
        (&mut self.task).await.unwrap_or(Err(HostError::Panicked))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.inputs.send(Input::Stop);
    }
}
