//! What is asked of an engine, and what it says.

use crate::constrain::Constraint;
use crate::model::Model;
use crate::sample::{SamplingParams, TokenLogProb};
use std::fmt;
use thiserror::Error;

/// A request that was taken in, numbered from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SequenceId(pub u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Go on with these tokens.
#[derive(Clone, Debug)]
pub struct Request {
    /// At least one.
    pub prompt: Vec<u32>,
    /// At least 1.
    pub max_tokens: usize,
    pub sampling: SamplingParams,
    /// What form the text must have, from its first token on: one that has taken none. The text ends when nothing can
    /// follow, or where the form allows an end and the model makes one.
    pub constraint: Option<Constraint>,
    /// Tell each token's log-probability, and so many of the best ones.
    pub top_logprobs: Option<usize>,
    /// Write on where the model would end; for measurements.
    pub ignore_end: bool,
}

/// Bounds of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sequences in one pass.
    pub running_max: usize,
    /// Requests that wait for a place.
    pub waiting_max: usize,
    /// Tokens of prompts that one pass reads beside the tokens that are written.
    pub prompt_tokens_per_pass: usize,
    /// Tokens of a sequence that one pass tries, of those that are proposed.
    pub proposed_max: usize,
    /// States of ended sequences, in bytes.
    pub kept_bytes_max: usize,
}

impl Limits {
    /// Tokens that one pass may have: prompts, a quarter as many of texts that become vectors, and what is written and tried.
    pub fn tokens_max(&self) -> usize {
        self.prompt_tokens_per_pass.max(1).div_ceil(4) * 5 + self.running_max * (1 + self.proposed_max)
    }

    /// The same sequences with shorter pieces of prompts and fewer proposals, so that a pass has at most so many tokens. `None`: there
    /// is no room for the sequences.
    pub fn within(self, tokens: usize) -> Option<Self> {
        // Half for prompts, in fours as they are counted.
        let prompt = (tokens / 10 * 4).clamp(4, self.prompt_tokens_per_pass.max(4));
        let rest = tokens.checked_sub(prompt.div_ceil(4) * 5)?;
        let each = rest / self.running_max.max(1);
        let proposed_max = each.checked_sub(1)?.min(self.proposed_max);
        Some(Self { prompt_tokens_per_pass: prompt.min(self.prompt_tokens_per_pass), proposed_max, ..self })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            running_max: 12,
            waiting_max: 64,
            prompt_tokens_per_pass: 128,
            proposed_max: 64,
            kept_bytes_max: 256 << 20,
        }
    }
}

/// Why a sequence ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Finish {
    /// The model said so, or nothing more can follow under the constraint.
    End,
    /// As many tokens as were asked for.
    Length,
    /// The model's context is full.
    Context,
    /// What the request's constraint asks for cannot be written to its end.
    Unfit(String),
    Failed(String),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// `reused`: tokens of the prompt whose state was here already.
    Started {
        sequence: SequenceId,
        reused: usize,
    },
    Token {
        sequence: SequenceId,
        id: u32,
        logprob: Option<f32>,
        top: Vec<TokenLogProb>,
    },
    /// Of tokens that were proposed, so many were what the sequence wrote.
    Tried {
        sequence: SequenceId,
        proposed: usize,
        accepted: usize,
    },
    /// The vector of a text, `width` elements, of length 1. Texts are told in their order.
    Embedded {
        sequence: SequenceId,
        text: usize,
        vector: Vec<f32>,
    },
    Finished {
        sequence: SequenceId,
        why: Finish,
    },
}

/// A token of a prompt, as the model sees it after those before it.
#[derive(Clone, PartialEq, Debug)]
pub struct PromptToken {
    pub sequence: SequenceId,
    /// Its place in the prompt; the first token, before which there is nothing, is not told.
    pub at: usize,
    pub id: u32,
    /// Natural logarithm.
    pub logprob: f32,
    /// 1 and the number of tokens that are more probable, or as probable and of a lower id.
    pub rank: usize,
    /// The most probable first.
    pub top: Vec<TokenLogProb>,
}

