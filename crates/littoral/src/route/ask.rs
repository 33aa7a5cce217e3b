//! A model's own answers to many prompts, and how sure it was of each token.
//!
//! Greedy, so that they are a function of the model and the prompt; many at once, which changes no bit of any.

use crate::llm;
use crate::output::Failure;
use crate::run::conversation::{Conversation, Role};
use littoral_infer::engine::{Engine, Event, Finish, Limits, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::route::features::{TOP, TokenSeen};
use littoral_infer::sample::{SamplingParams, TokenLogProb};
use littoral_model::lm::CacheType;
use littoral_model::text::Detokeniser;
use littoral_tensor::pool::Pool;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    pub text: String,
    pub tokens: Vec<TokenSeen>,
}

/// A model that is asked.
pub struct Answerer {
    model: Arc<Model>,
}

impl Answerer {
    pub fn load(path: &Path, pool: &Pool) -> Result<Self, Failure> {
        Ok(Self { model: Arc::new(llm::load(path, pool)?) })
    }

    /// Answers prompts, each with the place that an error names, with at most `tokens_max` tokens.
    pub fn ask(&self, prompts: &[(usize, &str)], tokens_max: usize, pool: &Pool) -> Result<Vec<Answered>, Failure> {
        // All wait at once: their number is bounded by whoever asks.
        let limits = Limits { waiting_max: prompts.len(), ..Limits::default() };
        let mut engine = Engine::new(self.model.clone(), CacheType::default(), limits)?;
        let mut writing: BTreeMap<SequenceId, Writing> = BTreeMap::new();
        for (at, prompt) in prompts {
            writing.insert(submit(&mut engine, &self.model, *at, prompt, tokens_max)?, Writing::new(*at, &self.model));
        }
        while !engine.idle() {
            for event in engine.step(pool) {
                match event {
                    Event::Token { sequence, id, logprob, top } => {
                        if let Some(writing) = writing.get_mut(&sequence) {
                            writing.push(id, logprob, &top);
                        }
                    }
                    Event::Finished { sequence, why: Finish::Failed(why) | Finish::Unfit(why) } => {
                        let at = writing.get(&sequence).map_or(0, |writing| writing.at);
                        return Err(unanswered(at, why));
                    }
                    Event::Finished { .. } | Event::Started { .. } | Event::Tried { .. } | Event::Embedded { .. } => {}
                }
            }
        }
        // Sequences are numbered as they were submitted.
        Ok(writing.into_values().map(Writing::end).collect())
    }
}

fn submit(
    engine: &mut Engine,
    model: &Model,
    at: usize,
    prompt: &str,
    tokens_max: usize,
) -> Result<SequenceId, Failure> {
    let mut conversation = Conversation::new(None, false);
    conversation.push(Role::User, prompt);
    let request = Request {
        prompt: conversation.ids(model)?,
        max_tokens: tokens_max,
        sampling: SamplingParams::greedy(),
        constraint: None,
        top_logprobs: Some(TOP),
        ignore_end: false,
    };
    engine.submit(request).map_err(|why| unanswered(at, why.to_string()))
}

/// `at`: of the prompt, from 0.
pub fn unanswered(at: usize, why: String) -> Failure {
    Failure::new("the models were not asked", format!("prompt {}", at + 1), "an answer", why)
}

/// An answer that is being written.
struct Writing<'a> {
    at: usize,
    words: Detokeniser<'a>,
    text: String,
    tokens: Vec<TokenSeen>,
}

impl<'a> Writing<'a> {
    fn new(at: usize, model: &'a Model) -> Self {
        Self { at, words: Detokeniser::new(&model.tokeniser), text: String::new(), tokens: Vec::new() }
    }

    fn push(&mut self, id: u32, logprob: Option<f32>, top: &[TokenLogProb]) {
        self.text.push_str(self.words.push(id));
        // JSON has no infinity.
        let top = top.iter().map(|token| token.logprob.max(f32::MIN)).collect();
        self.tokens.push(TokenSeen { logprob: logprob.unwrap_or(f32::MIN), top });
    }

    fn end(mut self) -> Answered {
        self.text.push_str(self.words.finish());
        Answered { text: self.text, tokens: self.tokens }
    }
}
