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
use littoral_wire::bounded::printable;
use reqwest::{Client, Url};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;
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
    found: Mutex<Option<Found>>,
    up: watch::Sender<bool>,
    drafts: Mutex<Drafts>,
}

/// A model of its list.
#[derive(Clone)]
struct Found {
    model: String,
    /// Tokens of a text, as vLLM and others tell.
    context: Option<usize>,
}

/// Can it verify what is drafted here?
#[derive(Clone, Debug, PartialEq)]
pub enum Drafts {
    /// With the reason.
    Off(String),
    /// `chats`: its template writes chats as this machine's model does; else why only completions are drafted.
    On { chats: Result<(), String> },
}

/// Why there is no answer.
enum NotSent {
    Connection(String),
    /// It will be so for others.
    Server(String),
    Request(String),
}

impl NotSent {
    /// `down` hears of it if nobody is answered there.
    fn any(self, down: impl FnOnce(String) -> String) -> String {
        match self {
            Self::Connection(why) | Self::Server(why) => down(why),
            Self::Request(why) => why,
        }
    }

    /// `down` hears of it if the server is not there.
    fn connection(self, down: impl FnOnce(String) -> String) -> String {
        match self {
            Self::Connection(why) => down(why),
            Self::Server(why) | Self::Request(why) => why,
        }
    }
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
        let drafts = Mutex::new(Drafts::Off("it has not been looked at yet".into()));
        Ok(Self { base, client, key, model, found: Mutex::default(), up: watch::Sender::new(false), drafts })
    }

    pub fn up(&self) -> bool {
        *self.up.borrow()
    }

    /// Tells when it goes and when it is there again.
    pub fn ups(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    pub fn drafts(&self) -> Drafts {
        self.drafts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_drafts(&self, drafts: Drafts) {
        match &drafts {
            Drafts::On { chats: Ok(()) } => {
                tracing::info!("{} verifies greedy answers that are drafted here", self.base)
            }
            Drafts::On { chats: Err(why) } => tracing::info!("{} verifies completions, and no chats: {why}", self.base),
            Drafts::Off(why) => tracing::info!("{} is asked for whole answers only: {why}", self.base),
        }
        *self.drafts.lock().unwrap_or_else(PoisonError::into_inner) = drafts;
    }

    fn set_up(&self, up: bool) {
        self.up.send_if_modified(|before| std::mem::replace(before, up) != up);
    }

    /// Looks after it, for ever. Must run inside a runtime.
    pub async fn watch(self: Arc<Self>) {
        let mut told = None;
        loop {
            let looked = self.look().await;
            self.set_up(looked.is_ok());
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
        let response = request.send().await.map_err(|e| innermost(&e))?;
        if !response.status().is_success() {
            return Err(format!("models: {}", response.status()));
        }
        let list = json_of(response, LIST_BYTES_MAX).await.map_err(|why| format!("models: {why}"))?;
        let listed = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let first = listed.first().and_then(|model| model["id"].as_str());
        let model = self.model.as_deref().or(first).ok_or("models: at least one with an `id` expected")?.to_owned();
        let context =
            listed.iter().find(|entry| entry["id"] == *model).and_then(|entry| entry["max_model_len"].as_u64());
        let found = Found { model: model.clone(), context: context.map(|tokens| tokens as usize) };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(model)
    }

    fn found(&self) -> Option<Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it calls the model that it is asked for.
    pub fn asked_for(&self) -> String {
        self.model.clone().or_else(|| self.found().map(|found| found.model)).unwrap_or_default()
    }

    /// Tokens that prompt and answer may have together, if it says so.
    pub fn context(&self) -> Option<usize> {
        self.found().and_then(|found| found.context)
    }

    /// Asks it something of its own accord.
    ///
    /// # Errors
    /// It did not answer, or says that it cannot: in its words.
    pub async fn say(&self, path: &str, body: &Value, bytes_max: usize) -> Result<Value, String> {
        json_of(self.taken(path, body).await?, bytes_max).await
    }

    /// The same, as it comes.
    pub async fn listen(&self, path: &str, body: &Value) -> Result<BoxStream<'static, reqwest::Result<Bytes>>, String> {
        Ok(self.taken(path, body).await?.bytes_stream().boxed())
    }

    async fn taken(&self, path: &str, body: &Value) -> Result<reqwest::Response, String> {
        // What it refuses to us it may still do for others.
        let response = self.sent(path, body.to_string()).await.map_err(|why| why.connection(|why| self.down(why)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = json_of(response, LIST_BYTES_MAX).await.unwrap_or_default();
        let said = said["error"]["message"].as_str().or(said["message"].as_str()).unwrap_or_default();
        Err(format!("{status}: {}", printable(&said.chars().take(200).collect::<String>())))
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
        let response = self.sent(kind.path(), Value::Object(fields).to_string()).await;
        Ok(passed_on(response.map_err(|why| why.any(|why| self.down(why)))?, busy, key))
    }

    /// What it answers, unless it did not, or cannot.
    async fn sent(&self, path: &str, body: String) -> Result<reqwest::Response, NotSent> {
        let request = self.with_key(self.client.post(self.at(path)));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(why) => return Err(NotSent::Connection(innermost(&why))),
        };
        match response.status() {
            // Of the server, or of us: so it will be for others.
            status @ (StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::FORBIDDEN
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(NotSent::Server(status.to_string())),
            // Of this request, perhaps.
            status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::REQUEST_TIMEOUT) => {
                Err(NotSent::Request(status.to_string()))
            }
            status if status.is_server_error() || status.is_redirection() => Err(NotSent::Request(status.to_string())),
            _ => Ok(response),
        }
    }

    /// It is not asked until it is looked after again.
    fn down(&self, why: String) -> String {
        tracing::warn!("{} was asked and did not answer: {why}", self.base);
        self.set_up(false);
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

async fn json_of(mut response: reqwest::Response, bytes_max: usize) -> Result<Value, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| innermost(&e))? {
        if bytes.len() + chunk.len() > bytes_max {
            return Err(format!("an answer of at most {bytes_max} bytes expected"));
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).map_err(|_| "an answer as JSON expected".to_owned())
}

/// The libraries' own words say little but that there is a cause.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
