//! One answer: tokens as the engine writes them, and how long it took.

use super::settings::Settings;
use crate::output::Failure;
use littoral_infer::constrain::Constraint;
use littoral_infer::engine::{Engine, Event, Finish, Refused, Request};
use littoral_model::text::Detokeniser;
use littoral_tensor::pool::Pool;
use serde_json::{Value, json};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub struct Writer {
    pub engine: Engine,
    pub pool: Pool,
    pub constraint: Option<Constraint>,
    pub settings: Settings,
}

pub struct Answer {
    pub text: String,
    pub ids: Vec<u32>,
    pub prompt_tokens: usize,
    /// Tokens of the prompt that an earlier answer had read.
    pub reused: usize,
    pub ttft: Duration,
    /// From the first token to the last.
    pub decoding: Duration,
    pub end: End,
}

/// Why an answer has no more words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All was said.
    Whole,
    /// `max_tokens` were written.
    Length,
    /// The model's context is full.
    Context,
    /// Somebody wanted no more.
    Stopped,
}

/// Why there is no answer.
pub enum Unanswered {
    /// Prompt and answer have no room in the context.
    Full {
        context: usize,
        got: usize,
    },
    Failed(Failure),
}

impl From<Unanswered> for Failure {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Full { context, got } => {
                let expected = format!("less than the model's context of {context} tokens");
                Self::new("no answer", "the prompt", expected, format!("{got} tokens"))
            }
            Unanswered::Failed(failure) => failure,
        }
    }
}

impl Writer {
    /// Goes on after `prompt`. Ends early, with what is written by then, when `stop` is set.
    pub fn answer(
        &mut self,
        prompt: Vec<u32>,
        stop: &AtomicBool,
        on_piece: &mut dyn FnMut(&str),
    ) -> Result<Answer, Unanswered> {
        let model = self.engine.model().clone();
        let (begun, prompt_tokens) = (Instant::now(), prompt.len());
        let request = Request {
            prompt,
            max_tokens: self.settings.max_tokens,
            sampling: self.settings.sampling.clone(),
            constraint: self.constraint.clone(),
            top_logprobs: None,
            ignore_end: false,
        };
        let failed =
            |why: String| Unanswered::Failed(Failure::new("no answer", "the prompt", "one that the model takes", why));
        let sequence = self.engine.submit(request).map_err(|why| match why {
            Refused::Context { context, got, .. } => Unanswered::Full { context, got },
            why => failed(why.to_string()),
        })?;
        let mut words = Detokeniser::new(&model.tokeniser);
        let (mut text, mut ids, mut reused) = (String::new(), Vec::new(), 0);
        let (mut first, mut last, mut end) = (None, begun, None);
        while end.is_none() {
            for event in self.engine.step(&self.pool) {
                match event {
                    Event::Started { reused: known, .. } => reused = known,
                    Event::Embedded { .. } | Event::Tried { .. } => {}
                    Event::Token { id, .. } => {
                        last = Instant::now();
                        first.get_or_insert(last);
                        ids.push(id);
                        let piece = words.push(id);
                        text.push_str(piece);
                        on_piece(piece);
                    }
                    Event::Finished { why, .. } => {
                        end = Some(match why {
                            Finish::End => End::Whole,
                            Finish::Length => End::Length,
                            Finish::Context => End::Context,
                            Finish::Unfit(why) | Finish::Failed(why) => return Err(failed(why)),
                        });
                    }
                }
            }
            if end.is_none() && stop.load(Ordering::Relaxed) {
                self.engine.cancel(sequence);
                end = Some(End::Stopped);
            }
        }
        let piece = words.finish();
        text.push_str(piece);
        on_piece(piece);
        let first = first.unwrap_or(last);
        let (ttft, decoding, end) = (first - begun, last - first, end.unwrap_or(End::Whole));
        Ok(Answer { text, ids, prompt_tokens, reused, ttft, decoding, end })
    }
}

impl Answer {
    pub fn to_json(&self) -> Value {
        json!({
            "text": self.text,
            "ids": self.ids,
            "prompt_tokens": self.prompt_tokens,
            "decode_tok_s": tokens_per_s(self.ids.len().saturating_sub(1), self.decoding),
            "ttft_s": self.ttft.as_secs_f64(),
        })
    }
}

/// 0 if there was no step.
pub fn tokens_per_s(steps: usize, within: Duration) -> f64 {
    if steps > 0 { steps as f64 / within.as_secs_f64() } else { 0.0 }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, speed) =
            (self.prompt_tokens - self.reused, tokens_per_s(self.ids.len().saturating_sub(1), self.decoding));
        write!(f, "{read} tokens read")?;
        if self.reused > 0 {
            write!(f, " after {} that were known", self.reused)?;
        }
        let (ttft_s, written) = (self.ttft.as_secs_f64(), self.ids.len());
        write!(f, ", the first written after {ttft_s:.2} s, {written} tokens at {speed:.1} tok/s")?;
        match self.end {
            End::Whole => Ok(()),
            End::Length => write!(f, "; cut off: it has all the tokens that it may have"),
            End::Context => write!(f, "; the context is full"),
            End::Stopped => write!(f, "; stopped"),
        }
    }
}
