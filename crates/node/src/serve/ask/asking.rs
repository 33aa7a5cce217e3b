//! What a request says of itself to a router: may it leave, and what was asked last.

use super::Kind;
use crate::serve::keys::Key;
use crate::serve::routed::Asking;
use littoral_infer::model::Model;
use littoral_infer::route::rule::{Asked, Policy, Rule, Why};
use littoral_model::text::Detokeniser;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Marks a request that must not leave.
pub const LOCAL_ONLY: &str = "local_only";

/// All that is text in the body is looked at, names of fields too, and token ids as the text that they are.
pub fn asking(
    kind: Kind,
    fields: &Map<String, Value>,
    policy: &Policy,
    key: Option<&Arc<Key>>,
    model: &Model,
) -> Asking {
    let mut texts = Texts { found: Vec::new(), model };
    fields.iter().for_each(|(name, value)| {
        texts.found.push(name.clone());
        texts.of(value);
    });
    // Whatever it says but null and false: a mark that was written wrongly is a mark.
    let marked = !matches!(fields.get(LOCAL_ONLY), None | Some(Value::Null | Value::Bool(false)));
    let found: Vec<&str> = texts.found.iter().map(String::as_str).collect();
    let asked = Asked { marked, key: key.and_then(|key| key.name.as_deref()), texts: &found };
    let rule = match key {
        Some(key) if key.local_only && !marked => {
            Rule::LocalOnly(Why::Key { pattern: key.name.clone().unwrap_or_default() })
        }
        _ => policy.judge(&asked),
    };
    Asking { rule, prompt: prompt(kind, fields).into(), refused: false, key: key.cloned() }
}

struct Texts<'m> {
    found: Vec<String>,
    model: &'m Model,
}

impl Texts<'_> {
    fn of(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.found.push(text.clone()),
            Value::Array(items) if items.iter().any(Value::is_u64) => {
                let mut words = Detokeniser::new(&self.model.tokeniser);
                let mut text = String::new();
                for id in items.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()) {
                    text.push_str(words.push(id));
                }
                text.push_str(words.finish());
                self.found.push(text);
                items.iter().filter(|item| !item.is_u64()).for_each(|item| self.of(item));
            }
            Value::Array(items) => {
                // Parts of one message are one text.
                self.found.push(items.iter().filter_map(|part| part["text"].as_str()).collect());
                items.iter().for_each(|item| self.of(item));
            }
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                self.found.push(name.clone());
                self.of(value);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// What was asked last, as it was typed.
fn prompt(kind: Kind, fields: &Map<String, Value>) -> String {
    let text = |content: &Value| match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    };
    match kind {
        Kind::Chat => {
            let messages = fields.get("messages").and_then(Value::as_array);
            let last = messages.and_then(|messages| messages.iter().rfind(|message| message["role"] == "user"));
            last.map_or(String::new(), |message| text(&message["content"]))
        }
        Kind::Completion => fields.get("prompt").map_or(String::new(), text),
    }
}
