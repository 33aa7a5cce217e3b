//! An answer of the server above that is passed on as it comes.
//!
//! A stream of events has an end that can be told: `[DONE]`, or an error. Where the server above ends it otherwise, falls silent, or
//! this server stops, its reader gets an error as OpenAI's servers send it, and never takes a part for the whole.

use super::events::{Events, data, is_done};
use super::innermost;
use crate::serve::keys::Key;
use crate::serve::refusal::Refusal;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Of an event; a longer one is passed on in parts.
const EVENT_BYTES_MAX: usize = 1 << 20;

pub struct Passing {
    pub pieces: BoxStream<'static, reqwest::Result<Bytes>>,
    /// Events, that are passed on whole.
    pub events: bool,
    /// Whose tokens are counted, about: one for each event, or for four bytes.
    pub key: Option<Arc<Key>>,
    /// Between two pieces.
    pub silence_max: Duration,
    /// This server stops now.
    pub cut: watch::Receiver<bool>,
    /// Dropped with the last of it.
    pub _busy: watch::Receiver<()>,
}

struct State {
    of: Passing,
    held: Events,
    /// The last event was the end, or an error.
    complete: bool,
    /// A part of an event was passed on.
    parted: bool,
    ended: bool,
}

impl State {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        while !self.ended {
            let Passing { pieces, cut, silence_max, .. } = &mut self.of;
            let silence_max = *silence_max;
            let piece = tokio::select! {
                piece = tokio::time::timeout(silence_max, pieces.next()) => Some(piece),
                _ = cut.wait_for(|cut| *cut) => None,
            };
            let Some(piece) = piece else { return self.broken(Refusal::closing()) };
            match piece {
                Ok(Some(Ok(piece))) if !self.of.events => {
                    self.of.key.iter().for_each(|key| key.used(piece.len().div_ceil(4)));
                    return Some(Ok(piece));
                }
                Ok(Some(Ok(piece))) => {
                    self.held.push(&piece);
                    if let Some(told) = self.whole() {
                        return Some(Ok(told));
                    }
                }
                Ok(Some(Err(why))) => return self.broken(broke_off(&innermost(&why))),
                Ok(None) => return self.end(),
                Err(_) => return self.broken(broke_off(&format!("it was silent for {silence_max:?}"))),
            }
        }
        None
    }

    /// The events that are whole by now.
    fn whole(&mut self) -> Option<Bytes> {
        let (mut told, mut count) = (Vec::new(), 0);
        while let Some(event) = self.held.next() {
            if let Some(data) = data(event) {
                self.complete = is_done(&data) || is_error(&data);
                count += 1;
            }
            told.extend_from_slice(event);
            self.parted = false;
        }
        if self.held.rest().len() > EVENT_BYTES_MAX {
            told.extend(self.held.take_rest());
            self.parted = true;
        }
        self.of.key.iter().for_each(|key| key.used(count));
        (!told.is_empty()).then(|| told.into())
    }

    /// The server above says no more.
    fn end(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        // Some end their last line and send no empty one.
        let rest = self.held.take_rest();
        if data(&rest).is_some_and(|data| is_done(&data)) {
            self.ended = true;
            return Some(Ok([rest.trim_ascii_end(), b"\n\n"].concat().into()));
        }
        if self.of.events && !self.complete {
            return self.broken(broke_off("its stream ended before `[DONE]`"));
        }
        self.ended = true;
        None
    }

    /// So that its reader knows that this is not the end.
    fn broken(&mut self, why: Refusal) -> Option<Result<Bytes, std::io::Error>> {
        self.ended = true;
        // It was whole all the same.
        if self.complete {
            return None;
        }
        let why = why.to_json();
        tracing::warn!("an answer of the server above is not whole: {}", why["error"]["message"]);
        Some(match self.of.events {
            true => Ok(format!("{}data: {why}\n\n", if self.parted { "\n\n" } else { "" }).into()),
            false => Err(std::io::Error::other(why["error"]["message"].to_string())),
        })
    }
}

fn broke_off(why: &str) -> Refusal {
    Refusal::broken(format!("the server above broke off: {why}"))
}

fn is_error(data: &[u8]) -> bool {
    let inside = data.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    inside.is_some_and(|inside| inside.starts_with(b"\"error\""))
}

impl Passing {
    pub fn response(self, status: StatusCode, headers: &HeaderMap) -> Response {
        let events = self.events;
        let state = State { of: self, held: Events::default(), complete: false, parted: false, ended: false };
        let body = futures_util::stream::unfold(state, |mut state| async move {
            let piece = state.next().await?;
            Some((piece, state))
        });
        let mut response = Response::new(Body::from_stream(body));
        *response.status_mut() = status;
        if let Some(media) = headers.get(header::CONTENT_TYPE) {
            response.headers_mut().insert(header::CONTENT_TYPE, media.clone());
        }
        if events {
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
        response
    }
}
