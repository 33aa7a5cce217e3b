//! `runs.csv`: what every run left, a row per version. A run is there when all of its rows are; who reads the file again
//! runs only what is not.

use crate::output::Failure;
use littoral_sim::report::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

/// A version, as it became current; its accuracy is that of the version before, from which devices started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub version: u64,
    /// `statistics`, `train`, `prepare` or `evaluate`.
    pub work: String,
    pub virtual_ms: u64,
    pub devices: u64,
    pub train_loss: Option<f64>,
    pub accuracy: Option<f64>,
    /// Of the devices' own accuracies, where they are told.
    pub worst_decile: Option<f64>,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Of its setting.
    pub key: String,
    /// Of its combination, in the grid's order.
    pub labels: Vec<String>,
    pub seed: u64,
    pub rows: Vec<Row>,
}

const BEFORE: [&str; 1] = ["combination"];
/// `rows`: how many the run has.
const BEHIND: [&str; 9] =
    ["seed", "rows", "version", "work", "virtual_ms", "devices", "train_loss", "accuracy", "worst_decile"];

impl Run {
    pub fn of(key: &str, labels: &[String], outcome: &Outcome) -> Self {
        let row = |line: &littoral_sim::report::VersionLine| {
            let told = line.json();
            let number = |name: &str| told[name].as_f64().filter(|value| value.is_finite());
            Row {
                version: line.version,
                work: told["work"].as_str().unwrap_or_default().to_owned(),
                virtual_ms: line.at_ms,
                devices: line.line.devices,
                train_loss: number("train_loss"),
                accuracy: number("accuracy"),
                worst_decile: number("worst_decile_accuracy"),
            }
        };
        let rows = outcome.lines.iter().map(row).collect();
        Self { key: key.into(), labels: labels.to_vec(), seed: outcome.seed, rows }
    }

    /// Of the last version that was evaluated.
    pub fn accuracy(&self) -> Option<f64> {
        self.rows.iter().rev().find_map(|row| row.accuracy)
    }

    pub fn worst_decile(&self) -> Option<f64> {
        self.rows.iter().rev().find_map(|row| row.worst_decile)
    }

    /// What was measured: the rounds that a version is made of, when it was there, and its row.
    pub fn measured(&self) -> impl Iterator<Item = (u64, f64, &Row)> {
        let trained = |row: &&Row| row.work == "train";
        let measured = self.rows.iter().enumerate().filter(|(_, row)| row.accuracy.is_some());
        measured.map(move |(at, row)| {
            let rounds = self.rows[..at].iter().filter(trained).count() as u64;
            let since_ms = at.checked_sub(1).map_or(0, |before| self.rows[before].virtual_ms);
            (rounds, since_ms as f64 / 1e3, row)
        })
    }

    /// Rounds and virtual seconds until a version answers as often right.
    pub fn to_target(&self, target: f64) -> Option<(u64, f64)> {
        let reached = self.measured().find(|(_, _, row)| row.accuracy.is_some_and(|accuracy| accuracy >= target));
        reached.map(|(rounds, seconds, _)| (rounds, seconds))
    }
}

/// Runs as CSV, with a header or without.
pub fn csv(columns: &[String], runs: &[Run], header: bool) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    // Writing to memory does not fail.
    if header {
        let _ = writer.write_record(names(columns));
    }
    for run in runs {
        for row in &run.rows {
            let before = [run.key.clone()].into_iter().chain(run.labels.iter().cloned());
            let _ = writer.write_record(before.chain([
                run.seed.to_string(),
                run.rows.len().to_string(),
                row.version.to_string(),
                row.work.clone(),
                row.virtual_ms.to_string(),
                row.devices.to_string(),
                number(row.train_loss),
                number(row.accuracy),
                number(row.worst_decile),
            ]));
        }
    }
    writer.into_inner().unwrap_or_default()
}

fn names(columns: &[String]) -> Vec<&str> {
    BEFORE.into_iter().chain(columns.iter().map(String::as_str)).chain(BEHIND).collect()
}

