//! The other half of a fleet: a language model that answers on one of its machines.

use super::children::Children;
use crate::llm;
use crate::named::{self, Named};
use crate::output::{self, Failure};
use serde_json::json;
use std::path::PathBuf;
use tokio::sync::oneshot;

/// The server's folder, and its name in `pids.json`.
pub const NAME: &str = "chat";

pub struct Served {
    model: String,
    url: String,
}

/// Finds the model, fetches it if it is not here, and sees that it can be served: before anything is trained, since nobody
/// should wait for that to learn of a typo. `model`: by default the one of `littoral run`.
///
/// On a thread of its own that nobody waits for: a download must not hold up the end. What it has got by then is kept.
pub async fn find(model: Option<PathBuf>) -> Result<Named, Failure> {
    let (found, finding) = oneshot::channel();
    let failed = |got: String| Failure::new("no model", NAME, "a thread that looks for it", got);
    let look = move || {
        let named = named::here_or_fetched(model.as_deref());
        drop(found.send(named.and_then(|named| llm::check(&named.path).map(|()| named))));
    };
    std::thread::Builder::new().name("model".into()).spawn(look).map_err(|e| failed(e.to_string()))?;
    finding.await.map_err(|e| failed(e.to_string()))?
}

/// Starts a server of this model.
pub async fn serve(Named { path, name }: &Named, children: &mut Children) -> Result<Served, Failure> {
    let url = children.serve(NAME, path, name).await?;
    Ok(Served { model: name.clone(), url })
}

impl Served {
    /// As `littoral serve` says it.
    pub fn show(&self, json: bool) {
        let Self { model, url } = self;
        if json {
            output::object(&json!({"role": "serve", "model": model, "url": url}));
        } else {
            output::talk(&format!("\n{model} answers at {url} (a page to chat), for programs at {url}/v1"));
        }
    }
}
