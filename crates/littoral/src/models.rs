//! `littoral models`: what is known by name, what is here; and `rm`.

use crate::output::{self, Failure};
use crate::pull::size;
use crate::sources;
use littoral_node::models::{Catalogue, DEFAULT, Digest, Record, State, Store};
use serde_json::{Value, json};

#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List what is known by name and what is here.
    Ls,
    /// Remove models from this machine; a file goes with the last name that means it.
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub fn run(args: Args, json: bool) -> Result<(), Failure> {
    let store = sources::store()?;
    let catalogue = sources::catalogue(&store)?;
    match args.command {
        None | Some(Command::Ls) => list(&store, &catalogue, json),
        Some(Command::Rm { names }) => remove(&store, &catalogue, &names, json),
    }
}

struct Row {
    name: String,
    architecture: Option<String>,
    licence: Option<String>,
    size_bytes: u64,
    sha256: Digest,
    state: State,
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let here = match &self.state {
            State::Here(_) => "yes".to_owned(),
            State::Partly(bytes) => format!("{} of it", size(*bytes)),
            State::Absent => "no".to_owned(),
        };
        let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "?".into());
        vec![self.name.clone(), word(&self.architecture), size(self.size_bytes), word(&self.licence), here]
    }

    fn json(&self) -> Value {
        let (path, partly) = match &self.state {
            State::Here(path) => (Some(path.display().to_string()), None),
            State::Partly(bytes) => (None, Some(*bytes)),
            State::Absent => (None, None),
        };
        json!({
            "name": self.name,
            "architecture": self.architecture,
            "licence": self.licence,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "here": path.is_some(),
            "path": path,
            "partial_bytes": partly,
            "default": self.name == DEFAULT,
        })
    }
}

fn list(store: &Store, catalogue: &Catalogue, json: bool) -> Result<(), Failure> {
    let rows = rows(store, catalogue)?;
    if json {
        let models: Vec<Value> = rows.iter().map(Row::json).collect();
        output::object(&json!({"dir": store.dir().display().to_string(), "models": models}));
    } else {
        let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
        output::table(&["NAME", "ARCHITECTURE", "SIZE", "LICENCE", "HERE"], &cells);
    }
    Ok(())
}

/// The catalogue's, then what else was pulled.
fn rows(store: &Store, catalogue: &Catalogue) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for entry in catalogue.entries() {
        rows.push(Row {
            name: entry.name.clone(),
            architecture: Some(entry.architecture.clone()),
            licence: Some(entry.licence.clone()),
            size_bytes: entry.size_bytes,
            sha256: entry.sha256,
            state: store.state(&entry.sha256)?,
        });
    }
    for Record { name, sha256, size_bytes, architecture, licence, .. } in store.records()? {
        if catalogue.find(&name).is_none() {
            let state = store.state(&sha256)?;
            rows.push(Row { name, architecture, licence, size_bytes, sha256, state });
        }
    }
    Ok(rows)
}

fn remove(store: &Store, catalogue: &Catalogue, names: &[String], json: bool) -> Result<(), Failure> {
    let mut freed = 0;
    for name in names {
        let known = catalogue.find(name).map(|entry| entry.sha256);
        let mut waiting = || output::talk(&format!("another process fetches {name}: waiting for it"));
        let removed = store.remove(name, known, &mut waiting)?;
        freed += removed.bytes;
        if !json {
            let kept = if removed.bytes == 0 { "its file has another name".to_owned() } else { size(removed.bytes) };
            output::line(&format!("{name} is removed: {kept}"));
        }
    }
    if json {
        output::object(&json!({"removed": names, "freed_bytes": freed}));
    }
    Ok(())
}
