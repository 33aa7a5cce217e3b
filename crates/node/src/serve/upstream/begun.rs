//! How an answer begins: until its first piece is here somebody else may still answer.

use super::innermost;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::time::Duration;

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

/// Of a stream also the first piece: until then somebody else may answer.
pub async fn begun(mut response: reqwest::Response, patience: Duration) -> Result<Begun, NotSent> {
    let (status, headers) = (response.status(), response.headers().clone());
    let media = headers.get(header::CONTENT_TYPE);
    let events = media.is_some_and(|media| media.as_bytes().starts_with(b"text/event-stream"));
    if !events {
        return Ok(Begun { status, headers, events, pieces: response.bytes_stream().boxed() });
    }
    let first = match tokio::time::timeout(patience, response.chunk()).await {
        Ok(Ok(Some(first))) => first,
        Ok(Ok(None)) => return Err(NotSent::Request("its stream ended before it began".into())),
        Ok(Err(why)) => return Err(NotSent::Connection(innermost(&why))),
        Err(_) => return Err(NotSent::Silent(patience)),
    };
    let pieces = stream::once(async { Ok(first) }).chain(response.bytes_stream()).boxed();
    Ok(Begun { status, headers, events, pieces })
}
