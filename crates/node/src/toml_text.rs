//! What is wrong in a TOML text that somebody wrote, in the parts that are printed: serde says it in one sentence.

/// A mistake and its place.
pub(crate) struct Mistake {
    /// From 1.
    pub line: usize,
    /// The path of the field, such as `local.epochs`, as far as it is known.
    pub field: String,
    pub expected: String,
    pub got: String,
}

pub(crate) fn mistake(error: &toml::de::Error, text: &str) -> Mistake {
    let start = error.span().map_or(0, |span| text.floor_char_boundary(span.start));
    let message = error.message().replace('\n', "; ");
    let (got, expected) = match (message.rsplit_once(", expected "), message.strip_suffix(", there are no fields")) {
        (Some((got, expected)), _) => (got, in_words(expected)),
        (None, Some(got)) => (got, "no other field here".to_owned()),
        (None, None) => (message.as_str(), "a value as in the sample".to_owned()),
    };
    let quoted = got.split('`').nth(1);
    let table = table_at(text, start);
    let (field, expected, got) = match quoted {
        Some(name) if got.starts_with("unknown field") => {
            let expected = match got == message {
                // Of a table without fields.
                true => expected,
                false => with_nearest(name, &expected),
            };
            (joined(&table, name), expected, got.replace('`', ""))
        }
        Some(name) if got.starts_with("missing field") => (joined(&table, name), "a value".into(), "nothing".into()),
        _ => {
            let key = key_of(text, start, got);
            let expected = match quoted {
                Some(name) if got.starts_with("unknown variant") => with_nearest(name, &expected),
                _ => expected,
            };
            (joined(&table, key), expected, got.replace('`', ""))
        }
    };
    let line = match line_of_field(text, &field) {
        0 => text[..start].matches('\n').count() + 1,
        line => line,
    };
    Mistake { line, field, expected, got }
}

/// Types are Rust's words, not a person's.
fn in_words(expected: &str) -> String {
    match expected {
        "usize" | "u64" | "u32" => "a whole number of at least 0".into(),
        "f32" | "f64" => "a number".into(),
        "a string" => "a text in quotes".into(),
        other if other.starts_with("struct ") || other.starts_with("internally tagged enum ") || other == "a map" => {
            "a table of fields, { … }".into()
        }
        other => other.replace("one of ", "").replace('`', ""),
    }
}

/// The table in which `at` lies: the last header above it, and on its own line the key of an inline table.
fn table_at(text: &str, at: usize) -> String {
    let from = line_start(text, at);
    let header = |line: &str| {
        let inner = line.trim().strip_prefix('[')?.split(']').next()?.trim_start_matches('[').trim();
        Some(inner.to_owned()).filter(|name| !name.contains(['{', '"', ',']))
    };
    if let Some(own) = header(line_from(text, from)) {
        return own;
    }
    let (above, before) = (&text[..from], &text[from..at]);
    let table = above.lines().rev().find_map(header).unwrap_or_default();
    let brace = before.find('{').or_else(|| text[at..].starts_with('{').then_some(before.len()));
    let Some(brace) = brace else { return table };
    match before[..brace].trim_matches(['[', '=', ' ']) {
        // One of several in an array that began above.
        "" => joined(
            &table,
            above.lines().rev().find_map(|line| line.trim_end().strip_suffix("= [")).unwrap_or("").trim(),
        ),
        key => joined(&table, key),
    }
}

/// The key whose value is to blame: where `got` quotes the value, the key before it; else the key of the line.
fn key_of<'a>(text: &'a str, start: usize, got: &str) -> &'a str {
    let quoted = got.split('`').nth(1).or_else(|| got.split('"').nth(1)).unwrap_or_default();
    let from = line_start(text, start);
    let values = [format!("\"{quoted}\""), quoted.to_owned()];
    let before = |value: &String| {
        let at = text[from..].find(value.as_str()).filter(|_| !quoted.is_empty())?;
        text[from..from + at].trim_end_matches(['[', ' ']).strip_suffix('=')
    };
    let before = values.iter().find_map(before).or_else(|| line_from(text, from).split_once('=').map(|(key, _)| key));
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    before.map_or("", |before| {
        let before = before.trim_end().trim_end_matches('"');
        before.rsplit(|c: char| !is_key(c)).next().unwrap_or_default()
    })
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |i| i + 1)
}

