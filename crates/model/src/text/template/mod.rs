//! The text that a conversation becomes, by the template in the model's file.
//!
//! Templates are Jinja, written for Python's `jinja2` with the settings of Hugging Face `transformers`: blocks swallow
//! the line they stand on, values have Python's methods, `tojson` writes what `json.dumps` would, a template can
//! `raise_exception` and, if the caller tells the time, ask for it. `minijinja` runs them.
//!
//! A template comes from outside: it can read nothing but what it is given, and runs for a bounded number of steps.

mod json;
mod said;
mod time;

use super::Tokeniser;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use said::Marked;
use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

/// A template, parsed.
pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// A value as templates see it, read from JSON. Unlike `serde_json::Value` it keeps the order of keys, which a model
/// sees in the tools that it is told of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Json(Value);

impl Json {
    /// Any value that can be written as JSON.
    pub fn new(value: &impl Serialize) -> Self {
        Self(Value::from(Serde(value)))
    }

    /// A message as chats have them.
    pub fn message(role: &str, content: &str) -> Self {
        Self(Value::from_pairs([("role", role), ("content", content)]))
    }
}

/// What a template is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prompt<'a> {
    /// As in OpenAI's API: `role`, `content`, `tool_calls` and what else the template knows.
    pub messages: &'a [Json],
    /// Descriptions of functions; a template that knows no tools ignores them.
    pub tools: &'a [Json],
    /// Whether the text ends where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// The tokens as the file writes them, empty if it has none.
    pub bos: &'a str,
    pub eos: &'a str,
    /// Seconds since 1970 on the clock of the place where the text is for. Without it `strftime_now` is not defined,
    /// and templates write no date or one of their own.
    pub now: Option<i64>,
    /// Other variables that this template knows, by name; these come first.
    pub more: &'a [(&'a str, Json)],
}

#[derive(Clone, Debug, ThisError, PartialEq, Eq)]
pub enum TemplateError {
    /// It is no template, or needs what ours does not have.
    #[error("chat template: line {line}: {}", shown(what))]
    Syntax { line: usize, what: String },
    /// The template refuses this conversation, in its own words.
    #[error("chat template: it refuses the conversation: {}", shown(message))]
    Refused { message: String },
    /// It could not be carried out with these values.
    #[error("chat template: line {line}: {}", shown(what))]
    Failed { line: usize, what: String },
}

/// Of a template's words in a message, which is one line.
const SHOWN_CHARS_MAX: usize = 500;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

const NAME: &str = "chat";
/// Bytes of a template. The longest known has 15 kB.
const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Steps of a template; a message takes some fifty, and 64 bytes of text one.
const STEPS_MAX: u64 = 4_000_000;

impl ChatTemplate {
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            let what = format!("expected at most {SOURCE_BYTES_MAX} bytes, got {}", source.len());
            return Err(TemplateError::Syntax { line: 0, what });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(syntax_error)?);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refusal(message)))
        });
        environment.add_template_owned(NAME, source.to_owned()).map_err(syntax_error)?;
        Ok(Self { environment })
    }

    /// The ids of a conversation. Control tokens count where the template writes them; in what messages and tools hold, their
    /// characters are text like other.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn ids(&self, prompt: &Prompt<'_>, tokeniser: &Tokeniser) -> Result<Vec<u32>, TemplateError> {
        let source = self.environment.get_template(NAME).map_err(failed)?;
        let Some(marked) = Marked::of(prompt, tokeniser, source.source())? else {
            return Ok(tokeniser.encode(&self.render(prompt)?, true));
        };
        let text = self.render(&marked.prompt(prompt)).map_err(|error| match error {
            TemplateError::Refused { message } => TemplateError::Refused { message: marked.take_out(&message).0 },
            other => other,
        })?;
        let (text, marks) = marked.take_out(&text);
        Ok(tokeniser.encode_marked(&text, &marks))
    }

    /// The text of a conversation. Whoever makes ids of it must know who wrote it; [`ids`](Self::ids) does.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] or [`TemplateError::Failed`].
    pub fn render(&self, prompt: &Prompt<'_>) -> Result<String, TemplateError> {
        let mut variables: Vec<(&str, Value)> =
            prompt.more.iter().map(|(name, value)| (*name, value.0.clone())).collect();
        let list = |values: &[Json]| values.iter().map(|value| value.0.clone()).collect::<Value>();
        variables.push(("messages", list(prompt.messages)));
        // Templates ask whether there are tools in two ways: `if tools`, `tools is not none`.
        variables.push(("tools", if prompt.tools.is_empty() { Value::from(()) } else { list(prompt.tools) }));
        variables.push(("add_generation_prompt", prompt.add_generation_prompt.into()));
        variables.push(("bos_token", prompt.bos.into()));
        variables.push(("eos_token", prompt.eos.into()));
        if let Some(now) = prompt.now {
            variables.push(("strftime_now", Value::from_function(move |format: &str| time::strftime(now, format))));
        }
        let template = self.environment.get_template(NAME).map_err(failed)?;
        template.render(Value::from_pairs(variables)).map_err(failed)
    }
}

/// `tojson(indent=None)`, with `ensure_ascii=false` taken because it is so; other settings of `json.dumps` are refused.
fn to_json(state: &State<'_, '_>, value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: only ensure_ascii=false is known"));
    }
    options.assert_all_used()?;
    json::dumps(state, &value, indent)
}

/// What a template said to `raise_exception`.
#[derive(Debug, ThisError)]
#[error("{0}")]
struct Refusal(String);

fn failed(error: Error) -> TemplateError {
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        if let Some(Refusal(message)) = inner.downcast_ref() {
            return TemplateError::Refused { message: message.clone() };
        }
        source = inner.source();
    }
    TemplateError::Failed { line: line(&error), what: what(&error) }
}

fn syntax_error(error: Error) -> TemplateError {
    TemplateError::Syntax { line: line(&error), what: what(&error) }
}

fn line(error: &Error) -> usize {
    error.line().unwrap_or_default()
}

fn what(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_role_and_its_content() {
        let template = ChatTemplate::new(
            "{% for m in messages %}{{ m['role'] }}: {{ m.content }};{% endfor %}{% if add_generation_prompt %}>{% endif %}",
        )
        .unwrap();
        let messages = [Json::message("system", "be kind"), Json::message("user", "hi")];
        let prompt = Prompt { messages: &messages, add_generation_prompt: true, ..Prompt::default() };
        assert_eq!(template.render(&prompt).unwrap(), "system: be kind;user: hi;>");
    }

    #[test]
    fn json_that_no_machine_has_room_for_is_refused() {
        let wide = "{{ messages | tojson(indent=10000000000000) }}";
        let overflow = "{{ messages | tojson(indent=18446744073709551615) }}";
        // 2^60 times the same text.
        let doubled = "{% set n = namespace(x=['x']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}\
                       {{ n.x | tojson }}";
        let messages = [Json::message("user", "hi")];
        for source in [wide, overflow, doubled] {
            let rendered =
                ChatTemplate::new(source).unwrap().render(&Prompt { messages: &messages, ..Prompt::default() });
            assert!(matches!(rendered, Err(TemplateError::Failed { .. })), "{source}");
        }
    }

    #[test]
    fn what_a_template_says_is_one_line() {
        let template = ChatTemplate::new("{{ raise_exception('no\\n\x1b[2Jroles ' ~ 'x' * 9999) }}").unwrap();
        let said = template.render(&Prompt::default()).unwrap_err().to_string();
        assert!(said.contains("no  [2Jroles xx") && said.len() < 600, "{said:?}");
    }
}
