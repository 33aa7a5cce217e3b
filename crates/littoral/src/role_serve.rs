//! `[serve]` in the file of a role: the same machine serves a language model too, by its key in the fleet.
//!
//! The table has the flags of `littoral serve` by their names, and `model`.

use crate::output::Failure;
use crate::serve_cmd;
use clap::{Args as _, Command, FromArgMatches as _};
use std::ffi::OsString;
use std::path::Path;
use tokio::sync::oneshot;

/// Flags whose values may be files beside the role's own.
const FILES: [&str; 8] =
    ["model", "draft", "router", "local-only", "api-key-file", "upstream-key-file", "tls-cert", "tls-key"];
/// What the role itself says.
const OURS: [&str; 2] = ["dir", "tethered"];

/// `dir`: the role's folder, with its key; `base`: where its file's paths start.
pub fn args(table: &toml::Table, dir: &Path, base: &Path, tethered: bool) -> Result<serve_cmd::Args, Failure> {
    let mut words: Vec<OsString> = vec!["serve".into(), "--dir".into(), dir.into()];
    if tethered {
        words.push("--tethered".into());
    }
    let mut model = None;
    for (name, value) in table {
        let place = format!("[serve], {name}");
        let flag = name.replace('_', "-");
        if OURS.contains(&flag.as_str()) {
            return Err(Failure::usage(place, "the flags of `littoral serve`", "one that the role has itself"));
        }
        let values = match value {
            toml::Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = match value {
                toml::Value::Boolean(true) => None,
                toml::Value::Boolean(false) => continue,
                toml::Value::String(text) => Some(text.clone()),
                toml::Value::Integer(number) => Some(number.to_string()),
                toml::Value::Float(number) => Some(number.to_string()),
                other => return Err(Failure::usage(place, "a text, a number, true, or a list", other.type_str())),
            };
            let beside = text.as_ref().map(|text| base.join(text));
            let text = match beside.filter(|file| FILES.contains(&flag.as_str()) && file.is_file()) {
                Some(file) => Some(file.into_os_string()),
                None => text.map(OsString::from),
            };
            match (flag.as_str(), text) {
                ("model", text) => model = text,
                // In one word, so that no value is taken for a flag.
                (_, Some(text)) => words.push([OsString::from(format!("--{flag}=")), text].into_iter().collect()),
                (_, None) => words.push(format!("--{flag}").into()),
            }
        }
    }
    // What `serve` would fetch where none is named is for people who try it.
    let model =
        model.ok_or_else(|| Failure::usage("[serve]", "`model`, a file or the name of one that is here", "none"))?;
    words.extend(["--".into(), model]);
    let command = serve_cmd::Args::augment_args(Command::new("serve"));
    let read = command.try_get_matches_from(words).and_then(|found| serve_cmd::Args::from_arg_matches(&found));
    read.map_err(|e| {
        // What is missing stands in lines of their own below the first; usage and hints come behind an empty one.
        let said = e.to_string();
        let lines: Vec<&str> = said.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let what = lines.join(" ");
        Failure::usage("[serve]", "the flags of `littoral serve`, and `model`", what.trim_start_matches("error: "))
    })
}

/// Serves on threads of its own until a signal; what comes tells how it ended.
pub fn start(args: serve_cmd::Args, json: bool) -> Result<oneshot::Receiver<Result<(), Failure>>, Failure> {
    let (ended, end) = oneshot::channel();
    let served = std::thread::Builder::new().name("serve".into()).spawn(move || {
        let _ = ended.send(serve_cmd::run(args, json));
    });
    served.map_err(|e| Failure::new("nothing is served", "the operating system", "a thread", e))?;
    Ok(end)
}

/// The role, and the server beside it: both stop at a signal, and a fault of either ends both.
pub async fn together(
    role: impl Future<Output = Result<(), Failure>>,
    served: Option<oneshot::Receiver<Result<(), Failure>>>,
) -> Result<(), Failure> {
    let Some(mut served) = served else { return role.await };
    tokio::pin!(role);
    tokio::select! {
        done = &mut role => {
            done?;
            served.await.unwrap_or_else(|_| Err(broken()))
        }
        ended = &mut served => {
            ended.unwrap_or_else(|_| Err(broken()))?;
            role.await
        }
    }
}

fn broken() -> Failure {
    Failure::new("the server ended", "its thread", "an end that it tells of", "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let table: toml::Table = text.parse().unwrap();
        let args = args(&table, Path::new("own"), Path::new("/nowhere"), false);
        args.map(|args| format!("{args:?}")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_table_is_the_flags_of_serve() {
        let args =
            read("model = \"m.gguf\"\nparallel = 3\napi-key = [\"a\", \"-b\"]\nopen = true\nupstream_plain = false")
                .unwrap();
        for part in ["model: Some(\"m.gguf\")", "parallel: 3", "[\"a\", \"-b\"]", "open: true", "dir: Some(\"own\")"] {
            assert!(args.contains(part), "{part} in {args}");
        }
        let error = read("model = \"m\"\nnonsense = 1").unwrap_err();
        assert!(error.contains("[serve]") && error.contains("--nonsense"), "{error}");
        assert!(read("model = \"m\"\nparallel = 0").unwrap_err().contains("parallel"));
        let error = read("model = \"m\"\nverify = \"127.0.0.1:7600\"").unwrap_err();
        assert!(error.contains("--allow <KEY>") && error.lines().count() == 1, "{error}");
        assert!(read("open = true").unwrap_err().contains("`model`"));
        assert!(read("dir = \"x\"").unwrap_err().contains("the role has itself"));
        assert!(read("model = { a = 1 }").unwrap_err().contains("a text, a number"));
    }
}
