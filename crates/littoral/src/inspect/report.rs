//! A file's contents as people and programs see them.

use crate::output;
use littoral_wire::bounded::printable;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Characters of a value that people are shown.
const VALUE_CHARS_MAX: usize = 72;

pub struct Contents {
    pub format: &'static str,
    pub version: Option<u32>,
    pub architecture: Option<String>,
    pub name: Option<String>,
    pub alignment: Option<usize>,
    pub metadata: Vec<Field>,
    pub tensors: Vec<TensorRow>,
}

/// A key of the metadata.
pub struct Field {
    pub key: String,
    /// The type's name.
    pub of: String,
    /// Of an array, the first items.
    pub value: Value,
    /// Of an array, how many items it has.
    pub len: Option<usize>,
}

pub struct TensorRow {
    pub name: String,
    pub kind: String,
    pub dims: Vec<usize>,
    pub weights: u64,
    /// `None` if the kind is not known.
    pub bytes: Option<u64>,
}

/// All tensors of one kind.
#[derive(Default)]
struct Total {
    tensors: usize,
    weights: u64,
    bytes: Option<u64>,
}

impl Contents {
    pub fn print(&self, file: &Path, file_bytes: usize, with_tensors: bool) {
        let line = |name: &str, value: Option<String>| {
            value.iter().for_each(|value| output::line(&format!("  {name:<13} {}", cut(value))));
        };
        output::line(&file.display().to_string());
        line("format", Some(self.format.to_owned()));
        line("version", self.version.map(|version| version.to_string()));
        line("architecture", self.architecture.clone());
        line("name", self.name.clone());
        line("size", Some(format!("{file_bytes} bytes ({:.1} MB)", file_bytes as f64 / 1e6)));
        line("parameters", Some(self.parameters().to_string()));
        line("tensors", Some(self.tensors.len().to_string()));
        line("alignment", self.alignment.map(|alignment| alignment.to_string()));
        if !self.tensors.is_empty() {
            output::line("");
            let row = |(kind, total): (&str, Total)| {
                let bytes = total.bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
                vec![kind.to_owned(), total.tensors.to_string(), total.weights.to_string(), bytes]
            };
            let rows: Vec<_> = self.totals().into_iter().map(row).collect();
            output::table(&["kind", "tensors", "weights", "bytes"], &rows);
        }
        if !self.metadata.is_empty() {
            output::line("");
            let rows: Vec<_> = self.metadata.iter().map(|f| vec![cut(&f.key), f.of.clone(), f.text()]).collect();
            output::table(&["key", "type", "value"], &rows);
        }
        if with_tensors {
            output::line("");
            let row = |t: &TensorRow| {
                let bytes = t.bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
                let dims = t.dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
                vec![cut(&t.name), t.kind.clone(), dims, bytes]
            };
            output::table(
                &["tensor", "kind", "dimensions", "bytes"],
                &self.tensors.iter().map(row).collect::<Vec<_>>(),
            );
        }
    }

    pub fn print_json(&self, file: &Path, file_bytes: usize, with_tensors: bool) {
        let kind = |(kind, total): (&str, Total)| json!({"kind": kind, "tensors": total.tensors, "weights": total.weights, "bytes": total.bytes});
        let tensor = |t: &TensorRow| json!({"name": t.name, "kind": t.kind, "dims": t.dims, "bytes": t.bytes});
        let metadata: Map<String, Value> = self.metadata.iter().map(|f| (f.key.clone(), f.json())).collect();
        output::object(&json!({
            "file": file.display().to_string(),
            "format": self.format,
            "version": self.version,
            "architecture": self.architecture,
            "name": self.name,
            "bytes": file_bytes,
            "parameters": self.parameters(),
            "alignment": self.alignment,
            "tensor_count": self.tensors.len(),
            "kinds": self.totals().into_iter().map(kind).collect::<Vec<_>>(),
            "metadata": metadata,
            "tensors": with_tensors.then(|| self.tensors.iter().map(tensor).collect::<Vec<_>>()),
        }));
    }

    /// A kind that is not known may have any number of weights.
    fn parameters(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.weights))
    }

    /// By kind, the one with most bytes first.
    fn totals(&self) -> Vec<(&str, Total)> {
        let mut totals: BTreeMap<&str, Total> = BTreeMap::new();
        for tensor in &self.tensors {
            let total = totals.entry(&tensor.kind).or_default();
            total.tensors += 1;
            total.weights = total.weights.saturating_add(tensor.weights);
            total.bytes = tensor.bytes.map(|bytes| bytes + total.bytes.unwrap_or(0));
        }
        let mut totals: Vec<_> = totals.into_iter().collect();
        totals.sort_by_key(|(_, total)| std::cmp::Reverse(total.bytes));
        totals
    }
}

impl Field {
    fn text(&self) -> String {
        match (&self.value, self.len) {
            (Value::String(text), _) => cut(text),
            (Value::Array(items), Some(len)) if items.len() < len => {
                let items = self.value.to_string();
                format!("{}, … {len} in all]", cut(items.strip_suffix(']').unwrap_or(&items)))
            }
            (value, _) => cut(&value.to_string()),
        }
    }

    fn json(&self) -> Value {
        match self.len {
            Some(len) => json!({"type": self.of, "len": len, "first": self.value}),
            None => self.value.clone(),
        }
    }
}

/// The beginning of a text, control characters escaped.
fn cut(text: &str) -> String {
    // No longer than what is shown can come of it, before it is escaped.
    let start: String = text.chars().take(VALUE_CHARS_MAX + 1).collect();
    let shown = printable(&start);
    if shown.chars().count() <= VALUE_CHARS_MAX {
        return shown.into_owned();
    }
    shown.chars().take(VALUE_CHARS_MAX - 1).chain(['…']).collect()
}
