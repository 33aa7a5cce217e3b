//! An answer that the small model has begun, of which nothing is given out until it is decided who answers.

use super::ask::Kind;
use super::routed::Asking;
use super::words::Words;
use littoral_infer::engine::{Event, Finish, Request};
use littoral_infer::route::features::{Seen, TOP, TokenSeen, When};
use littoral_infer::route::rule::Rule;
use littoral_infer::sample::stop::StopStrings;
use littoral_model::text::Tokeniser;
use std::sync::Arc;

pub struct Trial<'m> {
    when: When,
    pub rule: Rule,
    pub kind: Kind,
    prompt: Arc<str>,
    /// As it was asked.
    request: Request,
    stop: StopStrings,
    words: Words<'m>,
    text: String,
    tokens: Vec<TokenSeen>,
    events: Vec<Event>,
    failed: bool,
}

impl<'m> Trial<'m> {
    pub fn new(when: When, asking: Asking, request: Request, stop: StopStrings, tokeniser: &'m Tokeniser) -> Self {
        let words = Words::new(tokeniser, stop.clone());
        let (text, tokens, events) = (String::new(), Vec::new(), Vec::new());
        let Asking { rule, prompt, kind, .. } = asking;
        Self { when, rule, kind, prompt, request, stop, words, text, tokens, events, failed: false }
    }

    /// What the small model is asked: the same, and how sure it is.
    pub fn asked(&self) -> Request {
        let top = self.request.top_logprobs.unwrap_or(0).max(TOP);
        Request { top_logprobs: Some(top), ..self.request.clone() }
    }

    /// True if enough is known now.
    pub fn hear(&mut self, event: Event) -> bool {
        let enough = match &event {
            Event::Token { id, logprob, top, .. } => {
                self.text += &self.words.push(*id, None).text;
                let top = top.iter().take(TOP).map(|token| token.logprob).collect();
                self.tokens.push(TokenSeen { logprob: logprob.unwrap_or(f32::NEG_INFINITY), top });
                self.when == When::Before || self.words.stopped()
            }
            Event::Finished { why, .. } => {
                self.text += &self.words.finish().text;
                self.failed = matches!(why, Finish::Failed(_) | Finish::Unfit(_));
                true
            }
            _ => false,
        };
        self.events.push(event);
        enough
    }

    /// What the decision depends on; `None` if the small model could not answer.
    pub fn seen(&self) -> Option<Seen<'_>> {
        (!self.failed).then_some(Seen { prompt: &self.prompt, answer: &self.text, tokens: &self.tokens })
    }

    /// What the small model said so far.
    pub fn heard(self) -> Vec<Event> {
        self.events
    }

    /// What was asked for at first.
    pub fn asked_for(&self) -> (Request, StopStrings) {
        (self.request.clone(), self.stop.clone())
    }
}
