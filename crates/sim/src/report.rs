//! What a run leaves: lines per version as CSV or JSON, accuracy curves, and the summary that programs read.

use crate::faults::Injected;
use crate::svg::{self, Curve};
use littoral_node::job::{DriftLine, Line};
use littoral_wire::ObjectId;
use littoral_wire::message::Work;
use serde_json::{Value, json};
use std::fmt::Write;

/// A version, as it became current.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionLine {
    pub work: Work,
    pub version: u64,
    pub model: ObjectId,
    /// Virtual time.
    pub at_ms: u64,
    pub line: Line,
}

/// Held-out rows on which a target is reached.
const ROWS_TRIED: u64 = 1_000;

/// A finished run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub job: String,
    pub algorithm: &'static str,
    pub seed: u64,
    /// Why the job ended; `None` if it did not within its time.
    pub ended: Option<String>,
    /// Versions made by training.
    pub rounds_completed: u64,
    /// Attempts that were given up.
    pub aborts: u64,
    /// Updates counted in training.
    pub device_rounds: u64,
    /// Fraction of the fleet's held-out rows, by the last version that was evaluated.
    pub accuracy: Option<f64>,
    /// An accuracy that is looked for; by itself it stops nothing.
    pub target: Option<f64>,
    /// Mean of the worst tenth of devices, by the last version in which devices told.
    pub worst_decile_accuracy: Option<f64>,
    /// How far the fleet's data is from where it was, by the last version that was compared.
    pub drift: Option<DriftLine>,
    pub faults_injected: Injected,
    /// One sentence for each checker that found something.
    pub checks_broken: Vec<String>,
    pub state_hash: String,
    pub lines: Vec<VersionLine>,
    /// Virtual time at the job's end.
    pub virtual_ms: u64,
    /// Events that roles handled.
    pub events: u64,
    pub warnings: u64,
    pub last_warning: Option<String>,
}

impl Outcome {
    /// The summary. Wall time and memory are the caller's to measure; an accuracy that nobody measured is left out.
    pub fn json(&self, elapsed_s: f64, peak_rss_mb: f64) -> Value {
        let device_rounds_per_s = if elapsed_s > 0.0 { self.device_rounds as f64 / elapsed_s } else { 0.0 };
        let mut value = json!({
            "rounds_completed": self.rounds_completed,
            "aborts": self.aborts,
            "device_rounds": self.device_rounds,
            "device_rounds_per_s": device_rounds_per_s,
            "faults_injected": self.faults_injected,
            "checks_broken": self.checks_broken,
            "state_hash": self.state_hash,
            "peak_rss_mb": peak_rss_mb,
            "virtual_s": self.virtual_ms as f64 / 1e3,
            "clients_per_s": device_rounds_per_s,
        });
        if let Some(ms) = self.to_target_ms() {
            value["time_to_target_virtual_s"] = json!(ms as f64 / 1e3);
        }
        if let Some(accuracy) = self.accuracy {
            value["accuracy"] = json!(accuracy);
        }
        if let Some(worst) = self.worst_decile_accuracy {
            value["worst_decile_accuracy"] = json!(worst);
        }
        if let Some(drift) = &self.drift {
            value["drift"] = json!(drift);
        }
        value
    }

    /// When the first version was there that answers as often right as was wanted: by the last versions that together were tried on
    /// [`ROWS_TRIED`] held-out rows, so that a few lucky rows of a small version do not say so.
    pub fn to_target_ms(&self) -> Option<u64> {
        let target = self.target?;
        let tried: Vec<(f64, u64)> =
            self.lines.iter().map(|line| (line.line.accuracy.unwrap_or(0.0), line.line.test_rows)).collect();
        let wanted = ROWS_TRIED.min(tried.iter().map(|(_, rows)| rows).sum());
        let lately = |at: usize| {
            let (mut right, mut rows) = (0.0, 0);
            for (accuracy, tested) in tried[..=at].iter().rev() {
                (right, rows) = (right + accuracy * *tested as f64, rows + tested);
                if rows >= wanted {
                    return right / rows.max(1) as f64;
                }
            }
            0.0
        };
        let at = (0..tried.len()).find(|at| lately(*at) >= target)?;
        // A line tells of the version that devices started from: it was there when the line before it was.
        Some(at.checked_sub(1).map_or(0, |before| self.lines[before].at_ms))
    }

    /// A seed counts as evidence only if the run got somewhere.
    pub fn counts(&self, rounds_wanted: u64) -> bool {
        2 * self.rounds_completed >= rounds_wanted
    }
}

impl VersionLine {
    /// One object on one line.
    pub fn json(&self) -> Value {
        // A Line is made of numbers.
        let mut value = serde_json::to_value(&self.line).unwrap_or_default();
        value["version"] = json!(self.version);
        value["work"] = json!(work_name(self.work));
        value["model"] = json!(self.model.to_string());
        value["virtual_ms"] = json!(self.at_ms);
        value
    }
}

fn work_name(work: Work) -> &'static str {
    match work {
        Work::Statistics => "statistics",
        Work::Train => "train",
        Work::Prepare => "prepare",
        Work::Evaluate => "evaluate",
    }
}

