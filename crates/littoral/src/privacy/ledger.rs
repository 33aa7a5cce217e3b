//! `littoral privacy budget`, `littoral privacy ledger`: what jobs may tell of a data set, and what they have told.

use crate::fleet::ask;
use crate::output::{self, Failure};
use crate::privacy::number;
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
        let (epsilon, delta) = (number::plain(*epsilon), number::plain(*delta));
        output::line(&format!("{data}, {unit}: epsilon {epsilon} at delta {delta} over all jobs"));
        unprotected(&reply).iter().for_each(|line| output::line(line));
    }
    Ok(())
}

/// What a budget does not count: jobs that were not accounted at all.
fn unprotected(budget: &Value) -> Option<String> {
    let (jobs, they) = match budget["jobs_without_privacy"].as_u64()? {
        0 => return None,
        1 => ("1 job".into(), "it"),
        more => (format!("{more} jobs"), "they"),
    };
    Some(format!(
        "{jobs} without differential privacy ran on this data set before: what {they} told cannot be made good"
    ))
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
        Value::Number(number) if number.is_f64() => number::epsilon(number.as_f64().unwrap_or_default(), 4),
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
    for budget in items("budgets") {
        if let Some(line) = unprotected(&budget) {
            output::line(&format!("{}, {}: {line}", text(&budget["data"]), text(&budget["unit"])));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_no_budget_counts_is_told() {
        let told = |jobs: Value| unprotected(&json!({"jobs_without_privacy": jobs}));
        assert_eq!([unprotected(&json!({})), told(0.into())], [None, None]);
        let end = "without differential privacy ran on this data set before: what";
        assert_eq!(told(1.into()), Some(format!("1 job {end} it told cannot be made good")));
        assert_eq!(told(3.into()), Some(format!("3 jobs {end} they told cannot be made good")));
    }
}
