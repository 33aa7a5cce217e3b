//! Requests: through the environment's proxies, with few redirects, and with a login only for whom it is meant.

use super::fault::{Fault, FaultKind};
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, LOCATION, RANGE};
use reqwest::{Client, Method, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const REDIRECTS_MAX: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two pieces of an answer.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Of what a server says in a header.
const SAID_CHARS_MAX: usize = 160;

pub struct Web {
    client: Client,
    /// For messages: the client does its own matching, with the same code.
    proxies: Matcher,
}

/// Shown to one origin only.
#[derive(Clone)]
pub(super) struct Login {
    origin: String,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Basic { user: String, password: String },
    Token(String),
}

/// What is asked for.
pub(super) struct Ask<'a> {
    pub(super) url: &'a Url,
    pub(super) login: Option<&'a Login>,
    pub(super) head: bool,
    pub(super) accept: Option<&'static str>,
    /// The first byte that is wanted.
    pub(super) from: u64,
    /// A redirect that has this header is an answer.
    pub(super) answered_by: Option<&'static str>,
}

pub(super) struct Answer {
    pub(super) response: reqwest::Response,
    /// After redirects.
    pub(super) url: Url,
}

impl Web {
    /// # Errors
    /// [`FaultKind::Refused`] if TLS cannot be set up.
    pub fn new() -> Result<Self, Fault> {
        let refused = |e: &dyn fmt::Display| Fault::refused("this machine", "TLS", e);
        let tls = tls().map_err(|e| refused(&e))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("littoral/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .build()
            .map_err(|e| refused(&innermost(&e)))?;
        Ok(Self { client, proxies: Matcher::from_env() })
    }

    /// The answer behind the redirects, whatever its status.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Answer, Fault> {
        let mut url = ask.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let method = if ask.head { Method::HEAD } else { Method::GET };
            let mut request = self.client.request(method, url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(accept) = ask.accept {
                request = request.header(ACCEPT, accept);
            }
            if ask.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", ask.from));
            }
            if let Some(login) = ask.login.filter(|login| login.origin == origin(&url)) {
                request = match &login.secret {
                    Secret::Basic { user, password } => request.basic_auth(user, Some(password)),
                    Secret::Token(token) => request.bearer_auth(token),
                };
            }
            let response = request.send().await.map_err(|e| self.unreachable(&url, &e))?;
            let answered = ask.answered_by.is_some_and(|header| response.headers().contains_key(header));
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirect || answered {
                return Ok(Answer { response, url });
            }
            let next =
                response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
            let Some(next) = next else { return Err(Fault::refused(shown(&url), "a redirect to somewhere", "none")) };
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Fault::refused(shown(&url), "a redirect that stays encrypted", shown(&next)));
            }
            url = next;
        }
        Err(Fault::refused(shown(ask.url), format!("at most {REDIRECTS_MAX} redirects"), "more"))
    }

    /// Nobody there, or they fell silent.
    pub(super) fn unreachable(&self, url: &Url, error: &reqwest::Error) -> Fault {
        let proxy = url.as_str().parse().ok().and_then(|url| self.proxies.intercept(&url));
        let through = proxy.map_or(String::new(), |proxy| {
            format!(" through the proxy {}", proxy.uri().authority().map_or("", |at| host_of(at.as_str())))
        });
        let place = format!("{}{through}", origin(url));
        let kind = if error.is_connect() { FaultKind::Unreachable } else { FaultKind::Cut };
        Fault::new(
            kind,
            place,
            if kind == FaultKind::Cut { "a whole answer" } else { "an answer" },
            format!("none: {}", innermost(error)),
        )
    }
}

/// TLS as a client of servers with certificates.
pub(crate) fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots()).with_no_client_auth())
}

/// The system's certificates; where it has none, those of Mozilla's list.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

impl Answer {
    /// Refuses what is not a success, in the server's own words as far as it has any.
    pub(super) fn succeeded(self) -> Result<Self, Fault> {
        let status = self.response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(self);
        }
        let said =
            header(self.response.headers(), "x-error-message").map(|said| format!(": {said}")).unwrap_or_default();
        let denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let kind = if denied { FaultKind::Denied } else { FaultKind::Refused };
        Err(Fault::new(kind, shown(&self.url), "a file that may be read", format!("{status}{said}")))
    }

    /// A text of at most `bytes_max` bytes.
    pub(super) async fn text(mut self, web: &Web, bytes_max: usize) -> Result<String, Fault> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.response.chunk().await.map_err(|e| web.unreachable(&self.url, &e))? {
            if bytes.len() + chunk.len() > bytes_max {
                return Err(Fault::refused(shown(&self.url), format!("at most {bytes_max} bytes"), "more"));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| Fault::refused(shown(&self.url), "a text in UTF-8", "other bytes"))
    }
}

impl Login {
    pub(super) fn token(url: &Url, token: &str) -> Self {
        Self { origin: origin(url), secret: Secret::Token(token.to_owned()) }
    }

    /// Takes the login out of a URL.
    pub(super) fn out_of(url: &mut Url) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
        if user.is_empty() && password.is_empty() {
            return None;
        }
        // Only a URL that cannot have a login refuses, and this one had.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        Some(Self { origin: origin(url), secret: Secret::Basic { user, password } })
    }
}

/// A header's text, short and printable.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(text.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect())
}

/// Scheme, host and port.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// For messages: without login, query and fragment, which may be secrets.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", origin(url), url.path())
}

fn host_of(authority: &str) -> &str {
    authority.rsplit('@').next().unwrap_or_default()
}

/// The libraries' own words say little but that there is a cause.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_taken_out_and_not_shown() {
        let mut url = Url::parse("https://ward:s%40cret@index.example:8443/simple?token=t#f").unwrap();
        let Some(Login { origin, secret: Secret::Basic { user, password } }) = Login::out_of(&mut url) else {
            panic!("there is one")
        };
        assert_eq!(
            (origin.as_str(), user.as_str(), password.as_str()),
            ("https://index.example:8443", "ward", "s@cret")
        );
        assert_eq!(url.as_str(), "https://index.example:8443/simple?token=t#f");
        assert_eq!(shown(&url), "https://index.example:8443/simple");
        assert!(Login::out_of(&mut url).is_none());
        assert_eq!(host_of("ward:s3cret@proxy:3128"), "proxy:3128");
    }
}
