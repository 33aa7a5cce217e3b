//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it.
//!
//! Models saw tools and calls in this form, with a space after each comma and colon; minijinja's own `tojson` writes
//! none, and escapes what would be unsafe in HTML.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// With `indent`, every item has a line of its own, as Python does it. The template pays for what is written: a few values
/// that hold each other several times over, or a wide indentation, would else be more text than any machine has room for.
pub(super) fn dumps(state: &State<'_, '_>, value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let mut dump = Dump { state, indent, text: String::new() };
    dump.value(value, 0)?;
    Ok(dump.text)
}

/// Values nested deeper than this are refused: each level is a frame on the stack.
const DEPTH_MAX: usize = 128;
/// Bytes that one of a template's steps pays for; a value is a step by itself.
const BYTES_PER_STEP: usize = 8;

struct Dump<'a, 't, 'env> {
    state: &'a State<'t, 'env>,
    indent: Option<usize>,
    text: String,
}

impl Dump<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(cannot(format!("values nested deeper than {DEPTH_MAX}")));
        }
        self.pay(0)?;
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                self.list(('[', ']'), value.try_iter()?, depth, |dump, item| dump.value(&item, depth + 1))
            }
            ValueKind::Map => self.list(('{', '}'), value.try_iter()?, depth, |dump, key| {
                match key.kind() {
                    ValueKind::String => dump.scalar(&key)?,
                    ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
                        return Err(cannot(format!("a {} is no name of a value", key.kind())));
                    }
                    _ => string(&key.to_string(), &mut dump.text),
                }
                dump.text.push_str(": ");
                dump.value(&value.get_item(&key)?, depth + 1)
            }),
            _ => self.scalar(value),
        }
    }

    fn scalar(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.text.push_str(&value.to_string()),
            ValueKind::Number => float(f64::try_from(value.clone())?, &mut self.text),
            ValueKind::String => {
                let of_value = value.as_str().unwrap_or_default();
                self.pay(of_value.len())?;
                string(of_value, &mut self.text);
            }
            other => return Err(cannot(format!("a {other} has no JSON"))),
        }
        Ok(())
    }

    fn list(
        &mut self,
        (open, close): (char, char),
        items: impl Iterator<Item = Value>,
        depth: usize,
        mut item: impl FnMut(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        let mut any = false;
        for value in items {
            if any {
                self.text.push_str(if self.indent.is_some() { "," } else { ", " });
            }
            any = true;
            self.line(depth + 1)?;
            item(self, value)?;
        }
        if any {
            self.line(depth)?;
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = self.indent {
            let spaces = indent.saturating_mul(depth);
            self.pay(spaces)?;
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', spaces));
        }
        Ok(())
    }

    /// For so many bytes, before there is room for them.
    fn pay(&self, bytes: usize) -> Result<(), Error> {
        self.state.consume_fuel(1 + (bytes / BYTES_PER_STEP) as u64)
    }
}

fn cannot(what: String) -> Error {
    Error::new(ErrorKind::BadSerialization, format!("tojson: {what}"))
}

/// As Python prints it: the fewest digits that give this number back, with an exponent from 1e16 on and below 1e-4.
fn float(value: f64, text: &mut String) {
    let plain = (1e-4..1e16).contains(&value.abs()) || value == 0.0;
    match format!("{value:e}").split_once('e') {
        Some((digits, exponent)) if !plain && value.is_finite() => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            *text += &format!("{digits}e{sign}{exponent:0>2}");
        }
        _ if value.is_nan() => text.push_str("NaN"),
        _ if value.is_infinite() => text.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" }),
        _ => *text += &format!("{value:?}"),
    }
}

fn string(value: &str, text: &mut String) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{C}' => text.push_str("\\f"),
            '\0'..='\u{1F}' => *text += &format!("\\u{:04x}", u32::from(c)),
            _ => text.push(c),
        }
    }
    text.push('"');
}
