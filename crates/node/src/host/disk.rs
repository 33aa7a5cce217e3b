//! Operations on objects, on a few threads of their own. Those on one object happen in the order in which they were
//! ordered; those on different objects, side by side.

use super::OnReport;
use super::machine::Input;
use super::pool::Pool;
use crate::role::{Event, Report};
use crate::store::{KeepFault, Made, ObjectStore};
use crate::work::ObjectFault;
use bytes::Bytes;
use littoral_wire::ObjectId;
use littoral_wire::object::Manifest;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

const THREADS: usize = 4;
/// A disk that refuses is asked again after this long; a chunk that it refused is asked of the peer again after it.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) enum Op {
    Begin(Manifest),
    Keep {
        object: ObjectId,
        index: u32,
        bytes: Bytes,
    },
    Put {
        manifest: Manifest,
        bytes: Vec<u8>,
        done: oneshot::Sender<()>,
    },
    /// Gives an object that a work made its name.
    Publish(Made),
    Load {
        object: ObjectId,
        index: u32,
    },
    Drop(ObjectId),
    /// It goes from this machine's folder; where objects are shared, others may need it.
    Forget(ObjectId),
    /// Says when everything before it is done.
    Fence {
        object: ObjectId,
        done: oneshot::Sender<()>,
    },
}

#[derive(Clone)]
pub(super) struct Disk {
    objects: Arc<dyn ObjectStore>,
    pool: Pool,
    inputs: mpsc::UnboundedSender<Input>,
    on_report: OnReport,
    /// What waits, by object. A queue is here for as long as a thread works on it.
    lanes: Arc<Mutex<HashMap<ObjectId, VecDeque<Op>>>>,
}

impl Disk {
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        inputs: mpsc::UnboundedSender<Input>,
        on_report: OnReport,
    ) -> Self {
        Self { objects, pool: Pool::new("disk", THREADS), inputs, on_report, lanes: Arc::default() }
    }

    pub(super) fn order(&self, op: Op) {
        let object = match &op {
            Op::Begin(manifest) | Op::Put { manifest, .. } => manifest.id(),
            Op::Publish(made) => made.manifest.id(),
            Op::Keep { object, .. } | Op::Load { object, .. } | Op::Fence { object, .. } => *object,
            Op::Drop(object) | Op::Forget(object) => *object,
        };
        let mut lanes = self.lanes();
        let idle = !lanes.contains_key(&object);
        lanes.entry(object).or_default().push_back(op);
        if idle {
            let disk = self.clone();
            self.pool.run(move || disk.serve(object));
        }
    }

    /// Returns when what was ordered for `object` is done.
    pub(super) fn fence(&self, object: ObjectId) -> oneshot::Receiver<()> {
        let (done, fenced) = oneshot::channel();
        self.order(Op::Fence { object, done });
        fenced
    }

    /// A chunk of a whole object for a peer.
    pub(super) async fn chunk(&self, object: ObjectId, index: u32) -> Result<Vec<u8>, ObjectFault> {
        let objects = self.objects.clone();
        let read = self.pool.ask(move || objects.chunk(object, index)).await;
        read.unwrap_or(Err(ObjectFault::Missing(object)))
    }

    fn serve(&self, object: ObjectId) {
        loop {
            let op = {
                let mut lanes = self.lanes();
                match lanes.get_mut(&object).and_then(VecDeque::pop_front) {
                    Some(op) => op,
                    None => {
                        lanes.remove(&object);
                        return;
                    }
                }
            };
            self.perform(op);
        }
    }

    fn perform(&self, op: Op) {
        match op {
            Op::Begin(manifest) => {
                let missing = self.insist(|| self.objects.begin(&manifest)).unwrap_or_default();
                self.answer(Event::Begun { object: manifest.id(), missing });
            }
            Op::Keep { object, index, bytes } => {
                let kept = self.objects.folder().keep(object, index, &bytes);
                drop(bytes);
                if let Err(KeepFault::Disk(e)) = &kept {
                    self.warn(e);
                    sleep(PAUSE);
                }
                self.answer(Event::Kept { object, index, fault: kept.err().map(|e| e.to_string()) });
            }
            Op::Put { manifest, bytes, done } => {
                self.insist(|| self.objects.folder().put(&manifest, bytes.clone()));
                let _ = done.send(());
            }
            Op::Publish(made) => drop(self.insist(|| self.objects.folder().publish_made(&made))),
            Op::Load { object, index } => {
                let read = self.objects.chunk(object, index);
                if let Err(e) = &read
                    && !matches!(e, ObjectFault::Missing(_))
                {
                    self.warn(e);
                }
                self.answer(Event::Loaded { object, index, bytes: read.ok().map(Bytes::from) });
            }
            Op::Drop(object) => {
                if let Err(e) = self.objects.remove(object) {
                    self.warn(&e);
                }
            }
            Op::Forget(object) => {
                if let Err(e) = self.objects.folder().remove(object) {
                    self.warn(&e);
                }
            }
            Op::Fence { done, .. } => drop(done.send(())),
        }
    }

    /// Tries until the disk does it. A fault that is not the disk's will not pass: it is said once.
    fn insist<T>(&self, mut attempt: impl FnMut() -> Result<T, ObjectFault>) -> Option<T> {
        loop {
            match attempt() {
                Ok(value) => return Some(value),
                Err(e) => {
                    self.warn(&e);
                    if !matches!(e, ObjectFault::Disk(_)) || self.inputs.is_closed() {
                        return None;
                    }
                    sleep(PAUSE);
                }
            }
        }
    }

    fn answer(&self, event: Event) {
        // A run that has ended needs no answer.
        let _ = self.inputs.send(Input::Event(event));
    }

    fn warn(&self, fault: &ObjectFault) {
        (self.on_report)(Report::Warning { what: fault.to_string() });
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<ObjectId, VecDeque<Op>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
