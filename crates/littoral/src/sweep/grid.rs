//! `grid.toml`: axes with values, and every combination of them.
//!
//! ```toml
//! seeds = [1, 2, 3]                            # or how many, from 1 on
//!
//! [grid]
//! "algorithm.name" = ["fedavg", "fednova"]     # a field of the job
//! by = ["iid", "dirichlet:0.1"]                # one of the simulator's own
//! rate = [                                     # entries with a name; `set` sets several fields, on an axis of any name
//!     { name = "slow", set = { "local.optimiser.learning_rate" = 0.01 } },
//!     { name = "fast", set = { "local.optimiser.learning_rate" = 0.1, "local.epochs" = 2 } },
//! ]
//! ```
//!
//! An entry `{ name, value }` is a value with a name for the table. Axes are ordered by their names; the last one changes
//! fastest.

use super::setting::{OWN, Setting};
use crate::output::Failure;
use std::collections::BTreeSet;
use toml::{Table, Value};

pub const COMBINATIONS_MAX: usize = 10_000;
pub const SEEDS_MAX: usize = 1_000;

#[derive(Debug, PartialEq)]
pub struct Grid {
    /// None: the command line's.
    pub seeds: Option<Vec<u64>>,
    pub axes: Vec<Axis>,
}

#[derive(Debug, PartialEq)]
pub struct Axis {
    pub name: String,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// For the table; no two of an axis are called alike.
    pub label: String,
    pub sets: Vec<(String, Value)>,
}

/// A point of the grid.
#[derive(Clone, Debug)]
pub struct Combination {
    /// One per axis.
    pub labels: Vec<String>,
    pub setting: Setting,
}

impl Grid {
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let file: Table = toml::from_str(text).map_err(|e| {
            let start = e.span().map_or(0, |span| text.floor_char_boundary(span.start));
            refused(format!("line {}", text[..start].matches('\n').count() + 1), "TOML", e.message())
        })?;
        if let Some(other) = file.keys().find(|key| !["seeds", "grid"].contains(&key.as_str())) {
            return Err(refused(other, "seeds and [grid]", "another field"));
        }
        let seeds = file.get("seeds").map(seeds).transpose()?;
        let mut axes = Vec::new();
        match file.get("grid") {
            Some(Value::Table(table)) => collect(table, "", &mut axes)?,
            _ => return Err(refused("[grid]", "a table of fields, each with a list of values", "none")),
        }
        if axes.is_empty() {
            return Err(refused("[grid]", "a table of fields, each with a list of values", "no field"));
        }
        // Nested tables are read where they begin; a flat name may stand elsewhere.
        axes.sort_by(|a, b| a.name.cmp(&b.name));
        let count = axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.entries.len()));
        if count.is_none_or(|count| count > COMBINATIONS_MAX) {
            let got = count.map_or("too many to count".into(), |count| count.to_string());
            return Err(refused("[grid]", format!("at most {COMBINATIONS_MAX} combinations"), got));
        }
        Ok(Self { seeds, axes })
    }

    /// Every combination, as a change of `base`.
    pub fn expand(&self, base: &Setting) -> Result<Vec<Combination>, Failure> {
        let mut chosen: Vec<Vec<&Entry>> = vec![Vec::new()];
        for axis in &self.axes {
            let mut longer = Vec::with_capacity(chosen.len() * axis.entries.len());
            for so_far in &chosen {
                longer.extend(axis.entries.iter().map(|entry| [so_far.as_slice(), &[entry]].concat()));
            }
            chosen = longer;
        }
        chosen.into_iter().map(|entries| self.combine(&entries, base)).collect()
    }

    fn combine(&self, entries: &[&Entry], base: &Setting) -> Result<Combination, Failure> {
        let labels: Vec<String> = entries.iter().map(|entry| entry.label.clone()).collect();
        let mut sets: Vec<&(String, Value)> = entries.iter().flat_map(|entry| &entry.sets).collect();
        // Tables before what lies in them, and a name before the parameters that it allows.
        sets.sort_by_key(|(field, _)| (field.matches('.').count(), !field.ends_with(".name")));
        let mut seen = BTreeSet::new();
        let mut setting = base.clone();
        for (field, value) in sets {
            if !seen.insert(field) {
                let failure = refused(field, "a field that one axis sets", "one that two set");
                return Err(in_combination(failure, &self.told(&labels)));
            }
            setting.set(field, value).map_err(|failure| in_combination(failure, &self.told(&labels)))?;
        }
        Ok(Combination { labels, setting })
    }

    /// A combination in words.
    pub fn told(&self, labels: &[String]) -> String {
        told(self.axes.iter().map(|axis| axis.name.as_str()), labels)
    }
}

