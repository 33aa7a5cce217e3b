//! `littoral bench algorithms`: federated algorithms on uneven data, in the simulator, through the shipped roles.
//!
//! Fair means: on each data set and skew every algorithm has the same devices, shares, rounds (or, where versions are made of
//! fewer updates, the same number of updates) and seeds, and is tuned with the same budget: a run for each of the same three
//! step sizes of devices, with one seed that is not among those that count. Other parameters are defaults of this release
//! and the same on all data (`arms`). Nothing is tuned until a sign appears.
//!
//! What it does not show: large fleets, large models, partial participation (but of speakers all twenty devices are in every round), other
//! budgets. Intervals are over seeds, which redraw shares, weights and orders, and not the data set.
//!
//! | file | idea |
//! |---|---|
//! | `work` | data sets, models, skews |
//! | `arms` | who competes where, and what papers say of it |
//! | `judge` | which of these signs appear |

mod arms;
mod judge;
mod work;

use super::{Report, machine};
use crate::output::{Failure, talk};
use crate::sweep::carry_out::Plan;
use crate::sweep::curves;
use crate::sweep::folder::Folder;
use crate::sweep::grid::Combination;
use crate::sweep::interval::Interval;
use crate::sweep::report;
use crate::sweep::rows::Run;
use crate::sweep::setting::Checked;
use crate::sweep::table::{self, Summary, told};
use arms::Arm;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use work::Data;

/// Not among the seeds that count.
const TUNING_SEED: u64 = 1_000_000;
const COLUMNS: [&str; 4] = ["data", "skew", "algorithm", "rate"];

#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Data::Mnist, Data::Credit, Data::Speakers])]
    data: Vec<Data>,
    /// From 1 on
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Of a synchronous run; by default 30, of speakers 40
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: Option<u32>,
    /// A new folder, or one to go on with
    #[arg(long, value_name = "DIR", default_value = "algorithms")]
    into: PathBuf,
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: Option<u16>,
    /// What the report says of when
    #[arg(long, value_name = "TEXT")]
    date: Option<String>,
}

type Points = Vec<(Vec<String>, Checked)>;

pub fn run(args: &Args) -> Result<Report, Failure> {
    let started = Instant::now();
    let columns = COLUMNS.map(str::to_owned);
    let tried = check(&combinations(args, &|data, _, _| data.rates().to_vec())?, TUNING_SEED)?;
    let folder = Folder::at(&args.into, &["tuning.csv", "algorithms.csv", "signs.csv"])?;
    let threads = args.threads.map_or_else(machine::cores, usize::from);
    let carry_out = |points: &Points, seeds: &[u64], file: &str| {
        let plan = Plan { columns: &columns, points, seeds, threads };
        let done = plan.carry_out(&folder.file(file), &|run| crate::sweep::tell(false, &columns, run))?;
        match done.broken.first() {
            Some(broken) => Err(Failure::new("the bench is broken", "a run", "what must hold", broken)),
            None => Ok(done.runs),
        }
    };
    talk("tuning: three step sizes for everybody, one seed");
    let tuned = carry_out(&tried, &[TUNING_SEED], "tuning.csv")?;
    drop(tried);
    let best = |data: Data, skew: &str, arm: &str| {
        let all = tuned.iter().flatten().filter(|run| run.labels[..3] == [data.name(), skew, arm]);
        // The first of equals: the smallest step.
        let best = all.fold(None, |best: Option<(&Run, f64)>, run| {
            let accuracy = judge::accuracy(run).unwrap_or(0.0);
            if best.is_none_or(|(_, so_far)| accuracy > so_far) { Some((run, accuracy)) } else { best }
        });
        best.and_then(|(run, _)| run.labels[3].parse().ok()).into_iter().collect::<Vec<f64>>()
    };
    let seeds: Vec<u64> = (1..=args.seeds).collect();
    talk("measuring");
    let points = check(&combinations(args, &best)?, 1)?;
    let runs = carry_out(&points, &seeds, "runs.csv")?;
    let keys: Vec<&str> = points.iter().map(|(_, point)| point.key.as_str()).collect();
    write(args, &folder, &columns, &keys, &runs, &seeds, started)
}

/// Every algorithm on every skew of every data set, with each of the rates that `rates` says.
fn combinations(args: &Args, rates: &dyn Fn(Data, &str, &str) -> Vec<f64>) -> Result<Vec<Combination>, Failure> {
    let mut all = Vec::new();
    for data in &args.data {
        let base = data.setting()?;
        for skew in data.skews() {
            for Arm { name, sets, versions, .. } in arms::of(*data, skew.name) {
                for rate in rates(*data, skew.name, name) {
                    let mut setting = base.clone();
                    work::set_all(&mut setting, skew.sets)?;
                    work::set_all(&mut setting, sets)?;
                    let rounds = args.rounds.unwrap_or(data.rounds()) * versions;
                    setting.set("rounds.count", &toml::Value::Integer(rounds.into()))?;
                    setting.set("local.optimiser.learning_rate", &toml::Value::Float(rate))?;
                    let labels = vec![data.name().into(), skew.name.into(), name.into(), rate.to_string()];
                    all.push(Combination { labels, setting });
                }
            }
        }
    }
    Ok(all)
}

