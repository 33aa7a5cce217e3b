//! Curves of a sweep: accuracy over rounds and over virtual time, the mean over seeds.
//!
//! One axis tells curves of a plot apart, the others tell plots apart; so a grid of many combinations stays legible.

use super::rows::Run;
use littoral_sim::svg::{Curve, plot};
use std::collections::BTreeMap;

/// More are not drawn.
pub const PLOTS_MAX: usize = 24;
/// More names do not fit beside a plot.
const CURVES_MAX: usize = 17;

pub struct Drawn {
    /// What the combinations of this plot have in common; empty if there is one plot.
    pub title: String,
    pub over_rounds: String,
    pub over_time: String,
}

/// Runs under the name of their curve.
type Curves<'a> = Vec<(String, &'a [Run])>;

/// `runs`: of each combination. Plots in the order of the grid, at most `PLOTS_MAX`.
pub fn draw(name: &str, columns: &[String], runs: &[Vec<Run>]) -> Vec<Drawn> {
    let labels = |runs: &[Run]| runs.first().map(|run| run.labels.clone());
    let all: Vec<(Vec<String>, &[Run])> =
        runs.iter().filter_map(|runs| Some((labels(runs)?, runs.as_slice()))).collect();
    let apart = curve_axis(columns, all.iter().map(|(labels, _)| labels.as_slice()));
    let mut plots: Vec<(Vec<String>, Curves<'_>)> = Vec::new();
    for (mut labels, runs) in all {
        let curve = if labels.is_empty() { String::new() } else { labels.remove(apart) };
        match plots.iter_mut().find(|(common, curves)| *common == labels && curves.len() < CURVES_MAX) {
            Some((_, curves)) => curves.push((curve, runs)),
            None => plots.push((labels, vec![(curve, runs)])),
        }
    }
    let others: Vec<&str> =
        columns.iter().enumerate().filter(|(at, _)| *at != apart).map(|(_, name)| name.as_str()).collect();
    plots
        .into_iter()
        .take(PLOTS_MAX)
        .map(|(common, curves)| {
            let title = super::grid::told(others.iter().copied(), &common);
            let head = if title.is_empty() { name.to_owned() } else { format!("{name}: {title}") };
            let rounds = curves
                .iter()
                .map(|(name, runs)| Curve { name: name.clone(), points: mean(runs, |rounds, _| rounds as f64) });
            let rounds = plot(&head, "rounds", "accuracy on held-out rows", &rounds.collect::<Vec<_>>());
            let time = curves
                .iter()
                .map(|(name, runs)| Curve { name: name.clone(), points: mean(runs, |_, seconds| seconds) });
            let time = plot(&head, "virtual seconds", "accuracy on held-out rows", &time.collect::<Vec<_>>());
            Drawn { title, over_rounds: rounds, over_time: time }
        })
        .collect()
}

/// The one that names algorithms, else the one with the most values.
fn curve_axis<'a>(columns: &[String], all: impl Iterator<Item = &'a [String]> + Clone) -> usize {
    let values = |at: usize| all.clone().map(|labels| &labels[at]).collect::<std::collections::BTreeSet<_>>().len();
    let algorithm = columns.iter().position(|name| name.starts_with("algorithm"));
    algorithm.or_else(|| (0..columns.len()).max_by_key(|at| values(*at))).unwrap_or(0)
}

/// The mean over seeds after equally many rounds, as far as all of them came.
fn mean(runs: &[Run], x: impl Fn(u64, f64) -> f64) -> Vec<(f64, f64)> {
    let mut points: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for run in runs {
        let of_run: BTreeMap<u64, (f64, f64)> = run
            .measured()
            .filter_map(|(rounds, seconds, row)| Some((rounds, (x(rounds, seconds), row.accuracy?))))
            .collect();
        of_run.into_iter().for_each(|(rounds, point)| points.entry(rounds).or_default().push(point));
    }
    let middle = |points: Vec<(f64, f64)>| {
        let n = points.len() as f64;
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.into_values().filter(|points| points.len() == runs.len()).map(middle).collect()
}