/// A header and one row per version of every run. What was not measured is an empty cell.
pub fn csv(outcomes: &[Outcome]) -> String {
    let columns = "job,algorithm,seed,version,work,virtual_ms,devices,train_loss,accuracy,test_loss,test_rows,model,\
                   accuracy_mean_over_devices,accuracy_variance,worst_decile_accuracy";
    let mut out = format!("{columns}\n");
    for outcome in outcomes {
        for VersionLine { work, version, model, at_ms, line } in &outcome.lines {
            let number = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
            // Writing to a String does not fail.
            let _ = writeln!(
                out,
                "{},{},{},{version},{},{at_ms},{},{},{},{},{},{model},{},{},{}",
                quoted(&outcome.job),
                outcome.algorithm,
                outcome.seed,
                work_name(*work),
                line.devices,
                number(line.train_loss),
                number(line.accuracy),
                number(line.test_loss),
                line.test_rows,
                number(line.accuracy_mean_over_devices),
                number(line.accuracy_variance),
                number(line.worst_decile_accuracy),
            );
        }
    }
    out
}

/// RFC 4180, section 2.6.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

/// Accuracy over virtual seconds, one curve per run.
pub fn accuracy_by_time_svg(title: &str, outcomes: &[Outcome]) -> String {
    let curves = outcomes.iter().map(|outcome| Curve {
        name: outcome.algorithm.into(),
        points: outcome.lines.iter().filter_map(|v| Some((v.at_ms as f64 / 1e3, v.line.accuracy?))).collect(),
    });
    svg::plot(title, "virtual seconds", "accuracy on held-out rows", &curves.collect::<Vec<_>>())
}

/// Accuracy over versions, one curve per run. A line tells of the version that devices started from.
pub fn accuracy_svg(title: &str, outcomes: &[Outcome]) -> String {
    let curves: Vec<Curve> = outcomes
        .iter()
        .map(|outcome| Curve {
            name: outcome.algorithm.into(),
            points: outcome
                .lines
                .iter()
                .filter_map(|v| Some((v.version.saturating_sub(1) as f64, v.line.accuracy?)))
                .collect(),
        })
        .collect();
    svg::plot(title, "version", "accuracy on held-out rows", &curves)
}

/// The command that does the same again. `who`: the option that says which devices.
pub fn replay_command(job_path: &str, who: &str, edges: usize, seed: u64, faults: &str) -> String {
    let path = if job_path.contains(' ') { format!("'{job_path}'") } else { job_path.into() };
    format!("littoral sim {path} {who} --edges {edges} --seed {seed} --faults {faults}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let line = Line { devices: 3, accuracy: Some(0.5), worst_decile_accuracy: Some(0.25), ..Line::default() };
        let versions = [1, 2].map(|version| {
            let model = ObjectId([version as u8; 32]);
            VersionLine { work: Work::Train, version, model, at_ms: 10 * version, line: line.clone() }
        });
        Outcome {
            job: "a, \"b\"".into(),
            algorithm: "fedavg",
            seed: 7,
            rounds_completed: 2,
            device_rounds: 6,
            lines: versions.to_vec(),
            ..Outcome::default()
        }
    }

    #[test]
    fn a_row_per_version() {
        let (one, two) = (ObjectId([1; 32]), ObjectId([2; 32]));
        let expected = format!(
            "job,algorithm,seed,version,work,virtual_ms,devices,train_loss,accuracy,test_loss,test_rows,model,\
             accuracy_mean_over_devices,accuracy_variance,worst_decile_accuracy\n\
             \"a, \"\"b\"\"\",fedavg,7,1,train,10,3,,0.5,,0,{one},,,0.25\n\
             \"a, \"\"b\"\"\",fedavg,7,2,train,20,3,,0.5,,0,{two},,,0.25\n"
        );
        assert_eq!(csv(&[outcome()]), expected);
        assert_eq!(outcome().lines[0].json()["virtual_ms"], 10);
        assert!(accuracy_svg("x", &[outcome()]).contains("fedavg"));
    }

    #[test]
    fn a_target_is_not_reached_by_a_few_lucky_rows() {
        let tried = [(1.0, 10), (0.5, 600), (0.7, 600), (0.9, 600), (0.9, 600)];
        let line = |(at, (accuracy, rows)): (u64, (f64, u64))| VersionLine {
            work: Work::Train,
            version: at + 1,
            model: ObjectId([0; 32]),
            at_ms: 100 * (at + 1),
            line: Line { accuracy: Some(accuracy), test_rows: rows, ..Line::default() },
        };
        let reached = |target| {
            let lines = (0..).zip(tried).map(line).collect();
            Outcome { lines, target: Some(target), ..Outcome::default() }.to_target_ms()
        };
        // 0.7 and 0.9 on as many rows are 0.8; the version before that line was there at 300.
        assert_eq!(reached(0.8), Some(300));
        assert_eq!((reached(0.95), reached(0.85)), (None, Some(400)));
    }

    #[test]
    fn the_summary_has_no_null() {
        let summary = outcome().json(2.0, 12.5);
        assert_eq!(summary["device_rounds_per_s"], 3.0);
        assert!(summary.get("accuracy").is_none() && !summary.to_string().contains("null"));
        let measured = Outcome { accuracy: Some(0.75), ..outcome() }.json(0.0, 0.0);
        assert_eq!((&measured["accuracy"], &measured["device_rounds_per_s"]), (&json!(0.75), &json!(0.0)));
        assert!(outcome().counts(4) && !outcome().counts(5));
    }
}
