//! `littoral privacy budget`, `littoral privacy ledger`: what jobs may tell of a data set, and what they have told.

use crate::fleet::ask;
use crate::output::{self, Failure};
use crate::privacy::setting::{above_zero, delta};
use crate::reach::Reach;
use littoral_node::role::cloud::command::Command as Order;
use serde_json::Value;

#[derive(clap::Args, Debug)]
pub struct BudgetArgs {
    /// The data set, as jobs name it.
    data: String,
    /// What is protected, as jobs name it.
    #[arg(long, default_value = "all records of one device")]
    unit: String,
    /// For whoever gets released models, over all jobs together.
    #[arg(long, value_parser = above_zero)]
    epsilon: f64,
    #[arg(long, default_value_t = 1e-5, value_parser = delta)]
    delta: f64,
    /// For an edge; without it the ledger counts only.
    #[arg(long, value_parser = above_zero)]
    epsilon_edge: Option<f64>,
    /// For the cloud; without it the ledger counts only.
    #[arg(long, value_parser = above_zero)]
    epsilon_cloud: Option<f64>,
    #[command(flatten)]
    reach: Reach,
}

pub fn budget(args: &BudgetArgs, json: bool) -> Result<(), Failure> {
    let BudgetArgs { data, unit, epsilon, delta, epsilon_edge, epsilon_cloud, reach } = args;
    let order = Order::PrivacyBudget {
        data: data.clone(),
        unit: unit.clone(),
        epsilon: *epsilon,
        delta: *delta,
        epsilon_edge: *epsilon_edge,
        epsilon_cloud: *epsilon_cloud,
    };
    let reply = ask(reach, &order)?;
    if json {
        output::object(&reply);
    } else {
        output::line(&format!("{data}, {unit}: epsilon {epsilon} at delta {delta} over all jobs"));
    }
    Ok(())
}

pub fn ledger(reach: &Reach, json: bool) -> Result<(), Failure> {
    let reply = ask(reach, &Order::PrivacyLedger)?;
    if json {
        output::object(&reply);
        return Ok(());
    }
    let items = |field: &str| reply[field].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    };
    // Spent of what there is; nothing that was told without noise has a number.
    let of = |spent: &Value, most: &Value| {
        let spent = if spent.is_null() { "no guarantee".into() } else { text(spent) };
        if most.is_null() { spent } else { format!("{spent} of {}", text(most)) }
    };
    let budgets: Vec<Vec<String>> = items("budgets")
        .iter()
        .map(|b| {
            let delta = b["delta"].as_f64().map_or(String::new(), |delta| format!("{delta:e}"));
            let parts = [("spent", "epsilon"), ("spent_edge", "epsilon_edge"), ("spent_cloud", "epsilon_cloud")];
            let parts = parts.map(|(spent, most)| of(&b[spent], &b[most]));
            [vec![text(&b["data"]), text(&b["unit"]), delta], parts.to_vec()].concat()
        })
        .collect();
    output::table(&["BUDGET OF", "UNIT", "DELTA", "MODELS", "AN EDGE", "THE CLOUD"], &budgets);
    let lines: Vec<Vec<String>> = items("lines")
        .iter()
        .map(|line| {
            let fields = ["job", "name", "data", "unit", "models", "participations", "state"];
            let mut row = fields.map(|field| text(&line[field])).to_vec();
            if line["private"] == false {
                row[3] = "no differential privacy".into();
            }
            row
        })
        .collect();
    output::table(&["JOB", "NAME", "DATA", "UNIT", "MODELS", "PARTICIPATIONS", "STATE"], &lines);
    Ok(())
}