fn line_from(text: &str, from: usize) -> &str {
    text[from..].lines().next().unwrap_or_default()
}

fn joined(table: &str, key: &str) -> String {
    match (table.is_empty(), key.is_empty()) {
        (_, true) => table.to_owned(),
        (true, _) => key.to_owned(),
        // The header itself is what nobody knows.
        _ if table.rsplit('.').next() == Some(key) => table.to_owned(),
        _ => format!("{table}.{key}"),
    }
}

/// The known names, with that in front which was probably meant.
fn with_nearest(name: &str, known: &str) -> String {
    let names = known.split([',', ' ']).filter(|word| !word.is_empty() && *word != "or");
    let nearest = names.map(|known| (distance(name, known), known)).min();
    match nearest {
        Some((edits, nearest)) if edits <= 1 + name.chars().count() / 3 => format!("{nearest}? known: {known}"),
        _ => known.to_owned(),
    }
}

/// Edits (Levenshtein 1966) from one name to another.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// The line that sets a field such as `network.proxy`; 0 if it has its default.
pub(crate) fn line_of_field(text: &str, field: &str) -> usize {
    let (wanted_table, key) = field.rsplit_once('.').unwrap_or(("", field));
    let mut table = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = name.trim().to_owned();
            if table == field {
                return index + 1;
            }
        } else if table == wanted_table && line.split_once('=').is_some_and(|(name, _)| name.trim() == key) {
            return index + 1;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobText, SAMPLE_TOML};

    fn parts(from: &str, to: &str) -> (String, String, String) {
        let text = SAMPLE_TOML.replacen(from, to, 1);
        let found = mistake(&toml::from_str::<JobText>(&text).expect_err(to), &text);
        assert!(found.line > 0, "{from} -> {to}");
        (found.field, found.expected, found.got)
    }

    #[test]
    fn mistakes_are_named_by_path_and_nearest_name() {
        for (from, to, field, expected, got) in [
            ("[cohort]", "[chohort]", "chohort", "cohort? known: name, seed", "unknown field chohort"),
            ("epochs = 2", "epoch = 2", "local.epoch", "epochs? known: epochs, batch", "unknown field epoch"),
            ("epochs = 2", "epochs = -2", "local.epochs", "a whole number of at least 0", "integer -2"),
            ("epochs = 2", "epochs = \"two\"", "local.epochs", "a whole number of at least 0", "\"two\""),
            ("kind = \"mlp\"", "kind = \"mpl\"", "model.kind", "mlp? known: softmax, mlp, cnn", "unknown variant mpl"),
            ("\"sgd\"", "\"sdg\"", "local.optimiser.name", "sgd or adam", "unknown variant sdg"),
            ("learning_rate =", "rate =", "local.optimiser.rate", "learning_rate", "unknown field rate"),
            ("\"fedavg\"", "\"fedavgg\"", "algorithm.name", "fedavg? known: fedavg, fedprox", "unknown variant"),
            (
                "{ name = \"mean_texture\"",
                "{ nam = \"t\"",
                "data.schema.fields.nam",
                "name? known",
                "unknown field nam",
            ),
            ("{ name = \"diagnosis\"", "{ unit = 1, name = \"d\"", "data.schema.label.unit", "a text in quotes", "1"),
            ("hidden = [16]", "hidden = [\"x\"]", "model.hidden", "a whole number", "\"x\""),
            ("kind = \"mlp\"", "kind = \"softmax\"", "model.activation", "no other field", "unknown field"),
            ("\"uniform\"", "{ by_example = 1 }", "precision.weighting", "by_examples? known", "unknown variant"),
            ("count = 10", "", "rounds.count", "a value", "nothing"),
            ("seed = 7", "seed = ", "seed", "", ""),
        ] {
            let found = parts(from, to);
            assert_eq!(found.0, field, "{to}: {found:?}");
            assert!(found.1.contains(expected) && found.2.contains(got), "{to}: {found:?}");
        }
    }
}
