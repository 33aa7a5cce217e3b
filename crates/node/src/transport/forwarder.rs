//! A bad network between real processes: forwards one UDP and TCP port to another, shaped by [`super::shaper`].
//!
//! In user space, since the kernels of test machines often lack `netem`. Each flow (a TCP connection, a UDP source) and
//! direction has its own [`Link`] with its own random stream, all from one seed. Switched off, UDP datagrams vanish
//! and TCP bytes wait, as during a partition; [`Forwarder::cut`] ends all TCP connections at once.
//!
//! QUIC endpoints on one network find each other past a forwarder (see [`super::quic`]). Put the listener on `[::1]`,
//! the forwarder on `127.0.0.1` and bind the dialler to `127.0.0.1`: then there is no other path.
//!
//! Timers have millisecond grain. Not for production.

use super::shaper::{Link, Shape, Verdict};
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// UDP sources at a time; the next one is ignored.
const FLOWS_MAX: usize = 1024;
/// Bytes in flight per direction: a stream stops being read, a datagram is dropped.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
const CHUNK_BYTES: usize = 16 << 10;
const DATAGRAM_BYTES_MAX: usize = 65_536;
const PORT_TRIES: usize = 16;

/// Which protocols get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passing {
    pub udp: bool,
    pub tcp: bool,
}

/// Forwards until dropped.
pub struct Forwarder {
    at: SocketAddr,
    passing: watch::Sender<Passing>,
    cut: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Forwarder {
    /// Forwards a free port of `127.0.0.1`, UDP and TCP, to `target`; `there` shapes what goes to it, `back` what returns.
    pub async fn start(target: SocketAddr, there: Shape, back: Shape, seed: u64) -> io::Result<Self> {
        let (listener, socket) = bind_both().await?;
        let at = listener.local_addr()?;
        let passing = watch::Sender::new(Passing { udp: true, tcp: true });
        let cut = watch::Sender::new(0);
        let plan = Plan { target, there, back, seed, begin: Instant::now(), passing: passing.subscribe() };
        let mut tasks = JoinSet::new();
        tasks.spawn(forward_streams(listener, plan.clone(), cut.subscribe()));
        tasks.spawn(forward_datagrams(Arc::new(socket), plan));
        Ok(Self { at, passing, cut, _tasks: tasks })
    }

    /// Where to dial instead of the target.
    pub fn local_address(&self) -> SocketAddr {
        self.at
    }

    /// Switches protocols off and on. While off, datagrams are dropped and stream bytes are held.
    pub fn set_passing(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }

    /// Ends every TCP connection that runs through here, without a goodbye.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

#[derive(Clone)]
struct Plan {
    target: SocketAddr,
    there: Shape,
    back: Shape,
    seed: u64,
    begin: Instant,
    passing: watch::Receiver<Passing>,
}

impl Plan {
    /// The delay line of one direction of flow number `flow`.
    fn line(&self, flow: u64, returning: bool, ordered: bool) -> Line {
        let shape = if returning { self.back } else { self.there };
        let stream = flow << 2 | u64::from(returning) << 1 | u64::from(ordered);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream);
        Line { link: Link::new(shape, ordered), rng, begin: self.begin, waiting: BinaryHeap::new(), bytes: 0, count: 0 }
    }
}

/// Messages on their way in one direction.
struct Line {
    link: Link,
    rng: ChaCha8Rng,
    begin: Instant,
    /// By arrival, then by entry.
    waiting: BinaryHeap<Reverse<(u64, u64, Bytes)>>,
    bytes: usize,
    count: u64,
}

impl Line {
    fn enter(&mut self, message: Bytes) {
        let now_us = self.begin.elapsed().as_micros() as u64;
        if let Verdict::Deliver { at_us } = self.link.schedule(now_us, message.len(), &mut self.rng) {
            self.bytes += message.len();
            self.count += 1;
            self.waiting.push(Reverse((at_us, self.count, message)));
        }
    }

    fn full(&self) -> bool {
        self.bytes >= IN_FLIGHT_BYTES_MAX
    }

