//! One connection: a task that sends what is queued, and one that reads.

use super::greet::Greeted;
use crate::transport::FrameSender;
use bytes::Bytes;
use littoral_wire::{NodeId, Wire};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// What may wait to be sent: passes on their way, and all that a machine before kept, when it is sent again.
const WAITING_BYTES_MAX: usize = 512 << 20;
/// What may have come and wait to be looked at: then nothing more is read, and the peer's own queue grows.
const HEARD_KB_MAX: u32 = 64 << 10;

/// The place of a message among those that wait to be looked at, until this is dropped.
#[derive(Debug, Default)]
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

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
    /// `heard` gets what comes in once [`Self::listen`] was called, with a place that is to be held until it was looked at, and
    /// at last why nothing more does. Must run inside a runtime.
    pub fn spawn(greeted: Greeted, mut heard: impl FnMut(Result<M, String>, Place) + Send + 'static) -> Self {
        let Greeted { peer, sender, mut receiver } = greeted;
        let (queue, frames) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        tokio::spawn(write(sender, frames, shared.clone()));
        let of_reader = shared.clone();
        let reader = tokio::spawn(async move {
            of_reader.listen.notified().await;
            let places = Arc::new(Semaphore::new(HEARD_KB_MAX as usize));
            loop {
                let next = async {
                    let frame = receiver.recv().await.map_err(|e| e.to_string())?.ok_or("it said goodbye")?;
                    let place = places.clone().acquire_many_owned(kb(frame.len())).await.map_err(|e| e.to_string())?;
                    Ok((M::from_bytes(&frame).map_err(|e| e.to_string())?, Place { _permit: Some(place) }))
                };
                let next: Result<(M, Place), String> = tokio::select! { biased;
                    () = of_reader.full.notified() => Err(format!("it takes nothing: {WAITING_BYTES_MAX} bytes wait")),
                    next = next => next,
                };
                let (said, place) = match next {
                    Ok((said, place)) => (Ok(said), place),
                    Err(why) => (Err(why), Place::default()),
                };
                let ended = said.is_err();
                if ended {
                    of_reader.down.store(true, Relaxed);
                }
                heard(said, place);
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

/// What a frame counts: a short one takes memory too.
fn kb(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024 + 1).unwrap_or(HEARD_KB_MAX).min(HEARD_KB_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::memory::pair;
    use littoral_wire::Pipeline;
    use std::time::Duration;

    fn greeted(connection: crate::transport::Connection) -> Greeted {
        let peer = connection.peer();
        let (sender, receiver) = connection.split();
        Greeted { peer, sender, receiver }
    }

    /// Nothing more is read than may wait to be looked at, in whatever small pieces it comes, and nothing of it is lost. The clock
    /// stands as long as anybody has something to do.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_more_than_is_looked_at_waits() {
        let (near, far) = pair(NodeId([1; 32]), NodeId([2; 32]));
        let (heard, mut hears) = mpsc::unbounded_channel();
        let link = Link::<Pipeline>::spawn(greeted(far), move |said, place| drop(heard.send((said, place))));
        link.listen();
        let most = HEARD_KB_MAX as usize;
        let Greeted { mut sender, receiver: _receiver, .. } = greeted(near);
        let flood = tokio::spawn(async move {
            for epoch in 0..most as u32 + 9 {
                sender.send(Pipeline::Join { epoch }.to_bytes().into()).await.unwrap();
            }
            sender.flush().await.unwrap();
            sender
        });
        let mut waits = Vec::new();
        let mut next = async || tokio::time::timeout(Duration::from_secs(1), hears.recv()).await;
        while let Ok(Some((said, place))) = next().await {
            assert_eq!(said, Ok(Pipeline::Join { epoch: waits.len() as u32 }));
            waits.push(place);
        }
        assert_eq!(waits.len(), most);
        drop(waits);
        for epoch in most..most + 9 {
            let (said, _) = next().await.unwrap().unwrap();
            assert_eq!(said, Ok(Pipeline::Join { epoch: epoch as u32 }));
        }
        drop(flood.await.unwrap());
        assert!(matches!(next().await, Ok(Some((Err(_), _)))));
        // However long a frame is, there can be a place for it.
        assert_eq!((kb(0), kb(1 << 20), kb(usize::MAX)), (1, 1025, HEARD_KB_MAX));
    }
}
