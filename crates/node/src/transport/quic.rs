//! QUIC through iroh: the same keys, UDP, and a way through NATs if a relay is configured.
//!
//! One bidirectional stream per connection, opened by the dialler with one `HELLO` byte (QUIC shows a stream to the
//! acceptor only when something has been sent on it). Relay and address lookup are off unless [`QuicOptions`] names a
//! relay; nothing here ever talks to a public network.
//!
//! iroh tells an authenticated peer this endpoint's local addresses and moves to a better path when it finds one; a
//! forwarder between two endpoints on the same network is therefore bypassed (see [`super::forwarder`]).
//!
//! A peer that vanishes without a word (killed, unplugged) is noticed after [`QuicOptions::idle_timeout_ms`]: 5 s, in
//! which three probes may get lost. The price is a probe and its answer per idle connection every 1.5 s: about 65 us of
//! one core per second and end, two thirds of a core for an edge with 10,000 devices (28 us at 4 s and 15 s).

use super::backlog::{Backlog, Source};
use super::endpoints::Endpoints;
use super::frame::{FrameReader, FrameWriter};
use super::{ALPN, Address, BoxFuture, Connection, Counters, FrameReceiver, FrameSender, Identity, NodeId, SeenKey};
use super::{Receiver as AnyReceiver, Result, Sender as AnySender, Transport, TransportError};
use bytes::Bytes;
use iroh::endpoint::{Incoming, IncomingAddr, QuicTransportConfig, RecvStream, SendStream, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, PublicKey, RelayMode, RelayUrl, TransportAddr};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const KIND: &str = "quic";
/// First byte of the stream.
const HELLO: u8 = 1;
/// Bytes that may be under way in one direction; also what a stalled receiver holds, and what its sender holds.
///
/// Not more: the stack below ends a connection whose receiver holds more than 1,024 full packets of a stream, gaps or
/// not ("too many gaps in stream buffer", quinn-rs/quinn#2809), and a full packet may carry as little as 1,160 bytes.
const WINDOW_BYTES: u32 = 1 << 20;
/// How long a goodbye may take to be acknowledged.
const GOODBYE: Duration = Duration::from_secs(3);
/// For an endpoint whose connections have said their goodbyes.
const CLOSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
pub struct QuicOptions {
    /// URL of your own iroh relay; switches NAT traversal through it on.
    pub relay: Option<String>,
    /// From the first packet to an authenticated connection.
    pub handshake_timeout_ms: u64,
    /// Silence after which a connection is lost; at most 15,000.
    pub idle_timeout_ms: u32,
    /// Probes on an idle connection; at most 5,000.
    pub keep_alive_ms: u64,
    /// Handshakes under way at a listener; from half of them on, strangers must prove their address first (QUIC
    /// Retry), one more than all drops the oldest of the address that has most.
    pub half_open_max: usize,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            relay: None,
            handshake_timeout_ms: 10_000,
            idle_timeout_ms: 5_000,
            keep_alive_ms: 1_500,
            half_open_max: 1024,
        }
    }
}

pub struct QuicTransport {
    id: NodeId,
    endpoints: Endpoints,
    relay: Option<RelayUrl>,
    options: QuicOptions,
    listener: Option<Backlog>,
}

impl QuicTransport {
    /// A transport that only dials, from `bind_at` or from any address and port.
    pub async fn dialler(identity: &Identity, bind_at: Option<SocketAddr>, options: QuicOptions) -> Result<Self> {
        Self::bind(identity, bind_at, options, false).await
    }

    /// A transport that also listens at `at`; port 0 takes a free one.
    pub async fn listen(identity: &Identity, at: SocketAddr, options: QuicOptions) -> Result<Self> {
        let mut transport = Self::bind(identity, Some(at), options, true).await?;
        let (endpoint, limit_ms) = (transport.endpoints.first.clone(), transport.options.handshake_timeout_ms);
        transport.listener = Some(Backlog::spawn(transport.options.half_open_max, |mut half_open| async move {
            while let Some(incoming) = endpoint.accept().await {
                if half_open.crowded() && !incoming.remote_addr_validated() {
                    // An error means that the address was proved meanwhile; the peer will try again.
                    let _ = incoming.retry();
                    continue;
                }
                let source = match incoming.remote_addr() {
                    IncomingAddr::Ip(at) => at.into(),
                    _ => Source::Relayed,
                };
                half_open.admit(source, answer(incoming, limit_ms));
            }
        }));
        Ok(transport)
    }

