//! Works, really computed, on as many threads as there are; never visible in the results.
//!
//! A work is ordered when a role asks for it and collected when its virtual time has passed. In between any thread may
//! run it; if none has begun, the one that collects does. A work sees a snapshot of the disk ([`Shelf`]), so the result
//! is the same wherever and whenever it ran.
//!
//! So it need not run here, nor twice: what came of a device's work may be found among kept results ([`Kept`]), and works that
//! nobody has begun may be lent ([`Lender`]) to another process. Who collects a work that is lent, or that another thread runs, goes on
//! with others meanwhile.

use crate::assignment::{self, Assignment, Key, Place, RunId};
use crate::attack::Liars;
use crate::disk::{Content, Shelf};
use littoral_node::work::{LocalData, Objects, Output, Work, WorkFault};
use littoral_wire::object::Manifest;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

/// How works are computed: [`littoral_node::work::run`], but for tests.
pub type Runner = fn(&Work, &dyn Objects, &dyn LocalData) -> Result<Output, WorkFault>;

/// Where results of devices' works are kept, by any thread. What is found must be what was kept.
pub trait Results: Send + Sync {
    fn find(&self, key: &Key) -> Option<Vec<u8>>;
    fn has(&self, key: &Key) -> bool;
    /// May do nothing: then it is computed again another time.
    fn keep(&self, key: &Key, result: &[u8]);
}

/// Results of one run.
#[derive(Clone)]
pub struct Kept {
    pub run: RunId,
    pub results: Arc<dyn Results>,
}

/// Devices' works: how many were computed here, found among kept results, and computed by others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub computed: u64,
    pub found: u64,
    pub by_others: u64,
}

struct Order {
    place: Place,
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
    Lent {
        order: Order,
        /// Somebody waits for it.
        wanted: bool,
    },
    Running,
    Done(Box<Done>),
    Taken,
}

struct Slot {
    state: Mutex<State>,
    finished: Condvar,
}

/// A claim to a result.
pub struct Ticket(Arc<Slot>);

struct Shared {
    ways: Ways,
    kept: OnceLock<Kept>,
    queue: Mutex<Line>,
    arrived: Condvar,
    computed: AtomicU64,
    found: AtomicU64,
    by_others: AtomicU64,
}

#[derive(Default)]
struct Line {
    slots: VecDeque<Arc<Slot>>,
    closed: bool,
}

pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How works are computed, by honest devices and by others.
#[derive(Clone)]
pub(crate) struct Ways {
    pub runner: Runner,
    pub liars: Option<Arc<Liars>>,
}

impl Ways {
    pub fn compute(&self, work: &Work, shelf: &Shelf, data: &dyn LocalData) -> Result<Output, WorkFault> {
        match &self.liars {
            Some(liars) => liars.run(self.runner, work, shelf, data),
            None => (self.runner)(work, shelf, data),
        }
    }
}

impl Order {
    /// As others may know it, and what it reads.
    fn described(&self) -> Option<(Assignment, Vec<Arc<Content>>)> {
        let assignment = Assignment::of(self.place, &self.work)?;
        let bodies = assignment.bodies(&self.shelf)?;
        Some((assignment, bodies))
    }
}

impl Shared {
    fn perform(&self, order: Order) -> Done {
        let kept = self.kept.get().and_then(|kept| Some((kept, order.described()?.0.key(kept.run))));
        if let Some((kept, key)) = &kept
            && let Some((result, made)) = kept.results.find(key).and_then(|bytes| assignment::result_of(&bytes).ok())
        {
            self.found.fetch_add(1, Ordering::Relaxed);
            return Done { work: order.work, result, made };
        }
        let result = self.ways.compute(&order.work, &order.shelf, &*order.data);
        let done = Done { work: order.work, result, made: order.shelf.into_made() };
        if matches!(*done.work, Work::Local { .. } | Work::Seal { .. }) {
            self.computed.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((kept, key)) = kept
            && let Some(bytes) = assignment::result_bytes(&done.result, &done.made)
        {
            kept.results.keep(&key, &bytes);
        }
        done
    }

    /// Runs something that nobody has begun. False: there is nothing.
    fn run_another(&self) -> bool {
        loop {
            let Some(slot) = lock(&self.queue).slots.pop_front() else { return false };
            if slot.run(self) {
                return true;
            }
        }
    }
}

impl Slot {
    /// Runs it if nobody does; returns whether it did. A panic in a work leaves `Taken` behind, for whoever collects to see.
    fn run(&self, shared: &Shared) -> bool {
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
                    return false;
                }
            }
        };
        let guard = Unfinished(self);
        let done = shared.perform(order);
        *lock(&self.state) = State::Done(Box::new(done));
        drop(guard);
        true
    }
}

