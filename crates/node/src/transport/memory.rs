//! Connections inside one process, for tests: the same rules, no sockets, no encryption.
//!
//! A [`MemoryNetwork`] is a set of listeners by port. Frames are handed over without copying; at most
//! [`WINDOW_BYTES`] wait in each direction.

use super::{Address, BoxFuture, CLOSE_REASON_BYTES_MAX, Connection, Counters, FRAME_BYTES_MAX, FrameReceiver};
use super::{FrameSender, Identity, NodeId, Receiver as AnyReceiver, Result, SeenKey, Sender as AnySender};
use super::{Transport, TransportError};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc};

const KIND: &str = "memory";
/// Every address of a [`MemoryNetwork`] has this host.
pub const HOST: &str = "memory";
/// What may wait between a sender and its receiver: a little more than the longest frame.
pub const WINDOW_BYTES: usize = FRAME_BYTES_MAX + (1 << 20);
/// What a waiting frame costs beside its bytes, so that empty frames are bounded too.
const FRAME_COST_BYTES: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG_MAX: usize = 256;

type Listeners = HashMap<u16, (NodeId, mpsc::Sender<Connection>)>;

#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Listeners>>);

impl MemoryNetwork {
    fn listeners(&self) -> std::sync::MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct MemoryTransport {
    network: MemoryNetwork,
    id: NodeId,
    listener: Option<(u16, tokio::sync::Mutex<mpsc::Receiver<Connection>>)>,
}

impl MemoryTransport {
    pub fn dialler(network: &MemoryNetwork, identity: &Identity) -> Self {
        Self { network: network.clone(), id: identity.id(), listener: None }
    }

    /// Listens at the lowest free port.
    pub fn listen(network: &MemoryNetwork, identity: &Identity) -> Result<Self> {
        let id = identity.id();
        let mut listeners = network.listeners();
        let full = || TransportError::Bind { kind: KIND, at: HOST.into(), got: "no free port".into() };
        let port = (1..=u16::MAX).find(|port| !listeners.contains_key(port)).ok_or_else(full)?;
        let (sender, receiver) = mpsc::channel(BACKLOG_MAX);
        listeners.insert(port, (id, sender));
        drop(listeners);
        Ok(Self { network: network.clone(), id, listener: Some((port, tokio::sync::Mutex::new(receiver))) })
    }

    fn unlisten(&self) {
        if let Some((port, _)) = &self.listener {
            self.network.listeners().remove(port);
        }
    }

    async fn dial(&self, address: &Address) -> Result<Connection> {
        let failed = |got: &str| TransportError::Unreachable { kind: KIND, address: address.clone(), got: got.into() };
        let found = self.network.listeners().get(&address.port).filter(|_| address.host == HOST).cloned();
        let (id, listener) = found.ok_or_else(|| failed("nobody listens there"))?;
        if id != address.id {
            let (at, expected) = (address.to_string(), address.id);
            return Err(TransportError::WrongPeer { kind: KIND, at, expected, got: SeenKey::Known(id) });
        }
        let (near, far) = pair(self.id, id);
        listener.send(far).await.map_err(|_| failed("the listener has gone"))?;
        Ok(near)
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.unlisten();
    }
}

impl Transport for MemoryTransport {
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(self.dial(address))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Connection>> {
        Box::pin(async {
            let (_, queue) = self.listener.as_ref().ok_or(TransportError::NotListening { kind: KIND, id: self.id })?;
            queue.lock().await.recv().await.ok_or(TransportError::TransportClosed { kind: KIND, id: self.id })
        })
    }

    fn local_addresses(&self) -> Vec<Address> {
        self.listener.iter().map(|(port, _)| Address { id: self.id, host: HOST.into(), port: *port }).collect()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.unlisten() })
    }
}

/// The two ends of one connection between `dialler` and `acceptor`.
pub fn pair(dialler: NodeId, acceptor: NodeId) -> (Connection, Connection) {
    let (near, far) = (Arc::new(Counters::default()), Arc::new(Counters::default()));
    let (to_far, from_near) = pipe(acceptor, dialler, &near, &far);
    let (to_near, from_far) = pipe(dialler, acceptor, &far, &near);
    let end = |peer, counters, sender, receiver| Connection {
        peer,
        counters,
        sender: FrameSender(AnySender::Memory(sender)),
        receiver: FrameReceiver(AnyReceiver::Memory(receiver)),
    };
    (end(acceptor, near, to_far, from_far), end(dialler, far, to_near, from_near))
}

fn pipe(to: NodeId, from: NodeId, sending: &Arc<Counters>, receiving: &Arc<Counters>) -> (Sender, Receiver) {
    let (queue, items) = mpsc::unbounded_channel();
    let window = Arc::new(Semaphore::new(WINDOW_BYTES));
    let sender = Sender { queue, window: window.clone(), counters: sending.clone(), peer: to };
    (sender, Receiver { items, window, counters: receiving.clone(), peer: from, closed: false })
}

enum Item {
    Frame(Bytes),
    Goodbye { code: u32, reason: String },
}

pub(super) struct Sender {
    /// Unbounded itself; `window` bounds it.
    queue: mpsc::UnboundedSender<Item>,
    window: Arc<Semaphore>,
    counters: Arc<Counters>,
    peer: NodeId,
}

impl Sender {
    pub(super) async fn send(&mut self, frame: Bytes) -> Result<()> {
        let (at, got) = (|| at(self.peer), frame.len());
        if got > FRAME_BYTES_MAX {
            return Err(TransportError::FrameTooLarge { at: at(), expected_max: FRAME_BYTES_MAX, got });
        }
        let gone = || TransportError::Lost { at: at(), expected: "a peer that takes bytes", got: "none".into() };
        // A closed semaphore is a receiver that was dropped.
        self.window.acquire_many((got + FRAME_COST_BYTES) as u32).await.map_err(|_| gone())?.forget();
        self.queue.send(Item::Frame(frame)).map_err(|_| gone())?;
        self.counters.add_sent(4 + got);
        Ok(())
    }

    pub(super) async fn close(&mut self, code: u32, reason: &str) -> Result<()> {
        let reason = reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)].to_owned();
        let gone =
            |_| TransportError::Lost { at: at(self.peer), expected: "a peer that takes bytes", got: "none".into() };
        self.queue.send(Item::Goodbye { code, reason }).map_err(gone)
    }
}

pub(super) struct Receiver {
    items: mpsc::UnboundedReceiver<Item>,
    window: Arc<Semaphore>,
    counters: Arc<Counters>,
    peer: NodeId,
    closed: bool,
}

impl Receiver {
    pub(super) async fn recv(&mut self) -> Result<Option<Bytes>> {
        if self.closed {
            return Ok(None);
        }
        match self.items.recv().await {
            Some(Item::Frame(frame)) => {
                self.window.add_permits(frame.len() + FRAME_COST_BYTES);
                self.counters.add_received(4 + frame.len());
                Ok(Some(frame))
            }
            Some(Item::Goodbye { code: 0, .. }) => {
                self.closed = true;
                Ok(None)
            }
            Some(Item::Goodbye { code, reason }) => Err(TransportError::Closed { at: at(self.peer), code, reason }),
            None => {
                let (expected, got) = ("a frame or a goodbye", "the end of the stream".into());
                Err(TransportError::Lost { at: at(self.peer), expected, got })
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.window.close();
    }
}

fn at(peer: NodeId) -> String {
    format!("{peer} over memory")
}
