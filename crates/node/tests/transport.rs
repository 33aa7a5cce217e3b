//! One conformance suite, every transport: what holds for one holds for all.
//!
//! Each case is an async function over a [`World`]: a listening transport, a dialling one and the address to dial.
//! Worlds: memory, TCP, TCP through an HTTP CONNECT proxy, TCP and QUIC through a shaped line, QUIC, Auto.

mod connect_proxy;
mod loopback;
mod transport_world;

use bytes::Bytes;
use littoral_node::transport::{Address, Connection, FRAME_BYTES_MAX, FrameReceiver, FrameSender, TransportError};
use loopback::identity;
use std::time::Duration;
use tokio::time::timeout;
use transport_world::{Kind, World};

/// Nothing here takes long; a hang becomes a failure with the name of the case.
const LIMIT: Duration = Duration::from_secs(120);
/// "Promptly": a peer that was dropped (not silenced) is noticed without waiting for idle time-outs (15 s).
const PROMPT: Duration = Duration::from_secs(10);

macro_rules! conformance {
    ($($world:ident: $kind:expr;)*) => {
        $(mod $world {
            use super::*;
            conformance!(@cases $kind;
                identities_are_right_on_both_ends, echoes_every_size, keeps_the_order_of_many_frames,
                refuses_to_send_an_oversized_frame, refuses_a_wrong_key, a_goodbye_is_an_end, a_refusal_carries_its_reason,
                a_dropped_peer_is_an_error, a_frame_cut_in_half_is_never_seen, a_stalled_receiver_stops_the_sender,
                a_hundred_connections_at_once, a_drained_queue_arrives_and_ends);
        })*
    };
    (@cases $kind:expr; $($case:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let world = World::new($kind).await;
            timeout(LIMIT, super::$case(&world)).await.expect("no hang");
        })*
    };
}

conformance! {
    memory: Kind::Memory;
    tcp: Kind::Tcp;
    tcp_proxied: Kind::TcpProxied;
    tcp_shaped: Kind::TcpShaped;
    quic: Kind::Quic;
    quic_shaped: Kind::QuicShaped;
    auto: Kind::Auto;
}

async fn connect(world: &World) -> (Connection, Connection) {
    let (near, far) = tokio::join!(world.dialler.connect(&world.address), world.listener.accept());
    (near.unwrap(), far.unwrap())
}

/// Sends back whatever comes, until the goodbye.
async fn echo(connection: Connection) {
    let (mut sender, mut receiver) = connection.split();
    while let Some(frame) = receiver.recv().await.unwrap() {
        sender.send(frame).await.unwrap();
        sender.flush().await.unwrap();
    }
    sender.close(0, "").await.unwrap();
}

async fn identities_are_right_on_both_ends(world: &World) {
    let (near, far) = connect(world).await;
    assert_ne!(world.listener_id, world.dialler_id);
    assert_eq!(near.peer(), world.listener_id);
    assert_eq!(far.peer(), world.dialler_id);
    assert_eq!((near.kind(), far.kind()), (world.kind.name(), world.kind.name()));
    assert!(world.listener.local_addresses().iter().all(|address| address.id == world.listener_id));
    assert!(
        world.proxy.as_ref().is_none_or(|proxy| proxy.tunnels().len() == 1),
        "through the proxy, where there is one"
    );
}

async fn echoes_every_size(world: &World) {
    let (near, far) = connect(world).await;
    let counters = near.counters();
    let far = tokio::spawn(echo(far));
    let (mut sender, mut receiver) = near.split();
    let mut total = 0;
    for size in [0, 1, 64 << 10, FRAME_BYTES_MAX] {
        let frame: Bytes = (0..size).map(|index| (index * 31 + index / 251) as u8).collect::<Vec<u8>>().into();
        sender.send(frame.clone()).await.unwrap();
        sender.flush().await.unwrap();
        let back = receiver.recv().await.unwrap().unwrap();
        assert!(back == frame, "{size} bytes changed on the way");
        total += 4 + size as u64;
    }
    sender.close(0, "").await.unwrap();
    assert!(receiver.recv().await.unwrap().is_none());
    far.await.unwrap();
    // TLS adds 22 bytes per record of at most 16 KiB, and a handshake of less than 4 KiB: below 1 % here.
    for counted in [counters.sent(), counters.received()] {
        assert!((total..total + total / 100).contains(&counted), "{counted} bytes counted for {total}");
    }
}

