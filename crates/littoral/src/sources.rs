//! Where this machine keeps models, and where it gets them: what the environment and pip's files say.

use crate::output::Failure;
use littoral_node::models::{Catalogue, Hub, Index, PipConfig, Settings, Store, pip_config};
use std::path::{Path, PathBuf};

/// A folder for all that belongs to the user: `models`, and the `history` of chats.
pub const HOME_VARIABLE: &str = "LITTORAL_HOME";
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// `$LITTORAL_HOME`, else `littoral` among the user's data (XDG base directories).
pub fn home() -> Result<PathBuf, Failure> {
    let home = variable(HOME_VARIABLE).map(PathBuf::from);
    let data = || folder_of("XDG_DATA_HOME", ".local/share").map(|data| data.join("littoral"));
    home.or_else(data)
        .ok_or_else(|| Failure::new("no place for files", HOME_VARIABLE, "a folder, where HOME is not set", "none"))
}

/// `models` in it.
pub fn store() -> Result<Store, Failure> {
    Ok(Store::new(home()?.join("models")))
}

/// The models that this program knows by name, and those of the machine's own catalogue before them.
pub fn catalogue(store: &Store) -> Result<Catalogue, Failure> {
    let (ours, path) = (Catalogue::ours()?, store.catalogue());
    if !path.exists() {
        return Ok(ours);
    }
    Ok(Catalogue::read(&crate::input::text(&path, TEXT_BYTES_MAX)?, &path)?.and(ours))
}

/// Hub and package indexes.
pub fn settings() -> Result<Settings, Failure> {
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| Hub::ENDPOINT.into());
    let hub = Hub::new(&endpoint, variable("HF_TOKEN").as_deref())
        .map_err(|fault| Failure::new("no model hub", "HF_ENDPOINT", fault.expected, fault.got))?;
    let configured = pip_files()?;
    let of_files = || configured.iter().rev().find_map(|file| file.index.clone());
    let (place, root) = [("PIP_INDEX_URL", variable("PIP_INDEX_URL"))]
        .into_iter()
        // uv lets an index have a name: `name=url`.
        .chain(["UV_DEFAULT_INDEX", "UV_INDEX_URL"].map(|name| (name, variable(name).map(without_name))))
        .find_map(|(place, root)| Some((place, root?)))
        .or_else(|| Some(("index-url in pip's configuration", of_files()?)))
        .unwrap_or_else(|| ("the default", Index::ROOT.into()));
    let extra = match variable("PIP_EXTRA_INDEX_URL") {
        Some(urls) => urls.split_whitespace().map(str::to_owned).collect(),
        None => {
            configured.iter().rev().map(|file| file.extra.clone()).find(|urls| !urls.is_empty()).unwrap_or_default()
        }
    };
    let places = std::iter::once((place, root)).chain(extra.into_iter().map(|url| ("an extra package index", url)));
    let index = |(place, url): (&str, String)| {
        Index::new(&url).map_err(|fault| Failure::new("no package index", place, fault.expected, fault.got))
    };
    Ok(Settings { hub, indexes: places.map(index).collect::<Result<_, _>>()? })
}

/// pip's files, in the order in which it reads them.
fn pip_files() -> Result<Vec<PipConfig>, Failure> {
    let named = variable("PIP_CONFIG_FILE").map(PathBuf::from);
    if named.as_deref() == Some(Path::new("/dev/null")) {
        return Ok(Vec::new());
    }
    let home = variable("HOME").map(|home| PathBuf::from(home).join(".pip"));
    let user = folder_of("XDG_CONFIG_HOME", ".config").map(|config| config.join("pip"));
    let environment = variable("VIRTUAL_ENV").map(PathBuf::from);
    let folders = [Some("/etc".into()), home, user, environment].into_iter().flatten();
    let paths = folders.map(|folder: PathBuf| folder.join("pip.conf")).chain(named);
    let there = paths.filter(|path| path.is_file());
    there.map(|path| Ok(pip_config(&crate::input::text(&path, TEXT_BYTES_MAX)?))).collect()
}

fn without_name(index: String) -> String {
    match index.split_once('=') {
        Some((name, url)) if !name.contains([':', '/']) => url.to_owned(),
        _ => index,
    }
}

/// A folder that the environment names, else one below the user's own.
fn folder_of(name: &str, below_home: &str) -> Option<PathBuf> {
    // The specification: a relative path is to be ignored.
    let named = variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(PathBuf::from(variable("HOME")?).join(below_home)))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
