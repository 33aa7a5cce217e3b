//! `littoral sim --join`: computes works of a simulation that runs elsewhere, until it is over.

use super::board::{Board, LEASE_MS, Notices, Parcel, Says};
use super::lending::write_answer;
use super::shared_config;
use super::simulation::{Data, Simulation, build};
use crate::output::{self, Failure, talk};
use littoral_node::store::{DATABASE_FILE, Lease, StoreError};
use littoral_sim::assignment::{Batch, RunId};
use littoral_sim::helper::Helper;
use littoral_wire::Wire;
use serde_json::json;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(10);
const BEAT: Duration = Duration::from_millis(500);
const SAID_AFTER: Duration = Duration::from_secs(2);
/// A store that fails for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// `place`: the simulation's folder, or a file that says which database and bucket are shared. `data`, `labels`: where the
/// data set is on this machine, if elsewhere than there.
pub fn run(
    place: &Path,
    data: Option<&Path>,
    labels: Option<&Path>,
    threads: usize,
    json: bool,
) -> Result<(), Failure> {
    let board = open(place)?;
    let simulation = wait_for(&board, &place.display().to_string())?;
    let simulation = matched(simulation, data, labels, &place.display().to_string())?;
    let (spec, attack) = simulation.fleet()?;
    let helper = Helper::new(&spec, attack.as_ref())?;
    talk(&format!("{} helps with {} devices, seed {}", board.name(), simulation.devices, simulation.seed));
    let mut desk = Help {
        board,
        helper,
        run: simulation.run_id(),
        text: simulation.text(),
        threads,
        works: 0,
        batches: 0,
        beats: 0,
    };
    desk.until_over()?;
    let Help { works, batches, .. } = desk;
    match json {
        true => output::object(&json!({"works": works, "batches": batches})),
        false => output::line(&format!("the simulation is over; {works} works in {batches} batches were done here")),
    }
    Ok(())
}

/// The board, once it is there.
fn open(place: &Path) -> Result<Board, Failure> {
    if place.is_file() {
        let own = std::env::temp_dir().join(format!("littoral-join-{}", std::process::id()));
        return Board::shared(&shared_config(place)?, &own, None);
    }
    let begin = Instant::now();
    let mut said = false;
    // Not before whoever runs the simulation has made it.
    while !place.join(DATABASE_FILE).is_file() {
        if begin.elapsed() > SAID_AFTER && !std::mem::replace(&mut said, true) {
            talk(&format!("waiting for a simulation in {}: littoral sim JOB --dir", place.display()));
        }
        std::thread::sleep(LOOK * 10);
    }
    Board::of_folder(place, None)
}

fn wait_for(board: &Board, place: &str) -> Result<Simulation, Failure> {
    let begin = Instant::now();
    let mut said = false;
    loop {
        if let Some(text) = board.notices()?.simulation {
            return Simulation::parse(&text, place);
        }
        if begin.elapsed() > SAID_AFTER && !std::mem::replace(&mut said, true) {
            talk(&format!("waiting for a simulation in {place}: littoral sim JOB --dir"));
        }
        std::thread::sleep(LOOK * 10);
    }
}

/// The simulation as this process can make it.
///
/// # Errors
/// Another build, or other data.
fn matched(there: Simulation, data: Option<&Path>, labels: Option<&Path>, place: &str) -> Result<Simulation, Failure> {
    let mut here = Simulation { build: build()?, ..there.clone() };
    if let Some(theirs) = &there.data {
        here.data = Some(Data::at(data.unwrap_or(&theirs.path), labels.or(theirs.labels.as_deref()))?);
    }
    there.is_same(&here, place)?;
    Ok(here)
}

struct Help {
    board: Board,
    helper: Helper,
    run: RunId,
    text: String,
    threads: usize,
    works: usize,
    batches: usize,
    beats: u64,
}