impl Workers {
    /// `threads` in all: the one that collects works too.
    pub fn new(threads: usize, runner: Runner, liars: Option<Arc<Liars>>) -> Self {
        let shared = Arc::new(Shared {
            ways: Ways { runner, liars },
            kept: OnceLock::new(),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            computed: AtomicU64::new(0),
            found: AtomicU64::new(0),
            by_others: AtomicU64::new(0),
        });
        let work = |shared: Arc<Shared>| {
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
                slot.run(&shared);
            }
        };
        let threads = (1..threads).map(|_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || work(shared))
        });
        Self { threads: threads.collect(), shared }
    }

    /// From now on; a second time it does nothing.
    pub fn keep(&self, kept: Kept) {
        let _ = self.shared.kept.set(kept);
    }

    pub fn lender(&self) -> Lender {
        Lender(Arc::clone(&self.shared))
    }

    pub fn order(&self, place: Place, work: Box<Work>, shelf: Shelf, data: Arc<dyn LocalData>) -> Ticket {
        let state = Mutex::new(State::Waiting(Order { place, work, shelf, data }));
        let slot = Arc::new(Slot { state, finished: Condvar::new() });
        if !self.threads.is_empty() || self.shared.kept.get().is_some() {
            let mut line = lock(&self.shared.queue);
            // What was collected before a thread came to it.
            while line.slots.front().is_some_and(|first| !matches!(*lock(&first.state), State::Waiting(_))) {
                line.slots.pop_front();
            }
            line.slots.push_back(Arc::clone(&slot));
            drop(line);
            self.shared.arrived.notify_one();
        }
        Ticket(slot)
    }

    pub fn collect(&self, ticket: Ticket) -> Done {
        let slot = &ticket.0;
        loop {
            slot.run(&self.shared);
            let mut state = lock(&slot.state);
            let elsewhere = match &mut *state {
                State::Lent { wanted, .. } => {
                    *wanted = true;
                    true
                }
                State::Running => true,
                _ => false,
            };
            if elsewhere {
                drop(state);
                // What is collected next, mostly.
                if self.shared.run_another() {
                    continue;
                }
                state = lock(&slot.state);
            }
            while matches!(*state, State::Running | State::Lent { .. }) {
                state = slot.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            match std::mem::replace(&mut *state, State::Taken) {
                State::Done(done) => return *done,
                // It came back undone.
                waiting @ State::Waiting(_) => *state = waiting,
                _ => panic!("a work panicked on another thread; its message is above"),
            }
        }
    }

    /// The result is not wanted any more.
    pub fn cancel(&self, ticket: &Ticket) {
        let mut state = lock(&ticket.0.state);
        if matches!(*state, State::Waiting(_) | State::Lent { .. }) {
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

/// Lends works that nobody has begun. It may outlive the world: then there are none.
#[derive(Clone)]
pub struct Lender(Arc<Shared>);

/// A work that is lent. Dropped, it is given back undone.
pub struct Loan {
    pub key: Key,
    pub assignment: Assignment,
    /// What it reads.
    pub bodies: Vec<Arc<Content>>,
    slot: Arc<Slot>,
    shared: Arc<Shared>,
}

impl Lender {
    /// Devices' works so far.
    pub fn tally(&self) -> Tally {
        let Shared { computed, found, by_others, .. } = &*self.0;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally { computed: of(computed), found: of(found), by_others: of(by_others) }
    }

    /// How many works nobody has begun, about.
    pub fn waiting(&self) -> usize {
        lock(&self.0.queue).slots.len()
    }

    /// Up to `most` works that were ordered last, of those whose result is not known. `leave` stay for this process.
    pub fn lend(&self, most: usize, leave: usize) -> Vec<Loan> {
        let Some(kept) = self.0.kept.get() else { return Vec::new() };
        let mut loans = Vec::new();
        let mut line = lock(&self.0.queue);
        let mut at = line.slots.len();
        while loans.len() < most && at > leave {
            at -= 1;
            let slot = Arc::clone(&line.slots[at]);
            let mut state = lock(&slot.state);
            let State::Waiting(order) = &*state else { continue };
            let Some((assignment, bodies)) = order.described() else { continue };
            let key = assignment.key(kept.run);
            if kept.results.has(&key) {
                continue;
            }
            if let State::Waiting(order) = std::mem::replace(&mut *state, State::Taken) {
                *state = State::Lent { order, wanted: false };
            }
            drop(state);
            line.slots.remove(at);
            loans.push(Loan { key, assignment, bodies, slot, shared: Arc::clone(&self.0) });
        }
        loans
    }
}

impl Tally {
    pub fn all(&self) -> u64 {
        self.computed + self.found + self.by_others
    }
}

impl Loan {
    /// Does somebody wait for it?
    pub fn is_wanted(&self) -> bool {
        matches!(*lock(&self.slot.state), State::Lent { wanted: true, .. })
    }

    /// What came of it. Bytes that are no result give it back.
    pub fn answer(self, bytes: &[u8]) {
        let Ok((result, made)) = assignment::result_of(bytes) else { return };
        let mut state = lock(&self.slot.state);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Lent { order, .. } => {
                *state = State::Done(Box::new(Done { work: order.work, result, made }));
                self.shared.by_others.fetch_add(1, Ordering::Relaxed);
                if let Some(kept) = self.shared.kept.get() {
                    kept.results.keep(&self.key, bytes);
                }
            }
            other => *state = other,
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut state = lock(&self.slot.state);
        let given_back = match std::mem::replace(&mut *state, State::Taken) {
            State::Lent { order, .. } => {
                *state = State::Waiting(order);
                true
            }
            other => {
                *state = other;
                false
            }
        };
        // The queue is locked before a slot, never after it.
        drop(state);
        if given_back {
            lock(&self.shared.queue).slots.push_front(Arc::clone(&self.slot));
            self.shared.arrived.notify_one();
        }
        self.slot.finished.notify_all();
    }
}
