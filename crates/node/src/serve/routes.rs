//! Which path does what.

use super::ask::asking::{self, Above};
use super::ask::fields::object as fields;
use super::ask::{Ask, Kind, Vectors};
use super::audit::Audit;
use super::door::Peer;
use super::hosts::Hosts;
use super::keys::{Key, Keys};
use super::line::Client;
use super::metrics::{Metrics, Outcome};
use super::refusal::Refusal;
use super::reply::{self, Form, Names};
use super::routed::Asking;
use super::upstream::{Drafts, Upstream};
use super::writer::{Asked, By, Room, Said, Writer};
use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use littoral_infer::model::Model;
use littoral_infer::route::rule::{Policy, Rule};
use littoral_model::lm::CacheType;
use littoral_tensor::quant::KERNELS;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, watch};

/// A prompt of a million tokens.
const BODY_BYTES_MAX: usize = 4 << 20;
const BODY_SECONDS_MAX: u64 = 30;

const PAGE: &str = include_str!("page.html");
/// Where the page has what its own scripts and styles show.
const NONCE: &str = "NONCE";

/// What all requests share.
pub struct Served {
    pub model: Arc<Model>,
    pub cache_type: CacheType,
    pub exact: bool,
    pub name: Arc<str>,
    /// Seconds since 1970 when the model was loaded.
    pub since: u64,
    pub keys: Keys,
    /// `None`: it may be asked under any name.
    pub hosts: Option<Hosts>,
    pub room: Room,
    /// What must not leave this machine.
    pub policy: Policy,
    /// Somebody above may answer.
    pub routed: bool,
    /// Some requests are held back: by words, by keys, or by a budget.
    pub guarded: bool,
    pub names: Arc<Names>,
    /// Whoever that is, if it is asked over HTTP.
    pub upstream: Option<Arc<Upstream>>,
    pub writer: Writer,
    pub metrics: Arc<Metrics>,
    /// Nothing new is taken.
    pub closing: AtomicBool,
    /// Counts requests that are being answered, by its readers.
    pub busy: watch::Sender<()>,
    /// Who has it carries out an audit: one at a time.
    pub auditing: Arc<Semaphore>,
}