async fn keeps_the_order_of_many_frames(world: &World) {
    const FRAMES: u32 = 10_000;
    let size = |index: u32| 4 + (index as usize * 7919) % 300;
    let (near, far) = connect(world).await;
    let ((mut sender, _near), (_far, mut receiver)) = (near.split(), far.split());
    let send = async {
        for index in 0..FRAMES {
            let mut frame = index.to_le_bytes().to_vec();
            frame.resize(size(index), index as u8);
            sender.send(frame.into()).await.unwrap();
        }
        sender.close(0, "").await.unwrap();
    };
    let receive = async {
        for index in 0..FRAMES {
            let frame = receiver.recv().await.unwrap().unwrap();
            assert_eq!((&frame[..4], frame.len()), (&index.to_le_bytes()[..], size(index)));
        }
        assert!(receiver.recv().await.unwrap().is_none());
    };
    tokio::join!(send, receive);
}

async fn refuses_to_send_an_oversized_frame(world: &World) {
    let (near, far) = connect(world).await;
    let ((mut sender, _near), (_far, mut receiver)) = (near.split(), far.split());
    let error = sender.send(vec![0; FRAME_BYTES_MAX + 1].into()).await.unwrap_err();
    assert!(matches!(error, TransportError::FrameTooLarge { expected_max: FRAME_BYTES_MAX, .. }), "{error}");
    // The stream is unharmed.
    sender.send(Bytes::from_static(b"still here")).await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), "still here");
}

async fn refuses_a_wrong_key(world: &World) {
    let expected = identity(99).id();
    let wrong = Address { id: expected, ..world.address.clone() };
    let error = world.dialler.connect(&wrong).await.unwrap_err();
    assert!(error.is_wrong_peer(), "{error}");
    let text = error.to_string();
    assert!(text.contains(&expected.to_string()), "{text}");
    let tells = if world.kind.reveals_keys() { world.listener_id.to_string() } else { "another key".into() };
    assert!(text.contains(&tells), "{text}");
}

async fn a_goodbye_is_an_end(world: &World) {
    let (near, far) = connect(world).await;
    let ((mut sender, near_receiver), (far_sender, mut receiver)) = (near.split(), far.split());
    sender.send(Bytes::from_static(b"last words")).await.unwrap();
    // Everything is dropped right behind the goodbye, as at the end of a process.
    let leave = async {
        sender.close(0, "done").await.unwrap();
        drop(near_receiver);
    };
    let listen = async {
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "last words");
        assert!(receiver.recv().await.unwrap().is_none());
        assert!(receiver.recv().await.unwrap().is_none(), "an end stays an end");
    };
    tokio::join!(leave, listen);
    drop(far_sender);
}

async fn a_refusal_carries_its_reason(world: &World) {
    let (near, far) = connect(world).await;
    let ((_near, mut receiver), (sender, _far)) = (near.split(), far.split());
    let long = "your key was revoked; ".repeat(100);
    let (closed, heard) = tokio::join!(sender.close(7, &long), receiver.recv());
    closed.unwrap();
    match heard.unwrap_err() {
        TransportError::Closed { code: 7, reason, at } => {
            assert!(long.starts_with(&reason) && reason.len() > 1000, "{reason}");
            assert!(at.contains(&world.listener_id.to_string()), "{at}");
        }
        other => panic!("{other}"),
    }
}

async fn a_dropped_peer_is_an_error(world: &World) {
    let (near, far) = connect(world).await;
    let (_sender, mut receiver) = far.split();
    drop(near);
    let heard = timeout(PROMPT, receiver.recv()).await.expect("promptly");
    assert!(matches!(heard, Err(TransportError::Lost { .. })), "{heard:?}");
}

/// Fills the connection until a send does not get through; the bytes that did.
async fn fill(sender: &mut FrameSender) -> usize {
    let frame = Bytes::from(vec![5; 1 << 20]);
    let mut sent = 0;
    // Not a sleep: the time only says how long nothing has moved. A slow machine makes `sent` smaller, never larger.
    while let Ok(done) = timeout(Duration::from_secs(1), sender.send(frame.clone())).await {
        done.unwrap();
        sent += frame.len();
        assert!(sent < 1 << 30, "a sender that never waits");
    }
    sent
}

