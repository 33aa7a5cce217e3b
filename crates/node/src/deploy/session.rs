//! A short conversation with a cloud: an operator's commands, a machine that joins.
//!
//! One connection, one task: requests and answers, pings answered in between. Not for roles, which have the host.

use crate::config::{Network, TransportName};
use crate::host;
use crate::transport::{
    Address, Connection, FrameReceiver, FrameSender, Identity, QuicTransport, TcpTransport, Transport, TransportError,
};
use littoral_wire::codec::Wire;
use littoral_wire::{Message, SecretKey};
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

/// For one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Error)]
pub enum SessionError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Another program or another release.
    #[error("{at}: {why}")]
    Hello { at: String, why: String },
    #[error("{at}: a message of this release expected, got {got}")]
    Malformed { at: String, got: String },
    #[error("{at}: an answer within {limit_s} s expected, got none")]
    Silent { at: String, limit_s: u64 },
    #[error("{at} hung up: {reason}")]
    HungUp { at: String, reason: String },
}

pub struct Session {
    at: String,
    sender: FrameSender,
    receiver: FrameReceiver,
    /// Lives as long as its connection.
    transport: Box<dyn Transport>,
}

impl Session {
    /// Dials, proves our key, and agrees on the protocol.
    pub async fn dial(key: &SecretKey, to: &Address, network: &Network) -> Result<Self, SessionError> {
        let (transport, connection) = connect(key, to, network).await?;
        let at = to.to_string();
        let (mut sender, mut receiver) = connection.split();
        let ours = host::Settings::default().hello();
        sender.send(ours.encode().into()).await?;
        sender.flush().await?;
        let silent = |_| SessionError::Silent { at: at.clone(), limit_s: ANSWER_TIMEOUT.as_secs() };
        let theirs = timeout(ANSWER_TIMEOUT, receiver.recv()).await.map_err(silent)??;
        let agreed = match theirs {
            Some(frame) => ours.agree(&frame).map_err(|e| e.to_string()),
            None => Err("a hello expected, got a goodbye".into()),
        };
        agreed.map_err(|why| SessionError::Hello { at: at.clone(), why })?;
        Ok(Self { at, sender, receiver, transport })
    }

    pub async fn send(&mut self, message: &Message) -> Result<(), SessionError> {
        self.sender.send(message.to_bytes().into()).await?;
        Ok(self.sender.flush().await?)
    }

    /// The next message that is not about the connection itself. Waits as long as it takes: the peer's pings and the
    /// transport's own probes tell whether it lives.
    pub async fn recv(&mut self) -> Result<Message, SessionError> {
        loop {
            let Some(frame) = self.receiver.recv().await? else {
                return Err(SessionError::HungUp { at: self.at.clone(), reason: "goodbye".into() });
            };
            let message = Message::from_bytes(&frame)
                .map_err(|e| SessionError::Malformed { at: self.at.clone(), got: e.to_string() })?;
            match message {
                Message::Ping { nonce } => self.send(&Message::Pong { nonce }).await?,
                Message::Pong { .. } => {}
                Message::Bye { reason } | Message::Cut { reason, .. } => {
                    return Err(SessionError::HungUp { at: self.at.clone(), reason: reason.to_string() });
                }
                other => return Ok(other),
            }
        }
    }

    /// As [`Session::recv`], but for at most 20 seconds.
    pub async fn answer(&mut self) -> Result<Message, SessionError> {
        let silent = SessionError::Silent { at: self.at.clone(), limit_s: ANSWER_TIMEOUT.as_secs() };
        timeout(ANSWER_TIMEOUT, self.recv()).await.unwrap_or(Err(silent))
    }

    /// What nobody asked for.
    pub fn unexpected(&self, message: &Message) -> SessionError {
        SessionError::Malformed { at: self.at.clone(), got: message.name().to_owned() }
    }

    pub async fn close(self) {
        // The peer may have gone first.
        let _ = self.sender.close(0, "").await;
        self.transport.close().await;
    }
}

/// TCP first: a short conversation gains nothing from QUIC, and a closed port says so at once.
async fn connect(
    key: &SecretKey,
    to: &Address,
    network: &Network,
) -> Result<(Box<dyn Transport>, Connection), TransportError> {
    let identity = Identity::from_secret(&key.to_bytes());
    let options = network.options();
    let tcp = async {
        let transport = TcpTransport::dialler(&identity, options.tcp.clone())?;
        let connection = transport.connect(to).await?;
        Ok::<(Box<dyn Transport>, Connection), TransportError>((Box::new(transport), connection))
    };
    let quic = async {
        let transport = QuicTransport::dialler(&identity, None, options.quic.clone()).await?;
        let connection = transport.connect(to).await?;
        Ok::<(Box<dyn Transport>, Connection), TransportError>((Box::new(transport), connection))
    };
    match network.transport {
        TransportName::Tcp => tcp.await,
        TransportName::Quic => quic.await,
        TransportName::Auto => match tcp.await {
            Err(failed) if !failed.is_wrong_peer() => quic.await.map_err(|other| TransportError::NoWay {
                address: to.clone(),
                quic: other.into(),
                tcp: failed.into(),
            }),
            done => done,
        },
    }
}
