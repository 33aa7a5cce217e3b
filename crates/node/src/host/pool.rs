//! A few threads that take tasks from one queue. They do not belong to the runtime: a long work delays neither timers
//! nor the end of the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tokio::sync::oneshot;

type Task = Box<dyn FnOnce() + Send>;

/// Ends its threads, after the tasks in hand, when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Pool(Sender<Task>);

impl Pool {
    pub(super) fn new(name: &str, threads: usize) -> Self {
        let (sender, receiver) = channel();
        let queue = Arc::new(Mutex::new(receiver));
        for n in 0..threads.max(1) {
            let queue = queue.clone();
            let spawned = thread::Builder::new().name(format!("{name}-{n}")).spawn(move || serve(&queue));
            if let Err(e) = spawned {
                tracing::warn!("thread {name}-{n} of {threads} could not be started: {e}");
            }
        }
        Self(sender)
    }

    pub(super) fn run(&self, task: impl FnOnce() + Send + 'static) {
        // Fails only if no thread could be started; then the process has been told.
        let _ = self.0.send(Box::new(task));
    }

    /// `None` if the task panicked.
    pub(super) async fn ask<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.run(move || drop(answer.send(task())));
        answered.await.ok()
    }
}

fn serve(queue: &Mutex<Receiver<Task>>) {
    loop {
        // The lock is held while waiting: one thread waits for a task, the others for the lock.
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match task {
            // The panic was printed; the thread goes on.
            Ok(task) => drop(catch_unwind(AssertUnwindSafe(task))),
            Err(_) => return,
        }
    }
}
