//! The side of the board of the process that runs the simulation: a thread that offers works which nobody here has begun, takes in
//! answers, and takes back what is wanted and nobody works at.
//!
//! An offer costs two durable commits and an answer two more, some milliseconds each: so works travel in batches, and only while
//! helpers are here. What is not lent is computed here meanwhile, first what is wanted first.

use super::board::{Board, DESKS, Notices, Parcel, Says};
use super::results::ResultsFile;
use super::simulation::Simulation;
use crate::output::{Failure, talk};
use littoral_node::store::StoreError;
use littoral_sim::assignment::{BATCH_MAX, Batch, Key};
use littoral_sim::workers::{Lender, Loan};
use littoral_wire::Wire;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Works of a batch at least: for fewer the road is longer than the work.
const BATCH_MIN: usize = 2;
/// What comes back from a batch has about as many bytes at most, unless a single work makes more.
const BATCH_BYTES: u64 = 64 << 20;
const LOOK_BUSY: Duration = Duration::from_millis(5);
const LOOK_IDLE: Duration = Duration::from_millis(100);
/// A helper whose beats have stopped for so long is gone.
const GONE: Duration = Duration::from_secs(3);
/// Bytes that stand before each result of an answer.
const KEY_AND_LEN: usize = 32 + 8;

pub struct Lending {
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Desk {
    over: AtomicBool,
    helpers: AtomicU32,
    lender: Mutex<Option<Lender>>,
}

/// A batch on the board.
struct Offer {
    number: u64,
    parcel: Parcel,
    loans: Vec<Loan>,
}

impl Lending {
    pub fn start(board: Board, simulation: &Simulation, results: Arc<ResultsFile>) -> Result<Self, Failure> {
        if let Some(other) = board.claim(&simulation.text())? {
            let place = "the board";
            match Simulation::parse(&other, place) {
                Ok(there) => there.is_same(simulation, place)?,
                Err(_) => {
                    let expected = "a database of its own";
                    return Err(Failure::new("nothing is shared", place, expected, other)
                        .hint("a cloud's database is no place for a simulation: make an empty one"));
                }
            }
        }
        let desk = Arc::<Desk>::default();
        let shared = Arc::clone(&desk);
        let thread = std::thread::spawn(move || Lend::new(board, results, shared).run());
        Ok(Self { desk, thread })
    }

    /// These works, from now on.
    pub fn lend(&self, lender: Lender) {
        *self.desk.lender.lock().unwrap_or_else(PoisonError::into_inner) = Some(lender);
    }

    pub fn wait_for(&self, helpers: u32) {
        if helpers > 0 && self.desk.helpers.load(Ordering::Relaxed) < helpers {
            talk(&format!("waiting for {helpers} helpers: littoral sim --join"));
        }
        while self.desk.helpers.load(Ordering::Relaxed) < helpers && !self.thread.is_finished() {
            std::thread::sleep(LOOK_BUSY);
        }
    }

    pub fn end(self) {
        self.desk.over.store(true, Ordering::Relaxed);
        // A panic of it was printed.
        let _ = self.thread.join();
    }
}

struct Lend {
    board: Board,
    results: Arc<ResultsFile>,
    desk: Arc<Desk>,
    out: BTreeMap<u64, Offer>,
    next_number: u64,
    /// Each helper's last beat, and when it was heard.
    heard: BTreeMap<String, (u64, Instant)>,
}

impl Lend {
    fn new(board: Board, results: Arc<ResultsFile>, desk: Arc<Desk>) -> Self {
        // Offers of a run that was killed had other numbers.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let next_number = since.map_or(0, |since| since.as_millis() as u64) << 20;
        Self { board, results, desk, out: BTreeMap::new(), next_number, heard: BTreeMap::new() }
    }

    fn run(mut self) {
        let mut told = false;
        while !self.desk.over.load(Ordering::Relaxed) {
            let looked = self.look();
            let pause = match &looked {
                Ok(true) => LOOK_BUSY,
                Ok(false) => LOOK_IDLE,
                Err(e) => {
                    // All comes back: this process can do it alone.
                    self.out.clear();
                    if !std::mem::replace(&mut told, true) {
                        talk(&format!("the board cannot be used, the simulation goes on without help: {e}"));
                    }
                    LOOK_IDLE * 5
                }
            };
            told &= looked.is_err();
            std::thread::sleep(pause);
        }
        self.out.clear();
        if let Err(e) = self.board.clear() {
            talk(&format!("the board was not cleared: {e}"));
        }
    }

