//! One link: a task that turns frames into messages and a task that sends what is queued.
//!
//! The reader holds one message while the machine is busy, so a peer that floods us fills its own connection. The
//! writer reads a chunk of an object from the disk only when its turn has come, so a thousand requested chunks cost a
//! thousand numbers. Both say [`FromLink::Down`] when the link is of no more use; the first one counts.

use super::Settings;
use super::disk::Disk;
use super::greet::{CODE_REASON, Greeted};
use crate::role::LinkId;
use crate::transport::{Counters, FRAME_BYTES_MAX, FrameReceiver, FrameSender, TransportError};
use bytes::Bytes;
use littoral_wire::object::CHUNK_BYTES;
use littoral_wire::{Blob, Message, NodeId, ObjectId, Wire};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What a queued request for a chunk counts as.
const REQUEST_BYTES: usize = 64;
/// For a goodbye to leave, and for a peer's goodbye to be found after its connection broke.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(3);

#[allow(clippy::large_enum_variant, reason = "nearly all of them are messages, and few are queued")]
pub(super) enum FromLink {
    Received(LinkId, Message),
    /// `complaint`: the peer broke the rules.
    Down {
        link: LinkId,
        reason: String,
        complaint: bool,
    },
}

enum Item {
    Frame(Bytes),
    Chunk { object: ObjectId, index: u32 },
    Close { reason: String },
}

/// The machine's end of a link.
pub(super) struct Link {
    pub(super) peer: NodeId,
    queue: mpsc::UnboundedSender<Item>,
    queued_bytes: Arc<AtomicUsize>,
    queue_bytes_max: usize,
    writer: JoinHandle<()>,
}

impl Link {
    pub(super) fn spawn(
        link: LinkId,
        greeted: Greeted,
        settings: &Settings,
        disk: Disk,
        events: mpsc::Sender<FromLink>,
    ) -> Self {
        let Greeted { peer, sender, receiver, counters, place, .. } = greeted;
        let (queue, items) = mpsc::unbounded_channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let mut reader = AbortOnDrop(tokio::spawn(read(link, receiver, events.clone())));
        let writer = Writer {
            sender,
            items,
            queued_bytes: queued_bytes.clone(),
            disk,
            counters,
            stall: Duration::from_millis(settings.stall_ms),
        };
        let writer = tokio::spawn(async move {
            let _place = place;
            if let Some(reason) = writer.run().await {
                // If the peer said why, the reader knows; it says so first.
                let _ = timeout(GOODBYE_TIMEOUT, &mut reader.0).await;
                let _ = events.send(FromLink::Down { link, reason, complaint: false }).await;
            }
        });
        Self { peer, queue, queued_bytes, queue_bytes_max: settings.queue_bytes_max, writer }
    }

    /// # Errors
    /// Why the link must be dropped.
    pub(super) fn send(&self, message: &Message) -> Result<(), String> {
        let frame = message.to_bytes();
        if frame.len() > FRAME_BYTES_MAX {
            let (name, got) = (message.name(), frame.len());
            return Err(format!("a {name} of {got} bytes was to be sent, at most {FRAME_BYTES_MAX} fit in a frame"));
        }
        self.push(frame.len(), Item::Frame(frame.into()))
    }

    pub(super) fn send_chunk(&self, object: ObjectId, index: u32) -> Result<(), String> {
        self.push(REQUEST_BYTES, Item::Chunk { object, index })
    }

    /// Sends what is queued, then the reason, then ends.
    pub(super) fn close(self, reason: String) -> JoinHandle<()> {
        let _ = self.queue.send(Item::Close { reason });
        self.writer
    }

    /// Ends now: what is queued is thrown away.
    pub(super) fn cut(self) {
        self.writer.abort();
    }

    fn push(&self, bytes: usize, item: Item) -> Result<(), String> {
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if queued > self.queue_bytes_max {
            return Err(format!("{queued} bytes wait to be sent, at most {} may", self.queue_bytes_max));
        }
        // A writer that has ended says so by itself.
        let _ = self.queue.send(item);
        Ok(())
    }
}

/// The reader ends with the writer, however that ends.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read(link: LinkId, mut receiver: FrameReceiver, events: mpsc::Sender<FromLink>) {
    let down = |reason: String, complaint| FromLink::Down { link, reason, complaint };
    loop {
        let event = match receiver.recv().await {
            Ok(Some(frame)) => match Message::from_bytes(&frame) {
                Ok(message) => FromLink::Received(link, message),
                Err(e) => down(format!("not a message of this protocol: {e}"), true),
            },
            Ok(None) => down("the peer hung up".into(), false),
            Err(e) => down(e.to_string(), false),
        };
        let last = matches!(event, FromLink::Down { .. });
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}

struct Writer {
    sender: FrameSender,
    items: mpsc::UnboundedReceiver<Item>,
    queued_bytes: Arc<AtomicUsize>,
    disk: Disk,
    counters: Arc<Counters>,
    stall: Duration,
}

impl Writer {
    /// Returns why it failed; nothing if it was closed.
    async fn run(mut self) -> Option<String> {
        loop {
            let item = match self.items.try_recv() {
                Ok(item) => Some(item),
                Err(_) => {
                    if let Err(reason) = patient(self.sender.flush(), &self.counters, self.stall).await {
                        return Some(reason);
                    }
                    self.items.recv().await
                }
            };
            let (bytes, frame) = match item {
                Some(Item::Frame(frame)) => (frame.len(), frame),
                Some(Item::Chunk { object, index }) => (REQUEST_BYTES, self.chunk(object, index).await),
                Some(Item::Close { reason }) => {
                    let _ = timeout(GOODBYE_TIMEOUT, self.sender.close(CODE_REASON, &reason)).await;
                    return None;
                }
                // The machine dropped the link.
                None => return None,
            };
            let sent = patient(self.sender.send(frame), &self.counters, self.stall).await;
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            if let Err(reason) = sent {
                return Some(reason);
            }
        }
    }

    async fn chunk(&self, object: ObjectId, index: u32) -> Bytes {
        let message = match self.disk.chunk(object, index).await.map(Blob::new) {
            Ok(Ok(bytes)) if !bytes.is_empty() => Message::Chunk { object, index, bytes },
            _ => Message::NoChunk { object, index },
        };
        let mut frame = Vec::with_capacity(CHUNK_BYTES + REQUEST_BYTES);
        message.put(&mut frame);
        frame.into()
    }
}

/// Waits for `sending`, but not while no byte moves for `stall`.
async fn patient(
    sending: impl Future<Output = Result<(), TransportError>>,
    counters: &Counters,
    stall: Duration,
) -> Result<(), String> {
    let mut sending = std::pin::pin!(sending);
    loop {
        let before = counters.sent();
        match timeout(stall, &mut sending).await {
            Ok(result) => return result.map_err(|e| e.to_string()),
            Err(_) if counters.sent() == before => return Err(format!("the peer took no byte for {stall:?}")),
            Err(_) => {}
        }
    }
}
