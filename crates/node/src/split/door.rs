//! Where connections come in to a machine that lends its layers: each says what it is for, and some wait to be heard.
//!
//! The thread with the layers may be busy for long, and it alone knows whom its head named. So whoever has some key may wait for
//! it, and what waits is bounded here.

use super::stage::{Input, Settings};
use super::survey;
use crate::peer::{self, Greeted, greet};
use crate::transport::{Connection, Transport};
use littoral_wire::{NodeId, Pipeline, Wire};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Link = peer::Link<Pipeline>;

/// Links over which others fetch at a time, or wait to.
const FETCHES_MAX: usize = 64;
/// Links of heads, and of stages that join, that wait.
const HEADS_WAIT_MAX: usize = 16;
const JOINS_WAIT_MAX: usize = 64;
/// Of so many that were sent away it is known why.
const SENT_AWAY_MAX: usize = 256;

/// How far it is, for beats.
#[derive(Default)]
pub(super) struct Progress {
    pub epoch: AtomicU32,
    pub done: AtomicU64,
}

pub(super) struct Door {
    settings: Arc<Settings>,
    progress: Arc<Progress>,
    inputs: mpsc::Sender<Input>,
    heads: Arc<Semaphore>,
    joins: Arc<Semaphore>,
    fetches: Arc<Semaphore>,
    /// Why whom was sent away last: those who come again and again are told of once.
    sent_away: Mutex<BTreeMap<NodeId, String>>,
}

impl Door {
    pub fn new(settings: Arc<Settings>, progress: Arc<Progress>, inputs: mpsc::Sender<Input>) -> Self {
        let places = |most| Arc::new(Semaphore::new(most));
        let (heads, joins, fetches) = (places(HEADS_WAIT_MAX), places(JOINS_WAIT_MAX), places(FETCHES_MAX));
        Self { settings, progress, inputs, heads, joins, fetches, sent_away: Mutex::default() }
    }

    /// Until the transport is closed.
    pub async fn accept(self, transport: Arc<dyn Transport>) {
        let door = Arc::new(self);
        greet::accept(&*transport, move |number, connection, place| {
            let door = door.clone();
            tokio::spawn(async move {
                let (_place, peer) = (place, connection.peer());
                if let Err(why) = door.welcome(connection, number).await {
                    door.sent_away(peer, why);
                }
            });
        })
        .await;
    }

    fn sent_away(&self, peer: NodeId, why: String) {
        let mut known = self.sent_away.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&peer) != Some(&why) {
            tracing::info!("{peer} was not let in: {why}");
            if known.len() >= SENT_AWAY_MAX {
                known.clear();
            }
            known.insert(peer, why);
        }
    }

    async fn welcome(&self, connection: Connection, number: u64) -> Result<(), String> {
        let mut greeted = greet::greet(connection).await?;
        let allowed = self.settings.allowed.contains(&greeted.peer);
        let input = match greet::first(&mut greeted).await? {
            Pipeline::Hello {} if allowed => {
                let (place, heard) = (place(&self.heads)?, self.inputs.clone());
                let link =
                    Link::spawn(greeted, move |said, place| drop(heard.send(Input::Heard { number, said, place })));
                Input::Head { number, link, place }
            }
            Pipeline::Watch {} if allowed => {
                tokio::spawn(answer_beats(greeted, self.progress.clone()));
                return Ok(());
            }
            first @ Pipeline::Echo { .. } if allowed => {
                let (peer, asks) = (greeted.peer, self.inputs.clone());
                let ask = move |asked| asks.send(Input::Survey { peer, asked }).is_ok();
                tokio::spawn(survey::answer_survey(greeted, first, ask));
                return Ok(());
            }
            // Whether it is the one that the head named shows when the head has named it.
            Pipeline::Join { .. } => Input::Before { number, greeted, place: place(&self.joins)? },
            Pipeline::Supply {} if allowed => Input::Supply(greeted, place(&self.heads)?),
            Pipeline::Fetch {} => Input::Fetch(greeted, place(&self.fetches)?),
            Pipeline::Hello {} | Pipeline::Watch {} | Pipeline::Supply {} | Pipeline::Echo { .. } => {
                let (_, key) = (greeted.sender.close(1, "this machine does not know your key").await, greeted.peer);
                return Err(format!("its key is not among those allowed; let it in with --allow {key}"));
            }
            other => {
                return Err(format!("Hello, Watch, Echo, Join, Supply or Fetch expected first, got {}", other.name()));
            }
        };
        let _ = self.inputs.send(input);
        Ok(())
    }
}

