//! The form that answers must have: a schema, a grammar, an expression.

use super::Args;
use crate::output::Failure;
use littoral_infer::constrain::Constraint;
use littoral_infer::model::Model;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// A schema or a grammar in a file; what is longer is refused in any case.
const FORM_BYTES_MAX: u64 = 1 << 20;

pub fn constraint(args: &Args, model: &Model) -> Result<Option<Constraint>, Failure> {
    let read = |path: &PathBuf| -> Result<String, Failure> {
        let refused = |why: &dyn std::fmt::Display| {
            Failure::new("no answer", path.display().to_string(), "a readable text file of at most 1 MiB", why)
        };
        let (mut bytes, file) = (Vec::new(), File::open(path).map_err(|e| refused(&e))?);
        file.take(FORM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| refused(&e))?;
        if bytes.len() as u64 > FORM_BYTES_MAX {
            return Err(refused(&"more"));
        }
        String::from_utf8(bytes).map_err(|e| refused(&e))
    };
    let place = match (&args.json_schema, &args.grammar, &args.regex) {
        (Some(path), _, _) | (_, Some(path), _) => path.display().to_string(),
        (None, None, Some(_)) => "--regex".to_owned(),
        (None, None, None) => return Ok(None),
    };
    let refused = |why: &dyn std::fmt::Display| Failure::new("no answer", &place, "a form that text can have", why);
    let index = model.index().map_err(|e| refused(&e))?;
    let constraint = match (&args.json_schema, &args.grammar, &args.regex) {
        (Some(path), _, _) => Constraint::json_schema(index, &read(path)?),
        (_, Some(path), _) => Constraint::grammar(index, &read(path)?),
        (_, _, expression) => Constraint::regex(index, expression.as_deref().unwrap_or_default()),
    };
    constraint.map(Some).map_err(|e| refused(&e))
}
