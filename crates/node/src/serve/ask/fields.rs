//! A request's body, field by field.
//!
//! Null is as good as absent. A field that nobody asks for is refused by name, as OpenAI does: an answer to a request of
//! which a part was ignored would look right and not be.

use crate::serve::refusal::Refusal;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

/// What changes nothing about the text may be there.
const HARMLESS: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
];

pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        object(body).map(Self)
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Refusal::invalid(name, "a string", kind(&other))),
        }
    }

    pub fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(Refusal::invalid(name, "true or false", kind(&other))),
        }
    }

    pub fn whole(&mut self, name: &str, low: u64, high: u64) -> Result<Option<usize>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().filter(|number| (low..=high).contains(number)) {
            Some(number) => Ok(Some(number as usize)),
            None => Err(Refusal::invalid(name, &format!("a whole number from {low} to {high}"), shown(&value))),
        }
    }

    /// Its range is looked at where all of them are.
    pub fn number(&mut self, name: &str) -> Result<Option<f32>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) => Ok(Some(number as f32)),
            None => Err(Refusal::invalid(name, "a number", shown(&value))),
        }
    }

    /// A field that must say what would be so without it.
    pub fn only(&mut self, name: &str, allowed: &[Value]) -> Result<(), Refusal> {
        match self.take(name) {
            Some(value) if !allowed.contains(&value) => Err(Refusal::unsupported(name, shown(&value))),
            _ => Ok(()),
        }
    }

    /// All has been asked for.
    pub fn end(self) -> Result<(), Refusal> {
        let unknown = self.0.iter().find(|(name, value)| !value.is_null() && !HARMLESS.contains(&name.as_str()));
        match unknown {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                let message = format!("Unrecognized request argument supplied: {name}");
                Err(Refusal::field(name, "unknown_parameter", message))
            }
        }
    }
}

pub fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    // Of two fields of one name one reader takes the first and another the last: what a mark says must not depend on the reader.
    if let Err(error) = serde_json::from_slice::<Once>(body)
        && error.is_data()
    {
        return Err(Refusal::body(format!("a JSON object expected in which a field stands once, got {error}")));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(Refusal::body(format!("a JSON object expected, got {}", kind(&other)))),
        Err(error) => Err(Refusal::body(format!("a JSON object expected, got no JSON: {error}"))),
    }
}

/// Any JSON in which no object has two fields of one name.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Once)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "any JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Once>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            fields.next_value::<Once>()?;
            if let Some(twice) = names.replace(name) {
                let shown: String = twice.chars().take(64).collect();
                return Err(A::Error::custom(format!("`{}` twice", shown.escape_debug())));
            }
        }
        Ok(self)
    }
}

pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value in a message: short.
pub fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 64 { text } else { kind(value).to_owned() }
}
