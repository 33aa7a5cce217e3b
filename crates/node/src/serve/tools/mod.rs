//! Functions that the model may ask its reader to call.
//!
//! All models write calls in one form, that of Hermes and Qwen: `<tool_call>`, an object with `name` and `arguments`,
//! `</tool_call>`. A chat template that declares this form tells the model itself; for any other, `describe` puts the same
//! words into the system message. Where a call is demanded, `grammar` leaves the model nothing else to write; where it is
//! the model's choice, the grammar begins where the text opens a call, `calls` finds calls in the text, and what is no valid
//! call stays text.

mod calls;
mod describe;
mod grammar;

pub use calls::{Calls, Heard};
pub use describe::{Described, described, known};

use super::ask::fields::{Fields, kind, shown};
use super::refusal::Refusal;
use littoral_model::text::Json;
use serde_json::{Value, json};
use std::sync::Arc;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// As OpenAI has it.
const TOOLS_MAX: usize = 128;
const NAME_CHARS_MAX: usize = 64;

#[derive(Clone)]
pub struct Function {
    pub name: String,
    /// A JSON schema of an object.
    parameters: Value,
    /// Arguments must fit it; else, where the schema is one that cannot be followed, any object will do.
    strict: bool,
}

/// What a request says of functions; without it the model is told of none.
pub struct Tools {
    /// As the request has them, for the model to read.
    pub told: Vec<Json>,
    functions: Vec<Function>,
    /// The model must call: one of these functions, by their place. Empty: as it likes.
    demanded: Vec<usize>,
    parallel: bool,
}

/// How to find calls in a text.
#[derive(Clone)]
pub struct Form {
    names: Arc<[String]>,
    /// What looks like a call is one: the text was made to have the form.
    sure: bool,
    /// Calls in one answer.
    most: usize,
}

impl Tools {
    pub fn read(fields: &mut Fields) -> Result<Option<Self>, Refusal> {
        fields.only("functions", &[json!([])])?;
        fields.only("function_call", &[json!("none"), json!("auto")])?;
        let told = match fields.take("tools") {
            None => Vec::new(),
            Some(Value::Array(tools)) if tools.len() <= TOOLS_MAX => tools,
            Some(other) => {
                return Err(Refusal::invalid("tools", &format!("a list of at most {TOOLS_MAX}"), shown(&other)));
            }
        };
        let functions = told.iter().enumerate().map(|(at, tool)| function(at, tool));
        let functions: Vec<Function> = functions.collect::<Result<_, _>>()?;
        for (at, function) in functions.iter().enumerate() {
            if functions[..at].iter().any(|other| other.name == function.name) {
                let place = format!("tools[{at}].function.name");
                return Err(Refusal::invalid(&place, "a name of its own", format!("{:?} again", function.name)));
            }
        }
        let parallel = fields.take("parallel_tool_calls");
        let parallel = match &parallel {
            None => true,
            Some(Value::Bool(parallel)) => *parallel,
            Some(other) => return Err(Refusal::invalid("parallel_tool_calls", "true or false", kind(other))),
        };
        let choice = fields.take("tool_choice").unwrap_or_else(|| json!("auto"));
        let demanded = match demanded(&choice, &functions)? {
            Some(demanded) if !functions.is_empty() => demanded,
            _ => return Ok(None),
        };
        let told = told.iter().map(Json::new).collect();
        Ok(Some(Self { told, functions, demanded, parallel }))
    }

    /// `formed`: the answer has a form of its own if it calls nothing, so that what looks like a call is one.
    pub fn form(&self, formed: bool) -> Form {
        Form {
            names: self.functions.iter().map(|function| function.name.clone()).collect(),
            sure: formed || !self.demanded.is_empty(),
            most: if self.parallel { grammar::CALLS_MAX } else { 1 },
        }
    }

