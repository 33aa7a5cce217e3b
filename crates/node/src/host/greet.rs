//! Links come up: dialled or accepted, and then both sides say which protocol they speak.

use super::machine::Input;
use super::{OnReport, Settings};
use crate::role::{Event, Kernels, Peer, Report};
use crate::transport::{Address, Connection, Counters, FrameReceiver, FrameSender, Transport, TransportError};
use littoral_wire::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// For finding a way and proving keys; transports have shorter limits of their own.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// After an accept that failed for a reason of ours (no file handles, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The code of a goodbye that has a reason.
pub(super) const CODE_REASON: u32 = 1;

/// A link that is up.
pub(super) struct Greeted {
    pub(super) peer: NodeId,
    pub(super) dialled: bool,
    /// The peer's.
    pub(super) kernels: Kernels,
    pub(super) sender: FrameSender,
    pub(super) receiver: FrameReceiver,
    pub(super) counters: Arc<Counters>,
    /// One of the places for accepted links.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

#[derive(Clone)]
pub(super) struct Greeter {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) settings: Arc<Settings>,
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) on_report: OnReport,
}

impl Greeter {
    /// Ends in an [`Input`], whatever happens.
    pub(super) async fn dial(self, peer: Peer) {
        let input = match self.try_dial(&peer).await {
            Ok(greeted) => Input::Up(Box::new(greeted)),
            Err(reason) => Input::Event(Event::DialFailed { peer, reason }),
        };
        let _ = self.inputs.send(input);
    }

    async fn try_dial(&self, peer: &Peer) -> Result<Greeted, String> {
        let address: Address =
            format!("{}@{}", peer.id, peer.address).parse().map_err(|e: TransportError| e.to_string())?;
        let connection = timeout(DIAL_TIMEOUT, self.transport.connect(&address)).await;
        let connection = connection.map_err(|_| format!("no answer from {address} within {DIAL_TIMEOUT:?}"))?;
        self.greet(connection.map_err(|e| e.to_string())?, true).await
    }

    /// Accepts until the transport is closed.
    pub(super) async fn accept(self) {
        let links = Arc::new(Semaphore::new(self.settings.links_max));
        let greetings = Arc::new(Semaphore::new(self.settings.greetings_max));
        loop {
            let connection = match self.transport.accept().await {
                Ok(connection) => connection,
                Err(TransportError::TransportClosed { .. } | TransportError::NotListening { .. }) => return,
                Err(e) => {
                    tracing::debug!("{e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // A stranger that is silent after its handshake holds a place until the time-out. Without one, a connection
            // is dropped without a word: it would cost a task to tell it.
            let Ok(greeting) = greetings.clone().try_acquire_owned() else { continue };
            let place = links.clone().try_acquire_owned();
            let greeter = self.clone();
            tokio::spawn(async move {
                let _greeting = greeting;
                greeter.welcome(connection, place.ok()).await;
            });
        }
    }

    async fn welcome(&self, connection: Connection, place: Option<OwnedSemaphorePermit>) {
        let peer = connection.peer();
        let Some(place) = place else {
            let (sender, _receiver) = connection.split();
            let full = format!("this machine already has its {} links; try another edge", self.settings.links_max);
            let _ = timeout(self.hello_timeout(), sender.close(CODE_REASON, &full)).await;
            return;
        };
        match self.greet(connection, false).await {
            Ok(greeted) => drop(self.inputs.send(Input::Up(Box::new(Greeted { place: Some(place), ..greeted })))),
            Err(what) => (self.on_report)(Report::Note { what: format!("{peer} was not let in: {what}") }),
        }
    }

    async fn greet(&self, connection: Connection, dialled: bool) -> Result<Greeted, String> {
        let (peer, counters) = (connection.peer(), connection.counters());
        let (mut sender, mut receiver) = connection.split();
        let ours = self.settings.hello();
        let hellos = async {
            sender.send(ours.encode().into()).await?;
            sender.flush().await?;
            receiver.recv().await
        };
        let theirs = match timeout(self.hello_timeout(), hellos).await {
            Ok(Ok(Some(frame))) => ours.agree(&frame).map_err(|e| e.to_string()),
            Ok(Ok(None)) => Err("the peer hung up without a hello".into()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("no hello within {} ms", self.settings.hello_timeout_ms)),
        };
        match theirs {
            Ok(theirs) => {
                if theirs.kernels != ours.kernels {
                    let (here, there) = (&ours.kernels, &theirs.kernels);
                    let what = format!("{peer} has kernels {there}, this machine {here}: no exact work between them");
                    (self.on_report)(Report::Note { what });
                }
                Ok(Greeted { peer, dialled, kernels: theirs.kernels, sender, receiver, counters, place: None })
            }
            Err(reason) => {
                let _ = timeout(self.hello_timeout(), sender.close(CODE_REASON, &reason)).await;
                Err(reason)
            }
        }
    }

    fn hello_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.hello_timeout_ms)
    }
}
