//! Runs side by side on the real threads, one thread each; what is in `runs.csv` already is not run again.

use super::rows::{self, Run};
use super::setting::Checked;
use crate::output::Failure;
use crate::pending::Pending;
use crate::sim_cmd::side_by_side;
use littoral_sim::report::Outcome;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What is to be run: points with their labels, each with every seed.
pub struct Plan<'a> {
    pub columns: &'a [String],
    pub points: &'a [(Vec<String>, Checked)],
    pub seeds: &'a [u64],
    pub threads: usize,
}

/// A run that has just ended, for whoever watches.
pub struct Ended<'a> {
    pub labels: &'a [String],
    pub outcome: &'a Outcome,
    pub elapsed_s: f64,
    /// Of so many, earlier ones counted.
    pub done: usize,
    pub all: usize,
}

pub struct Done {
    /// Of each point, by seed.
    pub runs: Vec<Vec<Run>>,
    /// Runs that were there already.
    pub earlier: usize,
    /// One sentence for each run that broke what must hold; such runs are not kept.
    pub broken: Vec<String>,
}

impl Plan<'_> {
    /// `file` ends with the runs of this plan in its order, whatever order they ended in, and others that it had behind them.
    pub fn carry_out(&self, file: &Path, ended: &(dyn Fn(Ended<'_>) + Sync)) -> Result<Done, Failure> {
        let mut known: BTreeMap<(String, u64), Run> = BTreeMap::new();
        let mut others = Vec::new();
        let wanted = |run: &Run| self.seeds.contains(&run.seed) && self.points.iter().any(|(_, p)| p.key == run.key);
        for run in rows::read(file, self.columns)? {
            match wanted(&run) {
                true => drop(known.insert((run.key.clone(), run.seed), run)),
                false => others.push(run),
            }
        }
        let earlier = known.len();
        // Torn rows go, and the header comes, before anything is appended.
        let kept: Vec<Run> = known.values().chain(&others).cloned().collect();
        Pending::at(file)?.write(rows::csv(self.columns, &kept, true))?;
        let wrong = |e| Failure::new("the runs are not kept", file.display().to_string(), "a file to append to", e);
        let appended = Mutex::new(File::options().append(true).open(file).map_err(wrong)?);

        let all = self.points.len() * self.seeds.len();
        let todo: Vec<(usize, u64)> = (0..self.points.len())
            .flat_map(|point| self.seeds.iter().map(move |seed| (point, *seed)))
            .filter(|(point, seed)| !known.contains_key(&(self.points[*point].1.key.clone(), *seed)))
            .collect();
        let (failed, count) = (AtomicBool::new(false), AtomicUsize::new(earlier));
        let one = |(point, seed): (usize, u64)| -> Result<Option<Result<Run, String>>, Failure> {
            // Whoever failed is told of; nobody begins after it.
            if failed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (labels, checked) = &self.points[point];
            let run = || {
                let started = Instant::now();
                let outcome = checked.run(seed, 1)?;
                let run = Run::of(&checked.key, labels, &outcome);
                if let Some(broken) = outcome.checks_broken.first() {
                    return Ok(Some(Err(format!("seed {seed}: {broken}"))));
                }
                let bytes = rows::csv(self.columns, std::slice::from_ref(&run), false);
                appended.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes).map_err(wrong)?;
                let done = count.fetch_add(1, Ordering::Relaxed) + 1;
                ended(Ended { labels, outcome: &outcome, elapsed_s: started.elapsed().as_secs_f64(), done, all });
                Ok(Some(Ok(run)))
            };
            run().inspect_err(|_| failed.store(true, Ordering::Relaxed))
        };
        let mut broken = Vec::new();
        for result in side_by_side(&todo, self.threads, one)?.into_iter().flatten() {
            match result {
                Ok(run) => drop(known.insert((run.key.clone(), run.seed), run)),
                Err(why) => broken.push(why),
            }
        }
        let of_point = |(labels, checked): &(Vec<String>, Checked)| {
            let of_seed = |seed: &u64| known.get(&(checked.key.clone(), *seed)).cloned();
            // Two points of one setting share runs, not names.
            let named = |run: Run| Run { labels: labels.clone(), ..run };
            self.seeds.iter().filter_map(of_seed).map(named).collect::<Vec<Run>>()
        };
        let runs: Vec<Vec<Run>> = self.points.iter().map(of_point).collect();
        let mut kept: Vec<Run> = Vec::new();
        for (point, runs) in runs.iter().enumerate() {
            if self.points[..point].iter().all(|(_, earlier)| earlier.key != self.points[point].1.key) {
                kept.extend(runs.iter().cloned());
            }
        }
        kept.extend(others);
        Pending::at(file)?.write(rows::csv(self.columns, &kept, true))?;
        Ok(Done { runs, earlier, broken })
    }
}
