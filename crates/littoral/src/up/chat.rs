//! The other half of a fleet: a language model that answers on its machines.
//!
//! One process serves one model. With a small model beside it three tiers serve one person: the device drafts with the small
//! one; the edge has the large one, split over two processes, and verifies; the cloud has the large one as a whole, goes on
//! where the edge is lost, and answers for the edge where that is busy or lacks layers. They are the fleet's own machines, by
//! their keys.

use super::children::{Children, SERVER_GRACE, Service};
use super::fleet::{CLOUD, Fleet};
use crate::llm;
use crate::named::{self, Named};
use crate::output::{self, Failure};
use crate::stage;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// What the folders of its processes begin with, and their names in `pids.json`.
pub const NAME: &str = "chat";

const HTTP: &[(&str, &str)] = &[("--listen", "url")];
const BOTH: &[(&str, &str)] = &[("--listen", "url"), ("--verify", "verifies")];
const STAGE: &[(&str, &str)] = &[("--listen", "address")];

/// What is served.
pub struct Models {
    pub model: Named,
    /// Drafts, on the device.
    pub small: Option<Named>,
}

pub struct Served {
    model: String,
    url: String,
    tiers: Vec<(&'static str, String)>,
}

/// Finds the models, fetches what is not here, and sees that they can be served: before anything is trained, since nobody
/// should wait for that to learn of a typo. `model`: by default the one of `littoral run`.
///
/// On a thread of its own that nobody waits for: a download must not hold up the end. What it has got by then is kept.
pub async fn find(model: Option<PathBuf>, small: Option<PathBuf>) -> Result<Models, Failure> {
    let (found, finding) = oneshot::channel();
    let failed = |got: String| Failure::new("no model", NAME, "a thread that looks for it", got);
    let one = |wanted: Option<&Path>| {
        let named = named::here_or_fetched(wanted);
        named.and_then(|named| llm::check(&named.path).map(|()| named))
    };
    let look = move || {
        let small = small.as_deref().map(|small| one(Some(small))).transpose();
        drop(found.send(small.and_then(|small| Ok(Models { model: one(model.as_deref())?, small }))));
    };
    std::thread::Builder::new().name("model".into()).spawn(look).map_err(|e| failed(e.to_string()))?;
    finding.await.map_err(|e| failed(e.to_string()))?
}

/// Starts the servers of these models.
pub async fn serve(models: &Models, fleet: &Fleet, children: &mut Children) -> Result<Served, Failure> {
    match &models.small {
        None => alone(&models.model, children).await,
        Some(small) => tiers(&models.model, small, fleet, children).await,
    }
}

async fn alone(Named { path, name }: &Named, children: &mut Children) -> Result<Served, Failure> {
    let args = words(&["--grace", SERVER_GRACE, "--name", name, "--"], path);
    let said = children.serve(Service { name: NAME.into(), command: "serve", args, listens: HTTP }).await?;
    Ok(Served { model: name.clone(), url: part(&said, "url"), tiers: Vec::new() })
}

async fn tiers(large: &Named, small: &Named, fleet: &Fleet, children: &mut Children) -> Result<Served, Failure> {
    let dir = children.dir().to_owned();
    // The fleet's machines; where it has no edge, one is made.
    let edge = dir.join(fleet.edges.first().map_or("chat-edge", String::as_str));
    let device = dir.join(fleet.devices.first().map_or("chat-device", String::as_str));
    let (edge_key, device_key) = (stage::identity(&edge)?.id().to_string(), stage::identity(&device)?.id().to_string());
    let service =
        |tier: &str, command, args, listens| Service { name: format!("{NAME}-{tier}"), command, args, listens };
    let server = |tier: &'static str, folder: &Path, rest: &[&str], model: &Path| {
        let folder = folder.display().to_string();
        let own = ["--grace", SERVER_GRACE, "--name", &large.name, "--tier", tier, "--dir", &folder];
        words(&[&own[..], rest, &["--"]].concat(), model)
    };

    let verifies = ["--allow", &device_key];
    let args = server("cloud", &dir.join(CLOUD), &[&verifies[..], &["--allow", &edge_key]].concat(), &large.path);
    let cloud = children.serve(service("cloud", "serve", args, BOTH)).await?;

    let other = dir.join("chat-stage").display().to_string();
    let args = words(&["--dir", &other, "--name", "edge-2", "--allow", &edge_key, "--model"], &large.path);
    let lends = children.serve(service("stage", "stage", args, STAGE)).await?;
    let lends = part(&lends, "address");
    let cloud_at = format!("cloud={}", part(&cloud, "verifies"));
    let split = ["--place", "even", "--stage", &lends, "--upstream", &cloud_at];
    let args = server("edge", &edge, &[&verifies[..], &split].concat(), &large.path);
    let near = children.serve(service("edge", "serve", args, BOTH)).await?;

    let edge_at = format!("edge={}", part(&near, "verifies"));
    let args = server("device", &device, &["--upstream", &edge_at, "--upstream", &cloud_at], &small.path);
    let nearest = children.serve(service("device", "serve", args, HTTP)).await?;

    let url = part(&nearest, "url");
    let tiers = vec![("device", url.clone()), ("edge", part(&near, "url")), ("cloud", part(&cloud, "url"))];
    Ok(Served { model: large.name.clone(), url, tiers })
}

fn words(words: &[&str], last: &Path) -> Vec<OsString> {
    words.iter().map(OsString::from).chain([last.into()]).collect()
}

fn part(said: &Value, name: &str) -> String {
    said.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Served {
    /// As `littoral serve` says it.
    pub fn show(&self, json: bool) {
        let Self { model, url, tiers } = self;
        if json {
            let mut said = json!({"role": "serve", "model": model, "url": url});
            if !tiers.is_empty() {
                said["tiers"] = tiers.iter().map(|(tier, url)| (*tier, url.as_str())).collect();
            }
            output::object(&said);
        } else {
            output::talk(&format!("\n{model} answers at {url} (a page to chat), for programs at {url}/v1"));
            for (tier, url) in tiers {
                output::talk(&format!("    {tier:<7} {url}"));
            }
            if !tiers.is_empty() {
                output::talk("the page shows who wrote each word; kill any of them in pids.json and go on talking");
            }
        }
    }
}
