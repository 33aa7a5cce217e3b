//! Handshakes under way and connections waiting to be accepted, both bounded.
//!
//! A stranger that opens sockets and stays silent costs one of `half_open_max` places until the handshake's time-out;
//! when all places are taken, the **oldest** handshake of the [`Source`] that holds **most** makes room. So an honest
//! peer, whose handshake takes milliseconds, gets in during a flood, and a flood from one address drives out nobody but
//! itself. No source has a fixed share: a hundred devices behind one hospital's address may take all places that
//! nobody else wants.

use super::{Connection, Result};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// Finished handshakes that nobody has accepted yet; more of them wait in their tasks, which count as half-open.
const READY_MAX: usize = 256;

/// The accepting side: what a listener's task found.
pub(super) struct Backlog {
    ready: Mutex<mpsc::Receiver<Connection>>,
    listening: JoinHandle<()>,
}

impl Backlog {
    /// Spawns `listen`, which feeds [`HalfOpen`] for as long as the backlog lives.
    pub(super) fn spawn<F>(half_open_max: usize, listen: impl FnOnce(HalfOpen) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(READY_MAX);
        let half_open = HalfOpen { sender, tasks: VecDeque::new(), max: half_open_max.max(1) };
        Self { ready: Mutex::new(receiver), listening: tokio::spawn(listen(half_open)) }
    }

    /// `None` when the listener has ended.
    pub(super) async fn accept(&self) -> Option<Connection> {
        self.ready.lock().await.recv().await
    }

    pub(super) fn stop(&self) {
        self.listening.abort();
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whose handshakes count together: what one stranger can easily have many of is one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    V4(Ipv4Addr),
    /// A network of 64 bits, the least that anybody is given.
    V6(u64),
    /// Everybody who comes through a relay: keys cost nothing.
    Relayed,
}

impl From<SocketAddr> for Source {
    fn from(at: SocketAddr) -> Self {
        match at.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

pub(super) struct HalfOpen {
    sender: mpsc::Sender<Connection>,
    /// Oldest first.
    tasks: VecDeque<(Source, JoinHandle<()>)>,
    max: usize,
}

impl HalfOpen {
    /// Half of the places are taken: the moment to ask strangers for proof of their address, if the protocol can.
    pub(super) fn crowded(&mut self) -> bool {
        self.forget_finished();
        self.tasks.len() >= self.max / 2
    }

    /// Runs one handshake on its own; its failure is logged and concerns nobody else.
    pub(super) fn admit(
        &mut self,
        source: Source,
        handshake: impl Future<Output = Result<Connection>> + Send + 'static,
    ) {
        self.forget_finished();
        if self.tasks.len() >= self.max {
            self.make_room(source);
        }
        let ready = self.sender.clone();
        let task = tokio::spawn(async move {
            match handshake.await {
                Ok(connection) => drop(ready.send(connection).await),
                Err(error) => tracing::debug!("{error}"),
            }
        });
        self.tasks.push_back((source, task));
    }

    fn forget_finished(&mut self) {
        self.tasks.retain(|(_, task)| !task.is_finished());
    }

    /// Ends the oldest handshake of the source that would hold most with one more of `newcomer`'s.
    fn make_room(&mut self, newcomer: Source) {
        let mut held = HashMap::from([(newcomer, 1)]);
        for (source, _) in &self.tasks {
            *held.entry(*source).or_insert(0) += 1;
        }
        let most = held.values().max();
        let oldest = self.tasks.iter().position(|(source, _)| held.get(source) == most);
        if let Some((_, task)) = oldest.and_then(|index| self.tasks.remove(index)) {
            task.abort();
        }
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(at: &str) -> Source {
        at.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn what_counts_together() {
        assert_eq!(source("192.0.2.1:1"), source("[::ffff:192.0.2.1]:2"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.2:1"));
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::ffff:0:0:2]:2"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
    }

    #[tokio::test]
    async fn the_oldest_of_the_greediest_makes_room() {
        let (sender, _receiver) = mpsc::channel(1);
        let mut half_open = HalfOpen { sender, tasks: VecDeque::new(), max: 4 };
        let [a, b, c, d] = ["1", "2", "3", "4"].map(|last| source(&format!("192.0.2.{last}:1")));
        let mut after = |newcomer| {
            half_open.admit(newcomer, std::future::pending());
            half_open.tasks.iter().map(|(source, _)| *source).collect::<Vec<_>>()
        };
        for newcomer in [a, b, a] {
            after(newcomer);
        }
        assert_eq!(after(b), [a, b, a, b]);
        assert_eq!(after(b), [a, a, b, b], "a tie is broken against the newcomer");
        assert_eq!(after(c), [a, b, b, c], "then by age");
        assert_eq!(after(d), [a, b, c, d]);
        assert_eq!(after(d), [a, b, c, d]);
        assert_eq!(after(a), [b, c, d, a]);
    }
}
