//! What is read off the runs: smoothed accuracies, and which of the literature's signs appear.

use super::arms::{Measure, SIGNS, Sign};
use super::work::Data;
use crate::sweep::interval::Interval;
use crate::sweep::rows::Run;
use crate::sweep::table::told;
use serde_json::{Value, json};

/// A version of few devices tells their accuracy only: versions are taken together until they are of so many.
const DEVICES: u64 = 20;

/// Rounds, virtual seconds and accuracy, each over the last versions with at least `DEVICES` devices together.
pub fn smoothed(run: &Run) -> Vec<(u64, f64, f64)> {
    let rows: Vec<(u64, f64, f64, u64)> = run
        .measured()
        .filter_map(|(rounds, seconds, row)| Some((rounds, seconds, row.accuracy?, row.devices)))
        .collect();
    let at = |end: usize| {
        let (mut devices, mut sum) = (0, 0.0);
        for (_, _, accuracy, of) in rows[..=end].iter().rev() {
            devices += of;
            sum += accuracy * *of as f64;
            if devices >= DEVICES {
                return Some((rows[end].0, rows[end].1, sum / devices as f64));
            }
        }
        None
    };
    (0..rows.len()).filter_map(at).collect()
}

pub fn accuracy(run: &Run) -> Option<f64> {
    smoothed(run).last().map(|(_, _, accuracy)| *accuracy)
}

fn seconds_to(run: &Run, target: f64) -> Option<f64> {
    smoothed(run).iter().find(|(_, _, accuracy)| *accuracy >= target).map(|(_, seconds, _)| *seconds)
}

pub struct Verdict {
    pub cells: Vec<String>,
    pub json: Value,
}

/// `of`: the runs of an arm on a skew, one per seed.
pub fn judge(data: Data, of: &dyn Fn(&str, &str) -> Option<Vec<Run>>) -> Vec<Verdict> {
    let skews = data.skews();
    let here = SIGNS.iter().filter(|sign| skews.iter().any(|skew| skew.name == sign.skew));
    here.map(|sign| verdict(data, sign, of)).collect()
}

fn verdict(data: Data, sign: &Sign, of: &dyn Fn(&str, &str) -> Option<Vec<Run>>) -> Verdict {
    let difference = of(sign.skew, sign.better).zip(of(sign.skew, "fedavg")).and_then(|(better, plain)| {
        let target = Interval::of(&plain.iter().filter_map(accuracy).collect::<Vec<_>>())?.mean * 0.9;
        let value = |run: &Run| match sign.measure {
            Measure::Accuracy => accuracy(run),
            Measure::WorstDecile => run.worst_decile(),
            // Less time is better.
            Measure::Time => seconds_to(run, target).map(|seconds| -seconds),
        };
        let pairs =
            better.iter().flat_map(|run| plain.iter().find(|p| p.seed == run.seed).map(|p| (value(run), value(p))));
        Interval::of_differences(pairs.filter_map(|(x, y)| x.zip(y)))
    });
    let verdict = match difference {
        None => "not measured",
        Some(interval) => match (interval.sign(), interval.half) {
            (1, _) => "appears",
            (-1, _) => "the opposite appears",
            (_, None) => "one seed says nothing",
            _ => "not told apart",
        },
    };
    let digits = if sign.measure == Measure::Time { 1 } else { 4 };
    let cells = [data.name(), sign.skew, sign.better, sign.measure.name(), sign.paper].map(str::to_owned);
    let cells = cells.into_iter().chain([told(difference, digits), verdict.to_owned()]).collect();
    let json = json!({
        "data": data.name(), "skew": sign.skew, "better": sign.better, "than": "fedavg", "measure": sign.measure.name(),
        "paper": sign.paper, "difference": difference.map(|d| d.mean), "ci95": difference.and_then(|d| d.half),
        "verdict": verdict,
    });
    Verdict { cells, json }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::rows::Row;

    /// A run whose versions of five devices each have these accuracies, a second apart.
    fn run(seed: u64, accuracies: &[f64]) -> Run {
        let row = |(at, accuracy): (usize, &f64)| Row {
            version: at as u64 + 1,
            work: "train".into(),
            virtual_ms: 1000 * (at as u64 + 1),
            devices: 5,
            accuracy: Some(*accuracy),
            ..Row::default()
        };
        Run { key: "key".into(), labels: Vec::new(), seed, rows: accuracies.iter().enumerate().map(row).collect() }
    }

    #[test]
    fn versions_of_few_devices_are_taken_together() {
        let smooth = smoothed(&run(1, &[0.0, 0.2, 0.4, 0.6, 1.0]));
        // Four versions are twenty devices.
        let accuracies: Vec<f64> = smooth.iter().map(|(_, _, accuracy)| *accuracy).collect();
        assert_eq!(accuracies.len(), 2, "{smooth:?}");
        assert!((accuracies[0] - 0.3).abs() < 1e-12 && (accuracies[1] - 0.55).abs() < 1e-12, "{smooth:?}");
    }

    /// FedNova beside FedAvg on unequal work, three seeds, from all better to all worse.
    #[test]
    fn a_sign_appears_if_all_seeds_say_so() {
        let told = |better: [f64; 3]| {
            let of = |skew: &str, arm: &str| {
                let plain = [0.50, 0.60, 0.55];
                let last = match (skew, arm) {
                    ("quantity", "fednova") => better,
                    ("quantity", "fedavg") => plain,
                    _ => return None,
                };
                Some((1..).zip(last).map(|(seed, accuracy)| run(seed, &[accuracy; 4])).collect())
            };
            let verdicts = judge(Data::Mnist, &of);
            let nova = verdicts.iter().find(|verdict| verdict.json["better"] == "fednova").unwrap();
            let others = verdicts.iter().filter(|verdict| verdict.json["better"] != "fednova");
            assert!(others.into_iter().all(|other| other.json["verdict"] == "not measured"));
            nova.json["verdict"].as_str().unwrap().to_owned()
        };
        // By 0.10, 0.11 and 0.12; by as much less; and by more than they differ from one another.
        assert_eq!(told([0.60, 0.71, 0.67]), "appears");
        assert_eq!(told([0.40, 0.49, 0.43]), "the opposite appears");
        assert_eq!(told([0.60, 0.50, 0.56]), "not told apart");
    }
}
