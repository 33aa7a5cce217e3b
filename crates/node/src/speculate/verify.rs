//! The far side's door: machines that are let in open sessions, and the thread that owns the engine hears what they say.

use crate::peer::{Link, Place, greet};
use crate::transport::Transport;
use littoral_wire::{NodeId, Speculation};
use std::sync::Arc;

/// What comes from drafters.
pub enum FromDrafter {
    /// A link is up; links are numbered. `model`: BLAKE3 of the file of the model here, which the drafter is to be told when it is
    /// let in.
    Up { number: u64, link: Link<Speculation>, model: [u8; 32] },
    Heard {
        peer: NodeId,
        number: u64,
        said: Result<Speculation, String>,
        /// Until it was looked at.
        place: Place,
    },
}

/// Accepts drafters whose keys are allowed, until the transport is closed. `model`: BLAKE3 of the file of the model here.
pub async fn accept(
    transport: Arc<dyn Transport>,
    allowed: Vec<NodeId>,
    model: [u8; 32],
    tell: impl Fn(FromDrafter) + Clone + Send + 'static,
) {
    greet::accept(&*transport, move |number, connection, place| {
        let peer = connection.peer();
        let (allowed, tell) = (allowed.contains(&peer), tell.clone());
        tokio::spawn(async move {
            let _place = place;
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
            let link = Link::spawn(greeted, move |said, place| {
                heard(FromDrafter::Heard { peer, number, said, place });
            });
            tell(FromDrafter::Up { number, link, model });
        });
    })
    .await;
}
