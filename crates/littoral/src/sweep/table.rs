//! `table.csv`: a row per combination, means over seeds with 95 % intervals. It follows from `runs.csv` alone.

use super::interval::Interval;
use super::rows::Run;

/// What the seeds of a combination come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub key: String,
    pub labels: Vec<String>,
    pub runs: usize,
    pub accuracy: Option<Interval>,
    pub worst_decile: Option<Interval>,
    /// Runs that came to the target; the two below are means over these.
    pub reached: usize,
    pub rounds_to_target: Option<Interval>,
    pub virtual_s_to_target: Option<Interval>,
}

impl Summary {
    /// `runs`: of one combination.
    pub fn of(key: &str, labels: &[String], runs: &[&Run], target: Option<f64>) -> Self {
        let over = |value: &dyn Fn(&Run) -> Option<f64>| {
            Interval::of(&runs.iter().filter_map(|run| value(run)).collect::<Vec<_>>())
        };
        let reached = |run: &Run| target.and_then(|target| run.to_target(target));
        Self {
            key: key.into(),
            labels: labels.to_vec(),
            runs: runs.len(),
            accuracy: over(&Run::accuracy),
            worst_decile: over(&Run::worst_decile),
            reached: runs.iter().filter(|run| reached(run).is_some()).count(),
            rounds_to_target: over(&|run| reached(run).map(|(rounds, _)| rounds as f64)),
            virtual_s_to_target: over(&|run| reached(run).map(|(_, seconds)| seconds)),
        }
    }
}

pub fn csv(columns: &[String], summaries: &[Summary]) -> Vec<u8> {
    let behind = [
        "runs",
        "accuracy",
        "accuracy_ci95",
        "worst_decile",
        "worst_decile_ci95",
        "reached_target",
        "rounds_to_target",
        "rounds_to_target_ci95",
        "virtual_s_to_target",
        "virtual_s_to_target_ci95",
    ];
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory does not fail.
    let _ = writer.write_record(["combination"].into_iter().chain(columns.iter().map(String::as_str)).chain(behind));
    for summary in summaries {
        let pair = |interval: Option<Interval>| {
            let half = interval.and_then(|interval| interval.half);
            [interval.map(|interval| interval.mean), half].map(|n| n.map(|n| n.to_string()).unwrap_or_default())
        };
        let mut cells = vec![summary.key.clone()];
        cells.extend(summary.labels.iter().cloned());
        cells.push(summary.runs.to_string());
        cells.extend(pair(summary.accuracy));
        cells.extend(pair(summary.worst_decile));
        cells.push(summary.reached.to_string());
        cells.extend(pair(summary.rounds_to_target));
        cells.extend(pair(summary.virtual_s_to_target));
        let _ = writer.write_record(cells);
    }
    writer.into_inner().unwrap_or_default()
}

/// `0.9312 ± 0.0041`, for people.
pub fn told(interval: Option<Interval>, digits: usize) -> String {
    match interval {
        None => "-".into(),
        Some(Interval { mean, half: None, .. }) => format!("{mean:.digits$}"),
        Some(Interval { mean, half: Some(half), .. }) => format!("{mean:.digits$} ± {half:.digits$}"),
    }
}
