//! QUIC and TCP behind one address: one port number for both, and whichever gets through.
//!
//! Hospitals and factories block UDP, silently. [`Mode::Auto`] therefore races, as "happy eyeballs" does for IPv6
//! (RFC 8305): the preferred way starts, the other joins after [`AutoOptions::head_start_ms`] or as soon as the first
//! has failed, the first to finish wins. QUIC is preferred, unless TCP won the last time at this address; that is
//! forgotten after ten minutes, since people carry machines to other networks.
//!
//! The acceptor may see the loser of a race as a connection that ends at once.

use super::{Address, BoxFuture, Connection, Identity, QuicOptions, QuicTransport, Result, TcpOptions, TcpTransport};
use super::{Transport, TransportError};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Which way to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Auto,
    Quic,
    Tcp,
}

#[derive(Debug, Clone)]
pub struct AutoOptions {
    /// How [`Transport::connect`] dials; [`AutoTransport::dial`] takes its own.
    pub mode: Mode,
    pub quic: QuicOptions,
    pub tcp: TcpOptions,
    /// In [`Mode::Auto`]: after this, QUIC counts as blocked.
    pub quic_timeout_ms: u64,
    /// In [`Mode::Auto`]: how long the preferred way runs alone.
    pub head_start_ms: u64,
}

impl Default for AutoOptions {
    fn default() -> Self {
        let (quic, tcp) = (QuicOptions::default(), TcpOptions::default());
        Self { mode: Mode::Auto, quic, tcp, quic_timeout_ms: 3_000, head_start_ms: 1_000 }
    }
}

/// How long a victory of TCP is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Addresses whose last victory is remembered; beyond them, all are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// Free ports tried until one is free for UDP and TCP.
const PORT_TRIES: usize = 16;

pub struct AutoTransport {
    quic: QuicTransport,
    tcp: TcpTransport,
    options: AutoOptions,
    tcp_won: Mutex<HashMap<Address, Instant>>,
}

impl AutoTransport {
    /// A transport that only dials, QUIC from `bind_at` or from any address.
    pub async fn dialler(identity: &Identity, bind_at: Option<SocketAddr>, options: AutoOptions) -> Result<Self> {
        let quic = QuicTransport::dialler(identity, bind_at, options.quic.clone()).await?;
        let tcp = TcpTransport::dialler(identity, options.tcp.clone())?;
        Ok(Self { quic, tcp, options, tcp_won: Mutex::default() })
    }

    /// A transport that also listens at `at`, UDP and TCP; port 0 takes one that is free for both.
    pub async fn listen(identity: &Identity, at: SocketAddr, options: AutoOptions) -> Result<Self> {
        let mut tries = if at.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            let tcp = TcpTransport::listen(identity, at, options.tcp.clone()).await?;
            let port = tcp.local_addresses().first().map_or(at.port(), |address| address.port);
            tries -= 1;
            match QuicTransport::listen(identity, SocketAddr::new(at.ip(), port), options.quic.clone()).await {
                Ok(quic) => {
                    return Ok(Self { quic, tcp, options, tcp_won: Mutex::default() });
                }
                Err(error) if tries == 0 => return Err(error),
                Err(error) => tracing::debug!("{error}; trying another port"),
            }
        }
    }

    pub async fn dial(&self, address: &Address, mode: Mode) -> Result<Connection> {
        match mode {
            Mode::Quic => self.quic.connect(address).await,
            Mode::Tcp => self.tcp.connect(address).await,
            Mode::Auto => self.race(address).await,
        }
    }

    async fn race(&self, address: &Address) -> Result<Connection> {
        let (limit_ms, head_start) = (self.options.quic_timeout_ms, Duration::from_millis(self.options.head_start_ms));
        let quic = async {
            let late =
                |_| TransportError::Timeout { what: "connecting", kind: "quic", at: address.to_string(), limit_ms };
            timeout(Duration::from_millis(limit_ms), self.quic.connect(address)).await.map_err(late)?
        };
        let tcp = self.tcp.connect(address);
        let raced = if self.prefers_tcp(address) {
            first_of(tcp, quic, head_start).await.map_err(|(tcp, quic)| (quic, tcp))
        } else {
            first_of(quic, tcp, head_start).await
        };
        match raced {
            Ok(connection) => {
                self.remember(address, connection.kind() == "tcp");
                Ok(connection)
            }
            // TCP knows both keys, and another key is the reason that matters.
            Err((_, tcp)) if tcp.is_wrong_peer() => Err(tcp),
            Err((quic, tcp)) => {
                Err(TransportError::NoWay { address: address.clone(), quic: quic.into(), tcp: tcp.into() })
            }
        }
    }

    fn prefers_tcp(&self, address: &Address) -> bool {
        let won = self.tcp_won.lock().unwrap_or_else(PoisonError::into_inner);
        won.get(address).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, address: &Address, tcp: bool) {
        let mut won = self.tcp_won.lock().unwrap_or_else(PoisonError::into_inner);
        if !tcp {
            won.remove(address);
            return;
        }
        if won.len() >= REMEMBERED_MAX {
            won.clear();
        }
        // The first victory counts, so that QUIC gets its chance again although TCP keeps winning.
        let at = won.entry(address.clone()).or_insert_with(Instant::now);
        if at.elapsed() >= REMEMBERED {
            *at = Instant::now();
        }
    }
}

