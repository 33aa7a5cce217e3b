//! Threads that wait for pieces of work: started once, woken in a microsecond, asleep when nothing comes.
//!
//! A token is some two hundred short steps, each split over all threads. A worker that has nothing to do looks for work
//! for [`SPINS`] turns, about 50 microseconds at most, and then parks. The caller works too. Pieces are claimed from one
//! counter, so a thread that is slow or late takes fewer.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Turns of waiting before a worker parks.
const SPINS: u32 = 700;

/// What the workers are to run at the moment.
type Work = *const (dyn Fn() + Sync);

struct Shared {
    /// Grows with each work; a worker runs each once.
    turn: AtomicUsize,
    work: UnsafeCell<Option<Work>>,
    /// Workers that have not finished this turn.
    busy: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    parked: Vec<AtomicBool>,
}

// SAFETY: `work` is written by the caller while no worker runs (busy is 0), and read by workers after they have seen the
// new turn; the pointer in it stays good until busy is 0 again, which the caller awaits.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}

/// A fixed number of threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(Thread, JoinHandle<()>)>,
    /// One work at a time.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} threads", self.threads())
    }
}

impl Pool {
    /// `threads`: at least 1, the caller included.
    pub fn new(threads: usize) -> Self {
        let others = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            turn: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: (0..others).map(|_| AtomicBool::new(false)).collect(),
        });
        let spawn = |index| {
            let shared = shared.clone();
            let name = format!("tensor-{index}");
            let handle = std::thread::Builder::new().name(name).spawn(move || shared.serve(index)).ok()?;
            Some((handle.thread().clone(), handle))
        };
        // A system that gives no more threads makes a smaller pool.
        let workers = (0..others).map_while(spawn).collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Gives each thread, and the calling one, a processor of its own from now on, as far as there are so many.
    ///
    /// A thread that wakes for a pass may be put beside the one that woke it, and then the two share a processor until the
    /// system moves one of them, some milliseconds later: as long as a small pass takes. Not for machines that compute other things
    /// as well, since a thread cannot get out of anybody's way then. Threads and processes that the calling thread starts later
    /// inherit its one processor: start those before. Where the system has no such thing, nothing happens.
    pub fn pin(&self) {
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::thread::JoinHandleExt;
            let processors = crate::affinity::allowed();
            if processors.len() < self.threads() {
                return;
            }
            // SAFETY: the calling thread's own handle.
            let own = unsafe { libc::pthread_self() };
            let handles = self.workers.iter().map(|(_, handle)| handle.as_pthread_t());
            for (thread, processor) in std::iter::once(own).chain(handles).zip(processors) {
                crate::affinity::bind(thread, processor);
            }
        }
    }

    /// Runs `piece` over all of `0..items`, in ranges of at most `grain`, on all threads. Returns when all are done.
    ///
    /// # Panics
    /// If a piece panics.
    pub fn run(&self, items: usize, grain: usize, piece: impl Fn(Range<usize>) + Sync) {
        let (grain, next) = (grain.max(1), AtomicUsize::new(0));
        let claim = || {
            loop {
                let start = next.fetch_add(grain, Relaxed);
                if start >= items {
                    return;
                }
                piece(start..(start + grain).min(items));
            }
        };
        if self.workers.is_empty() || items <= grain {
            return claim();
        }
        self.everywhere(&claim);
    }

    /// Runs `piece` on each of `items`, `grain` of them at a time.
    pub fn each<T: Send>(&self, items: &mut [T], grain: usize, piece: impl Fn(&mut T) + Sync) {
        let (all, count) = (Items(items.as_mut_ptr()), items.len());
        self.run(count, grain, |range| {
            for index in range {
                // SAFETY: below the length; ranges are disjoint, so nobody else has this item.
                piece(unsafe { &mut *all.at(index) });
            }
        });
    }

    /// Runs `work` on every thread at the same time, this one included.
    fn everywhere(&self, work: &(dyn Fn() + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &self.shared;
        shared.busy.store(self.workers.len(), Relaxed);
        // SAFETY: no worker runs. The lifetime ends at the end of this function, which waits for all workers.
        unsafe {
            *shared.work.get() = Some(std::mem::transmute::<*const (dyn Fn() + Sync + '_), Work>(work));
        }
        shared.turn.fetch_add(1, SeqCst);
        for (parked, (thread, _)) in shared.parked.iter().zip(&self.workers) {
            if parked.load(SeqCst) {
                thread.unpark();
            }
        }
        let ours = Finish { shared };
        work();
        drop(ours);
        assert!(!shared.panicked.swap(false, Relaxed), "a piece of work panicked on another thread");
    }
}

/// Waits for the workers, also when our own part panics: they borrow from us.
struct Finish<'a> {
    shared: &'a Shared,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut turns = 0u32;
        while self.shared.busy.load(Acquire) != 0 {
            turns += 1;
            // With fewer processors than threads the one we wait for may want ours.
            if turns.is_multiple_of(SPINS) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

impl Shared {
    fn serve(&self, index: usize) {
        let mut seen = 0;
        loop {
            let turn = self.await_turn(index, seen);
            if self.stop.load(Relaxed) {
                return;
            }
            seen = turn;
            // SAFETY: written before the turn that we have seen, and good until we say that we are done.
            let work = unsafe { (*self.work.get()).map(|work| &*work) };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.map(|work| work())));
            if done.is_err() {
                self.panicked.store(true, Relaxed);
            }
            self.busy.fetch_sub(1, Release);
        }
    }

    fn await_turn(&self, index: usize, seen: usize) -> usize {
        loop {
            for _ in 0..SPINS {
                let turn = self.turn.load(Acquire);
                if turn != seen {
                    return turn;
                }
                std::hint::spin_loop();
            }
            // Told first, looked again, then asleep: whoever makes a turn either sees that we are parked, or we see it.
            self.parked[index].store(true, SeqCst);
            while self.turn.load(SeqCst) == seen {
                std::thread::park();
            }
            self.parked[index].store(false, SeqCst);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.turn.fetch_add(1, SeqCst);
        for (thread, handle) in self.workers.drain(..) {
            thread.unpark();
            let _ = handle.join();
        }
    }
}

struct Items<T>(*mut T);

// SAFETY: items are Send, and each is handed to one thread only.
unsafe impl<T: Send> Sync for Items<T> {}

impl<T> Items<T> {
    /// # Safety
    /// `index` is below the number of items.
    unsafe fn at(&self, index: usize) -> *mut T {
        unsafe { self.0.add(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_item_is_visited_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for items in [0, 1, 7, 1_000] {
                let sums: Vec<AtomicU64> = (0..items).map(|_| AtomicU64::new(0)).collect();
                for _ in 0..50 {
                    pool.run(items, 3, |range| {
                        for i in range {
                            sums[i].fetch_add(1, Relaxed);
                        }
                    });
                }
                assert!(sums.iter().all(|sum| sum.load(Relaxed) == 50));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        let bad = std::panic::AssertUnwindSafe(|| pool.run(100, 1, |range| assert!(range.start != 57)));
        assert!(std::panic::catch_unwind(bad).is_err());
        let mut items = vec![0; 100];
        pool.each(&mut items, 1, |item| *item += 1);
        assert_eq!(items, [1; 100]);
    }
}
