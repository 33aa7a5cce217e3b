//! The worlds of the conformance suite.

use crate::connect_proxy::ConnectProxy;
use crate::loopback::{anywhere_v4, anywhere_v6, identity};
use littoral_node::transport::forwarder::Forwarder;
use littoral_node::transport::memory::{MemoryNetwork, MemoryTransport};
use littoral_node::transport::shaper::Shape;
use littoral_node::transport::{
    Address, AutoOptions, AutoTransport, Identity, NodeId, QuicOptions, QuicTransport, TcpOptions, TcpTransport,
    Transport,
};
use std::net::SocketAddr;
use std::sync::Arc;

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

    pub async fn listen(self, identity: &Identity) -> Arc<dyn Transport> {
        match self {
            Self::Memory | Self::Tcp | Self::TcpProxied | Self::TcpShaped => {
                Arc::new(TcpTransport::listen(identity, anywhere_v4(), TcpOptions::default()).await.unwrap())
            }
            Self::Quic => Arc::new(QuicTransport::listen(identity, anywhere_v4(), patient()).await.unwrap()),
            Self::QuicShaped => Arc::new(QuicTransport::listen(identity, anywhere_v6(), patient()).await.unwrap()),
            Self::Auto => Arc::new(AutoTransport::listen(identity, anywhere_v4(), patient_auto()).await.unwrap()),
        }
    }

    pub async fn dialler(self, identity: &Identity) -> Arc<dyn Transport> {
        let bind_at = Some(anywhere_v4());
        match self {
            Self::Quic | Self::QuicShaped => {
                Arc::new(QuicTransport::dialler(identity, bind_at, patient()).await.unwrap())
            }
            Self::Auto => Arc::new(AutoTransport::dialler(identity, bind_at, patient_auto()).await.unwrap()),
            _ => Arc::new(TcpTransport::dialler(identity, TcpOptions::default()).unwrap()),
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
    pub proxy: Option<ConnectProxy>,
}

/// Silence is not what ends a connection here: a peer that is noticed promptly was noticed otherwise.
fn patient() -> QuicOptions {
    QuicOptions { idle_timeout_ms: 15_000, keep_alive_ms: 4_000, ..QuicOptions::default() }
}

fn patient_auto() -> AutoOptions {
    AutoOptions { quic: patient(), ..AutoOptions::default() }
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
            _ => kind.listen(&server).await,
        };
        let dialler: Arc<dyn Transport> = match kind {
            Kind::TcpProxied => {
                let running = ConnectProxy::start(&[]).await;
                let options = TcpOptions { proxy: Some(running.login("s3cret")), ..TcpOptions::default() };
                proxy = Some(running);
                Arc::new(TcpTransport::dialler(&client, options).unwrap())
            }
            _ => kind.dialler(&client).await,
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
        Self { kind, listener, dialler, address, listener_id, dialler_id, _forwarder: forwarder, proxy }
    }
}
