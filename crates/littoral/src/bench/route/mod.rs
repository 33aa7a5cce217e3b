//! `littoral bench route`: what routing between a small and a large model gains over chance, and whether its bound holds.
//!
//! The labelled set is made here, from a seed: tasks with exact answers ([`tasks`]), which both models answer greedily. An
//! answer of the small model is *worse* where the large one's is right and its own is not. Then, [`RESAMPLES`] times, the set
//! is split by chance into two halves ([`trial`]): one half learns and calibrates, exactly as `littoral route calibrate --when`
//! does for the one router, and the other judges. No prompt is in both.
//!
//! **APGR** is the mean over the splits, each measured on its test half. Its rival is a router by chance on the same test
//! halves, one for each split: `apgr_random_low` and `apgr_random_high` are the 2.5 % and the 97.5 % quantile of those.
//! **PGR** is that of the calibrated router itself: it keeps what its promise covers and sends the rest, `pgr_large_share`, to the
//! large model. It is the mean over the splits that promise something.
//!
//! **Violations.** The promise is: with a probability of at least 1 - δ over the calibrating half, the *true* share of worse
//! answers among kept ones is at most α. A split that promises something is a **violation** where the share in its test half is
//! above α, by however little. That counts more than the promise is about: the truth is not known, and a test half of some
//! hundred kept answers shows a share that is off by some per cent by chance alone; for a threshold whose true share is exactly α,
//! which keeps the promise, it is above in one half of all test halves. So two other counts are beside it:
//!
//! - `refuted`: splits whose test half *refutes* the promise: the exact lower bound (Clopper-Pearson, at level [`VERDICT`]) of the
//!   share of worse answers is above α. That happens with a probability of at most δ + [`VERDICT`], while a calibration that
//!   were simply wrong would be refuted again and again;
//! - `above_alpha_in_all`: splits whose share is above α in both halves together, without what the score was fitted to. With
//!   the set as the population, from which the calibrating half is a sample, this share *is* the truth, and δ bounds it without
//!   any slack; but it is not disjoint from what calibrated.
//!
//! Where nothing can be promised nothing is kept, and nothing violated: `promised` says in how many splits something was.

mod tasks;
mod trial;

use super::Report;
use crate::llm;
use crate::named;
use crate::output::{Failure, talk};
use crate::route::kept::{answers, said};
use crate::route::label::{Judged, share};
use crate::route::part;
use crate::route::prompts::Asked;
use littoral_infer::route::features::When;
use littoral_infer::route::measure::quantile;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use trial::{Levels, Measured, Promised, Trial, trial};

const RESAMPLES: u64 = 200;
const VERDICT: f64 = 0.05;
/// Answers are short.
const TOKENS_MAX: usize = 32;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The large model: a file, or the name of one that is here.
    #[arg(long)]
    model: PathBuf,
    /// The small one.
    #[arg(long)]
    draft: PathBuf,
    /// Prompts of the labelled set.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(60..=100_000))]
    prompts: u32,
    #[arg(long, default_value_t = 0.1, value_parser = part)]
    alpha: f64,
    #[arg(long, default_value_t = 0.1, value_parser = part)]
    delta: f64,
    /// Of the tasks and of the splits.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Threads; all cores by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Answers are kept in this file, and read from it the next time.
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let begun = Instant::now();
    let tasks = tasks::tasks(args.seed, args.prompts as usize);
    let judged = judged(args, &tasks)?;
    let asked_s = begun.elapsed().as_secs_f64();
    let kinds = kinds(&tasks, &judged);
    let levels = Levels { alpha: args.alpha, delta: args.delta, verdict: VERDICT };
    let of = |when| {
        let trials: Vec<Trial> = (0..RESAMPLES).map(|number| trial(&judged, when, levels, args.seed, number)).collect();
        Summary::of(&trials)
    };
    let (before, after) = (of(When::Before), of(When::After));
    let [small, large] = [share(&judged, |judged| judged.small), share(&judged, |judged| judged.large)];
    let worse = share(&judged, Judged::worse);
    let mut numbers = after.numbers();
    let all = json!({
        "resamples": RESAMPLES,
        "prompts": tasks.len(),
        "small_accuracy": small,
        "big_accuracy": large,
        "worse": worse,
        "agreement": share(&judged, |judged| judged.agree),
        "alpha": args.alpha,
        "delta": args.delta,
        "before": before.numbers(),
        "asked_s": asked_s,
        "kinds": kinds,
    });
    for (name, value) in all.as_object().into_iter().flatten() {
        numbers[name] = value.clone();
    }
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    let mut rows = vec![
        ["prompts".to_owned(), format!("{}, {RESAMPLES} splits into halves", tasks.len())],
        ["right: small, large".into(), format!("{}, {}", percent(small), percent(large))],
        ["the small one's is worse".into(), percent(worse)],
    ];
    rows.extend(after.rows("after an answer (cascade)"));
    rows.extend(before.rows("before an answer"));
    Ok(Report { numbers, rows })
}