/// The whole runs of a file; a run of which rows are missing or torn is as if it were not there. None: no file.
pub fn read(path: &Path, columns: &[String]) -> Result<Vec<Run>, Failure> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(foreign(path, "a file of earlier runs", e)),
    };
    let names = names(columns);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes.as_slice());
    let mut records = reader.records();
    let is_header = |record: &csv::StringRecord| record.iter().eq(names.iter().copied());
    match records.next() {
        None => return Ok(Vec::new()),
        Some(Ok(first)) if is_header(&first) => {}
        Some(_) => {
            let failure = foreign(path, format!("the columns {}", names.join(",")), "others");
            return Err(failure.hint("it is of another grid: give another --into"));
        }
    }
    let mut found: BTreeMap<(String, u64), (usize, Run)> = BTreeMap::new();
    let mut order = Vec::new();
    let mut torn = BTreeSet::new();
    for record in records {
        // Not in UTF-8: torn, as a row without some of its cells.
        let Some((count, key, labels, seed, row)) = record.ok().and_then(|record| parsed(&record, columns.len()))
        else {
            continue;
        };
        let id = (key.clone(), seed);
        let run = found.entry(id.clone()).or_insert_with(|| {
            order.push(id.clone());
            (count, Run { key, labels, seed, rows: Vec::new() })
        });
        if run.0 != count || run.1.rows.last().is_some_and(|last| last.virtual_ms > row.virtual_ms) {
            torn.insert(id);
        }
        run.1.rows.push(row);
    }
    let whole = |id: (String, u64)| {
        let (count, run) = found.remove(&id)?;
        (run.rows.len() == count && !torn.contains(&id)).then_some(run)
    };
    Ok(order.into_iter().filter_map(whole).collect())
}

fn parsed(record: &csv::StringRecord, labels: usize) -> Option<(usize, String, Vec<String>, u64, Row)> {
    if record.len() != BEFORE.len() + labels + BEHIND.len() {
        return None;
    }
    let cell = |at: usize| &record[BEFORE.len() + labels + at];
    let optional = |at: usize| match cell(at) {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    let row = Row {
        version: cell(2).parse().ok()?,
        work: cell(3).to_owned(),
        virtual_ms: cell(4).parse().ok()?,
        devices: cell(5).parse().ok()?,
        train_loss: optional(6)?,
        accuracy: optional(7)?,
        worst_decile: optional(8)?,
    };
    let named = record.iter().skip(BEFORE.len()).take(labels).map(str::to_owned).collect();
    Some((cell(1).parse().ok()?, record[0].to_owned(), named, cell(0).parse().ok()?, row))
}

fn foreign(path: &Path, expected: impl Into<String>, got: impl ToString) -> Failure {
    Failure::new("the sweep does not go on", path.display().to_string(), expected, got)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(key: &str, seed: u64) -> Run {
        let row = |version: u64, work: &str, accuracy| Row {
            version,
            work: work.into(),
            virtual_ms: 100 * version,
            devices: 3,
            accuracy,
            ..Row::default()
        };
        let rows = vec![
            row(1, "statistics", None),
            row(2, "train", Some(0.25)),
            row(3, "train", Some(1.0 / 3.0)),
            row(3, "evaluate", Some(0.5)),
        ];
        Run { key: key.into(), labels: vec!["a, \"b\"".into()], seed, rows }
    }

    #[test]
    fn a_run_without_its_end_is_not_there() {
        let path = std::env::temp_dir().join(format!("littoral-rows-{}.csv", std::process::id()));
        let columns = ["by".to_owned()];
        let runs = [run("aa", 1), run("aa", 2), run("bb", 1)];
        let bytes = csv(&columns, &runs, true);
        // Wherever the file ends, what is read are its whole runs.
        let ends: Vec<usize> = (1..=3).map(|n| csv(&columns, &runs[..n], true).len()).collect();
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let header = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            // A last line without its end of line may be whole or cut inside its last cell, which is empty here.
            let whole = ends.iter().filter(|end| cut + 1 >= **end).count();
            match read(&path, &columns) {
                Ok(read) => assert_eq!(read, runs[..whole], "cut at {cut}"),
                Err(_) => assert!(cut < header, "cut at {cut}"),
            }
        }
        assert!(read(&path, &["other".to_owned()]).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path, &columns), Ok(Vec::new()));
    }

    #[test]
    fn an_accuracy_is_of_the_version_before() {
        let run = run("aa", 1);
        let measured: Vec<(u64, f64)> = run.measured().map(|(rounds, seconds, _)| (rounds, seconds)).collect();
        assert_eq!(measured, [(0, 0.1), (1, 0.2), (2, 0.3)]);
        assert_eq!((run.accuracy(), run.to_target(0.3), run.to_target(0.6)), (Some(0.5), Some((1, 0.2)), None));
    }
}
