//! What a firewall does to a port.

use std::net::{SocketAddr, UdpSocket};
use tokio::net::TcpSocket;

/// A port that refuses TCP and swallows UDP for as long as the sockets are held.
pub fn blocked_port() -> (SocketAddr, (UdpSocket, TcpSocket)) {
    // The number that is free for UDP may be in use for TCP: then another one.
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = udp.local_addr().unwrap();
        let tcp = TcpSocket::new_v4().unwrap();
        if tcp.bind(at).is_ok() {
            return (at, (udp, tcp));
        }
    }
    panic!("no port is free for both");
}
