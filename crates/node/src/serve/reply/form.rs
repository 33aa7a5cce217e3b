//! Texts in the forms that OpenAI's API has for them.

use super::prompts;
use crate::serve::ask::{Kind, Told};
use crate::serve::tools;
use crate::serve::words::Token;
use crate::serve::writer::{By, End, Share};
use littoral_infer::engine::PromptToken;
use littoral_infer::model::Model;
use littoral_infer::sample::TokenLogProb;
use littoral_infer::speculate::drafter::{Yield, Yields};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is the same in all parts of one reply.
pub struct Form {
    pub kind: Kind,
    pub id: String,
    pub created: u64,
    pub name: Arc<str>,
    pub model: Arc<Model>,
    pub logprobs: bool,
    pub told: Told,
    /// A stream whose last part counts tokens says in all others that they do not.
    pub include_usage: bool,
    /// How to find calls of tools in the text, if there may be some.
    pub calls: Option<tools::Form>,
    pub by: By,
    pub names: Arc<Names>,
    /// A stream's parts say who wrote them.
    pub tells: bool,
    /// Tokens of the server above are its greedy ones, as far as that can be told from outside.
    pub greedy: bool,
}

/// What people call this server and the machines above it.
#[derive(Clone, Debug)]
pub struct Names {
    pub here: String,
    pub above: Vec<String>,
}

impl Names {
    pub fn of(&self, by: By) -> &str {
        match by {
            By::Here => &self.here,
            By::Upstream(at) => self.above.get(at).map_or("upstream", String::as_str),
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self { here: "here".into(), above: vec!["upstream".into()] }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub prompt: usize,
    pub reused: usize,
    pub written: usize,
    pub share: Share,
}

impl Usage {
    /// An answer has ended.
    pub fn count(&mut self, written: usize, share: Share) {
        self.written += written;
        self.share.parts.extend(share.parts);
        self.share.passes += share.passes;
        self.share.yields = self.share.yields.and(share.yields);
    }

    /// `littoral`: who wrote how many of the tokens, which OpenAI's API has no word for.
    fn to_json(&self, form: &Form) -> Value {
        let (by, names) = (form.by, &*form.names);
        let mut tokens: BTreeMap<&str, u64> = BTreeMap::new();
        for (by, count) in &self.share.parts {
            *tokens.entry(names.of(*by)).or_default() += count;
        }
        // Whoever began it: that may have become another than was meant to.
        let by = self.share.parts.first().map_or(by, |(by, _)| *by);
        let mut littoral = json!({"by": names.of(by), "tokens": tokens, "upstream_passes": self.share.passes});
        let Yields { model, text } = self.share.yields;
        for (source, Yield { drafted, held }) in [("model", model), ("lookup", text)] {
            if drafted > 0 {
                littoral["drafted"][source] = json!({"tokens": drafted, "held": held});
            }
        }
        if form.greedy {
            littoral["exact"] =
                json!(format!("tokens of {}: that server's greedy ones, up to its batching", names.of(by)));
        }
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.written,
            "total_tokens": self.prompt + self.written,
            "prompt_tokens_details": {"cached_tokens": self.reused},
            "littoral": littoral,
        })
    }
}

/// `calls`: how many tools were called.
pub fn reason(why: &End, calls: usize) -> &'static str {
    match why {
        End::Length => "length",
        _ if calls > 0 => "tool_calls",
        _ => "stop",
    }
}

/// JSON has no infinity; this is what OpenAI says for it.
const IMPOSSIBLE: f32 = -9999.0;

