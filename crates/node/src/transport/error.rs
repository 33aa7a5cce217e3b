//! What can go wrong between two machines: what was tried, where, what was expected, what was got.
//!
//! Secret keys, proxy passwords and payload bytes never appear in these messages.

use super::{Address, NodeId};
use std::fmt;

pub type Result<T, E = TransportError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("address `{got}`: expected {expected}")]
    InvalidAddress { expected: &'static str, got: String },

    #[error("{kind} transport: cannot bind {at}: {got}")]
    Bind { kind: &'static str, at: String, got: String },

    #[error("{kind} transport of {id}: expected a listener, got one that only dials")]
    NotListening { kind: &'static str, id: NodeId },

    #[error("{kind} transport of {id} was closed here")]
    TransportClosed { kind: &'static str, id: NodeId },

    #[error("dialling {address} over {kind}: {got}")]
    Unreachable { kind: &'static str, address: Address, got: String },

    #[error("handshake with {at} over {kind}: {got}")]
    Handshake { kind: &'static str, at: String, got: String },

    #[error("handshake with {at} over {kind}: expected the key {expected}, got {got}")]
    WrongPeer { kind: &'static str, at: String, expected: NodeId, got: SeenKey },

    #[error("{what} with {at} over {kind}: expected an answer within {limit_ms} ms, got none")]
    Timeout { what: &'static str, kind: &'static str, at: String, limit_ms: u64 },

    #[error("proxy {proxy} towards {target}: expected `200` to CONNECT, got {got}")]
    Proxy { proxy: String, target: String, got: String },

    #[error("{at}: expected a frame of at most {expected_max} bytes, got one of {got}")]
    FrameTooLarge { at: String, expected_max: usize, got: usize },

    #[error("{at}: the closing frame is malformed: expected {expected}, got {got}")]
    BadClosing { at: String, expected: &'static str, got: String },

    /// The peer said goodbye with a non-zero code.
    #[error("{at}: closed by the peer with code {code}: {reason}")]
    Closed { at: String, code: u32, reason: String },

    /// The connection ended without a closing frame: crash, cut cable, kill.
    #[error("{at}: expected {expected}, got {got}")]
    Lost { at: String, expected: &'static str, got: String },

    /// Both ways of [`super::Mode::Auto`] failed.
    #[error("dialling {address}: no way through; quic: {quic}; tcp: {tcp}")]
    NoWay { address: Address, quic: Box<TransportError>, tcp: Box<TransportError> },
}

/// What a socket says of its end. TLS's word for a cut is a page's address.
pub(super) fn of_socket(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the end of the stream".to_owned(),
        _ => error.to_string(),
    }
}

impl TransportError {
    /// Whether this is the refusal of a server that holds another key: trying again will not help.
    pub fn is_wrong_peer(&self) -> bool {
        matches!(self, Self::WrongPeer { .. })
    }
}

/// The key that a peer showed, as far as the transport lets us see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenKey {
    Known(NodeId),
    /// The QUIC stack refuses a wrong key without telling us which one it was.
    Another,
}

impl fmt::Display for SeenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(id) => write!(f, "{id}"),
            Self::Another => f.write_str("another key (QUIC does not say which)"),
        }
    }
}
