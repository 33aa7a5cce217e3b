//! Benches: jobs that this thread worked at lately, decoded, with the room that their models need.
//!
//! A thousand simulated devices, or one device's hundred rounds, then build a model once. A bench changes how fast work
//! is and never what comes of it.

use crate::job::{JobError, Task};
use littoral_model::{Model, Worker};
use std::cell::RefCell;
use std::sync::Arc;

/// Benches per thread.
const BENCHES_MAX: usize = 4;

thread_local! {
    /// Last used first.
    static BENCHES: RefCell<Vec<Bench>> = const { RefCell::new(Vec::new()) };
}

pub struct Bench {
    encoded: Arc<[u8]>,
    task: Task,
    room: Option<Room>,
}

/// What one thread needs to train and evaluate a model.
pub struct Room {
    pub worker: Worker<f32>,
    /// For optimisers that need one in memory; as long as the weights when it is used.
    pub gradient: Vec<f32>,
}

impl Bench {
    /// Lends the bench of this task to `work`.
    pub fn with<T>(encoded: &Arc<[u8]>, work: impl FnOnce(&Task, &mut Option<Room>) -> T) -> Result<T, JobError> {
        // Out of the list while it is in use: should `work` panic, a half-used bench is gone.
        let found = BENCHES.with_borrow_mut(|benches| {
            let place = benches.iter().position(|bench| *bench.encoded == **encoded)?;
            Some(benches.remove(place))
        });
        let mut bench = match found {
            Some(bench) => bench,
            None => Self { encoded: Arc::clone(encoded), task: Task::decode(encoded)?, room: None },
        };
        let output = work(&bench.task, &mut bench.room);
        BENCHES.with_borrow_mut(|benches| {
            benches.insert(0, bench);
            benches.truncate(BENCHES_MAX);
        });
        Ok(output)
    }
}

impl Room {
    /// A room for batches of at least `rows` rows and for evaluation; the old one if it is large enough.
    pub fn of<'a>(room: &'a mut Option<Room>, model: &Model, rows: usize) -> &'a mut Room {
        let rows = rows.max(model.evaluation_rows());
        // Dropped before the larger one is made.
        room.take_if(|room| room.worker.batch.rows_max() < rows);
        room.get_or_insert_with(|| Room { worker: Worker::new(model, rows), gradient: Vec::new() })
    }
}