/// The first of two attempts that succeeds, or both errors. `second` starts after `head_start` or when `first` failed.
async fn first_of<T, E>(
    first: impl Future<Output = Result<T, E>>,
    second: impl Future<Output = Result<T, E>>,
    head_start: Duration,
) -> Result<T, (E, E)> {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    let failed = tokio::select! { biased;
        done = &mut first => match done { Ok(value) => return Ok(value), Err(error) => Some(error) },
        () = sleep(head_start) => None,
    };
    if let Some(error) = failed {
        return second.await.map_err(|other| (error, other));
    }
    tokio::select! { biased;
        done = &mut first => match done { Ok(value) => Ok(value), Err(error) => second.await.map_err(|other| (error, other)) },
        done = &mut second => match done { Ok(value) => Ok(value), Err(other) => first.await.map_err(|error| (error, other)) },
    }
}

impl Transport for AutoTransport {
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(self.dial(address, self.options.mode))
    }

    fn accept(&self) -> BoxFuture<'_, Result<Connection>> {
        Box::pin(async {
            tokio::select! {
                accepted = self.tcp.accept() => accepted,
                accepted = self.quic.accept() => accepted,
            }
        })
    }

    /// One address per bound socket; UDP and TCP share it.
    fn local_addresses(&self) -> Vec<Address> {
        self.tcp.local_addresses()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.tcp.close().await;
            self.quic.close().await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(ms: u64, done: Result<&'static str, &'static str>) -> Result<&'static str, &'static str> {
        sleep(Duration::from_millis(ms)).await;
        done
    }

    /// How long it takes and how it ends.
    type Attempt = (u64, Result<&'static str, &'static str>);

    /// Virtual time: tokio's clock is paused and jumps from timer to timer.
    #[tokio::test(start_paused = true)]
    async fn who_wins_and_when() {
        let cases: [(Attempt, Attempt, Result<_, _>, u64); 6] = [
            ((900, Ok("a")), (0, Ok("b")), Ok("a"), 900),
            ((1500, Ok("a")), (200, Ok("b")), Ok("b"), 1200),
            ((1500, Ok("a")), (900, Ok("b")), Ok("a"), 1500),
            ((100, Err("a")), (200, Ok("b")), Ok("b"), 300),
            ((3000, Ok("a")), (200, Err("b")), Ok("a"), 3000),
            ((3000, Err("a")), (200, Err("b")), Err(("a", "b")), 3000),
        ];
        for ((a_ms, a), (b_ms, b), expected, expected_ms) in cases {
            let begin = Instant::now();
            let won = first_of(after(a_ms, a), after(b_ms, b), Duration::from_secs(1)).await;
            assert_eq!((won, begin.elapsed().as_millis() as u64), (expected, expected_ms));
        }
    }
}
