//! One connection: a task that sends what is queued, and one that reads.

use super::greet::Greeted;
use bytes::Bytes;
use littoral_wire::{NodeId, Wire};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Frames that wait to be sent: more than passes on their way and a replay of a long text.
const QUEUE: usize = 4_096;

/// The sending end of a link for one kind of messages. Dropped, it says goodbye; the reader goes with it.
pub struct Link<M> {
    pub peer: NodeId,
    messages: PhantomData<fn(M)>,
    queue: mpsc::Sender<Bytes>,
    reader: JoinHandle<()>,
    alive: Arc<AtomicBool>,
}

impl<M: Wire + Send + 'static> Link<M> {
    /// `heard` gets what comes in, and at last why nothing more does. Must run inside a runtime.
    pub fn spawn(greeted: Greeted, mut heard: impl FnMut(Result<M, String>) + Send + 'static) -> Self {
        let Greeted { peer, sender, mut receiver } = greeted;
        let (queue, frames) = mpsc::channel(QUEUE);
        tokio::spawn(sender.drain(frames));
        let alive = Arc::new(AtomicBool::new(true));
        let living = alive.clone();
        let reader = tokio::spawn(async move {
            loop {
                let said = match receiver.recv().await {
                    Ok(Some(frame)) => M::from_bytes(&frame).map_err(|e| e.to_string()),
                    Ok(None) => Err("it said goodbye".to_owned()),
                    Err(e) => Err(e.to_string()),
                };
                let ended = said.is_err();
                living.store(!ended, Relaxed);
                heard(said);
                if ended {
                    return;
                }
            }
        });
        Self { peer, messages: PhantomData, queue, reader, alive }
    }

    /// Nothing is known to be wrong with it.
    pub fn alive(&self) -> bool {
        self.alive.load(Relaxed)
    }

    /// Queues a message. False if the link is down, or takes nothing.
    pub fn send(&self, said: &M) -> bool {
        self.queue.try_send(said.to_bytes().into()).is_ok()
    }
}

impl<M> Drop for Link<M> {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
