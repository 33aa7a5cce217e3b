//! TLS 1.3 over one TCP port, with the machines' own keys (RFC 7250); directly or through an HTTP proxy.
//!
//! For networks that let nothing else out, and the fastest of the transports. Small writes are gathered above (frames)
//! and the socket does not wait for more (`TCP_NODELAY`). Kernel buffers are left to the kernel: a size set by hand
//! would switch its auto-tuning off and is capped lower than what tuning reaches.
//!
//! A vanished peer is noticed by the kernel: keep-alive probes after `KEEPALIVE_IDLE`, and on Linux an upper bound
//! `UNACKED_MAX` for sent bytes that nobody acknowledges. The kernel counts a peer that lives but does not read as
//! one of those: a receiver must not stop reading for that long.

use super::backlog::Backlog;
use super::error::of_socket;
use super::frame::{FrameReader, FrameWriter};
use super::read_ahead::ReadAhead;
use super::tls::{Tls, key_of};
use super::{ALPN, Address, BoxFuture, Connection, Counters, FrameReceiver, FrameSender, Identity, NodeId, Proxy};
use super::{Receiver, Result, SeenKey, Sender, Transport, TransportError};
use rustls::CommonState;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

const KIND: &str = "tcp";
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
#[cfg(target_os = "linux")]
const UNACKED_MAX: Duration = Duration::from_secs(60);
/// Encrypted bytes that TLS gathers for one system call: 4 full records.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// After a failed `accept` (usually: no file descriptors left) the listener waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) type WriteHalf = tokio::io::WriteHalf<TlsStream<ReadAhead>>;
pub(super) type ReadHalf = tokio::io::ReadHalf<TlsStream<ReadAhead>>;

#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// Dial through this HTTP proxy.
    pub proxy: Option<Proxy>,
    /// For the whole way from the first packet to an authenticated connection.
    pub handshake_timeout_ms: u64,
    /// Handshakes under way at a listener; one more drops the oldest of the address that has most.
    pub half_open_max: usize,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { proxy: None, handshake_timeout_ms: 10_000, half_open_max: 1024 }
    }
}

pub struct TcpTransport {
    id: NodeId,
    tls: Tls,
    options: TcpOptions,
    listener: Option<(SocketAddr, Backlog)>,
}

impl TcpTransport {
    /// A transport that only dials.
    pub fn dialler(identity: &Identity, options: TcpOptions) -> Result<Self> {
        let id = identity.id();
        let bad =
            |error: rustls::Error| TransportError::Handshake { kind: KIND, at: id.to_string(), got: error.to_string() };
        Ok(Self { id, tls: Tls::new(identity).map_err(bad)?, options, listener: None })
    }

