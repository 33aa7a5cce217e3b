//! Frames between two machines that know each other's key.
//!
//! A [`Connection`] is one mutually authenticated, encrypted, ordered, bidirectional stream of **frames**. A
//! [`Transport`] makes them: it dials an [`Address`] (a key and a place) and, on edges and in the cloud, accepts.
//! Devices only dial. Who you are is an ed25519 key, on every transport the same; there are no certificates and
//! no authority: the dialler says which key it expects, the acceptor learns the dialler's key and decides above here.
//!
//! | transport | under it | for |
//! |---|---|---|
//! | [`quic`] | iroh (QUIC, raw public keys); relay only if configured, never a public one | meshes, NATs |
//! | [`tcp`] | TLS 1.3 with raw public keys (RFC 7250) over one TCP port, also through an HTTP CONNECT proxy | networks that block UDP; twice the speed |
//! | [`memory`] | bounded channels in one process | tests |
//! | [`auto`] | the first two on one port number, whichever gets through | the default |
//!
//! [`shaper`] decides what a bad network does to a message (pure), [`forwarder`] does it to real sockets.
//!
//! Not here: what frames mean, authorisation, reconnection with backoff, discovery. A dropped connection is an error
//! for its owner to handle.

mod address;
pub mod auto;
mod backlog;
mod endpoints;
mod error;
pub mod forwarder;
mod frame;
mod identity;
pub mod memory;
mod proxy;
pub mod quic;
mod read_ahead;
pub mod shaper;
pub mod tcp;
mod tls;

pub use address::Address;
pub use auto::{AutoOptions, AutoTransport, Mode};
pub use error::{Result, SeenKey, TransportError};
pub use frame::{CLOSE_REASON_BYTES_MAX, FRAME_BYTES_MAX};
pub use identity::{Identity, NodeId};
pub use proxy::{Proxy, ProxyLogin};
pub use quic::{QuicOptions, QuicTransport};
pub use tcp::{TcpOptions, TcpTransport};

use bytes::Bytes;
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::sync::mpsc;

/// The protocol name in every handshake (ALPN): a stranger that speaks something else is refused there.
pub const ALPN: &[u8] = b"littoral/1";

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes connections. Futures may be dropped at any time.
pub trait Transport: Send + Sync {
    /// Dials, and refuses a peer that does not hold the key of `address.id`.
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<Connection>>;

    /// The next connection that finished its handshake; handshakes run on their own, a slow one delays nobody.
    fn accept(&self) -> BoxFuture<'_, Result<Connection>>;

    /// Where others can dial this transport; empty if it only dials.
    fn local_addresses(&self) -> Vec<Address>;

    /// Stops accepting and dialling and lets goodbyes leave. Connections end, on QUIC at once.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// An authenticated connection, to be [split](Self::split) between a sending and a receiving task.
///
/// Dropping both halves without [`FrameSender::close`] cuts it: the peer sees an error, not an end.
pub struct Connection {
    peer: NodeId,
    counters: Arc<Counters>,
    sender: FrameSender,
    receiver: FrameReceiver,
}

impl Connection {
    /// The key that the other end proved to hold.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// `"quic"`, `"tcp"` or `"memory"`.
    pub fn kind(&self) -> &'static str {
        match self.sender.0 {
            Sender::Tcp(_) => "tcp",
            Sender::Quic(_) => "quic",
            Sender::Memory(_) => "memory",
        }
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    pub fn split(self) -> (FrameSender, FrameReceiver) {
        (self.sender, self.receiver)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} over {})", self.peer, self.kind())
    }
}

/// Bytes that one connection moved; readable from anywhere while it lives and after.
///
/// TCP counts what crosses the socket: handshake, TLS records, everything but the proxy's preamble and the kernel's
/// headers. QUIC and memory count frames with their 4-byte prefixes (QUIC's packets belong to the endpoint).
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counters {
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The sending half. Waits while the peer does not take bytes: what it holds is bounded, whatever is sent.
pub struct FrameSender(Sender);

enum Sender {
    Tcp(Box<frame::FrameWriter<tcp::WriteHalf>>),
    Quic(Box<quic::Sender>),
    Memory(memory::Sender),
}

impl FrameSender {
    /// Takes one frame of at most [`FRAME_BYTES_MAX`] bytes; small ones wait for company until [`Self::flush`].
    ///
    /// Cancel-safe: a frame goes out whole or not at all.
    pub async fn send(&mut self, frame: Bytes) -> Result<()> {
        match &mut self.0 {
            Sender::Tcp(writer) => writer.send(frame).await,
            Sender::Quic(sender) => sender.send(frame).await,
            Sender::Memory(sender) => sender.send(frame).await,
        }
    }

    /// Hands everything to the operating system. Call it when there is nothing more to send for now.
    pub async fn flush(&mut self) -> Result<()> {
        match &mut self.0 {
            Sender::Tcp(writer) => writer.flush().await,
            Sender::Quic(sender) => sender.flush().await,
            Sender::Memory(_) => Ok(()),
        }
    }

    /// Says goodbye. With code 0 the peer's `recv` gives `None`, with another code an error that carries both.
    /// The reason is cut to [`CLOSE_REASON_BYTES_MAX`] bytes.
    pub async fn close(mut self, code: u32, reason: &str) -> Result<()> {
        match &mut self.0 {
            Sender::Tcp(writer) => writer.close(code, reason).await,
            Sender::Quic(sender) => sender.close(code, reason).await,
            Sender::Memory(sender) => sender.close(code, reason).await,
        }
    }

    /// Sends what comes out of `queue`, flushing whenever it runs empty; says goodbye when its senders are gone.
    pub async fn drain(mut self, mut queue: mpsc::Receiver<Bytes>) -> Result<()> {
        loop {
            let frame = match queue.try_recv() {
                Ok(frame) => Some(frame),
                Err(_) => {
                    self.flush().await?;
                    queue.recv().await
                }
            };
            match frame {
                Some(frame) => self.send(frame).await?,
                None => return self.close(0, "").await,
            }
        }
    }
}

/// The receiving half.
pub struct FrameReceiver(Receiver);

enum Receiver {
    Tcp(Box<frame::FrameReader<tcp::ReadHalf>>),
    Quic(Box<quic::Receiver>),
    Memory(memory::Receiver),
}

impl FrameReceiver {
    /// The next frame; `None` once the peer has said goodbye with code 0. Cancel-safe.
    ///
    /// # Errors
    /// [`TransportError::Closed`] for a goodbye with another code, [`TransportError::Lost`] if the peer vanished,
    /// [`TransportError::FrameTooLarge`] if it claims more than [`FRAME_BYTES_MAX`]. After an error there is nothing more.
    pub async fn recv(&mut self) -> Result<Option<Bytes>> {
        match &mut self.0 {
            Receiver::Tcp(reader) => reader.recv().await,
            Receiver::Quic(receiver) => receiver.recv().await,
            Receiver::Memory(receiver) => receiver.recv().await,
        }
    }
}