    async fn bind(identity: &Identity, at: Option<SocketAddr>, options: QuicOptions, listen: bool) -> Result<Self> {
        let relay = options.relay.as_deref().map(str::parse::<RelayUrl>).transpose();
        let relay = relay.map_err(|error| bind_error(at, format!("relay URL: {error}")))?;
        let mode = relay.clone().map_or(RelayMode::Disabled, |url| RelayMode::custom([url]));
        let first = endpoint(identity, at, &options, mode, listen).await?;
        Ok(Self { id: identity.id(), endpoints: Endpoints::new(first, identity, at), relay, options, listener: None })
    }

    async fn further(&self, identity: Identity, at: Option<SocketAddr>) -> Result<Endpoint> {
        endpoint(&identity, at, &self.options, RelayMode::Disabled, false).await
    }

    async fn dial(&self, address: &Address) -> Result<Connection> {
        let limit_ms = self.options.handshake_timeout_ms;
        let late = |_| TransportError::Timeout { what: "connecting", kind: KIND, at: address.to_string(), limit_ms };
        timeout(Duration::from_millis(limit_ms), self.dial_patiently(address)).await.map_err(late)?
    }

    async fn dial_patiently(&self, address: &Address) -> Result<Connection> {
        let failed = |got: String| TransportError::Unreachable { kind: KIND, address: address.clone(), got };
        let key = PublicKey::from_bytes(&address.id.0).map_err(|_| failed("an id that is no ed25519 key".into()))?;
        address.host_port()?;
        let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
        let mut places: Vec<_> = found.map_err(|error| failed(error.to_string()))?.map(TransportAddr::Ip).collect();
        let dialler = match &self.relay {
            // It, too, knows machines by their keys: one endpoint of ours may be there, and one machine at the other end.
            Some(relay) => {
                places.push(TransportAddr::Relay(relay.clone()));
                self.endpoints.first.clone()
            }
            None => self.endpoints.of(address, |identity, at| self.further(identity, at)).await?,
        };
        let connection = match dialler.connect(EndpointAddr::from_parts(key, places), ALPN).await {
            Ok(connection) => connection,
            Err(error) => {
                let got = format!("{error:#}");
                // The verifier of iroh knows one way to dislike a raw key: it is not the one we dialled.
                if got.contains("UnknownIssuer") {
                    let at = address.to_string();
                    return Err(TransportError::WrongPeer {
                        kind: KIND,
                        at,
                        expected: address.id,
                        got: SeenKey::Another,
                    });
                }
                return Err(failed(got));
            }
        };
        let (mut send, recv) = connection.open_bi().await.map_err(|error| failed(error.to_string()))?;
        send.write_all(&[HELLO]).await.map_err(|error| failed(error.to_string()))?;
        Ok(wrap(connection, send, recv))
    }
}

impl Transport for QuicTransport {
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(self.dial(address))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Connection>> {
        Box::pin(async {
            let backlog = self.listener.as_ref().ok_or(TransportError::NotListening { kind: KIND, id: self.id })?;
            backlog.accept().await.ok_or(TransportError::TransportClosed { kind: KIND, id: self.id })
        })
    }

    fn local_addresses(&self) -> Vec<Address> {
        if self.listener.is_none() {
            return Vec::new();
        }
        self.endpoints.first.bound_sockets().into_iter().map(|at| Address::new(self.id, at)).collect()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(backlog) = &self.listener {
                backlog.stop();
            }
            // A dial that nobody answers would hold it up for three seconds.
            let _ = timeout(CLOSE, self.endpoints.close()).await;
        })
    }
}

async fn endpoint(
    identity: &Identity,
    at: Option<SocketAddr>,
    options: &QuicOptions,
    relay: RelayMode,
    listen: bool,
) -> Result<Endpoint> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(identity.secret().clone())
        .relay_mode(relay)
        .clear_address_lookup()
        .transport_config(transport_config(options));
    if listen {
        builder = builder.alpns(vec![ALPN.to_vec()]);
    }
    if let Some(at) = at {
        let bound = builder.clear_ip_transports().bind_addr(at);
        builder = bound.map_err(|error| bind_error(Some(at), error.to_string()))?;
    }
    builder.bind().await.map_err(|error| bind_error(at, format!("{error:#}")))
}

