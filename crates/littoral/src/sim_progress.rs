//! How far a simulation is, on stderr: a bar on a terminal; with `--progress` a line a second anywhere else; without, a line for each
//! version.

use crate::memory::rss_mb;
use crate::output::talk;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use littoral_fed::round::Settings;
use littoral_sim::fleet::Fleet;
use littoral_sim::report::VersionLine;
use littoral_sim::workers::Lender;
use littoral_wire::message::Work;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REDRAW: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(1);

pub struct Progress {
    shared: Arc<Shared>,
    teller: Option<JoinHandle<()>>,
}

struct Shared {
    clock_us: Arc<AtomicU64>,
    lender: Lender,
    rounds: u64,
    /// Devices of a round.
    cohort: u64,
    begin: Instant,
    bar: Option<ProgressBar>,
    reached: Mutex<Reached>,
    over: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    round: u64,
    accuracy: Option<f64>,
    /// Works that devices had done by then.
    works: u64,
}

impl Progress {
    /// `wanted`: lines are to tell, if this is no terminal.
    pub fn new(fleet: &Fleet, job: &Settings, wanted: bool) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(job.rounds), ProgressDrawTarget::stderr());
            bar.set_style(style());
            bar
        });
        let lined = bar.is_none();
        let shared = Arc::new(Shared {
            clock_us: fleet.world().clock(),
            lender: fleet.lender(),
            rounds: job.rounds,
            cohort: u64::from(job.cohort.target),
            begin: Instant::now(),
            bar,
            reached: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let teller = (!lined || wanted).then(|| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.tell())
        });
        Self { shared, teller }
    }

    /// There is a new version.
    pub fn version(&mut self, line: &VersionLine) {
        let mut reached = self.shared.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.round += u64::from(line.work == Work::Train);
        reached.accuracy = line.line.accuracy.or(reached.accuracy);
        reached.works = self.shared.lender.tally().all();
        if self.shared.bar.is_none() {
            let accuracy = line.line.accuracy.map(|a| format!(" · accuracy {a:.4}")).unwrap_or_default();
            let loss = line.line.train_loss.map(|l| format!(" · loss {l:.4}")).unwrap_or_default();
            talk(&format!("version {} · {} devices{loss}{accuracy}", line.version, line.line.devices));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(teller) = self.teller.take() {
            teller.thread().unpark();
            // It only tells.
            let _ = teller.join();
        }
        self.shared.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

impl Shared {
    fn tell(&self) {
        loop {
            std::thread::park_timeout(if self.bar.is_some() { REDRAW } else { LINE });
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let reached = *self.reached.lock().unwrap_or_else(PoisonError::into_inner);
            let text = self.standing(reached);
            match &self.bar {
                Some(bar) => {
                    bar.set_position(reached.round);
                    bar.set_message(text);
                }
                None => talk(&format!("round {}/{} · {text}", reached.round, self.rounds)),
            }
        }
    }

    fn standing(&self, reached: Reached) -> String {
        let virtual_s = self.clock_us.load(Ordering::Relaxed) as f64 / 1e6;
        let works = self.lender.tally().all();
        let elapsed_s = self.begin.elapsed().as_secs_f64();
        let per_s = works as f64 / elapsed_s.max(1e-9);
        let mut text = format!("{virtual_s:.1} virtual s · {per_s:.0} device-rounds/s");
        if let Some(accuracy) = reached.accuracy {
            text += &format!(" · accuracy {accuracy:.4}");
        }
        text += &format!(" · {:.0} MB", rss_mb());
        let begun = (works - reached.works.min(works)) as f64 / self.cohort.max(1) as f64;
        let done = (reached.round as f64 + begun.min(0.99)) / self.rounds.max(1) as f64;
        if done > 0.0 && done <= 1.0 {
            text += &format!(" · {} left", duration(elapsed_s * (1.0 - done) / done));
        }
        text
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3_600, seconds / 60 % 60),
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("round {pos}/{len} [{bar:20}] {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}