pub fn router(served: Arc<Served>) -> Router {
    let guarded = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/metrics", get(metrics))
        .route_layer(from_fn_with_state(served.clone(), who));
    Router::new()
        .merge(guarded)
        .route("/", get(page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(async |request: Request| Refusal::no_such_place(request.method().as_str(), request.uri().path()))
        .method_not_allowed_fallback(async |request: Request| {
            Refusal::method(request.method().as_str(), request.uri().path())
        })
        .layer(from_fn_with_state(served.clone(), host))
        .with_state(served)
}

/// Lets those in who ask under a name that this server has.
async fn host(State(served): State<Arc<Served>>, request: Request, next: Next) -> Response {
    match served.hosts.as_ref().map(|hosts| hosts.check(request.uri(), request.headers())) {
        Some(Err(name)) => {
            served.metrics.ended(Outcome::Refused, 1);
            Refusal::host(&name).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Lets those in who have a key, if there are keys, and notes whose turn it is.
async fn who(State(served): State<Arc<Served>>, peer: ConnectInfo<Peer>, mut request: Request, next: Next) -> Response {
    let known = match (served.keys.is_empty(), key(&request)) {
        (true, _) => Ok(None),
        (false, None) => Err("You didn't provide an API key: send it as `Authorization: Bearer KEY`"),
        (false, Some(key)) => served.keys.known(key).map(Some).ok_or("Incorrect API key provided"),
    };
    match known {
        Ok(key) => {
            let address = || blake3::hash(peer.0.0.ip().to_string().as_bytes());
            let client: Client = *key.as_ref().map_or_else(address, |key| key.hash).as_bytes();
            request.extensions_mut().insert(Who { client, key });
            next.run(request).await
        }
        Err(message) => {
            served.metrics.ended(Outcome::Refused, 1);
            Refusal::key(message).into_response()
        }
    }
}

/// Who asks.
#[derive(Clone, Default)]
struct Who {
    client: Client,
    key: Option<Arc<Key>>,
}

impl Who {
    fn of(request: &Request) -> Result<Self, Refusal> {
        let who = request.extensions().get::<Self>().cloned().unwrap_or_default();
        if let Some(key) = &who.key {
            key.ask().map_err(|spent| Refusal::spent(&spent))?;
        }
        Ok(who)
    }
}

fn key(request: &Request) -> Option<&[u8]> {
    let value = request.headers().get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

async fn chat(State(served): State<Arc<Served>>, request: Request) -> Response {
    counted(&served.metrics.clone(), answered(served, Kind::Chat, request).await)
}

async fn completion(State(served): State<Arc<Served>>, request: Request) -> Response {
    counted(&served.metrics.clone(), answered(served, Kind::Completion, request).await)
}

async fn embeddings(State(served): State<Arc<Served>>, request: Request) -> Response {
    counted(&served.metrics.clone(), embedded(served, request).await)
}

fn counted(metrics: &Metrics, reply: Result<Response, Refusal>) -> Response {
    reply.unwrap_or_else(|refusal| {
        match refusal.status {
            StatusCode::TOO_MANY_REQUESTS => metrics.ended(Outcome::Busy, 1),
            status if status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE => {
                metrics.ended(Outcome::Refused, 1);
            }
            // Those that failed on the way were counted there.
            _ => {}
        }
        refusal.into_response()
    })
}

async fn answered(served: Arc<Served>, kind: Kind, request: Request) -> Result<Response, Refusal> {
    let busy = begun(&served)?;
    let Who { client, key } = Who::of(&request)?;
    let who = match (&served.upstream, served.routed) {
        (Some(_), _) => Above::Server,
        (None, true) => Above::Machine,
        (None, false) => Above::Nobody,
    };
    let (policy, whose) = (served.policy.clone(), key.clone());
    let Read { mut asking, ask, fields } = read(&served, request, move |body, model, name| {
        let ask = Ask::read(kind, body, model, name);
        if who == Above::Nobody {
            return Ok(Read { asking: Asking::here(whose), ask, fields: None });
        }
        let fields = fields(body)?;
        let asking = asking::asking(kind, &fields, &policy, whose.as_ref(), model, who);
        // Only who may be asked over HTTP is told in the same words.
        Ok(Read { asking, ask, fields: (who == Above::Server).then_some(fields) })
    })
    .await?;
    let ask = match (ask, &fields) {
        (Ok(ask), _) => ask,
        // What this server cannot do another may; if it is wrong, that one says so. Where something is held back, what cannot
        // be read here does not leave.
        (Err(refusal), Some(fields)) if !served.guarded && served.upstream.iter().any(|above| above.up()) => {
            let why = format!("the edge cannot answer it: {}", refusal.param().unwrap_or("the request as a whole"));
            return above(&served, &asking.rule, kind, fields, &why, key, busy).await.map_err(|_| refusal);
        }
        (Err(refusal), _) => return Err(refusal),
    };
    let choices = ask.asked.len();
    let again = (served.routed).then(|| ask.asked.clone());
    let mut audited = false;
    key.iter().for_each(|key| key.used(ask.prompt_tokens));
    let (mut by, mut why, mut said) = match taken(&served, kind, client, ask.asked, asking.clone()).await? {
        Taken::Here { by, why, audit, said } => {
            audited = audit;
            (Some(by), why, Some(said))
        }
        Taken::Away { why } => (None, why, None),
    };
    if let (true, Some(asked)) = (audited, &again) {
        Audit::new(kind, asked, fields.as_ref()).into_iter().for_each(|audit| audit.begin(&served));
    }
    if let (None, Some(fields), Some(asked)) = (by, &fields, again) {
        let refused = match above(&served, &asking.rule, kind, fields, &why, key, busy.clone()).await {
            Ok(response) => return Ok(response),
            Err(refused) => refused,
        };
        // It is gone: this server answers, and says why.
        asking.refused = true;
        if let Taken::Here { by: here, why: gone, said: own, .. } = taken(&served, kind, client, asked, asking).await? {
            (by, why, said) = (Some(here), format!("{gone} ({refused})"), Some(own));
        }
    }
    let (Some(by), Some(said)) = (by, said) else { return Err(reply::broken(None)) };
    let form = Form {
        kind,
        id: id(kind)?,
        created: now(),
        name: served.name.clone(),
        model: served.model.clone(),
        logprobs: ask.logprobs,
        told: ask.told,
        include_usage: ask.include_usage,
        calls: ask.calls,
        by,
        names: served.names.clone(),
        tells: served.routed,
        greedy: served.upstream.is_some() && by != By::Here,
    };
    let name = served.names.of(by);
    if ask.stream {
        return Ok(told(reply::stream(form, said, choices, ask.prompt_tokens, busy), name, &why));
    }
    // What fails from here on was counted where it was written.
    let whole = reply::whole(&form, said, choices, ask.prompt_tokens).await;
    Ok(told(whole.unwrap_or_else(IntoResponse::into_response), name, &why))
}

/// A request, read: once for the model here, once as it is passed on.
struct Read {
    asking: Asking,
    ask: Result<Ask, Refusal>,
    fields: Option<Map<String, Value>>,
}

enum Taken {
    Here { by: By, why: String, audit: bool, said: UnboundedReceiver<Said> },
    Away { why: String },
}

/// Has answers written, and waits until it is decided by whom, if that is a question.
async fn taken(
    served: &Served,
    kind: Kind,
    client: Client,
    asked: Vec<Asked>,
    asking: Asking,
) -> Result<Taken, Refusal> {
    let said = served.writer.ask(client, asked, asking).await;
    let mut said = said.map_err(|why| Refusal::not_taken(why, kind.param(), served.room.running_max))?;
    if !served.routed {
        return Ok(Taken::Here { by: By::Here, why: String::new(), audit: false, said });
    }
    match said.recv().await {
        Some(Said::Placed { by, why, audit }) => Ok(Taken::Here { by, why, audit, said }),
        Some(Said::Away { why }) => Ok(Taken::Away { why }),
        Some(Said::Ended { why, .. }) => Err(reply::broken(Some(&why))),
        _ => Err(reply::broken(None)),
    }
}

/// Has the server above answer: what may leave, and nothing else, whoever decided so.
async fn above(
    served: &Served,
    rule: &Rule,
    kind: Kind,
    fields: &Map<String, Value>,
    why: &str,
    key: Option<Arc<Key>>,
    busy: watch::Receiver<()>,
) -> Result<Response, String> {
    if let Rule::LocalOnly(why) = rule {
        return Err(why.to_string());
    }
    let Some(upstream) = &served.upstream else { return Err("there is none".into()) };
    let mut fields = fields.clone();
    fields.remove(asking::LOCAL_ONLY);
    let response = upstream.ask(kind, fields, key, busy).await?;
    served.metrics.away.fetch_add(1, Relaxed);
    Ok(told(response, served.names.of(By::Upstream(0)), why))
}

/// Says who answers, and why.
fn told(mut response: Response, name: &str, why: &str) -> Response {
    let headers = response.headers_mut();
    if let Ok(name) = HeaderValue::from_str(name) {
        headers.insert("x-littoral-by", name);
    }
    // Reasons have no text of a request in them but names of fields; what cannot be in a header is left out.
    if let Some(why) = Some(why).filter(|why| !why.is_empty()).and_then(|why| HeaderValue::from_str(why).ok()) {
        headers.insert("x-littoral-why", why);
    }
    response
}

async fn embedded(served: Arc<Served>, request: Request) -> Result<Response, Refusal> {
    let _busy = begun(&served)?;
    let Who { client, key } = Who::of(&request)?;
    let Vectors { texts, prompt_tokens, dimensions, base64 } = read(&served, request, Vectors::read).await?;
    key.iter().for_each(|key| key.used(prompt_tokens));
    // They are never anybody else's.
    let asking = Asking::here(key);
    let said = served.writer.ask(client, vec![Asked::Vectors { texts }], asking).await;
    let said = said.map_err(|why| Refusal::not_taken(why, "input", served.room.running_max))?;
    reply::vectors(&served.name, said, prompt_tokens, dimensions, base64).await
}

/// Counts a request, unless the server takes nothing new.
fn begun(served: &Served) -> Result<watch::Receiver<()>, Refusal> {
    let busy = served.busy.subscribe();
    if served.closing.load(SeqCst) { Err(Refusal::closing()) } else { Ok(busy) }
}

/// What a body asks for. Tokenising much text, and following a schema for the first time, take long enough to hold others
/// up, so that they have a thread of their own.
async fn read<T: Send + 'static>(
    served: &Served,
    request: Request,
    reader: impl FnOnce(&[u8], &Model, &str) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let body = body(request).await?;
    let (model, name) = (served.model.clone(), served.name.clone());
    let read = tokio::task::spawn_blocking(move || reader(&body, &model, &name)).await;
    read.unwrap_or_else(|error| Err(Refusal::broken(format!("the request was not read: {error}"))))
}

async fn body(request: Request) -> Result<axum::body::Bytes, Refusal> {
    // A page of another site may send forms and plain text to this machine without asking, and nothing else.
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::media(&media.chars().take(64).collect::<String>()));
    }
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Refusal::too_large(BODY_BYTES_MAX));
    }
    let reading = to_bytes(request.into_body(), BODY_BYTES_MAX);
    match tokio::time::timeout(Duration::from_secs(BODY_SECONDS_MAX), reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // The other way to fail is a client that left, which hears nothing.
        Ok(Err(_)) => Err(Refusal::too_large(BODY_BYTES_MAX)),
        Err(_) => Err(Refusal::slow(BODY_SECONDS_MAX)),
    }
}

async fn models(State(served): State<Arc<Served>>) -> Response {
    reply::json_response(&json!({"object": "list", "data": [described(&served)]}))
}

async fn model(State(served): State<Arc<Served>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    if name != *served.name {
        return Err(Refusal::model(&served.name, &name));
    }
    Ok(reply::json_response(&described(&served)))
}

fn described(served: &Served) -> Value {
    let mut model = json!({
        "id": &*served.name,
        "object": "model",
        "created": served.since,
        "owned_by": "littoral",
        "max_model_len": served.model.context(),
        // Ours: servers in which both are equal give equal bits.
        "kernels": KERNELS,
        "cache_type": served.cache_type.name(),
        // False: its layers are on several machines, and vectors travel between them in fewer bits.
        "exact": served.exact,
    });
    if let Some(upstream) = &served.upstream {
        let drafts = match upstream.drafts() {
            Drafts::On { chats: Ok(()) } => json!("on"),
            Drafts::On { chats: Err(why) } => json!(format!("on, but not for chats: {why}")),
            Drafts::Off(why) => json!(format!("off: {why}")),
        };
        model["upstream"] = json!({"model": upstream.asked_for(), "up": upstream.up(), "drafts": drafts});
    }
    model
}

async fn metrics(State(served): State<Arc<Served>>) -> Response {
    with_type(served.metrics.text(), "text/plain; version=0.0.4")
}

async fn ready(State(served): State<Arc<Served>>) -> Response {
    if served.closing.load(SeqCst) { Refusal::closing().into_response() } else { "ready\n".into_response() }
}

/// The page runs its own script and no other, and talks with this server and with nobody else.
async fn page() -> Result<Response, Refusal> {
    let nonce = format!("{:016x}", random()?);
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).map_err(|e| Refusal::broken(e.to_string()))?;
    let mut response = with_type(PAGE.replace(NONCE, &nonce), "text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

fn with_type(body: impl Into<Body>, media: &'static str) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn random() -> Result<u64, Refusal> {
    getrandom::u64().map_err(|e| Refusal::broken(format!("no random number: {e}")))
}

fn id(kind: Kind) -> Result<String, Refusal> {
    let number = random()?;
    let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
    Ok(format!("{prefix}-{number:016x}"))
}

pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
