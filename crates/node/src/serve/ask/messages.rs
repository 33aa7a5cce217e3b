//! A conversation, and the prompt that the model's chat template makes of it.

use super::fields::{Fields, kind, shown};
use crate::serve::refusal::Refusal;
use littoral_infer::model::Model;
use littoral_model::text::{Json, Prompt};
use serde_json::Value;

pub fn prompt(fields: &mut Fields, model: &Model) -> Result<Vec<u32>, Refusal> {
    let Some(template) = &model.template else {
        let message = "this model's file has no chat template: use /v1/completions, which goes on with a text";
        return Err(Refusal::field("messages", "unsupported_value", message));
    };
    let messages = match fields.take("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(other) => return Err(Refusal::invalid("messages", "a list of messages", shown(&other))),
        None => return Err(Refusal::field("messages", "missing_required_parameter", "messages: missing")),
    };
    let messages: Vec<Json> =
        messages.iter().enumerate().map(|(at, message)| read(at, message)).collect::<Result<_, _>>()?;
    let token = |id: Option<u32>| id.and_then(|id| model.tokeniser.token(id)).unwrap_or_default();
    let prompt = Prompt {
        messages: &messages,
        add_generation_prompt: true,
        bos: token(model.tokeniser.bos()),
        eos: token(model.tokeniser.eos()),
        // No date: the same request gives the same text on every day.
        now: None,
        ..Prompt::default()
    };
    let text =
        template.render(&prompt).map_err(|error| Refusal::field("messages", "invalid_value", error.to_string()))?;
    Ok(model.tokeniser.encode(&text, true))
}

fn read(at: usize, message: &Value) -> Result<Json, Refusal> {
    let place = |field: &str| format!("messages[{at}].{field}");
    let role = match message["role"].as_str() {
        // OpenAI's newer word for the same.
        Some("system" | "developer") => "system",
        Some(role @ ("user" | "assistant")) => role,
        Some(role @ ("tool" | "function")) => return Err(Refusal::unsupported(&place("role"), format!("{role:?}"))),
        _ => {
            let expected = "system, developer, user or assistant";
            return Err(Refusal::invalid(&place("role"), expected, shown(&message["role"])));
        }
    };
    if message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty()) {
        return Err(Refusal::unsupported(&place("tool_calls"), "a call of a tool"));
    }
    let content = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .map(|part| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text),
                (Some(other), None) => {
                    Err(Refusal::unsupported(&place("content"), format!("a part of type {other:?}")))
                }
                _ => Err(Refusal::invalid(&place("content"), "parts with type and text", shown(part))),
            })
            .collect::<Result<Vec<_>, _>>()?
            .concat(),
        other => return Err(Refusal::invalid(&place("content"), "a string or a list of parts", kind(other))),
    };
    Ok(Json::message(role, &content))
}
