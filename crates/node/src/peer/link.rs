//! One connection: a task that sends what is queued, and one that reads.

use super::greet::Greeted;
use crate::transport::FrameSender;
use bytes::Bytes;
use littoral_wire::{NodeId, Wire};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// What may wait to be sent: passes on their way, and all that a machine before kept, when it is sent again.
const WAITING_BYTES_MAX: usize = 512 << 20;

/// What the tasks and the sending end have in common.
#[derive(Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    down: AtomicBool,
    listen: Notify,
    full: Notify,
}

/// The sending end of a link for one kind of messages. Dropped, it says goodbye; the reader goes with it.
pub struct Link<M> {
    pub peer: NodeId,
    messages: PhantomData<fn(M)>,
    queue: mpsc::UnboundedSender<Bytes>,
    reader: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl<M: Wire + Send + 'static> Link<M> {
    /// `heard` gets what comes in once [`Self::listen`] was called, and at last why nothing more does. Must run inside a
    /// runtime.
    pub fn spawn(greeted: Greeted, mut heard: impl FnMut(Result<M, String>) + Send + 'static) -> Self {
        let Greeted { peer, sender, mut receiver } = greeted;
        let (queue, frames) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        tokio::spawn(write(sender, frames, shared.clone()));
        let of_reader = shared.clone();
        let reader = tokio::spawn(async move {
            of_reader.listen.notified().await;
            loop {
                let said = tokio::select! { biased;
                    () = of_reader.full.notified() => Err(format!("it takes nothing: {WAITING_BYTES_MAX} bytes wait")),
                    said = receiver.recv() => match said {
                        Ok(Some(frame)) => M::from_bytes(&frame).map_err(|e| e.to_string()),
                        Ok(None) => Err("it said goodbye".to_owned()),
                        Err(e) => Err(e.to_string()),
                    },
                };
                let ended = said.is_err();
                if ended {
                    of_reader.down.store(true, Relaxed);
                }
                heard(said);
                if ended {
                    return;
                }
            }
        });
        Self { peer, messages: PhantomData, queue, reader, shared }
    }

    /// Whoever `heard` tells knows the link by now.
    pub fn listen(&self) {
        self.shared.listen.notify_one();
    }

    /// Nothing is known to be wrong with it.
    pub fn alive(&self) -> bool {
        !self.shared.down.load(Relaxed)
    }

    /// Queues a message. A link whose peer takes nothing for too long is down, and says so as any other does.
    pub fn send(&self, said: &M) {
        let frame = Bytes::from(said.to_bytes());
        let waiting = self.shared.waiting_bytes.fetch_add(frame.len(), Relaxed) + frame.len();
        if waiting > WAITING_BYTES_MAX {
            self.shared.down.store(true, Relaxed);
            self.shared.full.notify_one();
        } else {
            // The task that sends is gone where the link is down, which the reader tells.
            let _ = self.queue.send(frame);
        }
    }
}

/// Sends what is queued, all at once where more waits, until the sending end is dropped.
async fn write(mut sender: FrameSender, mut frames: mpsc::UnboundedReceiver<Bytes>, shared: Arc<Shared>) {
    loop {
        let frame = match frames.try_recv() {
            Ok(frame) => frame,
            Err(_) => {
                if sender.flush().await.is_err() {
                    return;
                }
                match frames.recv().await {
                    Some(frame) => frame,
                    None => return drop(sender.close(0, "").await),
                }
            }
        };
        let bytes = frame.len();
        if sender.send(frame).await.is_err() {
            return;
        }
        shared.waiting_bytes.fetch_sub(bytes, Relaxed);
    }
}

impl<M> Drop for Link<M> {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