/// Why a request was not taken in.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum Refused {
    #[error("{field}: {expected} expected, got {got}")]
    Field { field: &'static str, expected: String, got: String },
    #[error(
        "the prompt has {got} tokens: at most {expected} expected, so that the context of {context} has room for an answer"
    )]
    Context { context: usize, expected: usize, got: usize },
    #[error("{waiting} requests wait already: ask again later")]
    Busy { waiting: usize },
}

/// Can these become vectors at all?
pub(super) fn check_texts(texts: &[Vec<u32>], model: &Model) -> Result<(), Refused> {
    let refuse = |expected: &str, got: String| Err(Refused::Field { field: "input", expected: expected.into(), got });
    let (vocabulary, context) = (model.stage.config().vocabulary, model.context());
    if texts.is_empty() {
        return refuse("at least one text", "none".into());
    }
    for (at, text) in texts.iter().enumerate() {
        if text.is_empty() {
            return refuse("texts of at least one token", format!("none in text {at}"));
        }
        if text.len() > context {
            return refuse(&format!("at most {context} tokens in a text"), format!("{} in text {at}", text.len()));
        }
        if let Some(id) = text.iter().find(|id| **id as usize >= vocabulary) {
            return refuse(&format!("token ids below {vocabulary}"), format!("{id} in text {at}"));
        }
    }
    Ok(())
}

/// Can this be answered at all?
pub(super) fn check(request: &Request, model: &Model) -> Result<(), Refused> {
    let refuse = |field, expected: &str, got: String| Err(Refused::Field { field, expected: expected.into(), got });
    let (vocabulary, context) = (model.stage.config().vocabulary, model.context());
    if request.prompt.is_empty() {
        return refuse("prompt", "at least one token", "none".into());
    }
    if let Some(id) = request.prompt.iter().find(|id| **id as usize >= vocabulary) {
        return refuse("prompt", &format!("token ids below {vocabulary}"), id.to_string());
    }
    if request.max_tokens == 0 {
        return refuse("max_tokens", "at least 1", "0".into());
    }
    if let Err(error) = request.sampling.validate() {
        return refuse("sampling", "values within their ranges", error.to_string());
    }
    if let Some(other) = request.constraint.as_ref().map(Constraint::vocabulary).filter(|size| *size != vocabulary) {
        return refuse("constraint", &format!("one over {vocabulary} tokens"), other.to_string());
    }
    if request.prompt.len() >= context {
        return Err(Refused::Context { context, expected: context - 1, got: request.prompt.len() });
    }
    Ok(())
}

/// Can the answer go on after these tokens?
pub(super) fn check_answer(request: &Request, answer: &[u32], model: &Model) -> Result<(), Refused> {
    let refuse = |expected: String, got: String| Err(Refused::Field { field: "answer", expected, got });
    let vocabulary = model.stage.config().vocabulary;
    let room = request.max_tokens.min(model.context() - request.prompt.len());
    if answer.len() >= room {
        return refuse(format!("fewer than {room} tokens"), answer.len().to_string());
    }
    match answer.iter().find(|id| **id as usize >= vocabulary) {
        Some(id) => refuse(format!("token ids below {vocabulary}"), id.to_string()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn passes_fit_into_what_there_is_room_for() {
        let within = |tokens, running_max| Limits { running_max, ..Limits::default() }.within(tokens);
        // Vectors of 896, 5,120, 8,192 and 16,384 elements as f32 in 4 MiB.
        for (tokens, prompt, proposed) in [(1_170, 128, 64), (204, 80, 7), (128, 48, 4), (64, 24, 1)] {
            let limits = within(tokens, 12).unwrap();
            assert_eq!((limits.prompt_tokens_per_pass, limits.proposed_max), (prompt, proposed), "{tokens}");
        }
        for tokens in 0..400 {
            for running in [1, 12, 100] {
                let limits = within(tokens, running);
                assert!(limits.is_none_or(|limits| limits.tokens_max() <= tokens && limits.running_max == running));
                assert!(limits.is_some() || tokens < 10 + 2 * running, "{tokens}, {running}");
            }
        }
    }
}