impl Help {
    fn until_over(&mut self) -> Result<(), Failure> {
        let mut beaten: Option<Instant> = None;
        let mut well = Instant::now();
        loop {
            let looked = match beaten.is_none_or(|at| at.elapsed() >= BEAT) {
                true => {
                    beaten = Some(Instant::now());
                    self.beat().and_then(|()| self.look())
                }
                false => self.look(),
            };
            match looked {
                Ok(None) => return Ok(()),
                Ok(Some(true)) => well = Instant::now(),
                Ok(Some(false)) => {
                    well = Instant::now();
                    std::thread::sleep(LOOK);
                }
                // The desk was given to another: what was computed is theirs to do.
                Err(StoreError::Fenced { .. }) => {}
                Err(e) if e.may_pass() && well.elapsed() < PATIENCE => std::thread::sleep(BEAT),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn beat(&mut self) -> Result<(), StoreError> {
        self.beats += 1;
        self.board.beat(self.beats)
    }

    /// Whether there was a batch; none: the simulation is over.
    fn look(&mut self) -> Result<Option<bool>, StoreError> {
        let notices = self.board.notices()?;
        if self.over(&notices) {
            self.board.leave()?;
            return Ok(None);
        }
        // Helpers begin at different desks, so that they seldom ask for the same.
        let mut desks: Vec<u64> =
            notices.offers.keys().copied().filter(|desk| !notices.answers.contains_key(desk)).collect();
        let turn = self.batches + std::process::id() as usize;
        let count = desks.len().max(1);
        desks.rotate_left(turn % count);
        for desk in desks {
            let Some(lease) = self.board.sit_down(desk)? else { continue };
            // What is there now that nobody else can take it.
            let notices = self.board.notices()?;
            match notices.offers.get(&desk).filter(|_| !notices.answers.contains_key(&desk)) {
                Some((number, parcel)) => {
                    let done = self.batch(desk, *number, parcel, &lease);
                    let left = self.board.stand_up(&lease);
                    done.and(left)?;
                    return Ok(Some(true));
                }
                None => self.board.stand_up(&lease)?,
            }
        }
        Ok(Some(false))
    }

    /// The simulation's row is gone, or another's is there.
    fn over(&self, notices: &Notices) -> bool {
        let same = |text: &String| {
            *text == self.text || Simulation::parse(text, "").is_ok_and(|there| there.run_id() == self.run)
        };
        !notices.simulation.as_ref().is_some_and(same)
    }

    fn batch(&mut self, desk: u64, number: u64, parcel: &Parcel, lease: &Lease) -> Result<(), StoreError> {
        // Withdrawn meanwhile, or of another release: somebody else does it.
        let Some(batch) = self.board.open(parcel)?.and_then(|bytes| Batch::from_bytes(&bytes).ok()) else {
            return Ok(());
        };
        talk(&format!("a batch of {} works", batch.assignments.len()));
        let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::new());
        let stayed = std::thread::scope(|scope| {
            let work = || {
                while let Some(one) = batch.assignments.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let result = self.helper.compute(one, &batch.objects);
                    results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend(result.map(|bytes| (one.key(self.run), bytes)));
                }
            };
            let threads: Vec<_> = (0..self.threads.max(1)).map(|_| scope.spawn(work)).collect();
            let (mut renewed, mut beaten) = (Instant::now(), Instant::now());
            while !threads.iter().all(|thread| thread.is_finished()) {
                std::thread::sleep(LOOK / 5);
                if beaten.elapsed() > BEAT {
                    beaten = Instant::now();
                    self.beats += 1;
                    // Whoever does not hear it finds the lease.
                    let _ = self.board.beat(self.beats);
                }
                if renewed.elapsed() > Duration::from_millis(LEASE_MS / 4) {
                    renewed = Instant::now();
                    match self.board.stay(lease) {
                        Err(e) if !e.may_pass() => {
                            over.store(true, Ordering::Relaxed);
                            return Err(e);
                        }
                        _ => {}
                    }
                }
            }
            Ok(())
        });
        stayed?;
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.works += results.len();
        self.batches += 1;
        self.board.put(desk, number, Says::Answer, write_answer(&results), Some(lease)).map(drop)
    }
}
