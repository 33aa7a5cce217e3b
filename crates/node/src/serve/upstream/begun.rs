//! How an answer begins: until its first piece is here somebody else may still answer.

use super::{innermost, shown};
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of an answer that does not stream.
const WHOLE_BYTES_MAX: usize = 16 << 20;

/// Why there is no answer.
pub enum NotSent {
    Connection(String),
    /// Nothing came for so long.
    Silent(Duration),
    /// It wants to be left alone.
    Busy(String),
    /// It will be so for others.
    Server(String),
    Request(String),
}

/// A status that says that somebody else had better answer is no answer.
pub fn judged(response: reqwest::Response) -> Result<reqwest::Response, NotSent> {
    match response.status() {
        // Of the server, or of us: so it will be for others.
        status @ (StatusCode::UNAUTHORIZED
        | StatusCode::PAYMENT_REQUIRED
        | StatusCode::FORBIDDEN
        | StatusCode::BAD_GATEWAY
        | StatusCode::GATEWAY_TIMEOUT) => Err(NotSent::Server(status.to_string())),
        // Of this request, perhaps.
        status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::REQUEST_TIMEOUT) => {
            Err(NotSent::Request(status.to_string()))
        }
        status if status.is_server_error() || status.is_redirection() => Err(NotSent::Request(status.to_string())),
        _ => Ok(response),
    }
}

/// An answer that has begun to come.
pub struct Begun {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub events: bool,
    pub pieces: BoxStream<'static, reqwest::Result<Bytes>>,
}

/// Of a stream also the first piece, and of a whole answer all of it: until then somebody else may answer. What is neither, or not
/// what was asked for, is no answer, whatever its status says.
pub async fn begun(mut response: reqwest::Response, streams: bool, patience: Duration) -> Result<Begun, NotSent> {
    let (status, headers) = (response.status(), response.headers().clone());
    let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let events = media.starts_with("text/event-stream");
    if !events && !status.is_success() {
        return Ok(Begun { status, headers, events, pieces: response.bytes_stream().boxed() });
    }
    if events != streams {
        let (expected, media) = (if streams { "a stream" } else { "a whole answer" }, shown(media));
        return Err(NotSent::Request(format!("{expected} expected, got `{media}`")));
    }
    if events {
        let first = next(&mut response, patience).await?;
        let first = first.ok_or_else(|| NotSent::Request("its stream ended before it began".into()))?;
        let pieces = stream::once(async { Ok(first) }).chain(response.bytes_stream()).boxed();
        return Ok(Begun { status, headers, events, pieces });
    }
    let mut whole = Vec::new();
    while let Some(piece) = next(&mut response, patience).await? {
        if whole.len() + piece.len() > WHOLE_BYTES_MAX {
            return Err(NotSent::Request(format!("an answer of at most {WHOLE_BYTES_MAX} bytes expected")));
        }
        whole.extend_from_slice(&piece);
    }
    if serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&whole).is_err() {
        return Err(NotSent::Request("an answer as JSON expected, got something else or a part of one".into()));
    }
    Ok(Begun { status, headers, events, pieces: stream::once(async { Ok(whole.into()) }).boxed() })
}

async fn next(response: &mut reqwest::Response, patience: Duration) -> Result<Option<Bytes>, NotSent> {
    match tokio::time::timeout(patience, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(why)) => Err(NotSent::Connection(innermost(&why))),
        Err(_) => Err(NotSent::Silent(patience)),
    }
}
