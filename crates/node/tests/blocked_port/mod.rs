//! What a firewall does to a port.

use std::net::{SocketAddr, UdpSocket};
use tokio::net::TcpSocket;

/// A port that refuses TCP and swallows UDP for as long as the sockets are held.
pub fn blocked_port() -> (SocketAddr, (UdpSocket, TcpSocket)) {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = udp.local_addr().unwrap();
    let tcp = TcpSocket::new_v4().unwrap();
    tcp.bind(at).unwrap();
    (at, (udp, tcp))
}
