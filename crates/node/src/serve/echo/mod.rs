//! Drafts for a server of OpenAI's API that is not ours: the small model here drafts, and the server says what it would have
//! written at each place, if it tells the log-probabilities of prompts. Greedy answers only.
//!
//! `way` has the two forms in which servers tell that; `probe` finds out whether one does, with the same ids for the same tokens,
//! and what server costs; `session` makes one answer, a question after another. To the edge ([`Edge`](crate::speculate::edge::Edge))
//! all this is a machine that verifies: it drafts, measures and chooses as for any other.

mod probe;
mod session;
mod way;

use super::upstream::{Drafts, Upstream};
use crate::speculate::edge::Port;
use littoral_infer::model::Model;
use littoral_wire::Speculation;
use probe::Found;
use session::{Server, Session};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A server that does not verify drafts is looked at again.
const LOOKED_AGAIN: Duration = Duration::from_secs(300);

/// Asks the server for the edge behind the port, for ever; whenever the server is there again it is looked at anew.
pub async fn run(upstream: Arc<Upstream>, model: Arc<Model>, port: Port) {
    let (port, mut ups) = (Arc::new(port), upstream.ups());
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
        serve(&upstream, &model, &port, number, found, &mut ups).await;
        upstream.set_drafts(Drafts::Off("it cannot be reached".into()));
        port.heard(number, Err("the server above cannot be reached".into()));
    }
}

/// Until it is gone.
async fn serve(
    upstream: &Arc<Upstream>,
    model: &Arc<Model>,
    port: &Arc<Port>,
    number: u64,
    found: Found,
    ups: &mut tokio::sync::watch::Receiver<bool>,
) {
    let (line, mut said) = unbounded_channel();
    let server = Arc::new(Server::new(upstream.clone(), model.clone(), &found));
    port.up(number, line, found.learnt());
    let mut sessions: HashMap<u64, UnboundedSender<Speculation>> = HashMap::new();
    loop {
        let said = tokio::select! {
            said = said.recv() => said,
            _ = ups.wait_for(|up| !*up) => None,
        };
        let Some(said) = said else { break };
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
                    port.heard(number, Ok(Speculation::Gone { session, reason }));
                }
            },
        }
    }
    for session in sessions.into_keys() {
        port.heard(number, Ok(Speculation::Gone { session, reason: "the server above is gone".into() }));
    }
}
