//! A server of OpenAI's API above this one, whatever it runs: it is asked as any client would ask it.
//!
//! It is looked after all the time: one that does not answer, or says that it cannot, is not asked until it does again, and
//! this server answers by itself meanwhile.

use super::ask::Kind;
use crate::models::tls;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
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
    #[error("{url}: a URL with http or https and a host expected")]
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
    /// What it calls its model; the first of its list, if nobody says.
    model: Mutex<Option<String>>,
    up: AtomicBool,
}

impl Upstream {
    /// `base`: with its `/v1`, as OpenAI's clients take it. `plain`: it may be another machine without TLS.
    pub fn new(base: &str, model: Option<String>, key: Option<&str>, plain: bool) -> Result<Self, UpstreamError> {
        let url = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        // A login in it would be shown in messages.
        let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
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
        let client = Client::builder()
            .tls_backend_preconfigured(tls().map_err(|e| UpstreamError::Client(e.to_string()))?)
            .user_agent(concat!("littoral/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .build()
            .map_err(|e| UpstreamError::Client(e.to_string()))?;
        let (model, key) = (Mutex::new(model), key.map(secret).transpose()?);
        Ok(Self { base, client, key, model, up: AtomicBool::new(false) })
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
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        if model.is_none() {
            let first = list["data"][0]["id"].as_str().ok_or("models: at least one with an `id` expected")?;
            *model = Some(first.to_owned());
        }
        Ok(model.clone().unwrap_or_default())
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
        busy: watch::Receiver<()>,
    ) -> Result<Response, String> {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fields.insert("model".into(), json!(model.unwrap_or_default()));
        let path = if kind == Kind::Chat { "chat/completions" } else { "completions" };
        let request = self.with_key(self.client.post(self.at(path)));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Value::Object(fields).to_string());
        let answered = request.send().await.map_err(|e| innermost(&e));
        let response = answered.and_then(|response| match response.status() {
            // These say something of the server, or of us; others of the request.
            status @ (StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::TOO_MANY_REQUESTS) => Err(status.to_string()),
            status if status.is_server_error() || status.is_redirection() => Err(status.to_string()),
            _ => Ok(response),
        });
        match response {
            Ok(response) => Ok(passed_on(response, busy)),
            Err(why) => {
                tracing::warn!("{} was asked and did not answer: {why}", self.base);
                self.up.store(false, Relaxed);
                Err(why)
            }
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn passed_on(answer: reqwest::Response, busy: watch::Receiver<()>) -> Response {
    let status = answer.status();
    let media = answer.headers().get(header::CONTENT_TYPE).cloned();
    let events = media.as_ref().is_some_and(|media| media.as_bytes().starts_with(b"text/event-stream"));
    let pieces = answer.bytes_stream().map(move |piece| {
        let _ = &busy;
        piece.or_else(|e| {
            let why = format!("the server above broke off: {}", innermost(&e));
            tracing::warn!("{why}");
            match events {
                // So that its reader knows that this is not the end.
                true => {
                    Ok(format!("\ndata: {}\n\n", json!({"error": {"message": why, "type": "server_error"}})).into())
                }
                false => Err(std::io::Error::other(why)),
            }
        })
    });
    let mut response = Response::new(Body::from_stream(pieces));
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