pub fn told<'a>(columns: impl Iterator<Item = &'a str>, labels: &[String]) -> String {
    columns.zip(labels).map(|(column, label)| format!("{column}={label}")).collect::<Vec<_>>().join(" ")
}

/// The same failure, with the combination that it is of.
pub fn in_combination(mut failure: Failure, combination: &str) -> Failure {
    failure.place = format!("{combination}: {}", failure.place);
    match failure.got.starts_with("unknown field") {
        true => failure.hint(format!("beside the job's fields there are the simulator's own: {}", OWN.join(", "))),
        false => failure,
    }
}

fn seeds(value: &Value) -> Result<Vec<u64>, Failure> {
    let allowed = || refused("seeds", format!("1 to {SEEDS_MAX} different seeds, or how many"), value);
    let seed = |value: &Value| value.as_integer().and_then(|seed| u64::try_from(seed).ok()).ok_or_else(allowed);
    let seeds: Vec<u64> = match value {
        Value::Array(all) => all.iter().map(seed).collect::<Result<_, _>>()?,
        one => (1..=seed(one)?).take(SEEDS_MAX + 1).collect(),
    };
    let different = seeds.iter().collect::<BTreeSet<_>>().len() == seeds.len();
    match different && (1..=SEEDS_MAX).contains(&seeds.len()) {
        true => Ok(seeds),
        false => Err(allowed()),
    }
}

/// A list is an axis; a table, as of a dotted name without quotes, holds some.
fn collect(table: &Table, above: &str, axes: &mut Vec<Axis>) -> Result<(), Failure> {
    for (key, value) in table {
        let name = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match value {
            Value::Table(below) => collect(below, &name, axes)?,
            Value::Array(values) if !values.is_empty() => {
                if axes.iter().any(|axis| axis.name == name) {
                    return Err(refused(name, "a field once", "one that stands here twice"));
                }
                let entries = values.iter().map(|value| entry(&name, value)).collect::<Result<Vec<_>, _>>()?;
                let labels: BTreeSet<&str> = entries.iter().map(|entry| entry.label.as_str()).collect();
                if labels.len() < entries.len() {
                    return Err(refused(name, "different values", "two that are called alike"));
                }
                axes.push(Axis { name, entries });
            }
            other => return Err(refused(name, "a list of values", other)),
        }
    }
    Ok(())
}

fn entry(axis: &str, value: &Value) -> Result<Entry, Failure> {
    let one = |label: String, value: &Value| Entry { label, sets: vec![(axis.to_owned(), value.clone())] };
    let Some(table) = value.as_table() else { return Ok(one(label_of(value), value)) };
    let name = table.get("name").and_then(Value::as_str);
    match (name, table.get("value"), table.get("set"), table.len()) {
        (Some(name), Some(value), None, 2) => Ok(one(name.into(), value)),
        (Some(name), None, Some(Value::Table(set)), 2) => {
            let sets = set.iter().map(|(field, value)| (field.clone(), value.clone())).collect();
            Ok(Entry { label: name.into(), sets })
        }
        (None, None, Some(_), _) => Err(refused(axis, "a name beside `set`", value)),
        _ => Ok(one(label_of(value), value)),
    }
}

/// A text as it is; a table by its name, with what else it says.
fn label_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(label_of).collect::<Vec<_>>().join(" + "),
        Value::Table(table) => {
            let name = table.get("name").map(label_of);
            let others = table.iter().filter(|(key, _)| *key != "name");
            let others: Vec<String> = others.map(|(key, value)| format!("{key}={}", label_of(value))).collect();
            name.into_iter().chain(others).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn refused(place: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Failure {
    Failure::new("the grid was refused", place, expected, got)
}
