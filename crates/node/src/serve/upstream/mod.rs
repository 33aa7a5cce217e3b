//! A server of OpenAI's API above this one, whatever it runs: it is asked as any client would ask it.
//!
//! It is looked after all the time: one that does not answer, or says that it cannot, is not asked until it does again, and
//! this server answers by itself meanwhile. One that names a time to be asked again (`pause`) is not asked before, and one that
//! says nothing for too long is given up.
//!
//! What comes of it is bounded by what was asked: `begun` looks at how an answer begins, `events` cuts streams apart, `passing`
//! passes whole answers on.

mod begun;
pub mod events;
pub mod list;
mod passing;
mod pause;
mod unanswered;

use super::ask::Kind;
use super::keys::Key;
use crate::models::tls;
use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use begun::{Begun, NotSent, begun, judged};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use list::{List, Problem};
use littoral_wire::bounded::printable;
use passing::Passing;
use pause::Pause;
use reqwest::{Client, Url};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
pub use unanswered::Unanswered;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole answer may take so many times as long as a stream may be silent.
const WHOLE_TIMES: u32 = 10;
/// A long prompt takes its time: of each byte of a question, at four for a token a thousand tokens a second.
const BYTE_TIMEOUT: Duration = Duration::from_micros(250);
/// Between two looks whether it is there.
const LOOKS: Duration = Duration::from_secs(5);
/// Of its list of models.
const LIST_BYTES_MAX: usize = 1 << 20;
/// Of what it says where it refuses.
const PROBLEM_BYTES_MAX: usize = 1 << 16;

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
    found: watch::Sender<Option<Found>>,
    up: watch::Sender<bool>,
    drafts: Mutex<Drafts>,
    pause: Pause,
    /// Without a word of a stream.
    silence_max: Duration,
    /// This server stops now.
    cut: watch::Sender<bool>,
}

/// A model of its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub model: String,
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

/// What may be shown of what was given as a URL: nothing before an @ and nothing behind a ?.
fn without_secrets(given: &str) -> String {
    let (place, asked) = given.split_once('?').map_or((given, ""), |(place, _)| (place, "?…"));
    let shown = match place.rsplit_once('@') {
        Some((before, host)) => format!("{}://…@{host}", before.split_once("://").map_or("", |(scheme, _)| scheme)),
        None => place.to_owned(),
    };
    shown.chars().take(200).chain(asked.chars()).collect()
}

impl Upstream {
    /// `base`: with its `/v1`, as OpenAI's clients take it. `plain`: it may be another machine without TLS. `silence_max`: it is given
    /// up after so long without a word, and more for a long prompt.
    pub fn new(
        base: &str,
        model: Option<String>,
        key: Option<&str>,
        plain: bool,
        silence_max: Duration,
    ) -> Result<Self, UpstreamError> {
        let url = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        // Secrets in it would be shown in messages, so not in this one either.
        let url = url.filter(|url| url.username().is_empty() && url.password().is_none() && url.query().is_none());
        let mut base = url.ok_or_else(|| UpstreamError::Url { url: without_secrets(base) })?;
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
            .build()
            .map_err(|e| UpstreamError::Client(e.to_string()))?;
        let key = key.map(secret).transpose()?;
        let drafts = Mutex::new(Drafts::Off("it has not been looked at yet".into()));
        let (found, up, cut) = (watch::Sender::new(None), watch::Sender::new(false), watch::Sender::new(false));
        Ok(Self { base, client, key, model, found, up, drafts, pause: Pause::default(), silence_max, cut })
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

    /// Ends what is passed on where it is.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn set_up(&self, up: bool) {
        self.up.send_if_modified(|before| std::mem::replace(before, up) != up);
    }

    /// Looks after it, for ever. Must run inside a runtime.
    pub async fn watch(self: Arc<Self>) {
        let mut told = None;
        loop {
            while let Some(left) = self.pause.left() {
                tokio::time::sleep(left).await;
            }
            let looked = self.look().await;
            // It may have asked for a pause meanwhile; a short one is waited out by who asks.
            let paused = self.pause.left().is_some_and(|left| left > pause::SHORT);
            self.set_up(looked.is_ok() && !paused);
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
            let hint = match response.status() {
                StatusCode::NOT_FOUND if !self.base.path().ends_with("/v1/") => ", and the URL does not end with /v1",
                _ => "",
            };
            return Err(format!("models: {}{hint}", response.status()));
        }
        let list: List =
            json_of(response, LIST_BYTES_MAX).await.map_err(|why| format!("models: {}", why.in_its_words()))?;
        let model = self.model.as_deref().or_else(|| list.data.first()?.id.as_deref());
        let model = model.ok_or("models: at least one with an `id` expected")?.to_owned();
        let listed = list.data.iter().find(|entry| entry.id.as_ref() == Some(&model));
        let found = Found { context: listed.and_then(|entry| entry.max_model_len), model: model.clone() };
        self.found.send_if_modified(|before| before.replace(found.clone()) != Some(found));
        Ok(model)
    }

    /// Tells when its list names another model, or another length.
    pub fn listed(&self) -> watch::Receiver<Option<Found>> {
        self.found.subscribe()
    }

    fn found(&self) -> Option<Found> {
        self.found.borrow().clone()
    }

