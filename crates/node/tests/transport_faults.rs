//! What only one transport can get wrong: proxies that refuse, blocked UDP, silent strangers, partitions.

mod blocked_port;
mod connect_proxy;
mod loopback;

use blocked_port::blocked_port;
use bytes::Bytes;
use connect_proxy::ConnectProxy;
use littoral_node::transport::forwarder::{Forwarder, Passing};
use littoral_node::transport::shaper::Shape;
use littoral_node::transport::{
    ALPN, Address, AutoOptions, AutoTransport, Mode, Proxy, QuicOptions, QuicTransport, TcpOptions, TcpTransport,
    Transport, TransportError,
};
use loopback::{anywhere_v4, anywhere_v6, identity};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn tcp_listener() -> (TcpTransport, Address) {
    let listener = TcpTransport::listen(&identity(1), anywhere_v4(), TcpOptions::default()).await.unwrap();
    let address = listener.local_addresses()[0].clone();
    (listener, address)
}

fn proxied(proxy: Proxy) -> TcpTransport {
    TcpTransport::dialler(&identity(2), TcpOptions { proxy: Some(proxy), ..TcpOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_proxy_that_refuses_is_quoted_in_one_line_without_the_password() {
    let (_listener, address) = tcp_listener().await;
    let proxy = ConnectProxy::start(&[]).await;
    let error = proxied(proxy.login("wr0ng")).connect(&address).await.unwrap_err().to_string();
    assert!(
        error.contains("407 Proxy Authentication Required") && error.contains(&proxy.login("").host_port),
        "{error}"
    );
    assert!(!error.contains('\n') && !error.contains("wr0ng"), "{error}");

    let nowhere = Address { port: 1, ..address.clone() };
    let error = proxied(proxy.login("s3cret")).connect(&nowhere).await.unwrap_err().to_string();
    assert!(error.contains("502 Bad Gateway") && error.contains("127.0.0.1:1"), "{error}");
    assert!(proxy.tunnels().is_empty());

    let (blocked, _held) = blocked_port();
    let proxy = Proxy { host_port: blocked.to_string(), login: None };
    let error = proxied(proxy).connect(&address).await.unwrap_err();
    assert!(matches!(error, TransportError::Proxy { .. }), "{error}");
}

#[tokio::test]
async fn a_proxy_is_really_used() {
    let (listener, address) = tcp_listener().await;
    let proxy = ConnectProxy::start(&[]).await;
    let dialler = proxied(proxy.login("s3cret"));
    let (near, far) = tokio::join!(dialler.connect(&address), listener.accept());
    assert_eq!((near.unwrap().peer(), far.unwrap().peer()), (identity(1).id(), identity(2).id()));
    assert_eq!(proxy.tunnels(), [address.host_port().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_falls_back_to_tcp_when_udp_is_swallowed_and_remembers() {
    let listener = AutoTransport::listen(&identity(1), anywhere_v4(), AutoOptions::default()).await.unwrap();
    let target = &listener.local_addresses()[0];
    let target = SocketAddr::new(target.host.parse().unwrap(), target.port);
    let blocked = Forwarder::start(target, Shape::default(), Shape::default(), 1).await.unwrap();
    blocked.set_passing(Passing { udp: false, tcp: true });
    let address = Address::new(identity(1).id(), blocked.local_address());

    // A head start that no machine outlasts: only memory of the first dial can make the second one quick.
    let quic = QuicOptions { handshake_timeout_ms: 3_000, ..QuicOptions::default() };
    let options = AutoOptions { quic, head_start_ms: 2_000, ..AutoOptions::default() };
    let dialler = AutoTransport::dialler(&identity(2), Some(anywhere_v4()), options).await.unwrap();
    let begin = std::time::Instant::now();
    assert_eq!(dialler.connect(&address).await.unwrap().kind(), "tcp");
    assert!(begin.elapsed() >= Duration::from_secs(2), "QUIC has its head start");
    let second = timeout(Duration::from_millis(1_900), dialler.connect(&address)).await;
    assert_eq!(second.expect("TCP at once").unwrap().kind(), "tcp");

    let error = dialler.dial(&address, Mode::Quic).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_names_both_failures() {
    let (blocked, _held) = blocked_port();
    let options = AutoOptions { quic_timeout_ms: 500, ..AutoOptions::default() };
    let dialler = AutoTransport::dialler(&identity(2), Some(anywhere_v4()), options).await.unwrap();
    let error = dialler.connect(&Address::new(identity(1).id(), blocked)).await.unwrap_err();
    assert!(matches!(error, TransportError::NoWay { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("quic: ") && text.contains("tcp: ") && text.contains("500 ms"), "{text}");
}

#[tokio::test]
async fn silent_strangers_make_room_for_a_peer() {
    let options = TcpOptions { half_open_max: 4, ..TcpOptions::default() };
    let listener = TcpTransport::listen(&identity(1), anywhere_v4(), options).await.unwrap();
    let address = listener.local_addresses()[0].clone();
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(TcpStream::connect((address.host.as_str(), address.port)).await.unwrap());
    }
    let dialler = TcpTransport::dialler(&identity(2), TcpOptions::default()).unwrap();
    let (near, far) = tokio::join!(dialler.connect(&address), listener.accept());
    assert_eq!((near.unwrap().peer(), far.unwrap().peer()), (identity(1).id(), identity(2).id()));
    // The oldest were shown the door, long before the time-out of ten seconds.
    let end = timeout(Duration::from_secs(5), strangers[0].read(&mut [0])).await.expect("hung up");
    assert!(matches!(end, Ok(0) | Err(_)));
}

/// Opened from another address before the flood: driven out if age alone counted.
#[tokio::test]
async fn a_flood_from_one_address_drives_out_nobody_but_itself() {
    let options = TcpOptions { half_open_max: 4, ..TcpOptions::default() };
    let listener = TcpTransport::listen(&identity(1), anywhere_v4(), options).await.unwrap();
    let at = SocketAddr::new("127.0.0.1".parse().unwrap(), listener.local_addresses()[0].port);
    let slow = tokio::net::TcpSocket::new_v4().unwrap();
    slow.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut slow = slow.connect(at).await.unwrap();
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(TcpStream::connect(at).await.unwrap());
    }
    for stranger in &mut flood[..17] {
        assert!(matches!(stranger.read(&mut [0]).await, Ok(0) | Err(_)), "only three places are left for them");
    }
    // Now the slow one's handshake, through a pipe to the socket that is already there.
    let pipe = tokio::net::TcpListener::bind(anywhere_v4()).await.unwrap();
    let address = Address::new(identity(1).id(), pipe.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut near, _) = pipe.accept().await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut slow).await;
    });
    let dialler = TcpTransport::dialler(&identity(2), TcpOptions::default()).unwrap();
    let (near, far) = tokio::join!(async { dialler.connect(&address).await.unwrap() }, listener.accept());
    assert_eq!((near.peer(), far.unwrap().peer()), (identity(1).id(), identity(2).id()));
}

/// The same over QUIC, with strangers that finish their handshake and then open no stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_silent_quic_connections_drives_out_nobody_but_itself() {
    let options = QuicOptions { half_open_max: 4, ..QuicOptions::default() };
    let listener = QuicTransport::listen(&identity(1), anywhere_v4(), options).await.unwrap();
    let at = SocketAddr::new("127.0.0.1".parse().unwrap(), listener.local_addresses()[0].port);
    let id = iroh::PublicKey::from_bytes(&identity(1).id().0).unwrap();
    let to = iroh::EndpointAddr::new(id).with_ip_addr(at);
    let endpoint = async |ip: &str, secret| {
        let builder = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
            .secret_key(iroh::SecretKey::from_bytes(&[secret; 32]))
            .relay_mode(iroh::RelayMode::Disabled)
            .clear_ip_transports();
        builder.bind_addr(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap().bind().await.unwrap()
    };
    let (slow, flooding) = (endpoint("127.0.0.2", 2).await, endpoint("127.0.0.1", 3).await);
    let slow = slow.connect(to.clone(), ALPN).await.unwrap();
    let mut flood = Vec::new();
    for _ in 0..12 {
        flood.push(flooding.connect(to.clone(), ALPN).await.unwrap());
    }
    for stranger in &flood[..9] {
        stranger.closed().await;
    }
    let (mut send, _receive) = slow.open_bi().await.unwrap();
    send.write_all(&[1]).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().peer(), identity(2).id());
}

/// From half of its places on, a QUIC listener asks diallers to prove their address (Retry); they do so by themselves.
/// With one place, half of them is none: everybody is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowded_quic_listener_asks_for_proof_and_loses_nobody() {
    let options = QuicOptions { half_open_max: 1, ..QuicOptions::default() };
    let listener = QuicTransport::listen(&identity(1), anywhere_v4(), options).await.unwrap();
    let address = listener.local_addresses()[0].clone();
    for seed in 2..5 {
        let dialler =
            QuicTransport::dialler(&identity(seed), Some(anywhere_v4()), QuicOptions::default()).await.unwrap();
        let (near, far) = tokio::join!(dialler.connect(&address), listener.accept());
        assert_eq!((near.unwrap().peer(), far.unwrap().peer()), (identity(1).id(), identity(seed).id()));
    }
}

#[tokio::test]
async fn a_silent_server_is_a_time_out_with_its_address() {
    let silent = tokio::net::TcpListener::bind(anywhere_v4()).await.unwrap();
    let address = Address::new(identity(1).id(), silent.local_addr().unwrap());
    let options = TcpOptions { handshake_timeout_ms: 200, ..TcpOptions::default() };
    let error = TcpTransport::dialler(&identity(2), options).unwrap().connect(&address).await.unwrap_err();
    assert!(matches!(error, TransportError::Timeout { limit_ms: 200, .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn noise_instead_of_tls_harms_nobody() {
    use tokio::io::AsyncWriteExt;
    let (listener, address) = tcp_listener().await;
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 70_000], &[0x16, 3, 1, 0xff, 0xff]] {
        let mut stranger = TcpStream::connect((address.host.as_str(), address.port)).await.unwrap();
        let _ = stranger.write_all(noise).await;
    }
    let dialler = TcpTransport::dialler(&identity(2), TcpOptions::default()).unwrap();
    let (near, far) = tokio::join!(dialler.connect(&address), listener.accept());
    assert!(near.is_ok() && far.is_ok());
}

/// TCP through a line that is cut while a long frame is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_cut_in_the_middle_of_a_frame_is_an_error_on_both_ends() {
    let (listener, target) = tcp_listener().await;
    let slow = Shape { bytes_per_s: 1_000_000, ..Shape::default() };
    let target = SocketAddr::new(target.host.parse().unwrap(), target.port);
    let line = Forwarder::start(target, slow, slow, 3).await.unwrap();
    let address = Address::new(identity(1).id(), line.local_address());
    let dialler = TcpTransport::dialler(&identity(2), TcpOptions::default()).unwrap();
    let (near, far) = tokio::join!(dialler.connect(&address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap());
    let arriving = far.counters();
    let ((mut sender, mut near_receiver), (_far_sender, mut receiver)) = (near.split(), far.split());
    let cut = async {
        // 4 MiB need four seconds here: some have come and some have not.
        while arriving.received() < 100_000 {
            tokio::task::yield_now().await;
        }
        line.cut();
    };
    let send = async {
        let sent = sender.send(vec![1; 4 << 20].into()).await;
        let flushed = sender.flush().await;
        (sent.is_err() || flushed.is_err()) as u8
    };
    let (_, _, heard) = tokio::join!(cut, send, receiver.recv());
    assert!(matches!(heard, Err(TransportError::Lost { expected: "the rest of a frame", .. })), "{heard:?}");
    assert!(near_receiver.recv().await.is_err());
}

/// A partition holds TCP bytes and lets go of them when it heals; nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_heals_loses_nothing() {
    let (listener, target) = tcp_listener().await;
    let target = SocketAddr::new(target.host.parse().unwrap(), target.port);
    let line = Forwarder::start(target, Shape::default(), Shape::default(), 3).await.unwrap();
    let address = Address::new(identity(1).id(), line.local_address());
    let dialler = TcpTransport::dialler(&identity(2), TcpOptions::default()).unwrap();
    let (near, far) = tokio::join!(dialler.connect(&address), listener.accept());
    let ((mut sender, _near), (_far, mut receiver)) = (near.unwrap().split(), far.unwrap().split());
    line.set_passing(Passing { udp: false, tcp: false });
    for index in 0..100u8 {
        sender.send(Bytes::from(vec![index; 100])).await.unwrap();
    }
    sender.flush().await.unwrap();
    let early = timeout(Duration::from_millis(200), receiver.recv()).await;
    assert!(early.is_err(), "nothing passes a partition");
    line.set_passing(Passing { udp: true, tcp: true });
    for index in 0..100u8 {
        assert_eq!(receiver.recv().await.unwrap().unwrap(), vec![index; 100]);
    }
}

/// QUIC through a line that goes silent, as when a peer is killed: the idle time-out notices, nothing else can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_notices_a_silent_line() {
    let listener = QuicTransport::listen(&identity(1), anywhere_v6(), QuicOptions::default()).await.unwrap();
    let dialler = QuicTransport::dialler(&identity(2), Some(anywhere_v4()), QuicOptions::default()).await.unwrap();
    let target = &listener.local_addresses()[0];
    let target = SocketAddr::new(target.host.parse().unwrap(), target.port);
    let line = Forwarder::start(target, Shape::default(), Shape::default(), 5).await.unwrap();
    let address = Address::new(identity(1).id(), line.local_address());
    let (near, far) = tokio::join!(dialler.connect(&address), listener.accept());
    let ((_near_sender, mut near), (_far_sender, mut far)) = (near.unwrap().split(), far.unwrap().split());
    // Idle, but alive: longer than the idle time-out, and nobody has gone.
    let quiet = timeout(Duration::from_secs(6), async { tokio::join!(near.recv(), far.recv()) }).await;
    assert!(quiet.is_err(), "kept alive");
    line.set_passing(Passing { udp: false, tcp: true });
    let heard = timeout(Duration::from_secs(12), async { tokio::join!(near.recv(), far.recv()) }).await;
    let (near, far) = heard.expect("both ends notice");
    assert!(
        matches!((&near, &far), (Err(TransportError::Lost { .. }), Err(TransportError::Lost { .. }))),
        "{near:?} {far:?}"
    );
}
