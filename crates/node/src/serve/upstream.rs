//! A server of OpenAI's API above this one, whatever it runs: it is asked as any client would ask it.
//!
//! It is looked after all the time: one that does not answer, or says that it cannot, is not asked until it does again, and
//! this server answers by itself meanwhile.

use super::ask::Kind;
use super::keys::Key;
use crate::models::tls;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::{Client, Url};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two pieces of an answer: a long prompt may take its time.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(300);
/// Between two looks whether it is there.
const LOOKS: Duration = Duration::from_secs(5);
/// Of its list of models.
const LIST_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Error)]
pub enum UpstreamError {
    #[error("{url}: a URL with http or https and a host, without a login and without `?`, expected")]
    Url { url: String },
    #[error("{host} is another machine, and http is not encrypted: https expected, or leave to do without")]
    Plain { host: String },
    #[error("the key: printable characters without spaces expected")]
    Key,
    #[error("no client for the web: {0}")]
    Client(String),
}

pub struct Upstream {
    base: Url,
    client: Client,
    key: Option<HeaderValue>,
    /// What it calls its model, as somebody said.
    model: Option<String>,
    /// Else the first of its list.
    found: Mutex<Option<String>>,
    up: AtomicBool,
}

impl Upstream {
    /// `base`: with its `/v1`, as OpenAI's clients take it. `plain`: it may be another machine without TLS.
    pub fn new(base: &str, model: Option<String>, key: Option<&str>, plain: bool) -> Result<Self, UpstreamError> {
        let url = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        // Secrets in it would be shown in messages.
        let url = url.filter(|url| url.username().is_empty() && url.password().is_none() && url.query().is_none());
        let mut base = url.ok_or_else(|| UpstreamError::Url { url: base.chars().take(200).collect() })?;
        let host = base.host_str().unwrap_or_default().to_owned();
        if base.scheme() == "http" && !plain && !is_this_machine(&host) {
            return Err(UpstreamError::Plain { host });
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let secret = |key: &str| {
            let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| UpstreamError::Key)?;
            value.set_sensitive(true);
            Ok(value)
        };
        let mut client = Client::builder();
        if base.scheme() == "http" {
            // A proxy would be another machine, which could read it.
            client = client.no_proxy();
        }
        let client = client
            .tls_backend_preconfigured(tls().map_err(|e| UpstreamError::Client(e.to_string()))?)
            .user_agent(concat!("littoral/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .build()
            .map_err(|e| UpstreamError::Client(e.to_string()))?;
        let key = key.map(secret).transpose()?;
        Ok(Self { base, client, key, model, found: Mutex::default(), up: AtomicBool::new(false) })
    }

    pub fn up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Looks after it, for ever. Must run inside a runtime.
    pub async fn watch(self: Arc<Self>) {
        let mut told = None;
        loop {
            let looked = self.look().await;
            self.up.store(looked.is_ok(), Relaxed);
            if told.as_ref() != Some(&looked) {
                match &looked {
                    Ok(model) => tracing::info!("{} answers, with `{model}`", self.base),
                    Err(why) => tracing::warn!("{} cannot be asked, this server answers by itself: {why}", self.base),
                }
                told = Some(looked);
            }
            tokio::time::sleep(LOOKS).await;
        }
    }

    /// What it calls the model that it is asked for.
    async fn look(&self) -> Result<String, String> {
        let request = self.with_key(self.client.get(self.at("models")).timeout(LOOKS));
        let mut response = request.send().await.map_err(|e| innermost(&e))?;
        if !response.status().is_success() {
            return Err(format!("models: {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| innermost(&e))? {
            if bytes.len() + chunk.len() > LIST_BYTES_MAX {
                return Err(format!("models: a list of at most {LIST_BYTES_MAX} bytes expected"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let list: Value = serde_json::from_slice(&bytes).map_err(|_| "models: a list as JSON expected".to_owned())?;
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        let first = list["data"][0]["id"].as_str().ok_or("models: at least one with an `id` expected")?.to_owned();
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(first.clone());
        Ok(first)
    }

    fn asked_for(&self) -> String {
        let found = || self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.model.clone().or_else(found).unwrap_or_default()
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }

    fn with_key(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.header(header::AUTHORIZATION, key.clone()),
            None => request,
        }
    }

    /// Has it answer a request, whose answer is passed on as it comes. `busy` is dropped with the last of it.
    ///
    /// # Errors
    /// It did not answer, or says that it cannot; nothing was passed on.
    pub async fn ask(
        &self,
        kind: Kind,
        mut fields: Map<String, Value>,
        key: Option<Arc<Key>>,
        busy: watch::Receiver<()>,
    ) -> Result<Response, String> {
        fields.insert("model".into(), json!(self.asked_for()));
        let path = if kind == Kind::Chat { "chat/completions" } else { "completions" };
        let request = self.with_key(self.client.post(self.at(path)));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Value::Object(fields).to_string());
        let response = match request.send().await {
            Ok(response) => response,
            Err(why) => return Err(self.down(innermost(&why))),
        };
        match response.status() {
            // Of the server, or of us: so it will be for others.
            status @ (StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::FORBIDDEN
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(self.down(status.to_string())),
            // Of this request, perhaps.
            status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::REQUEST_TIMEOUT) => {
                Err(status.to_string())
            }
            status if status.is_server_error() || status.is_redirection() => Err(status.to_string()),
            _ => Ok(passed_on(response, busy, key)),
        }
    }

    /// It is not asked until it is looked after again.
    fn down(&self, why: String) -> String {
        tracing::warn!("{} was asked and did not answer: {why}", self.base);
        self.up.store(false, Relaxed);
        why
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An answer that is being passed on.
struct Passing {
    pieces: BoxStream<'static, reqwest::Result<Bytes>>,
    /// Events, that are passed on whole.
    events: bool,
    /// The beginning of an event.
    held: Vec<u8>,
    /// Whose tokens are counted, about: one for each event, or for four bytes.
    key: Option<Arc<Key>>,
    ended: bool,
    _busy: watch::Receiver<()>,
}

/// Of an event; a longer one is passed on in parts.
const EVENT_BYTES_MAX: usize = 1 << 20;

impl Passing {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        while !self.ended {
            match self.pieces.next().await {
                None => {
                    self.ended = true;
                    let rest = std::mem::take(&mut self.held);
                    return (!rest.is_empty()).then(|| Ok(rest.into()));
                }
                Some(Ok(piece)) if !self.events => {
                    self.key.iter().for_each(|key| key.used(piece.len().div_ceil(4)));
                    return Some(Ok(piece));
                }
                Some(Ok(piece)) => {
                    self.held.extend_from_slice(&piece);
                    let whole = self.held.windows(2).rposition(|end| end == b"\n\n").map_or(0, |at| at + 2);
                    let whole = if self.held.len() > EVENT_BYTES_MAX { self.held.len() } else { whole };
                    if whole > 0 {
                        let told: Vec<u8> = self.held.drain(..whole).collect();
                        let events = told.windows(2).filter(|end| end == b"\n\n").count();
                        self.key.iter().for_each(|key| key.used(events));
                        return Some(Ok(told.into()));
                    }
                }
                Some(Err(why)) => {
                    // Its client would be asked on for ever.
                    self.ended = true;
                    let why = format!("the server above broke off: {}", innermost(&why));
                    tracing::warn!("{why}");
                    return Some(match self.events {
                        // So that its reader knows that this is not the end.
                        true => {
                            let error =
                                json!({"error": {"message": why, "type": "server_error", "param": null, "code": null}});
                            Ok(format!("data: {error}\n\n").into())
                        }
                        false => Err(std::io::Error::other(why)),
                    });
                }
            }
        }
        None
    }
}

fn passed_on(answer: reqwest::Response, busy: watch::Receiver<()>, key: Option<Arc<Key>>) -> Response {
    let status = answer.status();
    let media = answer.headers().get(header::CONTENT_TYPE).cloned();
    let events = media.as_ref().is_some_and(|media| media.as_bytes().starts_with(b"text/event-stream"));
    let pieces = answer.bytes_stream().boxed();
    let passing = Passing { pieces, events, held: Vec::new(), key, ended: false, _busy: busy };
    let body = futures_util::stream::unfold(passing, |mut passing| async move {
        let piece = passing.next().await?;
        Some((piece, passing))
    });
    let mut response = Response::new(Body::from_stream(body));
    *response.status_mut() = status;
    if let Some(media) = media {
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    if events {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    response
}

/// The libraries' own words say little but that there is a cause.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
