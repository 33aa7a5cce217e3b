//! Keys and places for transports in one process.

use littoral_node::transport::Identity;
use std::net::SocketAddr;

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