    /// Waits for the next arrival; for ever if nothing is on its way. Cancel-safe.
    async fn leave(&mut self) -> Bytes {
        let Some(Reverse((at_us, ..))) = self.waiting.peek() else {
            return std::future::pending().await;
        };
        let at = self.begin + Duration::from_micros(*at_us);
        if at > Instant::now() {
            sleep_until(at).await;
        }
        let Some(Reverse((.., message))) = self.waiting.pop() else {
            return std::future::pending().await;
        };
        self.bytes -= message.len();
        message
    }
}

async fn forward_streams(listener: TcpListener, plan: Plan, cut: watch::Receiver<u64>) {
    let mut flows = JoinSet::new();
    for flow in 0.. {
        let Ok((near, _)) = listener.accept().await else {
            return;
        };
        let (plan, mut cut) = (plan.clone(), cut.clone());
        cut.mark_unchanged();
        flows.spawn(async move {
            tokio::select! {
                _ = forward_stream(near, &plan, flow) => {}
                _ = cut.changed() => {}
            }
        });
        while flows.try_join_next().is_some() {}
    }
}

async fn forward_stream(near: TcpStream, plan: &Plan, flow: u64) -> io::Result<()> {
    let far = TcpStream::connect(plan.target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let there = one_way(near_read, far_write, plan.line(flow, false, true), plan.passing.clone());
    let back = one_way(far_read, near_write, plan.line(flow, true, true), plan.passing.clone());
    tokio::try_join!(there, back).map(drop)
}

async fn one_way(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut line: Line,
    mut passing: watch::Receiver<Passing>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut ended = false;
    while !ended || !line.waiting.is_empty() {
        let open = !ended && !line.full();
        tokio::select! { biased;
            message = line.leave() => {
                if passing.wait_for(|passing| passing.tcp).await.is_err() {
                    return Ok(());
                }
                to.write_all(&message).await?;
            }
            count = from.read(&mut chunk), if open => {
                let count = count?;
                ended = count == 0;
                if !ended {
                    line.enter(Bytes::copy_from_slice(&chunk[..count]));
                }
            }
        }
    }
    to.shutdown().await
}

/// Keeps one socket towards the target per UDP source, so that answers find their way back.
async fn forward_datagrams(near: Arc<UdpSocket>, plan: Plan) {
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // Errors here are about earlier datagrams (ICMP); the socket lives on.
        let Ok((count, from)) = near.recv_from(&mut datagram).await else {
            continue;
        };
        if !plan.passing.borrow().udp {
            continue;
        }
        if !flows.contains_key(&from) {
            if flows.len() >= FLOWS_MAX {
                continue;
            }
            let (sender, receiver) = mpsc::channel(4096);
            let flow = flows.len() as u64;
            flows.insert(from, sender);
            tasks.spawn(forward_flow(near.clone(), from, receiver, plan.clone(), flow));
        }
        if let Some(sender) = flows.get(&from) {
            // A full queue loses the datagram, as networks do.
            let _ = sender.try_send(Bytes::copy_from_slice(&datagram[..count]));
        }
    }
}

async fn forward_flow(near: Arc<UdpSocket>, from: SocketAddr, mut queue: mpsc::Receiver<Bytes>, plan: Plan, flow: u64) {
    let any: SocketAddr = match plan.target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let Ok(far) = UdpSocket::bind(any).await else {
        return;
    };
    if far.connect(plan.target).await.is_err() {
        return;
    }
    let (mut there, mut back) = (plan.line(flow, false, false), plan.line(flow, true, false));
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! { biased;
            message = there.leave() => drop(far.send(&message).await),
            message = back.leave() => drop(near.send_to(&message, from).await),
            message = queue.recv() => match message {
                Some(message) if !there.full() => there.enter(message),
                Some(_) => {}
                None => return,
            },
            count = far.recv(&mut datagram) => if let Ok(count) = count && plan.passing.borrow().udp && !back.full() {
                back.enter(Bytes::copy_from_slice(&datagram[..count]));
            },
        }
    }
}

async fn bind_both() -> io::Result<(TcpListener, UdpSocket)> {
    let mut tries = PORT_TRIES;
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        match UdpSocket::bind(listener.local_addr()?).await {
            Ok(socket) => return Ok((listener, socket)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => tries -= 1,
        }
    }
}
