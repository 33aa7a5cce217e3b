//! Drafts for a server of OpenAI's API that is not ours: the small model here drafts, and the server says what it would have
//! written at each place, if it tells the log-probabilities of prompts. Greedy answers only.
//!
//! `way` has the two forms in which servers tell that, `answer` and `stream` what is read of it; `probe` finds out whether one does,
//! with the same ids for the same tokens, what that costs, and later whether it is another model by then; `session` makes one
//! answer, a question after another. To the edge ([`Edge`](crate::speculate::edge::Edge))
//! all this is a machine that verifies: it drafts, measures and chooses as for any other.

mod answer;
mod probe;
mod session;
mod stream;
mod way;

use super::upstream::{Drafts, Found as Listed, Upstream, shown};
use crate::speculate::edge::Port;
use littoral_infer::model::Model;
use littoral_wire::Speculation;
use probe::Found;
use session::{Server, Session};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A server that does not verify drafts is looked at again.
const LOOKED_AGAIN: Duration = Duration::from_secs(300);
/// One at which another model answers by now is, after so long, and twice as long each time that happens again.
const CHANGED_AGAIN: Duration = Duration::from_secs(5);
/// Between two looks whether it is the same model.
const COMPARED: Duration = Duration::from_secs(60);

/// Asks the server for the edge behind the port, for ever; whenever the server is there again it is looked at anew.
pub async fn run(upstream: Arc<Upstream>, model: Arc<Model>, port: Port) {
    let (port, mut ups) = (Arc::new(port), upstream.ups());
    let mut pause = CHANGED_AGAIN;
    for number in 0.. {
        if ups.wait_for(|up| *up).await.is_err() {
            return;
        }
        let found = match probe::look(&upstream, &model).await {
            Ok(found) => found,
            Err(why) => {
                upstream.set_drafts(Drafts::Off(why));
                // Until it is another one, perhaps; or it was only for now.
                let _ = tokio::time::timeout(LOOKED_AGAIN, ups.wait_for(|up| !*up)).await;
                continue;
            }
        };
        upstream.set_drafts(Drafts::On { chats: found.chats.clone() });
        let left = serve(&upstream, &model, &port, number, found, &mut ups).await;
        let why = match &left {
            Left::Gone => "it cannot be reached",
            Left::Changed(why) => why,
        };
        upstream.set_drafts(Drafts::Off(why.to_owned()));
        port.heard(number, Err(format!("the server above: {why}")));
        if let Left::Changed(_) = left {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOKED_AGAIN);
        }
    }
}

/// Why a server is not asked for verdicts any more.
enum Left {
    Gone,
    /// Another model answers there.
    Changed(String),
}

/// Comes back when another model answers than was found.
async fn changed(upstream: &Upstream, model: &Model, found: &Found, server: &Server) -> String {
    let (mut heard, mut listed) = (server.changed(), upstream.listed());
    let before = &found.who.asked_for;
    let another = |list: &Option<Listed>| list.as_ref().is_some_and(|listed| listed.model != *before);
    let compared = async {
        loop {
            tokio::time::sleep(COMPARED).await;
            if let Err(why) = probe::look_again(upstream, model, found).await {
                return why;
            }
        }
    };
    tokio::select! {
        Ok(why) = heard.wait_for(Option::is_some) => why.clone().unwrap_or_default(),
        Ok(list) = listed.wait_for(another) => {
            let now = list.as_ref().map_or("", |listed| &listed.model);
            let [now, before] = [now, before].map(shown);
            format!("another model is listed there: `{now}`, and it was `{before}` when it was looked at")
        }
        why = compared => why,
    }
}

/// Until it is gone, or another model.
async fn serve(
    upstream: &Arc<Upstream>,
    model: &Arc<Model>,
    port: &Arc<Port>,
    number: u64,
    found: Found,
    ups: &mut tokio::sync::watch::Receiver<bool>,
) -> Left {
    let (line, mut said) = unbounded_channel();
    let server = Arc::new(Server::new(upstream.clone(), model.clone(), &found));
    let mut changed = pin!(changed(upstream, model, &found, &server));
    port.up(number, line, found.learnt());
    let mut sessions: HashMap<u64, UnboundedSender<Speculation>> = HashMap::new();
    let left = loop {
        let said = tokio::select! {
            said = said.recv() => said,
            _ = ups.wait_for(|up| !*up) => None,
            why = &mut changed => break Left::Changed(why),
        };
        let Some(said) = said else { break Left::Gone };
        let Some(session) = said.session() else { continue };
        match said {
            Speculation::Open { request, .. } if !sessions.contains_key(&session) => {
                let (inbox, heard) = unbounded_channel();
                sessions.insert(session, inbox);
                let port = port.clone();
                let tell = move |said| port.heard(number, Ok(said));
                tokio::spawn(Session::new(session, &request, server.clone()).run(heard, tell));
            }
            // With the session's end of the line its questions end.
            Speculation::Close { .. } => drop(sessions.remove(&session)),
            said => match sessions.get(&session) {
                Some(inbox) => drop(inbox.send(said)),
                None => {
                    let reason = "the server above is not asked for this answer".into();
                    port.heard(number, Ok(Speculation::Refused { session, reason }));
                }
            },
        }
    };
    for session in sessions.into_keys() {
        port.heard(number, Ok(Speculation::Refused { session, reason: "the server above is gone".into() }));
    }
    left
}
