//! `littoral sim JOB.toml --sweep grid.toml`: a grid of runs, tabulated.
//!
//! ```text
//! grid.toml ──> Grid ──expand──> Combination ──check──> Checked ──carry_out──> runs.csv ──> table.csv, curves, report.html
//!                                 (Setting)              all, before the first run
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `grid` | axes with values, and every combination of them |
//! | `setting` | one point: a job and what the simulator is told beside it |
//! | `carry_out` | runs side by side; what is there already is not run again |
//! | `rows` | `runs.csv`: a row per version of each run |
//! | `interval` | Student's t |
//! | `table`, `curves`, `report`, `folder` | what follows from `runs.csv` |
//!
//! A seed is the simulation's and the job's: shares of data, liars and speeds follow from it, first weights, cohorts and
//! orders of examples too. All combinations run with the same seeds, so that they can be compared seed by seed.

pub mod carry_out;
pub mod curves;
pub mod folder;
pub mod grid;
pub mod interval;
pub mod report;
pub mod rows;
pub mod setting;
pub mod table;

use crate::bench::machine;
use crate::memory::peak_rss_mb;
use crate::output::{self, Failure};
use crate::partition::source::plain;
use crate::sim_cmd::Args;
use carry_out::{Done, Ended, Plan};
use folder::Folder;
use grid::{Combination, Grid};
use serde_json::{Value, json};
use setting::{Checked, Setting, Sources};
use std::path::{Path, PathBuf};
use std::time::Instant;
use table::Summary;

const GRID_BYTES_MAX: u64 = 1 << 20;

pub fn run(args: &Args, grid_file: &Path) -> Result<(), Failure> {
    let (job, job_text) = crate::job::read_job(args.job())?;
    let grid_text = crate::input::text(grid_file, GRID_BYTES_MAX)?;
    let of_file = |mut failure: Failure| {
        failure.place = format!("{}, {}", grid_file.display(), failure.place);
        failure
    };
    let grid = Grid::parse(&grid_text).map_err(of_file)?;
    let seeds = match &grid.seeds {
        Some(seeds) => seeds.clone(),
        None => (0..args.seeds.min(grid::SEEDS_MAX as u64)).map(|n| args.seed.wrapping_add(n)).collect(),
    };
    let combinations = grid.expand(&base(args, &job_text)?).map_err(of_file)?;
    let columns: Vec<String> = grid.axes.iter().map(|axis| axis.name.clone()).collect();
    let points = check(&columns, combinations, seeds[0]).map_err(of_file)?;
    let target = |point: &Checked| args.target.or(point.target);
    let into = args.into.clone().unwrap_or_else(|| PathBuf::from(plain(job.name())));
    let folder = Folder::at(&into, &[])?;
    let threads = match args.threads {
        0 => machine::cores(),
        threads => threads.into(),
    };
    let started = Instant::now();
    output::talk(&format!("{} combinations, {} seeds each, into {}", points.len(), seeds.len(), into.display()));
    let plan = Plan { columns: &columns, points: &points, seeds: &seeds, threads };
    let done = plan.carry_out(&folder.file("runs.csv"), &|run| tell(args.json, &columns, run))?;
    let summaries: Vec<Summary> = points
        .iter()
        .zip(&done.runs)
        .map(|((labels, point), runs)| Summary::of(&point.key, labels, &runs.iter().collect::<Vec<_>>(), target(point)))
        .collect();
    let plots = curves::draw(job.name(), &columns, &done.runs);
    folder.write("table.csv", table::csv(&columns, &summaries))?;
    folder.write_curves(&plots)?;
    let told = report::Told {
        title: &format!("Sweep of {}", job.name()),
        command: &command(),
        machine: &machine::facts(),
        date: args.date.as_deref(),
        seeds: &seeds,
        target: args.target.or(job.settings().target_accuracy),
        texts: &[(args.job().display().to_string(), job_text), (grid_file.display().to_string(), grid_text)],
        remarks: &[],
    };
    folder.write("report.html", report::html(&told, &columns, &summaries, &plots))?;
    match args.json {
        true => output::object(&json!({"summary": summary(&columns, &summaries, &done, &into, started)})),
        false => {
            person(&columns, &summaries);
            output::talk(&format!("{}: runs.csv, table.csv, curves, report.html", into.display()));
        }
    }
    if !done.broken.is_empty() {
        done.broken.iter().for_each(|broken| output::talk(&format!("BROKEN {broken}")));
        output::talk(&format!("{} runs broke what must hold, and are not kept", done.broken.len()));
        std::process::exit(1);
    }
    Ok(())
}