async fn a_frame_cut_in_half_is_never_seen(world: &World) {
    let (near, far) = connect(world).await;
    let (_far_sender, mut receiver) = far.split();
    let (mut sender, near_receiver) = near.split();
    fill(&mut sender).await;
    drop((sender, near_receiver));
    let heard = loop {
        match receiver.recv().await {
            Ok(Some(frame)) => {
                assert!(frame.len() == 1 << 20 && frame.iter().all(|&byte| byte == 5))
            }
            other => break other,
        }
    };
    assert!(matches!(heard, Err(TransportError::Lost { .. })), "{heard:?}");
}

async fn a_stalled_receiver_stops_the_sender(world: &World) {
    let (near, far) = connect(world).await;
    let ((mut sender, _near), (_far, mut receiver)) = (near.split(), far.split());
    let sent = fill(&mut sender).await;
    // Kernel socket buffers (up to 6 + 4 MiB by default on Linux; twice that and 8 MiB through the forwarder) and our
    // own windows of 4 or 5 MiB are all that may hold bytes.
    assert!(sent <= 40 << 20, "{sent} bytes went nowhere");
    // And it goes on when the receiver does.
    let end = Bytes::from_static(b"end");
    let send = async {
        sender.send(end.clone()).await.unwrap();
        sender.flush().await.unwrap();
    };
    let receive = async { while receiver.recv().await.unwrap().unwrap() != end {} };
    tokio::join!(send, receive);
}

async fn a_hundred_connections_at_once(world: &World) {
    const CONNECTIONS: u32 = 100;
    let accept = async {
        let mut echoes = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            echoes.spawn(echo(world.listener.accept().await.unwrap()));
        }
        echoes.join_all().await
    };
    let dial = async {
        let mut calls = tokio::task::JoinSet::new();
        for index in 0..CONNECTIONS {
            let (dialler, address) = (world.dialler.clone(), world.address.clone());
            calls.spawn(async move {
                let (sender, receiver) = dialler.connect(&address).await.unwrap().split();
                ask(sender, receiver, index).await
            });
        }
        calls.join_all().await
    };
    let (_, mut answers) = tokio::join!(accept, dial);
    answers.sort_unstable();
    assert_eq!(answers, (0..CONNECTIONS).collect::<Vec<_>>());
}

async fn ask(mut sender: FrameSender, mut receiver: FrameReceiver, index: u32) -> u32 {
    sender.send(index.to_le_bytes().to_vec().into()).await.unwrap();
    sender.flush().await.unwrap();
    let answer = receiver.recv().await.unwrap().unwrap();
    sender.close(0, "").await.unwrap();
    assert!(receiver.recv().await.unwrap().is_none());
    u32::from_le_bytes(answer[..].try_into().unwrap())
}

async fn a_drained_queue_arrives_and_ends(world: &World) {
    let (near, far) = connect(world).await;
    let ((sender, _near), (_far, mut receiver)) = (near.split(), far.split());
    let (queue, frames) = tokio::sync::mpsc::channel(4);
    let draining = tokio::spawn(sender.drain(frames));
    for index in 0..10u8 {
        queue.send(Bytes::from(vec![index; 10])).await.unwrap();
        // Each arrives although the queue stays open: an empty queue is flushed.
        assert_eq!(receiver.recv().await.unwrap().unwrap()[0], index);
    }
    drop(queue);
    assert!(receiver.recv().await.unwrap().is_none());
    draining.await.unwrap().unwrap();
}

/// The replicas of a cloud have one key. Whoever dials an address gets the machine that is there, whatever other addresses of that
/// key it knows and has connections to.
async fn one_key_at_three_addresses(kind: Kind) {
    let (server, client) = (identity(1), identity(2));
    let replicas = [kind.listen(&server).await, kind.listen(&server).await, kind.listen(&server).await];
    let dialler = kind.dialler(&client).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        for replica in &replicas {
            let address = &replica.local_addresses()[0];
            let (near, far) = tokio::join!(dialler.connect(address), timeout(PROMPT, replica.accept()));
            let (near, far) = (near.unwrap(), far.expect("the one that was dialled").unwrap());
            assert_eq!((near.peer(), near.kind()), (server.id(), kind.name()));
            held.push((near, far));
        }
    }
    // Ends that are apart still belong together.
    for (index, (near, far)) in held.into_iter().enumerate() {
        let ((sender, receiver), far) = (near.split(), tokio::spawn(echo(far)));
        assert_eq!(ask(sender, receiver, index as u32).await, index as u32);
        far.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_one_key_are_apart() {
    for kind in [Kind::Tcp, Kind::Quic, Kind::Auto] {
        timeout(LIMIT, one_key_at_three_addresses(kind)).await.expect("no hang");
    }
}