impl Form {
    /// One of a stream's parts. `offset`: characters of this choice before.
    pub fn chunk(&self, choice: usize, part: Part<'_>, offset: usize) -> Value {
        let mut value = json!({"index": choice, "logprobs": null, "finish_reason": null});
        match (self.kind, &part) {
            (Kind::Chat, Part::Opening) => value["delta"] = json!({"role": "assistant", "content": ""}),
            (Kind::Chat, Part::Text(text, ..)) => value["delta"] = json!({"content": text}),
            (Kind::Chat, Part::Call { index, name }) => {
                let mut call = self.call(choice, *index, name, "");
                call["index"] = json!(index);
                value["delta"] = json!({"tool_calls": [call]});
            }
            (Kind::Chat, Part::Arguments { index, piece }) => {
                value["delta"] = json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]});
            }
            (Kind::Chat, Part::End(_)) => value["delta"] = json!({}),
            (Kind::Completion, Part::Text(text, tokens, _)) => {
                value["text"] = json!(text);
                if self.told.token_ids {
                    value["token_ids"] = tokens.iter().map(|token| token.id).collect();
                }
            }
            (Kind::Completion, _) => value["text"] = json!(""),
        }
        let by = part.by();
        match part {
            Part::Text(_, tokens, _) if self.logprobs => value["logprobs"] = self.tokens(tokens, offset),
            Part::End(reason) => value["finish_reason"] = json!(reason),
            _ => {}
        }
        let mut body = self.around("chat.completion.chunk", json!([value]));
        if self.include_usage {
            body["usage"] = Value::Null;
        }
        if let (true, Some(by)) = (self.tells, by) {
            body["littoral"] = json!({"by": self.names.of(by)});
        }
        body
    }

    /// The last part of a stream that counts.
    pub fn counted(&self, usage: &Usage) -> Value {
        let mut body = self.around("chat.completion.chunk", json!([]));
        body["usage"] = usage.to_json(self);
        body
    }

    /// A reply in one piece.
    pub fn whole(&self, choices: &[Whole], usage: &Usage) -> Value {
        let choices = choices.iter().enumerate().map(|(index, choice)| {
            let mut value = json!({"index": index, "logprobs": null, "finish_reason": choice.reason});
            match self.kind {
                Kind::Chat => {
                    let called = !choice.calls.is_empty();
                    let content = if called && choice.text.is_empty() { Value::Null } else { json!(choice.text) };
                    value["message"] = json!({"role": "assistant", "content": content, "refusal": null});
                    if called {
                        let calls = choice.calls.iter().enumerate();
                        let calls = calls.map(|(at, (name, arguments))| self.call(index, at, name, arguments));
                        value["message"]["tool_calls"] = calls.collect();
                    }
                }
                Kind::Completion => value["text"] = json!(choice.text),
            }
            if self.logprobs {
                value["logprobs"] = self.tokens(&choice.tokens, 0);
            }
            if let Some(prompt) = self.told.prompts.get(index) {
                prompts::tell(self, prompt, choice, &mut value);
            }
            value
        });
        let mut body = self.around("chat.completion", choices.collect());
        body["usage"] = usage.to_json(self);
        body
    }

    /// A call of a tool. Its id is one that no other reply has.
    fn call(&self, choice: usize, index: usize, name: &str, arguments: &str) -> Value {
        let reply = self.id.rsplit('-').next().unwrap_or_default();
        json!({
            "id": format!("call_{reply}_{choice}_{index}"),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        })
    }

    /// Characters of tokens, as `text_offset` counts them.
    pub fn characters(&self, tokens: &[Token]) -> usize {
        tokens.iter().map(|token| self.text(token.id).0.chars().count()).sum()
    }

    fn around(&self, chat_object: &str, choices: Value) -> Value {
        let object = if self.kind == Kind::Chat { chat_object } else { "text_completion" };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": &*self.name,
            "system_fingerprint": concat!("littoral-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    pub(super) fn tokens(&self, tokens: &[Token], offset: usize) -> Value {
        match self.kind {
            Kind::Chat => {
                let told = |token: &Token| {
                    let mut value = self.told(token.id, token.logprob);
                    value["top_logprobs"] = token.top.iter().map(|top| self.told(top.id, top.logprob)).collect();
                    value
                };
                json!({"content": tokens.iter().map(told).collect::<Vec<_>>(), "refusal": null})
            }
            Kind::Completion => {
                let texts: Vec<String> = tokens.iter().map(|token| self.text(token.id).0).collect();
                let offsets: Vec<usize> = texts
                    .iter()
                    .scan(offset, |at, text| Some(std::mem::replace(at, *at + text.chars().count())))
                    .collect();
                let top = |token: &Token| -> Value {
                    let pair = |top: &TokenLogProb| (self.text(top.id).0, json!(finite(top.logprob)));
                    Value::Object(token.top.iter().map(pair).collect())
                };
                json!({
                    "tokens": texts,
                    "token_logprobs": tokens.iter().map(|token| finite(token.logprob)).collect::<Vec<_>>(),
                    "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
                    "text_offset": offsets,
                })
            }
        }
    }

    fn told(&self, id: u32, logprob: f32) -> Value {
        let (text, bytes) = self.text(id);
        json!({"token": text, "logprob": finite(logprob), "bytes": bytes})
    }

    /// A token's text and bytes; a control token has the name that the file gives it.
    pub(super) fn text(&self, id: u32) -> (String, Vec<u8>) {
        let mut bytes = Vec::new();
        self.model.tokeniser.bytes(id, &mut bytes);
        if bytes.is_empty() {
            bytes.extend_from_slice(self.model.tokeniser.token(id).unwrap_or_default().as_bytes());
        }
        (String::from_utf8_lossy(&bytes).into_owned(), bytes)
    }
}

pub(super) fn finite(logprob: f32) -> f32 {
    logprob.max(IMPOSSIBLE)
}

/// What a part of a stream says.
pub enum Part<'a> {
    Opening,
    Text(&'a str, &'a [Token], By),
    /// The beginning of a call of a tool.
    Call {
        index: usize,
        name: &'a str,
    },
    Arguments {
        index: usize,
        piece: &'a str,
    },
    /// Why it ended.
    End(&'static str),
}

impl Part<'_> {
    fn by(&self) -> Option<By> {
        match self {
            Self::Text(_, _, by) => Some(*by),
            _ => None,
        }
    }
}

/// An answer in one piece.
#[derive(Default)]
pub struct Whole {
    /// Of the prompt, from its second token on, if they are told.
    pub prompt: Vec<PromptToken>,
    pub text: String,
    /// Tools that it calls: name and arguments.
    pub calls: Vec<(String, String)>,
    pub tokens: Vec<Token>,
    pub reason: &'static str,
}
