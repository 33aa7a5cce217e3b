//! A model as it is given on a command line: a file, or a name.
//!
//! What exists as a file is a file. Else `hf:…` and the names of `littoral models` mean what was pulled; `run` and `serve`
//! fetch what is known but not here. What looks like a path stays one, so a mistyped path is told as such.

use crate::output::Failure;
use crate::pull;
use crate::sources;
use littoral_node::models::{DEFAULT, Reference, State};
use std::path::{Path, PathBuf};

pub struct Named {
    pub path: PathBuf,
    /// What the model is called: its name here, or its file's.
    pub name: String,
}

/// A file, or a model that is here. Fetches nothing.
pub fn here(given: &Path) -> Result<Named, Failure> {
    find(given, false)
}

/// The default where nothing is given. Fetches a model that is known but not here.
pub fn here_or_fetched(given: Option<&Path>) -> Result<Named, Failure> {
    find(given.unwrap_or(Path::new(DEFAULT)), true)
}

fn find(given: &Path, fetch: bool) -> Result<Named, Failure> {
    let file = || {
        let name = given.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Named { path: given.to_owned(), name })
    };
    let Some(text) = given.to_str().filter(|_| !given.exists()) else { return file() };
    let no_such = || {
        let expected = "a file, a name of `littoral models`, or hf:owner/repo/file.gguf";
        let hint = "`littoral models` lists names; `littoral run -p \"…\"` asks the default model";
        Failure::new("no such model", text, expected, "none of these").hint(hint)
    };
    let reference = match Reference::parse(text) {
        Ok(reference) => reference,
        Err(_) if text.starts_with("hf:") || !looks_like_a_path(text) => return Err(no_such()),
        Err(_) => return file(),
    };
    let store = sources::store()?;
    let catalogue = sources::catalogue(&store)?;
    let known = match &reference {
        Reference::Name(name) => catalogue.find(name),
        _ => None,
    };
    let sha256 = match known {
        Some(entry) => Some(entry.sha256),
        None => store.record(text)?.map(|record| record.sha256),
    };
    if let Some(sha256) = sha256
        && let State::Here(path) = store.state(&sha256)?
    {
        return Ok(Named { path, name: text.to_owned() });
    }
    let absent = |how: String| {
        // A URL may hold a password.
        let place = if matches!(reference, Reference::Url(_)) { "the URL" } else { text };
        Failure::new("the model is not here", place, "one that was pulled", "none")
            .hint(format!("fetch it first: `{how}`"))
    };
    let wanted = match (&reference, known) {
        (Reference::Url(_), _) => return Err(absent("littoral pull URL --sha256 HEX".into())),
        (Reference::Hub(_), _) | (_, Some(_)) if !fetch => return Err(absent(format!("littoral pull {text}"))),
        (Reference::Hub(file), _) => pull::of_hub(file)?,
        (_, Some(_)) => pull::known(&catalogue, text)?,
        _ if sha256.is_some() => return Err(absent(format!("littoral pull … --name {text}"))),
        _ if looks_like_a_path(text) => return file(),
        _ => return Err(no_such()),
    };
    let pulled = pull::fetch(&store, &wanted)?;
    Ok(Named { path: pulled.path, name: text.to_owned() })
}

fn looks_like_a_path(text: &str) -> bool {
    let ending = Path::new(text).extension().is_some_and(|ending| ending == "gguf" || ending == "safetensors");
    ending || text.contains('/') && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::looks_like_a_path;

    #[test]
    fn paths_and_questions() {
        for path in ["model.gguf", "my model.gguf", "models/x", "/tmp/x", "./x", "x.safetensors"] {
            assert!(looks_like_a_path(path), "{path}");
        }
        for other in ["smollm2-135m-instruct", "What is and/or?", "hello", ""] {
            assert!(!looks_like_a_path(other), "{other}");
        }
    }
}
