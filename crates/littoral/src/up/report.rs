//! The end of a trial: one table for people, one object for programs.

use super::baseline::Baseline;
use crate::output;
use crate::serve::{Moved, moved};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// One seed's outcome.
pub struct Outcome {
    pub federated: f64,
    pub baseline: Baseline,
    /// The final version's object id.
    pub model: String,
    pub model_file: PathBuf,
    pub record_file: PathBuf,
}

pub struct Report {
    pub outcomes: Vec<Outcome>,
    pub rounds: u64,
    pub wall_s: f64,
    /// By device.
    pub traffic: Vec<(String, Moved)>,
}

impl Report {
    pub fn traffic_of(dir: &Path, devices: &[String]) -> Vec<(String, Moved)> {
        devices.iter().map(|name| (name.clone(), moved(&dir.join(name)))).collect()
    }

    fn mean(&self, figure: impl Fn(&Outcome) -> f64) -> f64 {
        self.outcomes.iter().map(figure).sum::<f64>() / self.outcomes.len().max(1) as f64
    }

    /// Of one seed; partitions differ in how many rows they hold out, by a few.
    fn test_rows(&self) -> u64 {
        self.mean(|outcome| outcome.baseline.test_rows as f64).round() as u64
    }

    fn bytes_up_per_device(&self) -> u64 {
        let sum: u64 = self.traffic.iter().map(|(_, moved)| moved.sent).sum();
        sum / self.traffic.len().max(1) as u64
    }

    pub fn to_json(&self) -> Value {
        json!({
            "federated_accuracy": self.mean(|o| o.federated),
            "central_accuracy": self.mean(|o| o.baseline.central),
            "local_mean_accuracy": self.mean(|o| o.baseline.local_mean),
            "test_rows": self.test_rows(),
            "seeds": self.outcomes.len(),
            "rounds": self.rounds,
            "wall_s": self.wall_s,
            "bytes_up_per_device": self.bytes_up_per_device(),
        })
    }

    pub fn print(&self) {
        let figures = |outcome: &Outcome| [outcome.federated, outcome.baseline.central, outcome.baseline.local_mean];
        let names = ["federated, data stays where it is", "all data in one place", "a device alone, mean"];
        let mut head = vec!["ACCURACY ON HELD-OUT ROWS".to_owned()];
        let several = self.outcomes.len() > 1;
        head.extend((1..=self.outcomes.len()).map(|seed| if several { format!("SEED {seed}") } else { String::new() }));
        if several {
            head.push("MEAN".into());
        }
        let rows: Vec<Vec<String>> = (0..names.len())
            .map(|row| {
                let mut cells = vec![names[row].to_owned()];
                cells.extend(self.outcomes.iter().map(|outcome| format!("{:.4}", figures(outcome)[row])));
                if several {
                    cells.push(format!("{:.4}", self.mean(|outcome| figures(outcome)[row])));
                }
                cells
            })
            .collect();
        output::line("");
        output::table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
        output::line("");
        let devices: Vec<Vec<String>> = self
            .traffic
            .iter()
            .map(|(name, moved)| vec![name.clone(), moved.sent.to_string(), moved.received.to_string()])
            .collect();
        output::table(&["DEVICE", "BYTES THAT LEFT IT", "BYTES IT GOT"], &devices);
        output::line("");
        output::line(&format!(
            "{} rounds, {} held-out rows, {:.1} s in all",
            self.rounds,
            self.test_rows(),
            self.wall_s
        ));
        for outcome in &self.outcomes {
            output::line(&format!("model    {}  {}", outcome.model_file.display(), outcome.model));
            output::line(&format!("record   {}", outcome.record_file.display()));
        }
        if let Some(outcome) = self.outcomes.first()
            && let Some(dir) = outcome.record_file.parent()
        {
            let (record, dir) = (outcome.record_file.display(), dir.display());
            output::line(&format!("replay   littoral job replay {record} --devices {dir}"));
        }
    }
}