/// What the command line says, before an axis changes it.
fn base(args: &Args, job_text: &str) -> Result<Setting, Failure> {
    let job = toml::from_str(job_text);
    let job =
        job.map_err(|e| Failure::new("the job was refused", args.job().display().to_string(), "TOML", e.message()))?;
    let setting = Setting {
        job,
        seeds_job: true,
        data: args.data.clone(),
        labels: args.labels.clone(),
        by: args.by.clone(),
        attack: args.attack.as_deref().and_then(littoral_sim::attack::Kind::named),
        attackers: args.attackers,
        attack_strength: args.attack_strength,
        speeds: args.speeds.clone(),
        traces: args.traces.clone(),
        devices: args.devices,
        edges: args.edges,
        rows: args.rows,
        step_us: args.step_us,
        faults: args.faults.clone(),
    };
    Ok(setting)
}

/// All combinations, or the first that cannot run.
pub fn check(
    columns: &[String],
    combinations: Vec<Combination>,
    seed: u64,
) -> Result<Vec<(Vec<String>, Checked)>, Failure> {
    let mut sources = Sources::default();
    let checked = combinations.into_iter().map(|Combination { labels, setting }| {
        let checked = setting.check(&mut sources, seed);
        let told = || grid::told(columns.iter().map(String::as_str), &labels);
        let checked = checked.map_err(|failure| grid::in_combination(failure, &told()))?;
        Ok((labels, checked))
    });
    checked.collect()
}

/// The command as it was typed.
pub fn command() -> String {
    let quoted = |arg: String| if arg.contains([' ', '\'', '"']) { format!("'{arg}'") } else { arg };
    let args = std::env::args_os().skip(1).map(|arg| quoted(arg.to_string_lossy().into_owned()));
    ["littoral".to_owned()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}

pub fn tell(json: bool, columns: &[String], ended: Ended<'_>) {
    let Ended { labels, outcome, elapsed_s, done, all } = ended;
    let accuracy = outcome.accuracy.map(|accuracy| format!(" · accuracy {accuracy:.4}")).unwrap_or_default();
    let told = grid::told(columns.iter().map(String::as_str), labels);
    output::talk(&format!("{done}/{all} · {told} · seed {}{accuracy} · {elapsed_s:.1} s", outcome.seed));
    if json {
        let mut object = outcome.json(elapsed_s, peak_rss_mb());
        object["seed"] = outcome.seed.into();
        object["combination"] =
            columns.iter().cloned().zip(labels.iter().map(|label| Value::from(label.as_str()))).collect();
        output::object(&object);
    }
}

fn summary(columns: &[String], summaries: &[Summary], done: &Done, into: &Path, started: Instant) -> Value {
    let row = |summary: &Summary| {
        let combination: Value =
            columns.iter().cloned().zip(summary.labels.iter().map(|label| Value::from(label.as_str()))).collect();
        let half = |interval: Option<interval::Interval>| interval.and_then(|interval| interval.half);
        let mean = |interval: Option<interval::Interval>| interval.map(|interval| interval.mean);
        json!({
            "combination": combination, "runs": summary.runs, "reached_target": summary.reached,
            "accuracy": mean(summary.accuracy), "accuracy_ci95": half(summary.accuracy),
            "worst_decile_accuracy": mean(summary.worst_decile), "worst_decile_ci95": half(summary.worst_decile),
            "rounds_to_target": mean(summary.rounds_to_target),
            "time_to_target_virtual_s": mean(summary.virtual_s_to_target),
        })
    };
    json!({
        "runs": done.runs.iter().map(Vec::len).sum::<usize>(), "runs_from_earlier": done.earlier,
        "checks_broken": done.broken, "into": into.display().to_string(),
        "wall_s": started.elapsed().as_secs_f64(), "peak_rss_mb": peak_rss_mb(),
        "table": summaries.iter().map(row).collect::<Vec<_>>(),
    })
}

pub fn person(columns: &[String], summaries: &[Summary]) {
    let deciles = summaries.iter().any(|summary| summary.worst_decile.is_some());
    let targets = summaries.iter().any(|summary| summary.reached > 0);
    let mut heads: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    heads.extend(["RUNS", "ACCURACY"].map(str::to_owned));
    heads.extend(deciles.then(|| "WORST DECILE".to_owned()));
    heads.extend(targets.then(|| "VIRTUAL S TO TARGET".to_owned()));
    let row = |summary: &Summary| {
        let mut cells = summary.labels.clone();
        cells.extend([summary.runs.to_string(), table::told(summary.accuracy, 4)]);
        cells.extend(deciles.then(|| table::told(summary.worst_decile, 4)));
        cells.extend(targets.then(|| table::told(summary.virtual_s_to_target, 1)));
        cells
    };
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    output::table(&heads, &summaries.iter().map(row).collect::<Vec<_>>());
}

#[cfg(test)]
mod tests;