    /// What a text that may call is derived from: free, but for the calls in it. Functions whose parameters cannot be followed,
    /// by their place, may get any object, unless they are strict.
    ///
    /// # Errors
    /// The first that cannot be followed and is strict.
    pub fn grammar_of_text(&self, cannot: &[usize]) -> Result<String, usize> {
        if let Some(at) = cannot.iter().find(|at| self.functions[**at].strict) {
            return Err(*at);
        }
        let functions = self.functions.iter().enumerate().map(|(at, function)| match cannot.contains(&at) {
            true => Function { parameters: json!({"type": "object"}), ..function.clone() },
            false => function.clone(),
        });
        Ok(grammar::text_with_calls(&functions.collect::<Vec<_>>(), self.parallel))
    }

    /// The parameters of each function.
    pub fn parameters(&self) -> impl Iterator<Item = &Value> {
        self.functions.iter().map(|function| &function.parameters)
    }

    /// What the text must be derived from, if it is not free: calls, or, as an answer, JSON of this schema.
    pub fn grammar(&self, answer: Option<&Value>) -> Option<String> {
        match (self.demanded.is_empty(), answer) {
            (true, None) => None,
            (true, Some(answer)) => Some(grammar::calls_or(&self.functions, self.parallel, answer)),
            (false, _) => {
                let functions = self.demanded.iter().map(|at| &self.functions[*at]);
                Some(grammar::calls(functions, self.parallel))
            }
        }
    }
}

fn function(at: usize, tool: &Value) -> Result<Function, Refusal> {
    let place = |field: &str| format!("tools[{at}].{field}");
    match tool["type"].as_str() {
        Some("function") => {}
        Some(other) => return Err(Refusal::unsupported(&place("type"), format!("{other:?}"))),
        None => return Err(Refusal::invalid(&place("type"), "\"function\"", shown(&tool["type"]))),
    }
    let function = &tool["function"];
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name = function["name"]
        .as_str()
        .filter(|name| !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.chars().all(letter));
    let Some(name) = name else {
        let expected = format!("1 to {NAME_CHARS_MAX} letters, digits, _ and -");
        return Err(Refusal::invalid(&place("function.name"), &expected, shown(&function["name"])));
    };
    let parameters = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}, "additionalProperties": false}),
        Value::Object(schema) if schema.get("type").is_none_or(|of| of == "object") => {
            let mut schema = schema.clone();
            schema.insert("type".into(), "object".into());
            Value::Object(schema)
        }
        other => {
            let expected = "the JSON schema of an object";
            return Err(Refusal::invalid(&place("function.parameters"), expected, shown(other)));
        }
    };
    let strict = match &function["strict"] {
        Value::Null => false,
        Value::Bool(strict) => *strict,
        other => return Err(Refusal::invalid(&place("function.strict"), "true or false", kind(other))),
    };
    Ok(Function { name: name.to_owned(), parameters, strict })
}

/// The functions one of which must be called; none of them: the model may call. `None`: it may not.
fn demanded(choice: &Value, functions: &[Function]) -> Result<Option<Vec<usize>>, Refusal> {
    let name = "tool_choice";
    let all = || (0..functions.len()).collect::<Vec<_>>();
    let demanded = match (choice.as_str(), choice["type"].as_str()) {
        (Some("none"), _) => return Ok(None),
        (Some("auto"), _) => return Ok(Some(Vec::new())),
        (Some("required"), _) => all(),
        (None, Some("function")) => {
            let wanted = &choice["function"]["name"];
            let found = functions.iter().position(|function| *wanted == function.name.as_str());
            let found = found.ok_or_else(|| Refusal::invalid(name, "the name of one of tools", shown(wanted)))?;
            vec![found]
        }
        (None, Some(other)) => return Err(Refusal::unsupported(name, format!("{other:?}"))),
        _ => {
            let expected = "\"none\", \"auto\", \"required\" or a function";
            return Err(Refusal::invalid(name, expected, shown(choice)));
        }
    };
    match demanded.is_empty() {
        true => Err(Refusal::invalid(name, "tools to choose from", "none")),
        false => Ok(Some(demanded)),
    }
}
