//! What a request asks for: from a body to answers to be written.

pub(super) mod asking;
mod embeddings;
mod escapes;
pub(super) mod fields;
mod form;
mod messages;
mod sampling;

pub use embeddings::Vectors;

use super::refusal::Refusal;
use super::tools::{self, Tools};
use super::writer::Asked;
use fields::{Fields, shown};
use form::{Form, Formed};
use littoral_infer::constrain::Constraint;
use littoral_infer::engine::Request;
use littoral_infer::model::Model;
use serde_json::{Value, json};

/// Answers that one request may ask for.
const CHOICES_MAX: usize = 16;
/// Alternatives per token that `logprobs` may ask for.
const TOP_MAX: u64 = 20;
/// Tokens of a completion, if nobody says how many; as OpenAI has it. A chat goes on until the model ends it.
const COMPLETION_TOKENS: usize = 16;

/// Tokens that are told of a prompt, the best ones of each place counted.
const PROMPT_TOLD_MAX: usize = 1 << 17;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Completion,
}

impl Kind {
    /// Behind `/v1/`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completion => "completions",
        }
    }

    /// Where the prompt stands.
    pub fn param(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completion => "prompt",
        }
    }
}

/// What is told beside the answer's text.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The prompt of each choice; none if nothing of them is told.
    pub prompts: Vec<Vec<u32>>,
    /// The text begins with the prompt's, and its tokens are told as the answer's are.
    pub echo: bool,
    /// So many of the best tokens with it.
    pub echo_top: usize,
    /// Tokens of the prompt are told by their ids, as vLLM does.
    pub prompt_logprobs: bool,
    /// The ids of prompt and answer, as vLLM tells them.
    pub token_ids: bool,
}

impl Told {
    fn read(fields: &mut Fields) -> Result<(Self, Option<usize>), Refusal> {
        let (echo, token_ids) = (fields.flag("echo")?, fields.flag("return_token_ids")?);
        let top = fields.whole("prompt_logprobs", 0, TOP_MAX)?;
        Ok((Self { echo, prompt_logprobs: top.is_some(), token_ids, ..Self::default() }, top))
    }

    /// Is anything told of the prompt that only a reply in one piece has a place for?
    fn of_prompt(&self) -> Option<&'static str> {
        self.echo.then_some("echo").or(self.prompt_logprobs.then_some("prompt_logprobs"))
    }
}

/// A request, read.
pub struct Ask {
    /// Choice after choice; those of one prompt stand together.
    pub asked: Vec<Asked>,
    /// Of all prompts, each once.
    pub prompt_tokens: usize,
    pub stream: bool,
    /// A stream ends with a count of tokens.
    pub include_usage: bool,
    pub logprobs: bool,
    pub told: Told,
    /// How calls of tools are found in the text, if it may have some.
    pub calls: Option<tools::Form>,
}

impl Ask {
    /// # Errors
    /// The first field that cannot be done, by name. `name` is the model's here.
    pub fn read(kind: Kind, body: &[u8], model: &Model, name: &str) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        self::model(&mut fields, name)?;
        let (mut told, mut prompt_logprobs) = (Told::default(), None);
        let (tools, prompts) = match kind {
            Kind::Chat => {
                fields.only("modalities", &[json!(["text"])])?;
                let tools = Tools::read(&mut fields)?;
                let prompt = messages::prompt(&mut fields, model, tools.as_ref())?;
                (tools, vec![prompt])
            }
            Kind::Completion => {
                (told, prompt_logprobs) = Told::read(&mut fields)?;
                fields.only("suffix", &[json!("")])?;
                fields.only("best_of", &[json!(1)])?;
                // Who writes a whole prompt is trusted with it, as by llama.cpp's server.
                (None, texts("prompt", CHOICES_MAX, true, &mut fields, model)?)
            }
        };
        let formed = form::read(&mut fields)?;
        let n = fields.whole("n", 1, CHOICES_MAX as u64)?.unwrap_or(1);
        if n * prompts.len() > CHOICES_MAX {
            let got = format!("{} prompts with {n} each", prompts.len());
            return Err(Refusal::invalid("n", &format!("at most {CHOICES_MAX} answers in all"), got));
        }
        let sampling = sampling::sampling(&mut fields, model.stage.config().vocabulary)?;
        let stop = sampling::stop(&mut fields)?;
        let top_logprobs = logprobs(kind, &mut fields)?;
        let stream = fields.flag("stream")?;
        if let Some(name) = told.of_prompt().filter(|_| stream || n > 1) {
            return Err(Refusal::unsupported(name, "a stream, or several choices, with it"));
        }
        if told.echo {
            told.echo_top = top_logprobs.unwrap_or(0);
            prompt_logprobs = prompt_logprobs.max(top_logprobs);
        }
        let logprobs = top_logprobs.is_some();
        // Ids come with what is told of tokens.
        let top_logprobs = top_logprobs.or(told.token_ids.then_some(0));
        let include_usage = stream_options(&mut fields, stream)?;
        let wanted = max_tokens(kind, &mut fields)?;
        // Who routes has read it; without anybody above, all is local.
        fields.take(asking::LOCAL_ONLY);
        fields.end()?;
        let constraint = constraint(tools.as_ref(), formed.as_ref(), model)?;
        let calls = tools.map(|tools| tools.form(formed.is_some()));

