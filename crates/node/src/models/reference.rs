//! What a person asks for: `NAME`, `hf:owner/repo[@revision]/file.gguf`, or a URL.

use super::fault::{Fault, FaultKind};
use reqwest::Url;
use serde::Deserialize;
use std::fmt;

const NAME_BYTES_MAX: usize = 96;
const HUB_PATH_BYTES_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Name(String),
    Hub(HubFile),
    Url(Url),
}

/// A file of a repository on a model hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HubFile {
    pub owner: String,
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: Option<String>,
    /// May lie in folders.
    pub path: String,
}

impl Reference {
    /// # Errors
    /// [`FaultKind::Unknown`].
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let unknown = |expected: String, got: &str| Fault::new(FaultKind::Unknown, "the model's name", expected, got);
        if let Some(file) = text.strip_prefix("hf:") {
            return HubFile::parse(file).map(Self::Hub).map_err(|expected| unknown(expected, text));
        }
        if text.contains("://") {
            // Whatever it is, it may hold a password: it is not repeated.
            let url = Url::parse(text).map_err(|e| unknown("a URL".into(), &e.to_string()))?;
            return match url.scheme() {
                "http" | "https" => Ok(Self::Url(url)),
                other => Err(unknown("an http or https URL".into(), other)),
            };
        }
        name(text).map(Self::Name).map_err(|expected| unknown(expected, text))
    }
}

/// A name that a model may have here.
///
/// # Errors
/// What is expected.
pub(super) fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    match begins_well && text.len() <= NAME_BYTES_MAX && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err(format!("1 to {NAME_BYTES_MAX} letters, digits, `.`, `-`, `_` or `:`")),
    }
}

impl HubFile {
    /// Of what stands behind `hf:`.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "hf:owner/repo/file.gguf or hf:owner/repo@revision/file.gguf".to_owned();
        let mut parts = text.splitn(3, '/');
        let (Some(owner), Some(repo), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(expected());
        };
        let (repo, revision) = match repo.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (repo, None),
        };
        let word = |text: &str| {
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            !text.is_empty() && text.len() <= 96 && text.bytes().all(good) && text != "." && text != ".."
        };
        let folders = path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(char::is_control));
        let whole = word(owner) && word(repo) && revision.is_none_or(word);
        if !whole || !folders || !path.ends_with(".gguf") || path.len() > HUB_PATH_BYTES_MAX {
            return Err(expected());
        }
        let [owner, repo, path] = [owner, repo, path].map(str::to_owned);
        Ok(Self { owner, repo, revision: revision.map(str::to_owned), path })
    }
}

impl TryFrom<String> for HubFile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(text.strip_prefix("hf:").unwrap_or(&text))
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.revision.as_ref().map(|revision| format!("@{revision}")).unwrap_or_default();
        write!(f, "hf:{}/{}{revision}/{}", self.owner, self.repo, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_for() {
        for text in ["hf:a/b/c.gguf", "hf:a/b@v1.0/d/c q4.gguf"] {
            let Ok(Reference::Hub(file)) = Reference::parse(text) else { panic!("{text}") };
            assert_eq!(file.to_string(), text);
        }
        assert!(matches!(Reference::parse("smollm2-135m-instruct"), Ok(Reference::Name(_))));
        assert!(matches!(Reference::parse("https://example.org/a.gguf?x"), Ok(Reference::Url(_))));
        for wrong in [
            "",
            ".",
            "-x",
            "a b",
            "a/b",
            "../a",
            "hf:",
            "hf:a/b",
            "hf:a/b/c.bin",
            "hf:a/../c.gguf",
            "hf:a/b/../c.gguf",
            "hf:a/b@/c.gguf",
            "hf:a//c.gguf",
            "hf:a/b//c.gguf",
            "ftp://example.org/a.gguf",
            "file:///etc/passwd",
            "http://",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
        let secret = Reference::parse("ftp://user:s3cret@host/a").expect_err("ftp");
        assert!(!secret.to_string().contains("s3cret"));
    }
}
