//! The worlds of the conformance suite, and a small but real HTTP CONNECT proxy.
#![allow(dead_code)] // each test file uses its part

use littoral_node::transport::forwarder::Forwarder;
use littoral_node::transport::memory::{MemoryNetwork, MemoryTransport};
use littoral_node::transport::shaper::Shape;
use littoral_node::transport::{
    Address, AutoOptions, AutoTransport, Identity, NodeId, Proxy, ProxyLogin, QuicOptions, QuicTransport, TcpOptions,
    TcpTransport, Transport,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Tcp,
    TcpProxied,
    TcpShaped,
    Quic,
    QuicShaped,
    Auto,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Tcp | Self::TcpProxied | Self::TcpShaped => "tcp",
            Self::Quic | Self::QuicShaped | Self::Auto => "quic",
        }
    }

    /// QUIC alone does not say which other key it saw.
    pub fn reveals_keys(self) -> bool {
        !matches!(self, Self::Quic | Self::QuicShaped)
    }
}

pub struct World {
    pub kind: Kind,
    pub listener: Arc<dyn Transport>,
    pub dialler: Arc<dyn Transport>,
    pub address: Address,
    pub listener_id: NodeId,
    pub dialler_id: NodeId,
    _forwarder: Option<Forwarder>,
    _proxy: Option<ConnectProxy>,
}

pub fn identity(seed: u8) -> Identity {
    Identity::from_secret(&[seed; 32])
}

pub fn anywhere_v4() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// For QUIC behind a forwarder: a dialler bound to IPv4 has no other path to it.
pub fn anywhere_v6() -> SocketAddr {
    "[::1]:0".parse().unwrap()
}

impl World {
    pub async fn new(kind: Kind) -> Self {
        let (server, client) = (identity(1), identity(2));
        let mut proxy = None;
        let listener: Arc<dyn Transport> = match kind {
            Kind::Memory => {
                let network = MemoryNetwork::default();
                let listener = MemoryTransport::listen(&network, &server).unwrap();
                let dialler = MemoryTransport::dialler(&network, &client);
                return Self::assemble(kind, Arc::new(listener), Arc::new(dialler), None, None);
            }
            Kind::Tcp | Kind::TcpProxied | Kind::TcpShaped => {
                Arc::new(TcpTransport::listen(&server, anywhere_v4(), TcpOptions::default()).await.unwrap())
            }
            Kind::Quic => {
                Arc::new(QuicTransport::listen(&server, anywhere_v4(), QuicOptions::default()).await.unwrap())
            }
            Kind::QuicShaped => {
                Arc::new(QuicTransport::listen(&server, anywhere_v6(), QuicOptions::default()).await.unwrap())
            }
            Kind::Auto => {
                Arc::new(AutoTransport::listen(&server, anywhere_v4(), AutoOptions::default()).await.unwrap())
            }
        };
        let bind_at = Some(anywhere_v4());
        let dialler: Arc<dyn Transport> = match kind {
            Kind::Quic | Kind::QuicShaped => {
                Arc::new(QuicTransport::dialler(&client, bind_at, QuicOptions::default()).await.unwrap())
            }
            Kind::Auto => Arc::new(AutoTransport::dialler(&client, bind_at, AutoOptions::default()).await.unwrap()),
            Kind::TcpProxied => {
                let running = ConnectProxy::start("ward", "s3cret").await;
                let options = TcpOptions { proxy: Some(running.login("ward", "s3cret")), ..TcpOptions::default() };
                proxy = Some(running);
                Arc::new(TcpTransport::dialler(&client, options).unwrap())
            }
            _ => Arc::new(TcpTransport::dialler(&client, TcpOptions::default()).unwrap()),
        };
        let forwarder = match kind {
            Kind::TcpShaped | Kind::QuicShaped => {
                // Light, so that the whole suite still runs in seconds: 2 ms and a little loss.
                let shape = Shape { delay_us: 2_000, jitter_us: 500, loss_ppm: 1_000, ..Shape::default() };
                let target = &listener.local_addresses()[0];
                let target = SocketAddr::new(target.host.parse().unwrap(), target.port);
                Some(Forwarder::start(target, shape, shape, 7).await.unwrap())
            }
            _ => None,
        };
        Self::assemble(kind, listener, dialler, forwarder, proxy)
    }

    fn assemble(
        kind: Kind,
        listener: Arc<dyn Transport>,
        dialler: Arc<dyn Transport>,
        forwarder: Option<Forwarder>,
        proxy: Option<ConnectProxy>,
    ) -> Self {
        let (listener_id, dialler_id) = (identity(1).id(), identity(2).id());
        let address = match &forwarder {
            Some(forwarder) => Address::new(listener_id, forwarder.local_address()),
            None => listener.local_addresses()[0].clone(),
        };
        Self { kind, listener, dialler, address, listener_id, dialler_id, _forwarder: forwarder, _proxy: proxy }
    }
}

/// Answers `CONNECT host:port` for one user; everything else gets the status that RFC 9110 has for it.
pub struct ConnectProxy {
    pub at: SocketAddr,
    pub tunnels: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl ConnectProxy {
    /// `user:password` must be one of the pairs whose base64 form stands below: a proxy of its own arithmetic.
    pub async fn start(user: &str, password: &str) -> Self {
        assert_eq!((user, password), ("ward", "s3cret"));
        let expected = "Proxy-Authorization: Basic d2FyZDpzM2NyZXQ=";
        let listener = TcpListener::bind(anywhere_v4()).await.unwrap();
        let (at, tunnels) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        let count = tunnels.clone();
        tasks.spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let count = count.clone();
                running.spawn(async move { serve(socket, expected, count).await.unwrap_or_default() });
            }
        });
        Self { at, tunnels, _tasks: tasks }
    }

    pub fn login(&self, user: &str, password: &str) -> Proxy {
        let login = Some(ProxyLogin { user: user.into(), password: password.into() });
        Proxy { host_port: self.at.to_string(), login }
    }
}

async fn serve(socket: TcpStream, expected: &str, tunnels: Arc<AtomicUsize>) -> Option<()> {
    let mut near = BufReader::new(socket);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        near.read_line(&mut line).await.ok()?;
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let target = lines.first()?.strip_prefix("CONNECT ")?.strip_suffix(" HTTP/1.1")?.to_owned();
    let answer = if !lines.iter().any(|line| line == expected) {
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"
    } else if let Ok(mut far) = TcpStream::connect(&target).await {
        near.write_all(b"HTTP/1.1 200 Connection established\r\nVia: a test\r\n\r\n").await.ok()?;
        tunnels.fetch_add(1, Ordering::Relaxed);
        tokio::io::copy_bidirectional(&mut near, &mut far).await.ok()?;
        return None;
    } else {
        "HTTP/1.1 502 Bad Gateway\r\n\r\n"
    };
    near.write_all(answer.as_bytes()).await.ok()?;
    None
}