fn check(combinations: &[Combination], seed: u64) -> Result<Points, Failure> {
    crate::sweep::check(&COLUMNS.map(str::to_owned), combinations.to_vec(), seed)
}

fn write(
    args: &Args,
    folder: &Folder,
    columns: &[String],
    keys: &[&str],
    runs: &[Vec<Run>],
    seeds: &[u64],
    started: Instant,
) -> Result<Report, Failure> {
    let summaries: Vec<Summary> = keys
        .iter()
        .zip(runs)
        .filter_map(|(key, runs)| {
            let accuracies: Vec<f64> = runs.iter().filter_map(judge::accuracy).collect();
            let summary = Summary::of(key, &runs.first()?.labels, &runs.iter().collect::<Vec<_>>(), None);
            Some(Summary { accuracy: Interval::of(&accuracies), ..summary })
        })
        .collect();
    let of = |data: Data| {
        move |skew: &str, arm: &str| {
            let is = |runs: &&Vec<Run>| runs.first().is_some_and(|run| run.labels[..3] == [data.name(), skew, arm]);
            runs.iter().find(is).cloned()
        }
    };
    let verdicts: Vec<judge::Verdict> = args.data.iter().flat_map(|data| judge::judge(*data, &of(*data))).collect();
    // Each algorithm has a rate of its own: it would tell plots apart.
    let unrated = |run: &Run| Run { labels: run.labels[..3].to_vec(), ..run.clone() };
    let drawn: Vec<Vec<Run>> = runs.iter().map(|runs| runs.iter().map(unrated).collect()).collect();
    let plots = curves::draw("algorithms", &columns[..3], &drawn);
    folder.write("algorithms.csv", rows(runs))?;
    folder.write("table.csv", table::csv(columns, &summaries))?;
    folder.write("signs.csv", signs(&verdicts))?;
    folder.write_curves(&plots)?;
    let tuning = args.data.iter().map(|data| format!("{} {:?}", data.name(), data.rates())).collect::<Vec<_>>();
    let tuning = format!(
        "Tuning: for each data set, skew and algorithm one run with seed {TUNING_SEED} for each step size of the grid ({}); \
         the best last accuracy was taken. Nothing else was tuned.",
        tuning.join("; ")
    );
    let mut remarks =
        vec![tuning.clone(), "Accuracies are those of versions with at least 20 devices together.".into()];
    remarks.extend(verdicts.iter().map(|verdict| verdict.cells.join(" · ")));
    let page = report::Told {
        title: "Algorithms on uneven data",
        command: &crate::sweep::command(),
        machine: &machine::facts(),
        date: args.date.as_deref(),
        seeds,
        target: None,
        texts: &[],
        remarks: &remarks,
    };
    folder.write("report.html", report::html(&page, columns, &summaries, &plots))?;
    talk(&tuning);
    let mut lines: Vec<[String; 2]> =
        summaries.iter().map(|summary| [summary.labels.join(" · "), told(summary.accuracy, 4)]).collect();
    lines.extend(verdicts.iter().map(|verdict| {
        let [what @ .., difference, found] = verdict.cells.as_slice() else { return Default::default() };
        [format!("sign: {}", what.join(" · ")), format!("{difference}: {found}")]
    }));
    let of_summary = |summary: &Summary| {
        let [data, skew, algorithm, rate] = summary.labels.as_slice() else { return Value::Null };
        json!({
            "data": data, "skew": skew, "algorithm": algorithm, "rate": rate, "runs": summary.runs,
            "accuracy": summary.accuracy.map(|a| a.mean), "accuracy_ci95": summary.accuracy.and_then(|a| a.half),
            "worst_decile_accuracy": summary.worst_decile.map(|a| a.mean),
        })
    };
    let numbers = json!({
        "seeds": seeds, "tuning": tuning, "into": args.into.display().to_string(), "wall_s": started.elapsed().as_secs_f64(),
        "table": summaries.iter().map(of_summary).collect::<Vec<_>>(),
        "signs": verdicts.iter().map(|verdict| verdict.json.clone()).collect::<Vec<_>>(),
    });
    Ok(Report { numbers, rows: lines })
}

/// data, skew, algorithm, seed, round, accuracy, worst_decile: of each version as it was measured.
fn rows(runs: &[Vec<Run>]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory does not fail.
    let _ = writer.write_record(["data", "skew", "algorithm", "seed", "round", "accuracy", "worst_decile"]);
    for run in runs.iter().flatten() {
        for (round, _, row) in run.measured() {
            let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
            let numbers = [run.seed.to_string(), round.to_string(), number(row.accuracy), number(row.worst_decile)];
            let _ = writer.write_record(run.labels[..3].iter().cloned().chain(numbers));
        }
    }
    writer.into_inner().unwrap_or_default()
}

fn signs(verdicts: &[judge::Verdict]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let _ = writer.write_record(["data", "skew", "better", "measure", "paper", "difference to fedavg", "verdict"]);
    verdicts.iter().for_each(|verdict| drop(writer.write_record(&verdict.cells)));
    writer.into_inner().unwrap_or_default()
}