        let context = model.context();
        let mut asked = Vec::with_capacity(n * prompts.len());
        for prompt in &prompts {
            let room = context.saturating_sub(prompt.len());
            let max_tokens = wanted.unwrap_or(room);
            // A prompt that fills the context alone is refused for the one token that every answer has.
            if max_tokens.max(1) > room {
                return Err(Refusal::context(kind.param(), context, prompt.len(), max_tokens.max(1)));
            }
            asked.extend((0..n as u64).map(|choice| {
                let sampling = littoral_infer::sample::SamplingParams {
                    seed: sampling.seed.wrapping_add(choice),
                    ..sampling.clone()
                };
                let request = Request {
                    prompt: prompt.clone(),
                    max_tokens,
                    sampling,
                    constraint: constraint.clone(),
                    top_logprobs,
                    ignore_end: false,
                };
                Asked::Text { request: Box::new(request), stop: stop.clone(), prompt_logprobs }
            }));
        }
        let prompt_tokens: usize = prompts.iter().map(Vec::len).sum();
        if let Some(top) = prompt_logprobs.filter(|top| prompt_tokens * (top + 1) > PROMPT_TOLD_MAX) {
            let expected = format!("tokens of the prompt times one more than this: at most {PROMPT_TOLD_MAX}");
            return Err(Refusal::invalid("prompt_logprobs", &expected, format!("{prompt_tokens} times {}", top + 1)));
        }
        if told.token_ids || told.of_prompt().is_some() {
            told.prompts = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.clone(), n)).collect();
        }
        Ok(Self { asked, prompt_tokens, stream, include_usage, logprobs, told, calls })
    }
}

/// Which model is meant: there is one.
fn model(fields: &mut Fields, name: &str) -> Result<(), Refusal> {
    match fields.text("model")?.filter(|wanted| wanted != name) {
        Some(wanted) => Err(Refusal::model(name, &wanted.chars().take(128).collect::<String>())),
        None => Ok(()),
    }
}

/// What the text must be: calls of tools, or of a form, or either; or free but for the calls in it; or free.
fn constraint(tools: Option<&Tools>, formed: Option<&Formed>, model: &Model) -> Result<Option<Constraint>, Refusal> {
    let (tools, schema) = match (tools, formed) {
        (None, None) => return Ok(None),
        (None, Some(formed)) => return formed.constraint(model).map(Some),
        (Some(tools), None) => (tools, None),
        (Some(tools), Some(Formed { form: Form::Schema(schema), .. })) => (tools, Some(schema)),
        (Some(_), Some(Formed { param, .. })) => {
            return Err(Refusal::unsupported(param, "another form than JSON, with tools,"));
        }
    };
    // If it is the schema of the answer that is wrong, it is told by its own name.
    if let (Some(formed), Some(_)) = (formed, schema) {
        formed.constraint(model)?;
    }
    match tools.grammar(schema) {
        Some(grammar) => form::grammar("tools", &grammar, model).map(Some),
        None => form::text_with_calls(tools, model),
    }
}

fn max_tokens(kind: Kind, fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let max_tokens = fields.whole("max_tokens", 1, u32::MAX.into())?;
    Ok(match kind {
        Kind::Chat => fields.whole("max_completion_tokens", 1, u32::MAX.into())?.or(max_tokens),
        Kind::Completion => Some(max_tokens.unwrap_or(COMPLETION_TOKENS)),
    })
}

fn logprobs(kind: Kind, fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    match kind {
        Kind::Completion => fields.whole("logprobs", 0, TOP_MAX),
        Kind::Chat => match (fields.flag("logprobs")?, fields.whole("top_logprobs", 0, TOP_MAX)?) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(top)) => Err(Refusal::invalid("top_logprobs", "logprobs to be true with it", top)),
        },
    }
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, Refusal> {
    let name = "stream_options";
    match fields.take(name) {
        None => Ok(false),
        Some(_) if !stream => Err(Refusal::invalid(name, "stream to be true with it", "no stream")),
        // `include_obfuscation` pads chunks against those who watch the wire; there is none here.
        Some(Value::Object(options)) => Ok(options.get("include_usage").and_then(Value::as_bool).unwrap_or(false)),
        Some(other) => Err(Refusal::invalid(name, "an object", shown(&other))),
    }
}

/// A text, token ids, or lists of either.
fn texts(name: &str, most: usize, special: bool, fields: &mut Fields, model: &Model) -> Result<Vec<Vec<u32>>, Refusal> {
    let Some(value) = fields.take(name) else {
        return Err(Refusal::field(name, "missing_required_parameter", format!("{name}: missing")));
    };
    let one = |value: &Value| match value {
        Value::String(text) => Ok(model.tokeniser.encode_document(text, special)),
        Value::Array(ids) => ids
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect::<Option<Vec<u32>>>()
            .ok_or_else(|| Refusal::invalid(name, "token ids", shown(value))),
        other => Err(Refusal::invalid(name, "a string, token ids, or lists of either", shown(other))),
    };
    match &value {
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => {
            if items.len() > most {
                return Err(Refusal::invalid(name, &format!("at most {most}"), items.len()));
            }
            items.iter().map(one).collect()
        }
        other => Ok(vec![one(other)?]),
    }
}
