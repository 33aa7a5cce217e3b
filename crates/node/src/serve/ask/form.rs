//! The form that a text must have: `response_format`, as OpenAI has it, and `structured_outputs`, as vLLM has it.

use super::fields::{Fields, kind, shown};
use crate::serve::refusal::Refusal;
use crate::serve::tools::Tools;
use littoral_infer::constrain::{Constraint, ConstraintError, VocabularyIndex};
use littoral_infer::model::Model;
use serde_json::{Value, json};

/// As OpenAI has it.
const NAME_CHARS_MAX: usize = 64;
/// Texts to choose from.
const CHOICES_MAX: usize = 1_024;

pub enum Form {
    /// JSON of this schema.
    Schema(Value),
    Regex(String),
    Grammar(String),
    /// One of these.
    Choice(Vec<String>),
}

/// A form, and the field that asks for it.
pub struct Formed {
    pub param: &'static str,
    pub form: Form,
}

const FORMAT: &str = "response_format";
const STRUCTURED: &str = "structured_outputs";

pub fn read(fields: &mut Fields) -> Result<Option<Formed>, Refusal> {
    let format = format(fields)?.map(|form| Formed { param: FORMAT, form });
    let structured = structured(fields)?.map(|form| Formed { param: STRUCTURED, form });
    match (format, structured) {
        (Some(_), Some(_)) => Err(Refusal::invalid(STRUCTURED, "one of it and response_format", "both")),
        (one, other) => Ok(one.or(other)),
    }
}

fn format(fields: &mut Fields) -> Result<Option<Form>, Refusal> {
    let Some(format) = fields.take(FORMAT) else { return Ok(None) };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Form::Schema(json!({"type": "object"})))),
        Some("json_schema") => {
            let told = &format["json_schema"];
            let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let named = told["name"]
                .as_str()
                .is_some_and(|name| !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.chars().all(letter));
            if !named {
                let expected = format!("1 to {NAME_CHARS_MAX} letters, digits, _ and -");
                return Err(Refusal::invalid("response_format.json_schema.name", &expected, shown(&told["name"])));
            }
            // The text follows the schema whether it is `strict` or not.
            match &told["schema"] {
                schema @ Value::Object(_) => Ok(Some(Form::Schema(schema.clone()))),
                other => Err(Refusal::invalid("response_format.json_schema.schema", "a JSON schema", kind(other))),
            }
        }
        Some(other) => Err(Refusal::unsupported(FORMAT, format!("type {other:?}"))),
        None => Err(Refusal::invalid(FORMAT, "an object with a type", shown(&format))),
    }
}

fn structured(fields: &mut Fields) -> Result<Option<Form>, Refusal> {
    let wrong = |expected: &str, got: &Value| Err(Refusal::invalid(STRUCTURED, expected, shown(got)));
    let entries = match fields.take(STRUCTURED) {
        None => return Ok(None),
        Some(Value::Object(entries)) => entries,
        Some(other) => return wrong("an object", &other),
    };
    let mut entries = entries.into_iter().filter(|(_, value)| !value.is_null());
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(Refusal::invalid(STRUCTURED, "one of json, regex, choice, grammar", "none of them, or several"));
    };
    match (name.as_str(), value) {
        ("json", schema @ Value::Object(_)) => Ok(Some(Form::Schema(schema))),
        ("json", Value::String(schema)) => match serde_json::from_str(&schema) {
            Ok(schema @ Value::Object(_)) => Ok(Some(Form::Schema(schema))),
            _ => Err(Refusal::invalid(STRUCTURED, "a JSON schema", "a string that is none")),
        },
        ("regex", Value::String(expression)) => Ok(Some(Form::Regex(expression))),
        ("grammar", Value::String(grammar)) => Ok(Some(Form::Grammar(grammar))),
        ("choice", Value::Array(texts)) if (1..=CHOICES_MAX).contains(&texts.len()) => {
            let texts = texts.iter().map(|text| text.as_str().filter(|text| !text.is_empty()).map(str::to_owned));
            match texts.collect::<Option<Vec<String>>>() {
                Some(texts) => Ok(Some(Form::Choice(texts))),
                None => Err(Refusal::invalid(STRUCTURED, "texts to choose from, none empty", "something else")),
            }
        }
        ("json" | "regex" | "grammar" | "choice", other) => {
            wrong("a schema, an expression, a grammar, or a list of up to 1024 texts", &other)
        }
        (other, _) => {
            Err(Refusal::unsupported(STRUCTURED, format!("{:?}", other.chars().take(64).collect::<String>())))
        }
    }
}

impl Formed {
    pub fn constraint(&self, model: &Model) -> Result<Constraint, Refusal> {
        let index = index(self.param, model)?;
        let constraint = match &self.form {
            Form::Schema(schema) => Constraint::json_schema(index, &schema.to_string()),
            Form::Regex(expression) => Constraint::regex(index, expression),
            Form::Grammar(grammar) => Constraint::grammar(index, grammar),
            Form::Choice(texts) => Constraint::choice(index, texts),
        };
        constraint.map_err(|error| refused(self.param, &error))
    }
}

/// A constraint that the server wrote itself around what the request has.
pub fn grammar(param: &str, grammar: &str, model: &Model) -> Result<Constraint, Refusal> {
    Constraint::grammar(index(param, model)?, grammar).map_err(|error| refused(param, &error))
}

/// Free text, with calls that fit what their functions take. `None` with a model that no text can be made to fit anything.
pub fn text_with_calls(tools: &Tools, model: &Model) -> Result<Option<Constraint>, Refusal> {
    let Ok(index) = model.index() else { return Ok(None) };
    let all = tools.grammar_of_text(&[]).ok().and_then(|grammar| Constraint::grammar(index, &grammar).ok());
    if all.is_some() {
        return Ok(all);
    }
    // Which is it?
    let why = |schema: &Value| Constraint::json_schema(index, &schema.to_string()).err();
    let (cannot, why): (Vec<usize>, Vec<_>) =
        tools.parameters().enumerate().filter_map(|(at, schema)| Some((at, why(schema)?))).unzip();
    match tools.grammar_of_text(&cannot) {
        // Together they may be too much, though each can be followed.
        Ok(grammar) => Ok(Constraint::grammar(index, &grammar).ok()),
        Err(strict) => {
            let why = cannot.iter().position(|at| *at == strict).map(|at| &why[at]);
            let param = format!("tools[{strict}].function.parameters");
            Err(why.map_or_else(|| Refusal::unsupported(&param, "this schema"), |why| refused(&param, why)))
        }
    }
}

fn index<'m>(param: &str, model: &'m Model) -> Result<&'m VocabularyIndex, Refusal> {
    let refused = |error| Refusal::field(param, "unsupported_value", format!("{param}: not with this model: {error}"));
    model.index().map_err(refused)
}

fn refused(param: &str, error: &ConstraintError) -> Refusal {
    Refusal::field(param, "invalid_value", format!("{param}: {error}"))
}
