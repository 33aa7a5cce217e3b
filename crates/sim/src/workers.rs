//! Works, really computed, on as many threads as there are; never visible in the results.
//!
//! A work is ordered when a role asks for it and collected when its virtual time has passed. In between any thread may
//! run it; if none has begun, the one that collects does. A work sees a snapshot of the disk ([`Shelf`]), so the result
//! is the same wherever and whenever it ran.

use crate::attack::Liars;
use crate::disk::Shelf;
use littoral_node::work::{LocalData, Objects, Output, Work, WorkFault};
use littoral_wire::object::Manifest;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How works are computed: [`littoral_node::work::run`], but for tests.
pub type Runner = fn(&Work, &dyn Objects, &dyn LocalData) -> Result<Output, WorkFault>;

struct Order {
    work: Box<Work>,
    shelf: Shelf,
    data: Arc<dyn LocalData>,
}

/// A finished work.
pub struct Done {
    pub work: Box<Work>,
    pub result: Result<Output, WorkFault>,
    /// Objects that it made.
    pub made: Vec<(Manifest, Vec<u8>)>,
}

enum State {
    Waiting(Order),
    Running,
    Done(Done),
    Taken,
}

struct Slot {
    state: Mutex<State>,
    finished: Condvar,
}

/// A claim to a result.
pub struct Ticket(Arc<Slot>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Line>,
    arrived: Condvar,
}

#[derive(Default)]
struct Line {
    slots: VecDeque<Arc<Slot>>,
    closed: bool,
}

pub struct Workers {
    ways: Ways,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How works are computed, by honest devices and by others.
#[derive(Clone)]
struct Ways {
    runner: Runner,
    liars: Option<Arc<Liars>>,
}

fn perform(ways: &Ways, order: Order) -> Done {
    let result = match &ways.liars {
        Some(liars) => liars.run(ways.runner, &order.work, &order.shelf, &*order.data),
        None => (ways.runner)(&order.work, &order.shelf, &*order.data),
    };
    Done { work: order.work, result, made: order.shelf.into_made() }
}

impl Slot {
    /// Runs it if nobody does. A panic in a work leaves `Taken` behind, for whoever collects to see.
    fn run(&self, ways: &Ways) {
        struct Unfinished<'a>(&'a Slot);
        impl Drop for Unfinished<'_> {
            fn drop(&mut self) {
                let mut state = lock(&self.0.state);
                if matches!(*state, State::Running) {
                    *state = State::Taken;
                }
                self.0.finished.notify_all();
            }
        }
        let order = {
            let mut state = lock(&self.state);
            match std::mem::replace(&mut *state, State::Running) {
                State::Waiting(order) => order,
                other => {
                    *state = other;
                    return;
                }
            }
        };
        let guard = Unfinished(self);
        let done = perform(ways, order);
        *lock(&self.state) = State::Done(done);
        drop(guard);
    }
}

impl Workers {
    /// `threads` in all: the one that collects works too.
    pub fn new(threads: usize, runner: Runner, liars: Option<Arc<Liars>>) -> Self {
        let ways = Ways { runner, liars };
        let shared = Arc::<Shared>::default();
        let threads = (1..threads)
            .map(|_| {
                let (shared, ways) = (Arc::clone(&shared), ways.clone());
                std::thread::spawn(move || {
                    loop {
                        let slot = {
                            let mut line = lock(&shared.queue);
                            loop {
                                if line.closed {
                                    return;
                                }
                                match line.slots.pop_front() {
                                    Some(slot) => break slot,
                                    None => line = shared.arrived.wait(line).unwrap_or_else(PoisonError::into_inner),
                                }
                            }
                        };
                        slot.run(&ways);
                    }
                })
            })
            .collect();
        Self { ways, shared, threads }
    }

    pub fn order(&self, work: Box<Work>, shelf: Shelf, data: Arc<dyn LocalData>) -> Ticket {
        let state = Mutex::new(State::Waiting(Order { work, shelf, data }));
        let slot = Arc::new(Slot { state, finished: Condvar::new() });
        if !self.threads.is_empty() {
            lock(&self.shared.queue).slots.push_back(Arc::clone(&slot));
            self.shared.arrived.notify_one();
        }
        Ticket(slot)
    }

    pub fn collect(&self, ticket: Ticket) -> Done {
        ticket.0.run(&self.ways);
        let mut state = lock(&ticket.0.state);
        while matches!(*state, State::Running) {
            state = ticket.0.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(done) => done,
            _ => panic!("a work panicked on another thread; its message is above"),
        }
    }

    /// The result is not wanted any more.
    pub fn cancel(&self, ticket: &Ticket) {
        let mut state = lock(&ticket.0.state);
        if matches!(*state, State::Waiting(_)) {
            *state = State::Taken;
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.arrived.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of that thread was reported by whoever collected.
            let _ = thread.join();
        }
    }
}
