//! A conversation, and the prompt that the model's chat template makes of it.

use super::fields::{Fields, kind, shown};
use crate::serve::refusal::Refusal;
use crate::serve::tools::{self, Described, Tools};
use littoral_infer::model::Model;
use littoral_model::text::{ChatTemplate, Json, Prompt};
use serde_json::{Value, json};

/// A message, read.
struct Message {
    role: &'static str,
    text: String,
    /// Of an assistant.
    calls: Vec<Call>,
    /// Of a tool: whose result it is.
    answers: Option<Call>,
}

#[derive(Clone)]
struct Call {
    id: String,
    name: String,
    arguments: Value,
}

/// The prompt's tokens.
pub fn prompt(fields: &mut Fields, model: &Model, tools: Option<&Tools>) -> Result<Vec<u32>, Refusal> {
    let Some(template) = &model.template else {
        let message = "this model's file has no chat template: use /v1/completions, which goes on with a text";
        return Err(Refusal::field("messages", "unsupported_value", message));
    };
    let given = match fields.take("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(other) => return Err(Refusal::invalid("messages", "a list of messages", shown(&other))),
        None => return Err(Refusal::field("messages", "missing_required_parameter", "messages: missing")),
    };
    let mut messages: Vec<Message> = Vec::new();
    for (at, message) in given.iter().enumerate() {
        let message = read(at, message, &messages)?;
        messages.push(message);
    }
    ids(template, model, &messages, tools)
        .map_err(|error| Refusal::field("messages", "invalid_value", error.to_string()))
}

fn ids(
    template: &ChatTemplate,
    model: &Model,
    messages: &[Message],
    tools: Option<&Tools>,
) -> Result<Vec<u32>, littoral_model::text::TemplateError> {
    let any_calls = messages.iter().any(|message| !message.calls.is_empty());
    let native = (tools.is_some() || any_calls) && tools::known(template);
    let told = if native { messages.iter().map(Message::native).collect() } else { plain(messages, tools) };
    let token = |id: Option<u32>| id.and_then(|id| model.tokeniser.token(id)).unwrap_or_default();
    let prompt = Prompt {
        messages: &told,
        tools: tools.filter(|_| native).map_or(&[], |tools| &tools.told),
        add_generation_prompt: true,
        bos: token(model.tokeniser.bos()),
        eos: token(model.tokeniser.eos()),
        // No date: the same request gives the same text on every day.
        now: None,
        ..Prompt::default()
    };
    template.ids(&prompt, &model.tokeniser)
}

impl Message {
    /// For a template that knows tools. Those want arguments as values and not as text.
    fn native(&self) -> Json {
        let mut message = json!({"role": self.role, "content": self.text});
        if !self.calls.is_empty() {
            let call = |Call { id, name, arguments }: &Call| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
            message["tool_calls"] = self.calls.iter().map(call).collect();
        }
        if let Some(call) = &self.answers {
            message["tool_call_id"] = json!(call.id);
            message["name"] = json!(call.name);
        }
        Json::new(&message)
    }
}

/// For a template that knows none: tools are told of in the system message, calls are text, and their results are what the
/// user says next.
fn plain(messages: &[Message], tools: Option<&Tools>) -> Vec<Json> {
    let mut told: Vec<(&str, String)> = Vec::new();
    if let Some(tools) = tools {
        told.push(("system", tools::described(tools)));
    }
    let mut after_result = false;
    for (at, message) in messages.iter().enumerate() {
        let calls: Vec<Described<'_>> =
            message.calls.iter().map(|Call { name, arguments, .. }| Described { name, arguments }).collect();
        let text = match (&message.answers, calls.is_empty()) {
            (Some(_), _) => format!("<tool_response>\n{}\n</tool_response>", message.text),
            (None, true) => message.text.clone(),
            (None, false) if message.text.is_empty() => Described::text(&calls),
            (None, false) => format!("{}\n{}", message.text, Described::text(&calls)),
        };
        match told.last_mut() {
            // Its own words come first, as Qwen's template has it.
            Some((_, tools)) if at == 0 && message.role == "system" => *tools = format!("{text}\n\n{tools}"),
            // Templates often want user and assistant in turn.
            Some((_, results)) if after_result && message.answers.is_some() => *results += &format!("\n{text}"),
            _ => told.push((if message.answers.is_some() { "user" } else { message.role }, text)),
        }
        after_result = message.answers.is_some();
    }
    told.iter().map(|(role, text)| Json::message(role, text)).collect()
}

fn read(at: usize, message: &Value, before: &[Message]) -> Result<Message, Refusal> {
    let place = |field: &str| format!("messages[{at}].{field}");
    let role = match message["role"].as_str() {
        // OpenAI's newer word for the same.
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool") => "tool",
        Some("function") => return Err(Refusal::unsupported(&place("role"), "\"function\"")),
        _ => {
            let expected = "system, developer, user, assistant or tool";
            return Err(Refusal::invalid(&place("role"), expected, shown(&message["role"])));
        }
    };
    let calls = match &message["tool_calls"] {
        Value::Null => Vec::new(),
        Value::Array(calls) if role == "assistant" || calls.is_empty() => calls
            .iter()
            .enumerate()
            .map(|(call, value)| read_call(&place(&format!("tool_calls[{call}]")), value))
            .collect::<Result<_, _>>()?,
        other => return Err(Refusal::invalid(&place("tool_calls"), "a list, of an assistant", shown(other))),
    };
    let answers = match role {
        "tool" => {
            let id = &message["tool_call_id"];
            let call = before.iter().flat_map(|message| &message.calls).rfind(|call| *id == call.id.as_str());
            let expected = "the id of a call in a message before";
            Some(call.cloned().ok_or_else(|| Refusal::invalid(&place("tool_call_id"), expected, shown(id)))?)
        }
        _ => None,
    };
    let text = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Null if !calls.is_empty() => String::new(),
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
    Ok(Message { role, text, calls, answers })
}

fn read_call(place: &str, call: &Value) -> Result<Call, Refusal> {
    let text = |field: &str, value: &Value| match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(Refusal::invalid(&format!("{place}.{field}"), "a string", shown(value))),
    };
    let function = &call["function"];
    let arguments = match function["arguments"].as_str().map(serde_json::from_str) {
        Some(Ok(arguments @ Value::Object(_))) => arguments,
        // What some programs send for a function that takes none.
        _ if function["arguments"] == "" => json!({}),
        _ => {
            let expected = "an object as a string of JSON";
            return Err(Refusal::invalid(
                &format!("{place}.function.arguments"),
                expected,
                shown(&function["arguments"]),
            ));
        }
    };
    Ok(Call { id: text("id", &call["id"])?, name: text("function.name", &function["name"])?, arguments })
}
