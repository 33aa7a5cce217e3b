//! Arrays of numbers and arrays of labels.

use std::collections::HashMap;

use super::{Report, class_id, feature_count, wrong_form};
use crate::data::array::Array;
use crate::data::error::{DataError, Problem, listed};
use crate::data::limits::{COLUMNS_MAX, Limits};
use crate::data::mapping::{Plan, Source};
use crate::data::prepared::{Labels, Prepared};
use crate::data::schema::Schema;
use crate::data::table::{Column, Kind, MISSING, Table, Values};

/// An array of numbers, `rows x columns`, and its labels as a table, so that the same mapping applies. If the mapping
/// names no column and the width is that of the schema, columns are the fields in order; else they are `0`, `1`, ….
fn table_of(array: &Array, schema: &Schema, source: &Source, plan: &Plan, limits: &Limits) -> Result<Table, DataError> {
    let width = array.row_width();
    if array.shape.len() != 2 || width > COLUMNS_MAX {
        let (expected, got) = (format!("shape [rows, {}]", schema.fields.len()), format!("shape {:?}", array.shape));
        return Err(DataError::new(Problem::WrongShape, expected, got, "reshape the array to rows x columns"));
    }
    feature_count(array.rows(), width, size_of::<f64>(), limits)?;
    let in_order = source.columns.is_empty();
    if in_order && width != schema.fields.len() {
        let (expected, got) =
            (format!("{} columns, the job's fields in order", schema.fields.len()), width.to_string());
        let hint = "map the columns by number: \"0\" = FIELD under `columns` of this data set";
        return Err(DataError::new(Problem::WrongShape, expected, got, hint));
    }
    let name = |index: usize| {
        if in_order { schema.fields[index].name.clone() } else { index.to_string() }
    };
    let wanted = plan.wanted(schema);
    let (mut columns, mut ignored) = (Vec::new(), Vec::new());
    for index in 0..width {
        let name = name(index);
        let cells = (0..array.rows()).map(|row| row * width + index);
        let values = match wanted.get(&name) {
            None => {
                ignored.push(name);
                continue;
            }
            Some(Kind::Number) => Values::Number(finite(array, cells).map_err(|error| error.in_column(&name))?),
            Some(Kind::Text) => {
                let (mut ids, mut dictionary) = (Vec::new(), Vec::<String>::new());
                let mut known = HashMap::new();
                for (row, cell) in cells.enumerate() {
                    let Some(code) = array.integer(cell) else {
                        if array.number(cell).is_some_and(f64::is_nan) {
                            ids.push(MISSING);
                            continue;
                        }
                        let got = format!("{:?}", array.number(cell));
                        let error = DataError::new(Problem::UnknownCode, "an integer code", got, "correct the array");
                        return Err(error.in_column(&name).in_row(row));
                    };
                    if dictionary.len() >= limits.distinct && !known.contains_key(&code) {
                        let expected = format!("at most {} distinct codes", limits.distinct);
                        return Err(
                            DataError::new(Problem::TooLarge, expected, "more", "this is no category").in_column(&name)
                        );
                    }
                    ids.push(*known.entry(code).or_insert_with(|| {
                        dictionary.push(code.to_string());
                        dictionary.len() as u32 - 1
                    }));
                }
                Values::Text { ids, dictionary }
            }
        };
        columns.push(Column { name, values });
    }
    Ok(Table { rows: array.rows(), columns, ignored })
}

fn finite(array: &Array, cells: impl Iterator<Item = usize>) -> Result<Vec<f64>, DataError> {
    let number = |(row, cell): (usize, usize)| {
        let number = array.number(cell).unwrap_or(f64::NAN);
        if number.is_infinite() {
            let hint = "replace it by NaN if the value is missing";
            return Err(
                DataError::new(Problem::NotANumber, "a finite number or NaN", number.to_string(), hint).in_row(row)
            );
        }
        Ok(number)
    };
    cells.enumerate().map(number).collect()
}

/// An array's rows of numbers by the fields of the schema, labelled by another array.
pub fn rows(
    array: &Array,
    labels: Labels,
    schema: &Schema,
    source: &Source,
    plan: &Plan,
    limits: &Limits,
) -> Result<(Prepared, Report), DataError> {
    let mut table = table_of(array, schema, source, plan, limits)?;
    // The labels are ready: a column of zeros stands where a table would have them.
    let (Some(step), Some(label)) = (&plan.label, &schema.label) else {
        return Err(wrong_form("an array of numbers", schema));
    };
    let values = match &label.classes {
        None => Values::Number(vec![0.0; table.rows]),
        Some(classes) => Values::Text { ids: vec![0; table.rows], dictionary: classes[..1].to_vec() },
    };
    table.columns.push(Column { name: step.column.clone(), values });
    let (mut prepared, report) = super::table::rows(&table, schema, plan, limits)?;
    prepared.labels = labels;
    Ok((prepared, report))
}

/// Labels from an array of `rows` (or `rows x 1`) numbers.
///
/// For classes: by the mapping's `classes` if it has some; else, if all the job's classes are integers (`"0"` to `"9"`),
/// by name; else as indices into the job's classes.
pub fn labels(array: &Array, rows: usize, schema: &Schema, source: &Source) -> Result<Labels, DataError> {
    let length: usize = array.shape.iter().product();
    if array.rows() != rows || length != rows {
        let hint = "each row needs one label, in the same order";
        let got = format!("shape {:?}", array.shape);
        return Err(DataError::new(Problem::WrongShape, format!("{rows} labels"), got, hint));
    }
    let Some(classes) = schema.classes() else {
        let values = finite(array, 0..length)?;
        if let Some(row) = values.iter().position(|value| value.is_nan()) {
            let hint = "remove the row";
            return Err(DataError::new(Problem::MissingLabel, "a label", "NaN", hint).in_row(row));
        }
        return Ok(Labels::Values { width: 1, values: values.into_iter().map(|value| value as f32).collect() });
    };
    let by_name = !source.classes.is_empty() || classes.iter().all(|class| class.parse::<i64>().is_ok());
    let mut known = HashMap::<i64, u32>::new();
    let mut ids = Vec::with_capacity(rows);
    for row in 0..rows {
        let unknown = |got: String| {
            let (expected, hint) = if by_name {
                let names = listed(
                    source
                        .classes
                        .keys()
                        .chain(classes.iter().filter(|_| source.classes.is_empty()))
                        .map(String::as_str),
                );
                (format!("one of {names}"), "say what it means under `classes` of this data set")
            } else {
                (
                    format!("0 to {}", classes.len() - 1),
                    "if the numbers have another order here, say it under `classes` of this data set",
                )
            };
            DataError::new(Problem::UnknownClass, expected, got, hint).in_row(row)
        };
        let code = array.integer(row).ok_or_else(|| unknown(format!("{:?}", array.number(row))))?;
        let id = match known.get(&code) {
            Some(id) => *id,
            None => {
                let id = if by_name {
                    class_id(&code.to_string(), classes, source)
                } else {
                    u32::try_from(code).ok().filter(|id| (*id as usize) < classes.len())
                };
                let id = id.ok_or_else(|| unknown(code.to_string()))?;
                known.insert(code, id);
                id
            }
        };
        ids.push(id);
    }
    Ok(Labels::Classes { ids, classes: classes.len() as u32 })
}
