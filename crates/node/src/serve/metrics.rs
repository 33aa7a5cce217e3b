//! What Prometheus reads.

use super::writer::{By, Share};
use littoral_infer::speculate::drafter::Yield;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How requests end. A request for several answers counts as several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model ended it, or a stop string did.
    Stop,
    /// As long as was asked for, or as the context allows.
    Length,
    /// Its reader left.
    Cancelled,
    Failed,
    /// Not taken in: too many wait.
    Busy,
    /// Not taken in: wrong, or not allowed.
    Refused,
}

const OUTCOMES: [&str; 6] = ["stop", "length", "cancelled", "failed", "busy", "refused"];

/// Bounds in seconds.
const FIRST_S: [f64; 10] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const NEXT_S: [f64; 10] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];

pub struct Metrics {
    pub tokens_read: AtomicU64,
    /// Tokens of prompts that were not read, since their state was here.
    pub tokens_reused: AtomicU64,
    pub tokens_written: AtomicU64,
    /// Tokens that were drafted and tried, and those of them that stood.
    tokens_tried: AtomicU64,
    tokens_accepted: AtomicU64,
    /// Tokens of answers that the machine above wrote, and its passes for them.
    tokens_upstream: AtomicU64,
    passes_upstream: AtomicU64,
    /// What was drafted for it here, and what of that stood: by the model, and by the text itself.
    drafted: [[AtomicU64; 2]; 2],
    /// Requests that the server above answered.
    pub away: AtomicU64,
    /// Kept requests that both models were asked, and those of them for which the one here was worse.
    audits: AtomicU64,
    audits_worse: AtomicU64,
    pub running: AtomicU64,
    pub waiting: AtomicU64,
    outcomes: [AtomicU64; OUTCOMES.len()],
    first: Histogram,
    next: Histogram,
}

impl Metrics {
    pub fn new() -> Self {
        Self {
            tokens_read: AtomicU64::new(0),
            tokens_reused: AtomicU64::new(0),
            tokens_written: AtomicU64::new(0),
            tokens_tried: AtomicU64::new(0),
            tokens_accepted: AtomicU64::new(0),
            tokens_upstream: AtomicU64::new(0),
            passes_upstream: AtomicU64::new(0),
            drafted: Default::default(),
            away: AtomicU64::new(0),
            audits: AtomicU64::new(0),
            audits_worse: AtomicU64::new(0),
            running: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            outcomes: Default::default(),
            first: Histogram::new(FIRST_S),
            next: Histogram::new(NEXT_S),
        }
    }

    pub fn ended(&self, outcome: Outcome, count: usize) {
        self.outcomes[outcome as usize].fetch_add(count as u64, Relaxed);
    }

    /// From the arrival of a request to its first token.
    pub fn first_token(&self, after: Duration) {
        self.first.add(after);
    }

    /// From one token of an answer to the next.
    pub fn next_token(&self, after: Duration) {
        self.next.add(after);
    }

    /// Drafts were tried in a pass.
    pub fn tried(&self, proposed: usize, accepted: usize) {
        self.tokens_tried.fetch_add(proposed as u64, Relaxed);
        self.tokens_accepted.fetch_add(accepted as u64, Relaxed);
    }

    /// Both models were asked.
    pub fn audited(&self, worse: bool) {
        self.audits.fetch_add(1, Relaxed);
        self.audits_worse.fetch_add(worse.into(), Relaxed);
    }

    /// Who wrote an answer that has ended.
    pub fn shared(&self, share: &Share) {
        let above = share.parts.iter().filter(|(by, _)| *by != By::Here).map(|(_, tokens)| tokens);
        self.tokens_upstream.fetch_add(above.sum(), Relaxed);
        self.passes_upstream.fetch_add(share.passes, Relaxed);
        for (sum, Yield { drafted, held }) in self.drafted.iter().zip([share.yields.model, share.yields.text]) {
            sum[0].fetch_add(drafted, Relaxed);
            sum[1].fetch_add(held, Relaxed);
        }
    }

