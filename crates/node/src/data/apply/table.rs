//! A table's columns, matched, converted and put in order.

use super::{Report, feature_count, no_rows, wrong_form};
use crate::data::error::{DataError, Problem, listed, shown};
use crate::data::limits::Limits;
use crate::data::mapping::{Plan, Rule, Step};
use crate::data::prepared::{Features, Labels, Prepared};
use crate::data::schema::{Field, FieldKind, Label, Schema};
use crate::data::table::{Column, MISSING, Table, Values};

/// A table's rows in the schema's order. A number becomes one input, a category one input per value.
pub fn rows(table: &Table, schema: &Schema, plan: &Plan, limits: &Limits) -> Result<(Prepared, Report), DataError> {
    let label = schema.label.as_ref().zip(plan.label.as_ref());
    let (label, label_step) = label.ok_or_else(|| wrong_form("a table", schema))?;
    // Columns first: a missing one is said even if the file has no row.
    let absent: Vec<&Step> =
        plan.fields.iter().chain([label_step]).filter(|step| table.column(&step.column).is_none()).collect();
    if let [first, others @ ..] = &absent[..] {
        return Err(missing_columns(table, first, others));
    }
    let columns = plan.fields.iter().filter_map(|step| table.column(&step.column));
    let label_column = table.column(&label_step.column).ok_or_else(|| missing_columns(table, label_step, &[]))?;
    if table.rows == 0 {
        return Err(no_rows());
    }
    let width: usize = schema.fields.iter().map(Field::width).sum();
    let mut values = vec![0.0; feature_count(table.rows, width, size_of::<f32>(), limits)?];
    let mut report = Report { rows: table.rows as u64, ignored: table.ignored.clone(), ..Report::default() };
    let mut input = 0;
    for ((field, step), column) in schema.fields.iter().zip(&plan.fields).zip(columns) {
        let missing = match (&field.kind, &column.values) {
            (FieldKind::Number, Values::Number(numbers)) => {
                for (row, number) in numbers.iter().enumerate() {
                    values[row * width + input] =
                        converted(*number, &step.rule).map_err(|error| error.in_column(&column.name).in_row(row))?;
                }
                numbers.iter().filter(|number| number.is_nan()).count()
            }
            (FieldKind::Category { values: known }, Values::Text { ids, dictionary }) => {
                let meanings = meanings(dictionary, ids, &step.rule, known, Problem::UnknownCode)
                    .map_err(|error| error.in_column(&column.name))?;
                for (row, id) in ids.iter().enumerate() {
                    let one_hot = &mut values[row * width + input..][..known.len()];
                    match meanings.get(*id as usize) {
                        Some(meaning) => one_hot[*meaning as usize] = 1.0,
                        None => one_hot.fill(f32::NAN),
                    }
                }
                ids.iter().filter(|id| **id == MISSING).count()
            }
            _ => return Err(wrong_kind(column, &field.kind)),
        };
        if missing > 0 {
            report.missing.push((field.name.clone(), missing as u64));
        }
        input += field.width();
    }
    let labels = labels(label_column, label, &label_step.rule).map_err(|error| error.in_column(&label_column.name))?;
    Ok((Prepared { features: Features::F32 { width, values }, labels }, report))
}

fn labels(column: &Column, label: &Label, rule: &Rule) -> Result<Labels, DataError> {
    let missing = |row: usize| {
        let hint = "remove the row from the file: a row without a label cannot train";
        DataError::new(Problem::MissingLabel, "a label", "a missing value", hint).in_row(row)
    };
    match (&label.classes, &column.values) {
        (Some(classes), Values::Text { ids, dictionary }) => {
            if let Some(row) = ids.iter().position(|id| *id == MISSING) {
                return Err(missing(row));
            }
            let meanings = meanings(dictionary, ids, rule, classes, Problem::UnknownClass)?;
            let ids = ids.iter().map(|id| meanings[*id as usize]).collect();
            Ok(Labels::Classes { ids, classes: classes.len() as u32 })
        }
        (None, Values::Number(numbers)) => {
            let mut values = Vec::with_capacity(numbers.len());
            for (row, number) in numbers.iter().enumerate() {
                if number.is_nan() {
                    return Err(missing(row));
                }
                values.push(converted(*number, rule).map_err(|error| error.in_row(row))?);
            }
            Ok(Labels::Values { width: 1, values })
        }
        _ => Err(wrong_kind(column, &FieldKind::Number)),
    }
}

/// The columns that are not there, and what may have been meant by the first.
fn missing_columns(table: &Table, step: &Step, others: &[&Step]) -> DataError {
    let names = table.ignored.iter().chain(table.columns.iter().map(|column| &column.name));
    let plain =
        |name: &str| -> String { name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect() };
    let similar = table.ignored.iter().find(|name| plain(name) == plain(&step.column));
    let target = |step: &Step| step.rule.field.clone().unwrap_or_else(|| step.column.clone());
    let first = target(step);
    let hint = match similar {
        Some(name) => format!("if {name:?} is meant, add {name:?} = {first:?} under `columns` of this data set"),
        None => format!("say which column it is: COLUMN = {first:?} under `columns` of this data set"),
    };
    let mut expected = format!("a column for {first:?}");
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(|step| target(step)).collect();
        expected.push_str(&format!(", and for {}", listed(others.iter().map(String::as_str))));
    }
    let got = format!("columns {}", listed(names.map(String::as_str)));
    DataError::new(Problem::MissingColumn, expected, got, hint).in_column(&step.column)
}

/// In the job's unit and precision.
fn converted(number: f64, rule: &Rule) -> Result<f32, DataError> {
    let value = (number * rule.scale + rule.offset) as f32;
    if value.is_infinite() {
        let got = format!("{number} x {} + {}", rule.scale, rule.offset);
        let hint = "correct the cell, or the `scale` in the mapping";
        return Err(DataError::new(Problem::OutOfRange, "a number below 3.4e38 in size", got, hint));
    }
    Ok(value)
}

/// For each text of a dictionary the index of what it means: by the mapping's codes, else by its own name.
fn meanings(
    dictionary: &[String],
    ids: &[u32],
    rule: &Rule,
    known: &[String],
    problem: Problem,
) -> Result<Vec<u32>, DataError> {
    let places: std::collections::HashMap<&str, u32> = known.iter().map(String::as_str).zip(0..).collect();
    let place = |(id, text): (u32, &String)| {
        let meaning = rule.codes.get(text).unwrap_or(text);
        places.get(meaning.as_str()).copied().ok_or_else(|| {
            let mut expected = format!("one of {}", listed(known.iter().map(String::as_str)));
            if !rule.codes.is_empty() {
                expected.push_str(&format!(", or the codes {}", listed(rule.codes.keys().map(String::as_str))));
            }
            let hint = format!("say what it means: codes = {{ {text:?} = … }} for this column, or add it to `missing`");
            let row = ids.iter().position(|other| *other == id).unwrap_or(0);
            DataError::new(problem, expected, shown(text), hint).in_row(row)
        })
    };
    (0..).zip(dictionary).map(place).collect()
}

fn wrong_kind(column: &Column, kind: &FieldKind) -> DataError {
    let got = if matches!(column.values, Values::Number(_)) { "numbers" } else { "texts" };
    let hint = "read the column as the schema's kind";
    DataError::new(Problem::WrongForm, format!("{kind:?}"), got, hint).in_column(&column.name)
}
