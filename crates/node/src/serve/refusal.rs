//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use super::keys::Spent;
use super::writer::NotTaken;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use littoral_infer::engine::Refused;
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
    /// When to ask again.
    retry_after_s: Option<usize>,
}

const WRONG: &str = "invalid_request_error";

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind, param: None, code, retry_after_s: None }
    }

    /// The field that is wrong, if it is one.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// A field that is wrong.
    pub fn field(param: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        let param = Some(param.into());
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, WRONG, Some(code), message) }
    }

    /// A field that has not the form or range that it must have.
    pub fn invalid(param: &str, expected: &str, got: impl std::fmt::Display) -> Self {
        Self::field(param, "invalid_value", format!("{param}: {expected} expected, got {got}"))
    }

    /// Something that this server does not do.
    pub fn unsupported(param: &str, what: impl std::fmt::Display) -> Self {
        Self::field(param, "unsupported_value", format!("{param}: {what} is not supported here"))
    }

    /// The request as a whole.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, WRONG, None, message)
    }

    /// A form of the request that turned out to lead nowhere while the answer was written.
    pub fn unfit(why: &str) -> Self {
        let message = format!("the form that the answer must have cannot be met: {why}");
        Self::new(StatusCode::BAD_REQUEST, WRONG, Some("invalid_value"), message)
    }

    pub fn media(got: &str) -> Self {
        let message = format!("content-type: application/json expected, got {got}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, WRONG, None, message)
    }

    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("the body is too large: at most {bytes_max} bytes expected");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, WRONG, Some("request_too_large"), message)
    }

    pub fn slow(limit_s: u64) -> Self {
        let message = format!("the body did not arrive within {limit_s} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, WRONG, None, message)
    }

    pub fn key(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, WRONG, Some("invalid_api_key"), message)
    }

    /// A page of another site, under a name that it made point here, would look like this.
    pub fn host(got: &str) -> Self {
        let message = format!(
            "host: a name of this machine expected, got {got}: whoever starts the server can let it in with --allow-host"
        );
        Self::new(StatusCode::FORBIDDEN, WRONG, Some("host_not_allowed"), message)
    }

    pub fn model(expected: &str, got: &str) -> Self {
        let message = format!("The model `{got}` does not exist: this server has `{expected}`");
        let param = Some("model".into());
        Self { param, ..Self::new(StatusCode::NOT_FOUND, WRONG, Some("model_not_found"), message) }
    }

    pub fn no_such_place(method: &str, path: &str) -> Self {
        let message = format!("Unknown request URL: {method} {path}");
        Self::new(StatusCode::NOT_FOUND, WRONG, Some("unknown_url"), message)
    }

    pub fn method(method: &str, path: &str) -> Self {
        let message = format!("Not allowed method: {method} {path}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, WRONG, Some("method_not_supported"), message)
    }

    /// As OpenAI words it, since programs look for these words.
    pub fn context(param: &str, context: usize, prompt: usize, answer: usize) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, you requested {} tokens ({prompt} in the \
             {param}, {answer} in the completion).",
            prompt.saturating_add(answer)
        );
        Self::field(param, "context_length_exceeded", message)
    }

    pub fn closing() -> Self {
        let refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            Some("shutting_down"),
            "the server is shutting down: it finishes what it has begun and takes nothing new",
        );
        Self { retry_after_s: Some(5), ..refusal }
    }

    pub fn broken(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", None, message)
    }

    /// `param`: where the prompt stands. `running_max` answers at a time are written.
    pub fn not_taken(why: NotTaken, param: &str, running_max: usize) -> Self {
        match why {
            NotTaken::Gone => Self::broken("the model does not answer any more"),
            NotTaken::Refused(Refused::Field { field, expected, got }) => {
                Self::invalid(if field == "prompt" { param } else { field }, &expected, got)
            }
            NotTaken::Refused(Refused::Context { context, got, .. }) => Self::context(param, context, got, 1),
            NotTaken::Refused(busy @ Refused::Busy { waiting }) => {
                let code = Some("rate_limit_exceeded");
                let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, busy.to_string());
                // A second for each turn that those who wait take.
                Self { retry_after_s: Some(1 + waiting / running_max.max(1)), ..refusal }
            }
        }
    }

    /// A key has had what it may have in a minute.
    pub fn spent(spent: &Spent) -> Self {
        let Spent { what, per_minute, again_in } = spent;
        let again_s = again_in.as_secs_f64().ceil().max(1.0);
        let message = format!("this key may use {per_minute} {what} a minute: ask again in {again_s} s");
        let code = Some("rate_limit_exceeded");
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message);
        Self { retry_after_s: Some(again_s as usize), ..refusal }
    }

    pub fn to_json(&self) -> Value {
        let Self { message, kind, param, code, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