    /// Returns whether there is something to do.
    fn look(&mut self) -> Result<bool, StoreError> {
        let notices = self.board.notices()?;
        let helpers = self.helpers(&notices);
        self.desk.helpers.store(helpers as u32, Ordering::Relaxed);
        for (desk, (number, parcel)) in &notices.answers {
            self.answered(*desk, *number, parcel)?;
        }
        let wanted = |offer: &Offer| offer.loans.iter().any(Loan::is_wanted);
        let wanted: Vec<u64> = self.out.iter().filter(|(_, offer)| wanted(offer)).map(|(desk, _)| *desk).collect();
        for desk in wanted {
            let Some(offer) = self.out.get(&desk) else { continue };
            if self.board.withdraw(desk, offer.number)? {
                // Its works go back to the queue.
                if let Some(offer) = self.out.remove(&desk) {
                    self.board.throw_away(&[offer.parcel])?;
                }
            }
        }
        let lender = self.desk.lender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(lender) = lender.filter(|_| helpers > 0) {
            while self.out.len() < (2 * helpers).min(DESKS as usize) && self.offer(&lender, helpers)? {}
        }
        Ok(helpers > 0)
    }

    /// Helpers that are here.
    fn helpers(&mut self, notices: &Notices) -> usize {
        let now = Instant::now();
        for (name, beats) in &notices.here {
            let heard = self.heard.entry(name.clone()).or_insert((*beats, now));
            if heard.0 != *beats {
                *heard = (*beats, now);
            }
        }
        self.heard.retain(|name, _| notices.here.contains_key(name));
        self.heard.values().filter(|(_, at)| now - *at < GONE).count()
    }

    /// Offers a batch, if there are works for one.
    fn offer(&mut self, lender: &Lender, helpers: usize) -> Result<bool, StoreError> {
        let waiting = lender.waiting();
        let by_bytes = (BATCH_BYTES / self.results.typical_bytes().max(1)).clamp(1, BATCH_MAX as u64) as usize;
        // The last works are shared out in small batches, so that nobody waits for one that has many.
        let most = by_bytes.min(waiting / (2 * (helpers + 1)));
        if most < BATCH_MIN.min(by_bytes) {
            return Ok(false);
        }
        let loans = lender.lend(most, waiting / (helpers + 2));
        if loans.is_empty() {
            return Ok(false);
        }
        let mut objects = BTreeMap::new();
        for body in loans.iter().flat_map(|loan| &loan.bodies) {
            objects.entry(body.manifest.id()).or_insert_with(|| Arc::clone(body));
        }
        let assignments = loans.iter().map(|loan| loan.assignment.clone()).collect();
        let batch = Batch { objects: objects.into_values().collect(), assignments };
        let Some(desk) = (1..=DESKS).find(|desk| !self.out.contains_key(desk)) else { return Ok(false) };
        self.next_number += 1;
        let number = self.next_number;
        let parcel = self.board.put(desk, number, Says::Offer, batch.to_bytes(), None)?;
        self.out.insert(desk, Offer { number, parcel, loans });
        Ok(true)
    }

    fn answered(&mut self, desk: u64, number: u64, parcel: &Parcel) -> Result<(), StoreError> {
        let Some(offer) = self.out.get(&desk).filter(|offer| offer.number == number) else {
            // Of an offer that is no more.
            return self.board.wipe(desk, &[number], &[*parcel]);
        };
        let bytes = self.board.open(parcel)?.unwrap_or_default();
        self.board.wipe(desk, &[offer.number], &[*parcel, offer.parcel])?;
        let Some(offer) = self.out.remove(&desk) else { return Ok(()) };
        let answers: BTreeMap<Key, &[u8]> = read_answer(&bytes).into_iter().collect();
        for loan in offer.loans {
            // What is missing goes back to the queue.
            if let Some(result) = answers.get(&loan.key) {
                loan.answer(result);
            }
        }
        Ok(())
    }
}

/// Results under their keys.
pub fn write_answer(results: &[(Key, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(results.iter().map(|(_, result)| result.len() + KEY_AND_LEN).sum());
    for (key, result) in results {
        bytes.extend_from_slice(&key.0);
        bytes.extend_from_slice(&(result.len() as u64).to_le_bytes());
        bytes.extend_from_slice(result);
    }
    bytes
}

/// As far as it is whole.
fn read_answer(mut bytes: &[u8]) -> Vec<(Key, &[u8])> {
    let mut results = Vec::new();
    while let Some((key, rest)) = bytes.split_first_chunk::<32>()
        && let Some((len, rest)) = rest.split_first_chunk::<8>()
        && let Ok(len) = usize::try_from(u64::from_le_bytes(*len))
        && let Some((result, rest)) = rest.split_at_checked(len)
    {
        results.push((Key(*key), result));
        bytes = rest;
    }
    results
}
