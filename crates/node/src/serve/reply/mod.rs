//! From what the writer says to what a client reads: in one piece, or as server-sent events.

mod form;

pub use form::{Form, Usage};

use super::ask::Kind;
use super::refusal::Refusal;
use super::writer::{End, Said};
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
            Some(Said::Text { choice, piece }) => {
                wholes[choice].text.push_str(&piece.text);
                wholes[choice].tokens.extend(piece.tokens);
            }
            Some(Said::Ended { why: why @ (End::Failed(_) | End::Closing), .. }) => return Err(broken(Some(&why))),
            Some(Said::Ended { choice, why, written }) => {
                wholes[choice].reason = reason(&why);
                usage.written += written;
                open -= 1;
            }
        }
    }
    Ok(json_response(&form.whole(&wholes, usage)))
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
            Some(Said::Text { choice, piece }) => {
                let part = Part::Text(&piece.text, &piece.tokens);
                let chunk = self.form.chunk(choice, part, self.offsets[choice]);
                self.offsets[choice] += self.form.characters(&piece.tokens);
                self.event(&chunk);
            }
            Some(Said::Ended { why: why @ (End::Failed(_) | End::Closing), .. }) => self.fail(Some(&why)),
            Some(Said::Ended { choice, why, written }) => {
                self.usage.written += written;
                let chunk = self.form.chunk(choice, Part::End(&why), 0);
                self.event(&chunk);
                self.open -= 1;
                if self.open == 0 {
                    self.end();
                }
            }
        }
    }

    fn end(&mut self) {
        if self.form.include_usage {
            let counted = self.form.counted(self.usage);
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

fn broken(why: Option<&End>) -> Refusal {
    match why {
        Some(End::Closing) => Refusal::closing(),
        Some(End::Failed(why)) => Refusal::broken(why.clone()),
        _ => Refusal::broken("the model does not answer any more"),
    }
}

pub fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