fn bind_error(at: Option<SocketAddr>, got: String) -> TransportError {
    TransportError::Bind { kind: KIND, at: at.map_or("any address".to_owned(), |at| at.to_string()), got }
}

fn transport_config(options: &QuicOptions) -> QuicTransportConfig {
    let keep_alive = Duration::from_millis(options.keep_alive_ms.clamp(100, 5_000));
    let idle_ms = options.idle_timeout_ms.clamp(500, 15_000);
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .default_path_max_idle_timeout(Duration::from_millis(u64::from(idle_ms)))
        .keep_alive_interval(keep_alive)
        .default_path_keep_alive_interval(keep_alive)
        .build()
}

/// The acceptor's half of a handshake.
async fn answer(incoming: Incoming, limit_ms: u64) -> Result<Connection> {
    let at = format!("{:?}", incoming.remote_addr());
    let broken = |got: String| TransportError::Handshake { kind: KIND, at: at.clone(), got };
    let handshake = async {
        let connection = incoming.await.map_err(|error| broken(format!("{error:#}")))?;
        let (send, mut recv) = connection.accept_bi().await.map_err(|error| broken(error.to_string()))?;
        let mut hello = [0];
        recv.read_exact(&mut hello).await.map_err(|error| broken(error.to_string()))?;
        if hello != [HELLO] {
            return Err(broken(format!("a first byte {}, expected {HELLO}", hello[0])));
        }
        Ok(wrap(connection, send, recv))
    };
    let late = |_| TransportError::Timeout { what: "handshake", kind: KIND, at: at.clone(), limit_ms };
    timeout(Duration::from_millis(limit_ms), handshake).await.map_err(late)?
}

fn wrap(connection: iroh::endpoint::Connection, send: SendStream, recv: RecvStream) -> Connection {
    let peer = NodeId(*connection.remote_id().as_bytes());
    let at: Arc<str> = format!("{peer} over quic").into();
    let counters = Arc::new(Counters::default());
    let writer = FrameWriter::new(send, at.clone());
    let reader = FrameReader::new(recv, at);
    let sender = Sender { writer, counters: counters.clone(), connection: connection.clone() };
    let receiver = Receiver { reader, counters: counters.clone(), connection };
    Connection {
        peer,
        counters,
        sender: FrameSender(AnySender::Quic(Box::new(sender))),
        receiver: FrameReceiver(AnyReceiver::Quic(Box::new(receiver))),
    }
}

/// Holds the connection too: it ends when both halves are gone.
pub(super) struct Sender {
    writer: FrameWriter<SendStream>,
    counters: Arc<Counters>,
    connection: iroh::endpoint::Connection,
}

impl Sender {
    pub(super) async fn send(&mut self, frame: Bytes) -> Result<()> {
        let bytes = 4 + frame.len();
        self.writer.send(frame).await.map_err(|error| explain(error, &self.connection))?;
        self.counters.add_sent(bytes);
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await.map_err(|error| explain(error, &self.connection))
    }

    /// Also waits until the peer has everything: dropping a QUIC connection forgets what is under way.
    pub(super) async fn close(&mut self, code: u32, reason: &str) -> Result<()> {
        self.writer.close(code, reason).await.map_err(|error| explain(error, &self.connection))?;
        let _ = timeout(GOODBYE, self.writer.get_ref().stopped()).await;
        Ok(())
    }
}

pub(super) struct Receiver {
    reader: FrameReader<RecvStream>,
    counters: Arc<Counters>,
    connection: iroh::endpoint::Connection,
}

impl Receiver {
    pub(super) async fn recv(&mut self) -> Result<Option<Bytes>> {
        let frame = self.reader.recv().await.map_err(|error| explain(error, &self.connection))?;
        self.counters.add_received(frame.as_ref().map_or(0, |frame| 4 + frame.len()));
        Ok(frame)
    }
}

/// A stream only knows that its connection is lost; the connection knows why.
fn explain(error: TransportError, connection: &iroh::endpoint::Connection) -> TransportError {
    match (error, connection.close_reason()) {
        (TransportError::Lost { at, expected, .. }, Some(reason)) => {
            TransportError::Lost { at, expected, got: reason.to_string() }
        }
        (error, _) => error,
    }
}
