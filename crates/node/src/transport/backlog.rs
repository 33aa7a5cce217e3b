//! Handshakes under way and connections waiting to be accepted, both bounded.
//!
//! A stranger that opens sockets and stays silent costs one of `half_open_max` places until the handshake's time-out;
//! when all places are taken the **oldest** handshake makes room, so an honest peer, whose handshake takes
//! milliseconds, gets in during a flood.

use super::{Connection, Result};
use std::collections::VecDeque;
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

pub(super) struct HalfOpen {
    sender: mpsc::Sender<Connection>,
    tasks: VecDeque<JoinHandle<()>>,
    max: usize,
}

impl HalfOpen {
    /// Half of the places are taken: the moment to ask strangers for proof of their address, if the protocol can.
    pub(super) fn crowded(&mut self) -> bool {
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.len() >= self.max / 2
    }

    /// Runs one handshake on its own; its failure is logged and concerns nobody else.
    pub(super) fn admit(&mut self, handshake: impl Future<Output = Result<Connection>> + Send + 'static) {
        self.tasks.retain(|task| !task.is_finished());
        if self.tasks.len() >= self.max
            && let Some(oldest) = self.tasks.pop_front()
        {
            oldest.abort();
        }
        let ready = self.sender.clone();
        self.tasks.push_back(tokio::spawn(async move {
            match handshake.await {
                Ok(connection) => drop(ready.send(connection).await),
                Err(error) => tracing::debug!("{error}"),
            }
        }));
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
