//! A Python package index: its simple API, as JSON (PEP 691) or as HTML (PEP 503). Asked for one wheel of one version.

use super::digest::Digest;
use super::fault::{Fault, FaultKind};
use super::web::{Ask, Login, Web, shown};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use std::collections::HashMap;

const PAGE_BYTES_MAX: usize = 16 << 20;
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// An index, and who asks.
pub struct Index {
    root: Url,
    login: Option<Login>,
}

/// A link to a file of a package.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Link {
    pub(super) url: Url,
    pub(super) sha256: Option<Digest>,
}

impl Index {
    pub const ROOT: &str = "https://pypi.org/simple";

    /// `root` may hold a login, which is shown to that index only.
    ///
    /// # Errors
    /// [`FaultKind::Unknown`] if it is no http or https URL; the message does not repeat it.
    pub fn new(root: &str) -> Result<Self, Fault> {
        let wrong = |got: &dyn std::fmt::Display| {
            Fault::new(FaultKind::Unknown, "the package index's address", "an http or https URL", got)
        };
        let mut root = Url::parse(root).map_err(|e| wrong(&e))?;
        if !matches!(root.scheme(), "http" | "https") {
            return Err(wrong(&root.scheme()));
        }
        let login = Login::out_of(&mut root);
        Ok(Self { root, login })
    }

    pub(super) fn host(&self) -> &str {
        self.root.host_str().unwrap_or_default()
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The wheel for any Python and any machine.
    pub(super) async fn wheel(&self, web: &Web, package: &str, version: &str) -> Result<Link, Fault> {
        let package = normalised(package);
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&package).push("");
        }
        let ask = Ask { url: &url, login: self.login(), head: false, accept: Some(ACCEPT), from: 0, answered_by: None };
        let answer = web.send(&ask).await?.succeeded()?;
        let base = answer.url.clone();
        let kind = super::web::header(answer.response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        let page = answer.text(web, PAGE_BYTES_MAX).await?;
        let links = if kind.contains("json") { links_of_json(&page, &base)? } else { links_of_html(&page, &base) };
        let found = links.into_iter().find(|link| is_wheel_of(&file_name(&link.url), &package, version));
        let none = || Fault::refused(shown(&base), format!("a wheel of {package} {version}"), "none");
        found.filter(|link| matches!(link.url.scheme(), "http" | "https")).ok_or_else(none)
    }
}

#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

#[derive(Deserialize)]
struct PageFile {
    url: String,
    #[serde(default)]
    hashes: HashMap<String, String>,
}

fn links_of_json(page: &str, base: &Url) -> Result<Vec<Link>, Fault> {
    let page: Page =
        serde_json::from_str(page).map_err(|e| Fault::refused(shown(base), "a page of the simple API (PEP 691)", e))?;
    let link = |file: PageFile| {
        let sha256 = file.hashes.get("sha256").and_then(|hash| hash.parse().ok());
        Some(Link { url: base.join(&file.url).ok()?, sha256 })
    };
    Ok(page.files.into_iter().filter_map(link).collect())
}

/// The targets of the anchors; all else of the page does not matter.
fn links_of_html(page: &str, base: &Url) -> Vec<Link> {
    let mut links = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let (tag, behind) = rest.split_at(end_of_tag(rest));
        rest = behind;
        if !tag.starts_with(['a', 'A']) {
            continue;
        }
        if let Some(url) = attribute(tag, "href").and_then(|href| base.join(&href).ok()) {
            let hash = url.fragment().and_then(|fragment| fragment.split('&').find_map(|f| f.strip_prefix("sha256=")));
            links.push(Link { sha256: hash.and_then(|hash| hash.parse().ok()), url });
        }
    }
    links
}

/// A `>` between quotes ends nothing.
fn end_of_tag(text: &str) -> usize {
    let mut quote = None;
    let end = text.bytes().position(|byte| match (byte, quote) {
        (b'>', None) => true,
        (b'"' | b'\'', None) => {
            quote = Some(byte);
            false
        }
        (byte, Some(open)) if byte == open => {
            quote = None;
            false
        }
        _ => false,
    });
    end.unwrap_or(text.len())
}

/// The value of a quoted attribute.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let at = tag.to_ascii_lowercase().find(&format!("{name}="))? + name.len() + 1;
    let quote = tag[at..].chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (value, _) = tag[at + 1..].split_once(quote)?;
    Some(value.replace("&amp;", "&").replace("&#x2B;", "+").replace("&#43;", "+"))
}

fn file_name(url: &Url) -> String {
    let last = url.path().rsplit('/').next().unwrap_or_default();
    percent_decode_str(last).decode_utf8_lossy().into_owned()
}

/// `name-version[-build]-python-abi-platform.whl`, for any machine.
fn is_wheel_of(file: &str, package: &str, version: &str) -> bool {
    let Some(stem) = file.strip_suffix(".whl") else { return false };
    let parts: Vec<&str> = stem.split('-').collect();
    let [name, of, .., platform] = &parts[..] else { return false };
    (5..=6).contains(&parts.len()) && normalised(name) == package && *of == version && *platform == "any"
}

/// As names are compared (PEP 503): runs of `-`, `_` and `.` are one `-`.
fn normalised(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn both_kinds_of_page_have_the_same_links() {
        let base = Url::parse("https://index.example/simple/llm-x/").unwrap();
        let html = format!(
            "<!DOCTYPE html><abbr>x</abbr><a href=\"../../files/llm_x-0.1.tar.gz\">llm_x-0.1.tar.gz</a><br/>\n\
             <A class='a' data-requires-python=\">=3.9\" HREF='https://files.example/llm%5Fx-0.1-py3-none-any.whl?a=1&amp;b=2#sha256={HASH}'>\
             llm_x-0.1-py3-none-any.whl</a><a>none</a><a href=bare><a href=\"",
        );
        let json = format!(
            "{{\"meta\": {{\"api-version\": \"1.1\"}}, \"files\": [{{\"filename\": \"a\", \"url\": \"../../files/llm_x-0.1.tar.gz\"}}, \
             {{\"hashes\": {{\"sha256\": \"{HASH}\"}}, \"url\": \"https://files.example/llm%5Fx-0.1-py3-none-any.whl?a=1&b=2#sha256={HASH}\"}}]}}",
        );
        let links = links_of_json(&json, &base).unwrap();
        assert_eq!(links_of_html(&html, &base), links);
        assert_eq!(
            links[0],
            Link { url: "https://index.example/files/llm_x-0.1.tar.gz".parse().unwrap(), sha256: None }
        );
        assert_eq!(links[1].sha256, Some(HASH.parse().unwrap()));
        assert!(is_wheel_of(&file_name(&links[1].url), "llm-x", "0.1"));
        assert!(links_of_json("{}", &base).is_err());
    }

    #[test]
    fn a_wheel_is_known_by_its_file_s_name() {
        for good in ["llm_x-0.1-py3-none-any.whl", "LLM.x-0.1-1-py2.py3-none-any.whl"] {
            assert!(is_wheel_of(good, "llm-x", "0.1"), "{good}");
        }
        for wrong in [
            "llm_x-0.1.1-py3-none-any.whl",
            "llm_x-0.1.tar.gz",
            "llm_x_y-0.1-py3-none-any.whl",
            "llm_x-0.1-any.whl",
            "llm_x-0.1-cp312-cp312-manylinux_2_17_x86_64.whl",
            "llm_x-0.1-py3-none-any.whl.metadata",
            "",
        ] {
            assert!(!is_wheel_of(wrong, "llm-x", "0.1"), "{wrong}");
        }
    }
}
