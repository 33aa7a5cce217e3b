//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it.
//!
//! Models saw tools and calls in this form, with a space after each comma and colon; minijinja's own `tojson` writes
//! none, and escapes what would be unsafe in HTML.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// With `indent`, every item has a line of its own, as Python does it.
pub(super) fn dumps(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let mut text = String::new();
    write(value, indent, 0, &mut text)?;
    Ok(text)
}

/// Values nested deeper than this are refused: each level is a frame on the stack.
const DEPTH_MAX: usize = 128;

fn write(value: &Value, indent: Option<usize>, depth: usize, text: &mut String) -> Result<(), Error> {
    let cannot = |what: String| Error::new(ErrorKind::BadSerialization, what);
    if depth > DEPTH_MAX {
        return Err(cannot(format!("tojson: values nested deeper than {DEPTH_MAX}")));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => text.push_str("null"),
        ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => text.push_str(&value.to_string()),
        ValueKind::Number => float(f64::try_from(value.clone())?, text),
        ValueKind::String => string(value.as_str().unwrap_or_default(), text),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?;
            list(('[', ']'), items, indent, depth, text, |item, text| write(&item, indent, depth + 1, text))?;
        }
        ValueKind::Map => {
            let keys = value.try_iter()?;
            list(('{', '}'), keys, indent, depth, text, |key, text| {
                match key.as_str() {
                    Some(key) => string(key, text),
                    None => string(&key.to_string(), text),
                }
                text.push_str(": ");
                write(&value.get_item(&key)?, indent, depth + 1, text)
            })?;
        }
        other => return Err(cannot(format!("tojson: a {other} has no JSON"))),
    }
    Ok(())
}

fn list(
    (open, close): (char, char),
    items: impl Iterator<Item = Value>,
    indent: Option<usize>,
    depth: usize,
    text: &mut String,
    mut item: impl FnMut(Value, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |depth: usize, text: &mut String| {
        if let Some(indent) = indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    text.push(open);
    let mut any = false;
    for value in items {
        if any {
            text.push_str(if indent.is_some() { "," } else { ", " });
        }
        any = true;
        line(depth + 1, text);
        item(value, text)?;
    }
    if any {
        line(depth, text);
    }
    text.push(close);
    Ok(())
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
