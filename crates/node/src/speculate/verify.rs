//! The far side's door: machines that are let in open sessions, and the thread that owns the engine hears what they say.

use crate::peer::{Link, greet};
use crate::transport::{Transport, TransportError};
use littoral_wire::{NodeId, Speculation};
use std::sync::Arc;
use std::time::Duration;

/// After an accept that failed for a reason of ours.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What comes from drafters.
pub enum FromDrafter {
    /// A link is up; links are numbered.
    Up {
        number: u64,
        link: Link<Speculation>,
    },
    Heard {
        peer: NodeId,
        number: u64,
        said: Result<Speculation, String>,
    },
}

/// Accepts drafters whose keys are allowed, until the transport is closed.
pub async fn accept(
    transport: Arc<dyn Transport>,
    allowed: Vec<NodeId>,
    tell: impl Fn(FromDrafter) + Clone + Send + 'static,
) {
    for number in 0u64.. {
        let connection = match transport.accept().await {
            Ok(connection) => connection,
            Err(TransportError::TransportClosed { .. } | TransportError::NotListening { .. }) => return,
            Err(e) => {
                tracing::debug!("{e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = connection.peer();
        let allowed = allowed.contains(&peer);
        let tell = tell.clone();
        tokio::spawn(async move {
            let greeted = match greet::greet(connection).await {
                Ok(greeted) => greeted,
                Err(why) => return tracing::info!("{peer} was not let in: {why}"),
            };
            if !allowed {
                tracing::info!("{peer} was not let in; with --allow {peer} it is");
                let _ = greeted.sender.close(1, "this machine does not know your key").await;
                return;
            }
            let heard = tell.clone();
            let link = Link::spawn(greeted, move |said| heard(FromDrafter::Heard { peer, number, said }));
            tell(FromDrafter::Up { number, link });
        });
    }
}
