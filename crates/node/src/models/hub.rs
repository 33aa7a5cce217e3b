//! A model hub, as Hugging Face's speaks: `/owner/repo/resolve/revision/file`. The answer to HEAD, or the redirect in its
//! place, declares the SHA-256 of a large file in `X-Linked-Etag` and its size in `X-Linked-Size`.

use super::digest::Digest;
use super::fault::{Fault, FaultKind};
use super::reference::HubFile;
use super::web::{Ask, Login, Web, header, shown};
use reqwest::Url;
use reqwest::header::CONTENT_LENGTH;

const LINKED_ETAG: &str = "x-linked-etag";

/// A hub, and who asks.
pub struct Hub {
    endpoint: Url,
    login: Option<Login>,
}

/// What a hub says of a file before it sends it.
pub(super) struct Declared {
    pub(super) sha256: Digest,
    pub(super) size: Option<u64>,
}

impl Hub {
    pub const ENDPOINT: &str = "https://huggingface.co";

    /// # Errors
    /// [`FaultKind::Unknown`] if `endpoint` is no http or https URL; the message does not repeat it.
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self, Fault> {
        let wrong = |got: &dyn std::fmt::Display| {
            Fault::new(FaultKind::Unknown, "the hub's address", "an http or https URL", got)
        };
        let mut endpoint = Url::parse(endpoint.trim_end_matches('/')).map_err(|e| wrong(&e))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(wrong(&endpoint.scheme()));
        }
        let of_url = Login::out_of(&mut endpoint);
        let login = token.map(|token| Login::token(&endpoint, token)).or(of_url);
        Ok(Self { endpoint, login })
    }

    pub(super) fn url(&self, file: &HubFile) -> Url {
        let mut url = self.endpoint.clone();
        // Only URLs without a host have no path, and the endpoint's scheme wants one.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend([&file.owner, &file.repo, "resolve"]);
            path.push(file.revision.as_deref().unwrap_or("main")).extend(file.path.split('/'));
        }
        url
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Asks for the hash, not for the file.
    pub(super) async fn declared(&self, web: &Web, file: &HubFile) -> Result<Declared, Fault> {
        let url = self.url(file);
        let login = self.login();
        let ask = Ask { url: &url, login, head: true, accept: None, from: 0, answered_by: Some(LINKED_ETAG) };
        let answer = web.send(&ask).await?.succeeded()?;
        let headers = answer.response.headers();
        let etag = header(headers, LINKED_ETAG).unwrap_or_default();
        let sha256 = etag.trim_start_matches("W/").trim_matches('"').parse::<Digest>().map_err(|_| {
            let got = if etag.is_empty() { "none: the file cannot be checked" } else { "another kind of hash" };
            Fault::refused(shown(&url), "a SHA-256 declared by the hub", got)
        })?;
        // The length of a redirect's own answer is not the file's.
        let length = (!answer.response.status().is_redirection()).then_some(CONTENT_LENGTH.as_str());
        let size = ["x-linked-size"].into_iter().chain(length).find_map(|name| header(headers, name)?.parse().ok());
        Ok(Declared { sha256, size: size.filter(|size| *size > 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let file = HubFile::parse("o/r@v1/folder/a b.gguf").unwrap();
        let at = |endpoint| Hub::new(endpoint, None).map(|hub| hub.url(&file).to_string());
        assert_eq!(
            at("https://huggingface.co").as_deref(),
            Ok("https://huggingface.co/o/r/resolve/v1/folder/a%20b.gguf")
        );
        assert_eq!(
            at("http://mirror:8080/hf/").as_deref(),
            Ok("http://mirror:8080/hf/o/r/resolve/v1/folder/a%20b.gguf")
        );
        for wrong in ["", "mirror", "ftp://mirror", "s3cret"] {
            assert!(at(wrong).is_err_and(|e| !e.to_string().contains("s3cret")), "{wrong}");
        }
    }
}
