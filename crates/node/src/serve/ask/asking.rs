//! What a request says of itself to a router: may it leave, and what was asked last.

use super::Kind;
use super::escapes::without_escapes;
use crate::serve::keys::Key;
use crate::serve::routed::Asking;
use littoral_infer::model::Model;
use littoral_infer::route::rule::{Asked, Policy, Rule, Why};
use littoral_model::text::Detokeniser;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Marks a request that must not leave.
pub const LOCAL_ONLY: &str = "local_only";

/// Who is above, if somebody is: what can be searched for words depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    Nobody,
    /// A machine with this model's vocabulary.
    Machine,
    /// A server whose model has any.
    Server,
}

/// All that is text in the body is looked at: names of fields, numbers, what is JSON in a text, or in a part of one, token ids as
/// the text that they are. What cannot be looked at counts as found.
pub fn asking(
    kind: Kind,
    fields: &Map<String, Value>,
    policy: &Policy,
    key: Option<&Arc<Key>>,
    model: &Model,
    above: Above,
) -> Asking {
    let mut texts = Texts { found: Vec::new(), marked: false, unsearchable: None, model, above };
    texts.of_object(fields, DEPTH_MAX);
    let found: Vec<&str> = texts.found.iter().map(String::as_str).collect();
    // A key without a name is matched by `*` all the same.
    let name = key.map(|key| key.name.as_deref().unwrap_or_default());
    let rule = match (key, texts.unsearchable.filter(|_| policy.searches())) {
        (Some(key), _) if key.local_only && !texts.marked => {
            Rule::LocalOnly(Why::Key { pattern: key.name.clone().unwrap_or_default() })
        }
        (_, Some(what)) if !texts.marked => Rule::LocalOnly(Why::Unsearchable { what }),
        _ => policy.judge(&Asked { marked: texts.marked, key: name, texts: &found }),
    };
    Asking { rule, prompt: prompt(kind, fields).into(), refused: false, key: key.cloned(), kind, only: None }
}

/// JSON in texts in JSON is followed so deep.
const DEPTH_MAX: usize = 4;

struct Texts<'m> {
    found: Vec<String>,
    marked: bool,
    unsearchable: Option<&'static str>,
    model: &'m Model,
    above: Above,
}

impl Texts<'_> {
    fn of(&mut self, value: &Value, depth: usize) {
        match value {
            Value::String(text) => self.of_text(text, depth),
            Value::Number(number) => self.found.push(number.to_string()),
            Value::Array(items) if items.iter().any(Value::is_number) => self.of_numbers(items, depth),
            Value::Array(items) => {
                // Parts of one message are one text, which some put together with line breaks and some without.
                let parts: Vec<&str> = items.iter().filter_map(|part| part["text"].as_str()).collect();
                if parts.len() > 1 {
                    self.found.extend([parts.concat(), parts.join("\n")]);
                }
                items.iter().for_each(|item| self.of(item, depth));
            }
            Value::Object(fields) => self.of_object(fields, depth),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Arguments of tools and what tools say are often JSON, in which letters may be written otherwise.
    fn of_text(&mut self, text: &str, depth: usize) {
        let begins = text.trim_start().starts_with(['{', '[', '"']);
        if begins
            && depth > 0
            && let Ok(inner @ (Value::Object(_) | Value::Array(_) | Value::String(_))) = serde_json::from_str(text)
        {
            self.of(&inner, depth - 1);
        }
        self.found.push(text.to_owned());
        let mut plain = without_escapes(text);
        for _ in 0..DEPTH_MAX {
            let Some(now) = plain else { break };
            plain = without_escapes(&now);
            self.found.push(now);
        }
    }

    fn of_object(&mut self, fields: &Map<String, Value>, depth: usize) {
        // Pictures, sound and files are parts of other types.
        if fields
            .get("type")
            .is_some_and(|of| matches!(of.as_str(), Some("image_url" | "input_audio" | "file" | "image")))
        {
            self.unsearchable = Some("a part that is no text");
        }
        for (name, value) in fields {
            let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            // However it is spelt, whatever it says but null and false: a mark that was written wrongly is a mark.
            if letters.eq_ignore_ascii_case("localonly") && !matches!(value, Value::Null | Value::Bool(false)) {
                self.marked = true;
            }
            self.found.push(name.clone());
            match value {
                // Tokens that are to be said, or not.
                Value::Object(biases) if letters.eq_ignore_ascii_case("logitbias") && !biases.is_empty() => {
                    let ids: Vec<Value> = biases.keys().filter_map(|id| Some(id.parse::<u64>().ok()?.into())).collect();
                    self.of_numbers(&ids, depth);
                }
                value => self.of(value, depth),
            }
        }
    }

    /// Token ids, if anything.
    fn of_numbers(&mut self, items: &[Value], depth: usize) {
        if self.above == Above::Server || !items.iter().all(Value::is_u64) {
            self.unsearchable = Some("a list of numbers");
        }
        let mut words = Detokeniser::new(&self.model.tokeniser);
        let mut text = String::new();
        for id in items.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()) {
            text.push_str(words.push(id));
        }
        text.push_str(words.finish());
        self.found.push(text);
        items.iter().filter(|item| !item.is_u64()).for_each(|item| self.of(item, depth));
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