fn judged(args: &Args, tasks: &[tasks::Task]) -> Result<Vec<Judged>, Failure> {
    let pool = llm::pool(args.threads.map(usize::from));
    let prompts: Vec<String> = tasks.iter().map(|task| task.prompt.clone()).collect();
    let answered = |given: &PathBuf| {
        let path = named::here(given)?.path;
        answers(args.keep.as_deref(), (&path, &said(&path)?), &prompts, TOKENS_MAX, &pool)
    };
    let (small, large) = (answered(&args.draft)?, answered(&args.model)?);
    let asked = |task: &tasks::Task| Asked { prompt: task.prompt.clone(), answer: Some(task.answer.clone()) };
    let both = tasks.iter().zip(&small).zip(&large);
    Ok(both.map(|((task, small), large)| Judged::new(&asked(task), small, large)).collect())
}

/// Right answers of each kind of task.
fn kinds(tasks: &[tasks::Task], judged: &[Judged]) -> Value {
    let mut kinds: BTreeMap<&str, Vec<Judged>> = BTreeMap::new();
    for (task, judged) in tasks.iter().zip(judged) {
        kinds.entry(task.kind).or_default().push(judged.clone());
    }
    let one = |(kind, all): (&&str, &Vec<Judged>)| {
        let [small, large] = [share(all, |judged| judged.small), share(all, |judged| judged.large)];
        talk(&format!("{kind}: {} prompts, small {small:.2}, large {large:.2} right", all.len()));
        let numbers = json!({"prompts": all.len(), "small_accuracy": small, "big_accuracy": large});
        ((*kind).to_owned(), numbers)
    };
    kinds.iter().map(one).collect::<serde_json::Map<_, _>>().into()
}

/// Of all splits.
struct Summary {
    apgr: f64,
    random: [f64; 2],
    cpt_50: f64,
    cpt_80: f64,
    measured: usize,
    promised: usize,
    violations: usize,
    refuted: usize,
    pgr: f64,
    pgr_large_share: f64,
    above_alpha_in_all: usize,
    kept_share: f64,
    kept_worse: f64,
}

impl Summary {
    fn of(trials: &[Trial]) -> Self {
        let promised: Vec<&Promised> = trials.iter().filter_map(|trial| trial.promised.as_ref()).collect();
        let measured: Vec<&Measured> = trials.iter().filter_map(|trial| trial.measured.as_ref()).collect();
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let count = |is: fn(&Promised) -> bool| promised.iter().filter(|promised| is(promised)).count();
        let random: Vec<f64> = measured.iter().map(|measured| measured.apgr_random).collect();
        let (kept, worse) = promised.iter().fold((0, 0), |(k, w), p| (k + p.kept, w + p.kept_worse));
        Self {
            apgr: mean(measured.iter().map(|measured| measured.apgr).collect()),
            random: [quantile(&random, 0.025), quantile(&random, 0.975)],
            cpt_50: mean(measured.iter().filter_map(|measured| measured.cpt_50).collect()),
            cpt_80: mean(measured.iter().filter_map(|measured| measured.cpt_80).collect()),
            measured: measured.len(),
            promised: promised.len(),
            violations: count(|promised| promised.violated),
            refuted: count(|promised| promised.refuted),
            pgr: mean(promised.iter().filter_map(|promised| Some(promised.pgr?.0)).collect()),
            pgr_large_share: mean(promised.iter().filter_map(|promised| Some(promised.pgr?.1)).collect()),
            above_alpha_in_all: count(|promised| promised.above_in_all),
            // A split without a promise keeps nothing.
            kept_share: promised.iter().map(|p| p.kept_share).sum::<f64>() / trials.len().max(1) as f64,
            kept_worse: worse as f64 / kept.max(1) as f64,
        }
    }

    fn numbers(&self) -> Value {
        json!({
            "apgr": self.apgr,
            "apgr_random_low": self.random[0],
            "apgr_random_high": self.random[1],
            "cpt_50": self.cpt_50,
            "cpt_80": self.cpt_80,
            "measured": self.measured,
            // Of no split there is no mean.
            "pgr": (self.promised > 0).then_some(self.pgr),
            "pgr_large_share": (self.promised > 0).then_some(self.pgr_large_share),
            "violations": self.violations,
            "refuted": self.refuted,
            "above_alpha_in_all": self.above_alpha_in_all,
            "promised": self.promised,
            "kept_share": self.kept_share,
            "kept_worse": self.kept_worse,
        })
    }

    fn rows(&self, name: &str) -> [[String; 2]; 5] {
        let [low, high] = self.random;
        [
            [format!("{name}: APGR"), format!("{:.3}; by chance {low:.3} to {high:.3}", self.apgr)],
            [
                "  share asked of the large one for 50 %, 80 % of its gain".into(),
                format!("{:.2}, {:.2}", self.cpt_50, self.cpt_80),
            ],
            [
                "  kept by the small one".into(),
                format!(
                    "{:.1} % of test prompts, of which {:.1} % worse; something in {} of {RESAMPLES} splits",
                    100.0 * self.kept_share,
                    100.0 * self.kept_worse,
                    self.promised
                ),
            ],
            [
                "  PGR where something is kept".into(),
                match self.promised {
                    0 => "nothing is".into(),
                    _ => format!("{:.3}, {:.2} asked of the large one", self.pgr, self.pgr_large_share),
                },
            ],
            [
                "  violations: share above alpha in the test half".into(),
                format!(
                    "{} of {RESAMPLES}; refuted {}; above alpha in both halves together {}",
                    self.violations, self.refuted, self.above_alpha_in_all
                ),
            ],
        ]
    }
}
