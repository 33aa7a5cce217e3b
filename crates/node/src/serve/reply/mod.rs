//! From what the writer says to what a client reads: in one piece, or as server-sent events.

mod form;
mod prompts;
mod vectors;

pub use form::{Form, Names, Usage};
pub use vectors::vectors;

use super::ask::Kind;
use super::refusal::Refusal;
use super::tools::{Calls, Heard};
use super::writer::{By, End, Said};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use form::{Part, Whole, reason};
use serde_json::Value;
use std::collections::VecDeque;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// All answers, when the last has ended.
pub async fn whole(
    form: &Form,
    mut said: UnboundedReceiver<Said>,
    choices: usize,
    prompt_tokens: usize,
) -> Result<Response, Refusal> {
    let mut wholes: Vec<Whole> = (0..choices).map(|_| Whole::default()).collect();
    let mut usage = Usage { prompt: prompt_tokens, ..Usage::default() };
    let mut open = choices;
    while open > 0 {
        match said.recv().await {
            None => return Err(broken(None)),
            Some(Said::Started { choice, reused }) => count_reused(&mut usage, choice, reused),
            Some(Said::Prompt { choice, token }) => wholes[choice].prompt.push(token),
            Some(Said::Text { choice, piece, .. }) => {
                wholes[choice].text.push_str(&piece.text);
                wholes[choice].tokens.extend(piece.tokens);
            }
            Some(Said::Placed { .. } | Said::Away { .. } | Said::Vector { .. }) => {}
            Some(Said::Ended { why: why @ (End::Unfit(_) | End::Failed(_) | End::Closing), .. }) => {
                return Err(broken(Some(&why)));
            }
            Some(Said::Ended { choice, why, written, share }) => {
                let whole = &mut wholes[choice];
                if let Some(calls) = &form.calls {
                    hear_calls(whole, Calls::new(calls.clone()));
                }
                whole.reason = reason(&why, whole.calls.len());
                usage.count(written, share);
                open -= 1;
            }
        }
    }
    Ok(json_response(&form.whole(&wholes, &usage)))
}

/// Takes the calls out of the text.
fn hear_calls(whole: &mut Whole, mut calls: Calls) {
    let mut heard = calls.push(&std::mem::take(&mut whole.text));
    heard.extend(calls.finish());
    for one in heard {
        match one {
            Heard::Text(text) => whole.text.push_str(&text),
            Heard::Call { name, .. } => whole.calls.push((name, String::new())),
            Heard::Arguments { index, piece } => whole.calls[index].1.push_str(&piece),
        }
    }
}

/// Parts as they come. A failure in the middle is an event with an error in it, and the stream has no `[DONE]`.
/// `busy` is dropped with the last of it.
pub fn stream(
    form: Form,
    said: UnboundedReceiver<Said>,
    choices: usize,
    prompt_tokens: usize,
    busy: watch::Receiver<()>,
) -> Response {
    let mut stream = Stream {
        said,
        ready: VecDeque::new(),
        usage: Usage { prompt: prompt_tokens, ..Usage::default() },
        open: choices,
        offsets: vec![0; choices],
        calls: (0..choices).map(|_| form.calls.clone().map(Calls::new)).collect(),
        by: form.by,
        ended: false,
        _busy: busy,
        form,
    };
    if stream.form.kind == Kind::Chat {
        for choice in 0..choices {
            let opening = stream.form.chunk(choice, Part::Opening, 0);
            stream.event(&opening);
        }
    }
    let body = futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), stream))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would collect the parts otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Stream {
    form: Form,
    said: UnboundedReceiver<Said>,
    /// Events that were not read yet.
    ready: VecDeque<Bytes>,
    usage: Usage,
    open: usize,
    /// Characters so far, per choice.
    offsets: Vec<usize>,
    /// Looks for calls of tools, per choice.
    calls: Vec<Option<Calls>>,
    /// Who wrote last.
    by: By,
    ended: bool,
    _busy: watch::Receiver<()>,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        while self.ready.is_empty() && !self.ended {
            let said = self.said.recv().await;
            self.hear(said);
        }
        self.ready.pop_front()
    }

    fn hear(&mut self, said: Option<Said>) {
        match said {
            None => self.fail(None),
            Some(Said::Started { choice, reused }) => count_reused(&mut self.usage, choice, reused),
            Some(Said::Text { choice, mut piece, by }) => {
                self.by = by;
                let heard = self.calls[choice].as_mut().map(|calls| calls.push(&std::mem::take(&mut piece.text)));
                if !piece.is_empty() {
                    let part = Part::Text(&piece.text, &piece.tokens, by);
                    let chunk = self.form.chunk(choice, part, self.offsets[choice]);
                    self.offsets[choice] += self.form.characters(&piece.tokens);
                    self.event(&chunk);
                }
                self.tell(choice, heard.unwrap_or_default());
            }
            Some(Said::Placed { .. } | Said::Away { .. } | Said::Vector { .. } | Said::Prompt { .. }) => {}
            Some(Said::Ended { why: why @ (End::Unfit(_) | End::Failed(_) | End::Closing), .. }) => {
                self.fail(Some(&why));
            }
            Some(Said::Ended { choice, why, written, share }) => {
                self.usage.count(written, share);
                let heard = self.calls[choice].as_mut().map(Calls::finish);
                self.tell(choice, heard.unwrap_or_default());
                let calls = self.calls[choice].as_ref().map_or(0, Calls::count);
                let chunk = self.form.chunk(choice, Part::End(reason(&why, calls)), 0);
                self.event(&chunk);
                self.open -= 1;
                if self.open == 0 {
                    self.end();
                }
            }
        }
    }

    /// What was found in the text of a choice that may call tools.
    fn tell(&mut self, choice: usize, heard: Vec<Heard>) {
        for one in heard {
            let part = match &one {
                Heard::Text(text) => Part::Text(text, &[], self.by),
                Heard::Call { index, name } => Part::Call { index: *index, name },
                Heard::Arguments { index, piece } => Part::Arguments { index: *index, piece },
            };
            let chunk = self.form.chunk(choice, part, self.offsets[choice]);
            self.event(&chunk);
        }
    }

    fn end(&mut self) {
        if self.form.include_usage {
            let counted = self.form.counted(&self.usage);
            self.event(&counted);
        }
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.ended = true;
    }

    fn fail(&mut self, why: Option<&End>) {
        self.event(&broken(why).to_json());
        self.ended = true;
    }

    fn event(&mut self, value: &Value) {
        self.ready.push_back(format!("data: {value}\n\n").into());
    }
}

/// Of answers to one prompt only the first tells what a client saved.
fn count_reused(usage: &mut Usage, choice: usize, reused: usize) {
    if choice == 0 {
        usage.reused = reused;
    }
}

pub fn broken(why: Option<&End>) -> Refusal {
    match why {
        Some(End::Closing) => Refusal::closing(),
        Some(End::Unfit(why)) => Refusal::unfit(why),
        Some(End::Failed(why)) => Refusal::broken(why.clone()),
        _ => Refusal::broken("the model does not answer any more"),
    }
}

pub fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
