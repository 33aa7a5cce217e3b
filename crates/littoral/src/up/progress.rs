//! What a person sees while a fleet trains: a bar on a terminal, plain lines anywhere else. All of it on stderr.

use super::children::Note;
use crate::output::talk;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(120);

/// Where a trial stands.
pub struct Progress {
    /// None: lines.
    bar: Option<ProgressBar>,
    /// What the last line was about.
    told: Mutex<String>,
}

impl Progress {
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(spinner());
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, told: Mutex::default() }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => talk(line),
        }
    }

    /// What is being done; replaced by the next step.
    pub fn step(&self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_style(spinner());
                bar.set_message(what.to_owned());
            }
            None => talk(what),
        }
    }

    /// A job's state as the cloud tells it. `sent`: bytes that have left devices since the fleet started.
    pub fn job(&self, job: &Value, sent: u64) {
        let number = |field: &str| job.get(field).and_then(Value::as_u64).unwrap_or(0);
        let (round, rounds) = (number("round"), number("rounds"));
        match &self.bar {
            Some(bar) => {
                bar.set_style(rounds_style());
                bar.set_length(rounds);
                bar.set_position(round);
                bar.set_message(format!("devices in {}/{}{}", number("in"), number("wanted"), standing(job, sent)));
            }
            None => self.lines(job, round, rounds, sent),
        }
    }

    /// A line for each version that was made, and for each reason to wait.
    fn lines(&self, job: &Value, round: u64, rounds: u64, sent: u64) {
        // Of a job that has made no version there is nothing to say.
        let last = job.get("last").filter(|last| last.get("devices").is_some());
        let last = last.map(Value::to_string).unwrap_or_default();
        let waits = matches!(text(job, "state"), "waiting" | "stuck" | "failed");
        let line = match (waits, last.is_empty()) {
            (true, _) => format!("{}: {}", text(job, "state"), text(job, "why")),
            (_, true) => return,
            _ => {
                let devices = job.get("last").and_then(|last| last.get("devices")).and_then(Value::as_u64);
                format!("round {round}/{rounds} · {} devices in{}", devices.unwrap_or(0), standing(job, sent))
            }
        };
        // Bytes grow by themselves: they alone make no new line.
        let key = if waits { line.clone() } else { last };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != key {
            *told = key;
            talk(&line);
        }
    }

    pub fn note(&self, note: &Note) {
        let (first, log) = match note {
            Note::Restarted { name, pid, how, log } => {
                (format!("{name} {how}; it runs again as process {pid}, in its folder"), log)
            }
            Note::GivenUp { name, how, log } => (format!("{name} {how}, again and again; it is given up"), log),
        };
        self.say(&first);
        log.iter().for_each(|line| self.say(&format!("    {line}")));
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn standing(job: &Value, sent: u64) -> String {
    let mut out = format!(" · {:.2} MB up", sent as f64 / 1e6);
    let last = job.get("last");
    let figure = |field: &str| last.and_then(|last| last.get(field)).and_then(Value::as_f64);
    if let Some(loss) = figure("test_loss") {
        out += &format!(" · loss {loss:.4}");
    }
    if let Some(accuracy) = figure("accuracy") {
        out += &format!(" · accuracy {accuracy:.4}");
    }
    out
}

fn text<'a>(job: &'a Value, field: &str) -> &'a str {
    job.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn rounds_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} round {pos}/{len} [{bar:24}] {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