    /// A transport that also listens at `at`; port 0 takes a free one. Must run inside a tokio runtime.
    pub async fn listen(identity: &Identity, at: SocketAddr, options: TcpOptions) -> Result<Self> {
        let bad =
            |error: std::io::Error| TransportError::Bind { kind: KIND, at: at.to_string(), got: error.to_string() };
        let mut transport = Self::dialler(identity, options)?;
        let listener = TcpListener::bind(at).await.map_err(bad)?;
        let bound = listener.local_addr().map_err(bad)?;
        let acceptor = TlsAcceptor::from(transport.tls.server());
        let (limit_ms, half_open_max) = (transport.options.handshake_timeout_ms, transport.options.half_open_max);
        let backlog = Backlog::spawn(half_open_max, |mut half_open| async move {
            loop {
                match listener.accept().await {
                    Ok((socket, from)) => {
                        half_open.admit(from.into(), answer(acceptor.clone(), socket, from, limit_ms))
                    }
                    Err(error) => {
                        tracing::warn!("accepting at {bound} over tcp: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        transport.listener = Some((bound, backlog));
        Ok(transport)
    }

    async fn dial(&self, address: &Address) -> Result<Connection> {
        let limit_ms = self.options.handshake_timeout_ms;
        let late = |_| TransportError::Timeout { what: "connecting", kind: KIND, at: address.to_string(), limit_ms };
        timeout(Duration::from_millis(limit_ms), self.dial_patiently(address)).await.map_err(late)?
    }

    async fn dial_patiently(&self, address: &Address) -> Result<Connection> {
        let socket = match &self.options.proxy {
            Some(proxy) => proxy.connect(address).await?,
            None => {
                let failed = |error: std::io::Error| TransportError::Unreachable {
                    kind: KIND,
                    address: address.clone(),
                    got: error.to_string(),
                };
                address.host_port()?;
                TcpStream::connect((address.host.as_str(), address.port)).await.map_err(failed)?
            }
        };
        let at = address.to_string();
        let broken = |got: String| TransportError::Handshake { kind: KIND, at: at.clone(), got };
        prepare(&socket).map_err(|error| broken(error.to_string()))?;
        let (config, seen) = self.tls.client(address.id).map_err(|error| broken(error.to_string()))?;
        let counters = Arc::new(Counters::default());
        let socket = ReadAhead::new(socket, counters.clone());
        // Never sent (no SNI): the key is the name.
        let name = ServerName::try_from("littoral").map_err(|error| broken(error.to_string()))?;
        let stream = TlsConnector::from(config)
            .connect_with(name, socket, |session| session.set_buffer_limit(Some(RECORD_BYTES_MAX)))
            .await;
        let stream = stream.map_err(|error| match seen.get() {
            Some(&got) if got != address.id => {
                TransportError::WrongPeer { kind: KIND, at: at.clone(), expected: address.id, got: SeenKey::Known(got) }
            }
            _ => broken(of_socket(&error)),
        })?;
        connection(TlsStream::Client(stream), counters, &at)
    }
}

impl Transport for TcpTransport {
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(self.dial(address))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Connection>> {
        Box::pin(async {
            let (_, backlog) =
                self.listener.as_ref().ok_or(TransportError::NotListening { kind: KIND, id: self.id })?;
            backlog.accept().await.ok_or(TransportError::TransportClosed { kind: KIND, id: self.id })
        })
    }

    fn local_addresses(&self) -> Vec<Address> {
        self.listener.iter().map(|(at, _)| Address::new(self.id, *at)).collect()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some((_, backlog)) = &self.listener {
                backlog.stop();
            }
        })
    }
}

/// The server's half of a handshake.
async fn answer(acceptor: TlsAcceptor, socket: TcpStream, from: SocketAddr, limit_ms: u64) -> Result<Connection> {
    let at = from.to_string();
    let broken =
        |error: std::io::Error| TransportError::Handshake { kind: KIND, at: at.clone(), got: of_socket(&error) };
    let late = |_| TransportError::Timeout { what: "handshake", kind: KIND, at: at.clone(), limit_ms };
    prepare(&socket).map_err(broken)?;
    let counters = Arc::new(Counters::default());
    let socket = ReadAhead::new(socket, counters.clone());
    let handshake = acceptor.accept_with(socket, |session| session.set_buffer_limit(Some(RECORD_BYTES_MAX)));
    let stream = timeout(Duration::from_millis(limit_ms), handshake).await.map_err(late)?.map_err(broken)?;
    connection(TlsStream::Server(stream), counters, &at)
}

fn connection(stream: TlsStream<ReadAhead>, counters: Arc<Counters>, at: &str) -> Result<Connection> {
    let (_, session) = stream.get_ref();
    let peer =
        peer_of(session).map_err(|got| TransportError::Handshake { kind: KIND, at: at.into(), got: got.into() })?;
    let at: Arc<str> = format!("{peer} at {} over tcp", at.rsplit('@').next().unwrap_or(at)).into();
    let (reader, writer) = tokio::io::split(stream);
    Ok(Connection {
        peer,
        counters,
        sender: FrameSender(Sender::Tcp(Box::new(FrameWriter::new(writer, at.clone())))),
        receiver: FrameReceiver(Receiver::Tcp(Box::new(FrameReader::new(reader, at)))),
    })
}

fn peer_of(session: &CommonState) -> Result<NodeId, &'static str> {
    if session.alpn_protocol() != Some(ALPN) {
        return Err("a peer that does not name the protocol littoral/1");
    }
    let key = session.peer_certificates().and_then(|shown| key_of(shown.first()?));
    key.ok_or("a peer that shows no ed25519 key")
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let options = SockRef::from(socket);
    options.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES),
    )?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(UNACKED_MAX))?;
    Ok(())
}
