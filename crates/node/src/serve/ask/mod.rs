//! What a request asks for: from a body to answers to be written.

mod fields;
mod messages;
mod sampling;

use super::refusal::Refusal;
use super::writer::Asked;
use fields::{Fields, shown};
use littoral_infer::engine::Request;
use littoral_infer::model::Model;
use serde_json::{Value, json};

/// Answers that one request may ask for.
const CHOICES_MAX: usize = 16;
/// Alternatives per token that `logprobs` may ask for.
const TOP_MAX: u64 = 20;
/// Tokens of a completion, if nobody says how many; as OpenAI has it. A chat goes on until the model ends it.
const COMPLETION_TOKENS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Completion,
}

impl Kind {
    /// Where the prompt stands.
    pub fn param(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completion => "prompt",
        }
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
}

impl Ask {
    /// # Errors
    /// The first field that cannot be done, by name. `name` is the model's here.
    pub fn read(kind: Kind, body: &[u8], model: &Model, name: &str) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        if let Some(wanted) = fields.text("model")?.filter(|wanted| wanted != name) {
            return Err(Refusal::model(name, &wanted.chars().take(128).collect::<String>()));
        }
        let prompts = match kind {
            Kind::Chat => {
                refuse_tools(&mut fields)?;
                vec![messages::prompt(&mut fields, model)?]
            }
            Kind::Completion => prompts(&mut fields, model)?,
        };
        let n = fields.whole("n", 1, CHOICES_MAX as u64)?.unwrap_or(1);
        if n * prompts.len() > CHOICES_MAX {
            let got = format!("{} prompts with {n} each", prompts.len());
            return Err(Refusal::invalid("n", &format!("at most {CHOICES_MAX} answers in all"), got));
        }
        let sampling = sampling::sampling(&mut fields, model.stage.config().vocabulary)?;
        let stop = sampling::stop(&mut fields)?;
        let top_logprobs = logprobs(kind, &mut fields)?;
        let stream = fields.flag("stream")?;
        let include_usage = stream_options(&mut fields, stream)?;
        let wanted = max_tokens(kind, &mut fields)?;
        fields.end()?;

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
                let request = Request { prompt: prompt.clone(), max_tokens, sampling, constraint: None, top_logprobs, ignore_end: false };
                Asked { request, stop: stop.clone() }
            }));
        }
        let prompt_tokens = prompts.iter().map(Vec::len).sum();
        Ok(Self { asked, prompt_tokens, stream, include_usage, logprobs: top_logprobs.is_some() })
    }
}

/// Text that must be JSON, and calls of tools, need a sampler that follows a grammar.
fn refuse_tools(fields: &mut Fields) -> Result<(), Refusal> {
    fields.only("tools", &[json!([])])?;
    fields.only("tool_choice", &[json!("none"), json!("auto")])?;
    fields.only("functions", &[json!([])])?;
    fields.only("function_call", &[json!("none"), json!("auto")])?;
    fields.only("modalities", &[json!(["text"])])?;
    fields.only("response_format", &[json!({"type": "text"})])
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
fn prompts(fields: &mut Fields, model: &Model) -> Result<Vec<Vec<u32>>, Refusal> {
    fields.only("echo", &[json!(false)])?;
    fields.only("suffix", &[json!("")])?;
    fields.only("best_of", &[json!(1)])?;
    fields.only("response_format", &[json!({"type": "text"})])?;
    let name = "prompt";
    let Some(value) = fields.take(name) else {
        return Err(Refusal::field(name, "missing_required_parameter", "prompt: missing"));
    };
    let one = |value: &Value| match value {
        Value::String(text) => Ok(model.tokeniser.encode_document(text, false)),
        Value::Array(ids) => ids
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect::<Option<Vec<u32>>>()
            .ok_or_else(|| Refusal::invalid(name, "token ids", shown(value))),
        other => Err(Refusal::invalid(name, "a string, token ids, or lists of either", shown(other))),
    };
    match &value {
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => {
            if items.len() > CHOICES_MAX {
                return Err(Refusal::invalid(name, &format!("at most {CHOICES_MAX}"), items.len()));
            }
            items.iter().map(one).collect()
        }
        other => Ok(vec![one(other)?]),
    }
}