    /// What it calls the model that it is asked for.
    pub fn asked_for(&self) -> String {
        self.model.clone().or_else(|| self.found().map(|found| found.model)).unwrap_or_default()
    }

    /// Tokens that prompt and answer may have together, if it says so.
    pub fn context(&self) -> Option<usize> {
        self.found().and_then(|found| found.context)
    }

    /// How long a stream may be silent after a question of so many bytes.
    pub fn silence_max(&self, question_bytes: usize) -> Duration {
        let reading = BYTE_TIMEOUT.saturating_mul(u32::try_from(question_bytes).unwrap_or(u32::MAX));
        (self.silence_max + reading).min(self.silence_max * WHOLE_TIMES)
    }

    /// Asks it something of its own accord, and waits so long for all of the answer.
    ///
    /// # Errors
    /// It did not answer, or says that it cannot.
    pub async fn say<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        bytes_max: usize,
        patience: Duration,
    ) -> Result<T, Unanswered> {
        let body = body.to_string();
        let said = async { json_of(self.taken(path, body, patience).await?, bytes_max).await };
        tokio::time::timeout(patience, said).await.unwrap_or_else(|_| Err(self.silent(patience).into()))
    }

    /// The same, as it comes; it may be silent for so long.
    pub async fn listen(
        &self,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<BoxStream<'static, reqwest::Result<Bytes>>, Unanswered> {
        Ok(self.taken(path, body.to_string(), patience).await?.bytes_stream().boxed())
    }

    async fn taken(&self, path: &str, body: String, patience: Duration) -> Result<reqwest::Response, Unanswered> {
        // What it refuses to us it may still do for others.
        let response = self.sent(path, body, patience).await.map_err(|why| self.not_sent(why, false))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = tokio::time::timeout(patience, json_of::<Problem>(response, PROBLEM_BYTES_MAX)).await;
        let said = said.unwrap_or_else(|_| Err(self.silent(patience).into())).unwrap_or_default();
        Err(Unanswered::with_words(status.to_string(), shown(&said.words())))
    }

    /// It has said nothing for so long: why there is no answer. It is left alone for a while.
    pub fn silent(&self, patience: Duration) -> String {
        self.pause.begin(self.silence_max);
        self.down(format!("no answer within {patience:?}"))
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
        let streams = fields.get("stream").is_some_and(|streams| *streams == true);
        let body = Value::Object(fields).to_string();
        let silence_max = self.silence_max(body.len());
        let patience = if streams { silence_max } else { self.silence_max * WHOLE_TIMES };
        let mut cut = self.cut.subscribe();
        let begun = async {
            let response = self.sent(kind.path(), body, patience).await?;
            begun(response, streams, patience).await
        };
        let begun = tokio::select! {
            begun = begun => begun,
            _ = cut.wait_for(|cut| *cut) => return Err("this server stops".into()),
        };
        let Begun { status, headers, events, pieces } = begun.map_err(|why| self.not_sent(why, true))?;
        let silence_max = if events { silence_max } else { patience };
        Ok(Passing { pieces, events, key, silence_max, cut, _busy: busy }.response(status, &headers))
    }

    /// What it answers, unless it did not, or cannot.
    async fn sent(&self, path: &str, body: String, patience: Duration) -> Result<reqwest::Response, NotSent> {
        let mut last = false;
        loop {
            if let Err(left) = self.pause.over().await {
                return Err(NotSent::Busy(format!("it is to be asked again in {} s", left.as_secs() + 1)));
            }
            let request = self.with_key(self.client.post(self.at(path)));
            let request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
            let response = match tokio::time::timeout(patience, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(why)) => return Err(NotSent::Connection(innermost(&why))),
                Err(_) => return Err(NotSent::Silent(patience)),
            };
            if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                return judged(response);
            }
            let wanted = pause::wanted(response.headers());
            self.pause.begin(wanted);
            if std::mem::replace(&mut last, true) || self.pause.left().is_some_and(|left| left > pause::SHORT) {
                let seconds = wanted.as_secs();
                return Err(NotSent::Busy(format!("{}, to be asked again in {seconds} s", response.status())));
            }
        }
    }

    /// Why there is no answer. `all`: what it refuses it is not asked again for others either.
    fn not_sent(&self, why: NotSent, all: bool) -> String {
        match why {
            NotSent::Silent(patience) => self.silent(patience),
            NotSent::Connection(why) | NotSent::Busy(why) => self.down(why),
            NotSent::Server(why) if all => self.down(why),
            NotSent::Server(why) | NotSent::Request(why) => why,
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

/// Of one that is no longer than that, read into what is expected of it, and nothing else of it is kept.
async fn json_of<T: DeserializeOwned>(mut response: reqwest::Response, bytes_max: usize) -> Result<T, Unanswered> {
    let too_long = || Unanswered::from(format!("an answer of at most {bytes_max} bytes expected"));
    if response.content_length().is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| innermost(&e))? {
        if bytes.len() + chunk.len() > bytes_max {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes)
        .map_err(|why| Unanswered::with_words("an answer as JSON expected", shown(&why.to_string())))
}

/// Another's words, in one short line.
pub fn shown(text: &str) -> String {
    printable(&text.chars().take(200).collect::<String>()).into_owned()
}

/// The libraries' own words say little but that there is a cause.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