    /// Version 0.0.4 of the text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut simple = |name: &str, kind: &str, help: &str, value: &AtomicU64| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", value.load(Relaxed));
        };
        let counter = "counter";
        simple("littoral_tokens_read_total", counter, "Tokens of prompts that were read.", &self.tokens_read);
        let help = "Tokens of prompts whose state was kept from before.";
        simple("littoral_tokens_reused_total", counter, help, &self.tokens_reused);
        simple("littoral_tokens_written_total", counter, "Tokens of answers.", &self.tokens_written);
        let help = "Tokens that were drafted and tried.";
        simple("littoral_tokens_drafted_total", counter, help, &self.tokens_tried);
        let help = "Drafted tokens that stood; each saved a pass.";
        simple("littoral_tokens_drafted_accepted_total", counter, help, &self.tokens_accepted);
        let help = "Tokens of answers that the machine above wrote.";
        simple("littoral_tokens_upstream_total", counter, help, &self.tokens_upstream);
        let help = "Passes that the machine above made for them.";
        simple("littoral_passes_upstream_total", counter, help, &self.passes_upstream);
        let help = "Requests that the server above answered.";
        simple("littoral_requests_away_total", counter, help, &self.away);
        let help = "Requests answered here that both models were asked.";
        simple("littoral_audits_total", counter, help, &self.audits);
        let help = "Of them those for which the model here was worse.";
        simple("littoral_audits_worse_total", counter, help, &self.audits_worse);
        simple("littoral_requests_running", "gauge", "Answers that are being written.", &self.running);
        simple("littoral_requests_waiting", "gauge", "Requests that wait for a place.", &self.waiting);
        let name = "littoral_requests_total";
        let _ = writeln!(text, "# HELP {name} Requests by how they ended.\n# TYPE {name} counter");
        for (outcome, count) in OUTCOMES.iter().zip(&self.outcomes) {
            let _ = writeln!(text, "{name}{{outcome=\"{outcome}\"}} {}", count.load(Relaxed));
        }
        let drafted = "Tokens that were drafted here for the machine above.";
        let names = [("littoral_drafts_total", drafted), ("littoral_drafts_held_total", "Of them those that stood.")];
        for (at, (name, help)) in names.into_iter().enumerate() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (source, counts) in ["model", "lookup"].iter().zip(&self.drafted) {
                let _ = writeln!(text, "{name}{{source=\"{source}\"}} {}", counts[at].load(Relaxed));
            }
        }
        let help = "From the arrival of a request to its first token.";
        self.first.write("littoral_time_to_first_token_seconds", help, &mut text);
        self.next.write("littoral_inter_token_seconds", "From one token of an answer to the next.", &mut text);
        text
    }
}

struct Histogram {
    bounds_s: [f64; 10],
    counted: Mutex<Counted>,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    /// Per bucket, not cumulative; the last has no bound.
    counts: [u64; 11],
    sum_s: f64,
}

impl Histogram {
    fn new(bounds_s: [f64; 10]) -> Self {
        Self { bounds_s, counted: Mutex::default() }
    }

    fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds_s.iter().take_while(|bound| seconds > **bound).count();
        let mut counted = self.counted.lock().unwrap_or_else(|e| e.into_inner());
        counted.counts[bucket] += 1;
        counted.sum_s += seconds;
    }

    fn write(&self, name: &str, help: &str, text: &mut String) {
        let Counted { counts, sum_s } = *self.counted.lock().unwrap_or_else(|e| e.into_inner());
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut so_far = 0;
        let bounds = self.bounds_s.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            so_far += count;
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {so_far}");
        }
        let _ = writeln!(text, "{name}_sum {sum_s}\n{name}_count {so_far}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::new();
        for ms in [40, 60, 100, 99_000] {
            metrics.first_token(Duration::from_millis(ms));
        }
        metrics.ended(Outcome::Busy, 2);
        let text = metrics.text();
        for line in [
            "littoral_time_to_first_token_seconds_bucket{le=\"0.05\"} 1",
            "littoral_time_to_first_token_seconds_bucket{le=\"0.1\"} 3",
            "littoral_time_to_first_token_seconds_bucket{le=\"60\"} 3",
            "littoral_time_to_first_token_seconds_bucket{le=\"+Inf\"} 4",
            "littoral_time_to_first_token_seconds_count 4",
            "littoral_requests_total{outcome=\"busy\"} 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