/// Among those that wait to be heard.
fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, String> {
    places.clone().try_acquire_owned().map_err(|_| "too many wait here already".to_owned())
}

/// Says that this machine lives, and how far it is.
async fn answer_beats(greeted: Greeted, progress: Arc<Progress>) {
    let Greeted { mut sender, mut receiver, .. } = greeted;
    while let Ok(Some(frame)) = receiver.recv().await {
        let Ok(Pipeline::Beat { count, .. }) = Pipeline::from_bytes(&frame) else { return };
        let (epoch, done) = (progress.epoch.load(Relaxed), progress.done.load(Relaxed));
        let beat = Pipeline::Beat { count, epoch, done }.to_bytes();
        if sender.send(beat.into()).await.is_err() || sender.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::memory::pair;

    fn door() -> (Door, mpsc::Receiver<Input>) {
        let (inputs, incoming) = mpsc::channel();
        let settings = Settings {
            name: String::new(),
            allowed: vec![NodeId([1; 32])],
            models: BTreeMap::new(),
            standby: None,
            log_bytes_max: 0,
            pin: false,
            memory_bytes: 0,
            disk_free_bytes: 0,
            host: [0; 16],
        };
        (Door::new(Arc::new(settings), Arc::default(), inputs), incoming)
    }

    /// Somebody comes, and says what for. The other end stays.
    async fn comes(door: &Door, id: u8, first: Pipeline) -> (Result<(), String>, Result<Greeted, String>) {
        let (near, far) = pair(NodeId([id; 32]), NodeId([0; 32]));
        let dialled = async {
            let mut greeted = greet::greet(near).await?;
            greeted.sender.send(first.to_bytes().into()).await.map_err(|e| e.to_string())?;
            Ok(greeted)
        };
        tokio::join!(door.welcome(far, 0), dialled)
    }

    /// The thread with the layers is busy. Of strangers so many wait as may, and the head is not kept out by them.
    #[tokio::test(start_paused = true)]
    async fn what_waits_for_the_thread_with_the_layers_is_bounded() {
        let (door, incoming) = door();
        let mut ends = Vec::new();
        for (first, most) in [
            (Pipeline::Join { epoch: 1 }, JOINS_WAIT_MAX),
            (Pipeline::Fetch {}, FETCHES_MAX),
            (Pipeline::Hello {}, HEADS_WAIT_MAX),
        ] {
            let id = if first == (Pipeline::Hello {}) { 1 } else { 7 };
            for _ in 0..most {
                let (welcome, end) = comes(&door, id, first.clone()).await;
                assert_eq!(welcome, Ok(()), "{}", first.name());
                ends.push(end);
            }
            for _ in 0..3 {
                let (welcome, _end) = comes(&door, id, first.clone()).await;
                assert_eq!(welcome, Err("too many wait here already".into()), "{}", first.name());
            }
        }
        assert_eq!(incoming.try_iter().count(), JOINS_WAIT_MAX + FETCHES_MAX + HEADS_WAIT_MAX);
        // They were heard.
        assert_eq!(comes(&door, 7, Pipeline::Join { epoch: 1 }).await.0, Ok(()));
        assert_eq!(comes(&door, 7, Pipeline::Fetch {}).await.0, Ok(()));
        assert!(comes(&door, 7, Pipeline::Hello {}).await.0.is_err_and(|why| why.contains("not among those allowed")));
    }
}
