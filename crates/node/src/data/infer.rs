//! A schema for a CSV file that has none: `up --data my.csv --label column`.
//!
//! Only for trying a file out on one machine. It looks at all rows, so it is not for a federation: there the job's
//! author writes the schema, and no one sees all rows.

use std::io::{self, Read};

use super::error::{DataError, Problem, listed};
use super::limits::Limits;
use super::read::csv::{Dialect, kinds, read};
use super::schema::{Field, FieldKind, Label, Schema};
use super::table::{Kind, Values, Wanted};

/// A text column with more distinct values than this is taken for an identifier and left out.
pub const CATEGORY_VALUES_MAX: usize = 64;
/// A label of integers with at most this many distinct values is taken for classes, with more for a number.
pub const INTEGER_CLASSES_MAX: usize = 20;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// Every usable column as a field, in the file's order, and the label.
    pub schema: Schema,
    /// Columns left out, and why.
    pub left_out: Vec<(String, String)>,
}

/// A column that is nearly all numbers is one of numbers with a mistake in it: the mistake is an error, since taking all of
/// it for text would lose the column without a word.
///
/// Reads the file twice through `open`: once for the columns' kinds, once for the values of texts and the label.
pub fn schema<R: Read>(
    mut open: impl FnMut() -> io::Result<R>,
    dialect: &Dialect,
    label: &str,
    limits: &Limits,
) -> Result<Inferred, DataError> {
    let mut input = || open().map_err(|error| DataError::reading(&error));
    let kinds = kinds(input()?, dialect, limits)?;
    let Some((_, label_kind)) = kinds.iter().find(|(name, _)| name == label) else {
        let got = format!("columns {}", listed(kinds.iter().map(|(name, _)| name.as_str())));
        return Err(DataError::new(
            Problem::MissingColumn,
            "the label's column",
            got,
            "name one of these as the label",
        )
        .in_column(label));
    };
    let texts = kinds.iter().filter(|(name, kind)| *kind == Kind::Text || name == label);
    let wanted: Wanted = texts.map(|(name, _)| (name.clone(), Kind::Text)).collect();
    // A column with too many texts for a category must not fail here: it is left out below.
    let table = read(input()?, dialect, &wanted, &Limits { distinct: usize::MAX, ..*limits })?;
    if table.rows == 0 {
        return Err(DataError::new(Problem::Empty, "rows below the header", "none", "check that it is the right file"));
    }
    let values = |name: &str| match table.column(name).map(|column| &column.values) {
        Some(Values::Text { dictionary, .. }) => sorted(dictionary),
        _ => Vec::new(),
    };
    let (mut fields, mut left_out) = (Vec::new(), Vec::new());
    for (name, kind) in kinds.iter().filter(|(name, _)| name != label) {
        let kind = match kind {
            Kind::Number => FieldKind::Number,
            Kind::Text => match values(name) {
                values if values.is_empty() => {
                    left_out.push((name.clone(), "no value".to_owned()));
                    continue;
                }
                values if values.len() > CATEGORY_VALUES_MAX => {
                    left_out.push((
                        name.clone(),
                        format!("{} distinct texts, more than {CATEGORY_VALUES_MAX}", values.len()),
                    ));
                    continue;
                }
                values => FieldKind::Category { values },
            },
        };
        fields.push(Field { name: name.clone(), kind, unit: None });
    }
    let classes = values(label);
    let integers = classes.len() <= INTEGER_CLASSES_MAX && classes.iter().all(|class| class.parse::<i64>().is_ok());
    let classes = (*label_kind == Kind::Text || integers).then_some(classes);
    let schema =
        Schema { label: Some(Label { name: label.to_owned(), classes, unit: None }), fields, ..Schema::default() };
    schema.check().map_err(|error| {
        DataError::new(
            Problem::WrongForm,
            error.allowed,
            format!("{} {}", error.field, error.value),
            "choose another label or file",
        )
    })?;
    Ok(Inferred { schema, left_out })
}

/// In numerical order if all are integers (9 before 10), else alphabetical.
pub(super) fn sorted(dictionary: &[String]) -> Vec<String> {
    let mut values = dictionary.to_vec();
    match dictionary.iter().map(|value| value.parse::<i64>()).collect::<Result<Vec<_>, _>>() {
        Ok(_) => values.sort_by_key(|value| value.parse::<i64>().unwrap_or(0)),
        Err(_) => values.sort_unstable(),
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(csv: &str, label: &str) -> Result<Inferred, DataError> {
        schema(|| Ok(csv.as_bytes()), &Dialect::default(), label, &Limits::default())
    }

    #[test]
    fn numbers_categories_and_classes() {
        let found = inferred("a,b,none,y\n1,u,,10\n2.5,v,NA,9\n,u,,9\n", "y").expect("infers");
        assert_eq!(found.schema.inputs(), ["a", "b=u", "b=v"]);
        assert_eq!(found.schema.classes(), Some(["9".to_owned(), "10".to_owned()].as_slice()));
        assert_eq!(found.left_out, [("none".to_owned(), "no value".to_owned())]);
    }

    #[test]
    fn a_label_of_many_numbers_is_a_regression() {
        let rows: String = (0..30).map(|i| format!("{i},{}\n", f64::from(i) / 2.0)).collect();
        let found = inferred(&format!("id,y\n{rows}"), "y").expect("infers");
        assert_eq!(found.schema.label.expect("label").classes, None);
    }

    #[test]
    fn identifiers_are_left_out_and_a_wrong_label_is_named() {
        let rows: String = (0..100).map(|i| format!("p{i},{},{i}\n", i % 2)).collect();
        let csv = format!("patient,y,x\n{rows}");
        assert_eq!(inferred(&csv, "y").expect("infers").left_out[0].0, "patient");
        assert_eq!(inferred(&csv, "z").expect_err("no z").problem, Problem::MissingColumn);
        assert_eq!(inferred("x,y\n1,same\n", "y").expect_err("one class").problem, Problem::WrongForm);
        assert_eq!(inferred("x,y\n", "y").expect_err("a header only").problem, Problem::Empty);
    }

    #[test]
    fn a_mistake_among_numbers_is_named_and_a_column_of_both_is_text() {
        let csv = |wrong: &[(usize, &str)]| -> String {
            let cell =
                |i: usize| wrong.iter().find(|(at, _)| *at == i).map_or(i.to_string(), |(_, cell)| (*cell).into());
            let rows: String = (1..=300).map(|i| format!("{},{},{i}\n", cell(i), ["a", "b"][i % 2])).collect();
            format!("x,y,z\n{rows}")
        };
        for wrong in ["abc", "inf"] {
            let error = inferred(&csv(&[(200, wrong), (201, "n/a")]), "y").expect_err(wrong);
            assert_eq!(
                (error.problem, error.column.as_deref(), error.row),
                (Problem::NotANumber, Some("\"x\""), Some(200))
            );
            assert!(error.got.contains(wrong) && error.hint.contains("leave it empty"), "{error}");
        }
        assert_eq!(inferred(&csv(&[(200, ""), (201, "NA")]), "y").expect("missing values").left_out, []);
        let many: Vec<(usize, &str)> = (1..=31).map(|i| (i, "none")).collect();
        assert_eq!(inferred(&csv(&many), "y").expect("texts").left_out[0].0, "x");
    }
}
