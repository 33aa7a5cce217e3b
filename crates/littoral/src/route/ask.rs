//! A model's own answers to many prompts, and how sure it was of each token.
//!
//! Greedy, so that they are a function of the model and the prompt; many at once, which changes no bit of any.

use crate::llm;
use crate::output::{self, Failure};
use crate::run::conversation::{Conversation, Role};
use littoral_infer::engine::{Engine, Event, Finish, Limits, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::route::features::{TOP, TokenSeen};
use littoral_infer::sample::SamplingParams;
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

/// Loads a model and lets it answer each prompt with at most `tokens_max` tokens.
pub fn ask(path: &Path, prompts: &[String], tokens_max: usize, pool: &Pool) -> Result<Vec<Answered>, Failure> {
    let model = Arc::new(llm::load(path, pool)?);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // All wait at once: their number is bounded by whoever asks.
    let limits = Limits { waiting_max: prompts.len(), ..Limits::default() };
    let mut engine = Engine::new(model.clone(), CacheType::default(), limits)?;
    let mut running = BTreeMap::new();
    for (at, prompt) in prompts.iter().enumerate() {
        running.insert(submit(&mut engine, &model, at, prompt, tokens_max)?, Writing::new(at, &model));
    }
    let mut answered: Vec<Option<Answered>> = prompts.iter().map(|_| None).collect();
    let mut done = 0;
    while !engine.idle() {
        for event in engine.step(pool) {
            match event {
                Event::Token { sequence, id, logprob, top } => {
                    let Some(writing) = running.get_mut(&sequence) else { continue };
                    writing.text.push_str(writing.words.push(id));
                    let top = top.iter().map(|token| token.logprob).collect();
                    writing.tokens.push(TokenSeen { logprob: logprob.unwrap_or(f32::NEG_INFINITY), top });
                }
                Event::Finished { sequence, why } => {
                    let Some(writing) = running.remove(&sequence) else { continue };
                    if let Finish::Failed(why) | Finish::Unfit(why) = why {
                        return Err(unanswered(writing.at, why));
                    }
                    let at = writing.at;
                    answered[at] = Some(writing.end());
                    done += 1;
                    if done % 100 == 0 || done == prompts.len() {
                        output::talk(&format!("{name}: {done} of {} prompts answered", prompts.len()));
                    }
                }
                Event::Started { .. } | Event::Embedded { .. } => {}
            }
        }
    }
    let all = answered.into_iter().enumerate();
    all.map(|(at, answered)| answered.ok_or_else(|| unanswered(at, "no answer".into()))).collect()
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

fn unanswered(at: usize, why: String) -> Failure {
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

    fn end(mut self) -> Answered {
        self.text.push_str(self.words.finish());
        Answered { text: self.text, tokens: self.tokens }
    }
}
