//! The first frames of a connection between machines that run one model, or two of one vocabulary.

use crate::transport::{Address, Connection, FrameReceiver, FrameSender, Transport, TransportError};
use littoral_tensor::quant::KERNELS;
use littoral_wire::hello::Hello;
use littoral_wire::{NodeId, Wire};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const GREETING: Duration = Duration::from_secs(5);
/// After an accept that failed for a reason of ours: no file handles, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Strangers that are being greeted at a time; one more is hung up on.
const GREETINGS_MAX: usize = 64;

/// Hands on each connection that comes in, with a number and a place that is to be held while it is greeted, until the
/// transport is closed. `each` must not wait.
pub async fn accept(transport: &dyn Transport, mut each: impl FnMut(u64, Connection, OwnedSemaphorePermit)) {
    let places = Arc::new(Semaphore::new(GREETINGS_MAX));
    for number in 0u64.. {
        match transport.accept().await {
            Ok(connection) => {
                if let Ok(place) = places.clone().try_acquire_owned() {
                    each(number, connection, place);
                }
            }
            Err(TransportError::TransportClosed { .. } | TransportError::NotListening { .. }) => return,
            Err(e) => {
                tracing::debug!("{e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection whose peer speaks our protocol and computes with our kernels.
pub struct Greeted {
    pub peer: NodeId,
    pub sender: FrameSender,
    pub receiver: FrameReceiver,
}

/// Both say which protocol they speak. Other kernels would write another text, so there is no work between them.
pub async fn greet(connection: Connection) -> Result<Greeted, String> {
    let peer = connection.peer();
    let (mut sender, mut receiver) = connection.split();
    let ours = Hello::new(concat!("littoral ", env!("CARGO_PKG_VERSION")), KERNELS);
    let hellos = async {
        sender.send(ours.encode().into()).await?;
        sender.flush().await?;
        receiver.recv().await
    };
    let theirs = timeout(GREETING, hellos).await.map_err(|_| format!("no hello within {GREETING:?}"))?;
    let frame = theirs.map_err(|e| e.to_string())?.ok_or("the peer hung up without a hello")?;
    let theirs = ours.agree(&frame).map_err(|e| e.to_string())?;
    if theirs.kernels != ours.kernels {
        return Err(format!(
            "kernels {} expected, the peer has {}: its text would be another",
            ours.kernels, theirs.kernels
        ));
    }
    Ok(Greeted { peer, sender, receiver })
}

/// Dials a machine.
pub async fn dial(transport: &dyn Transport, address: &Address) -> Result<Greeted, String> {
    let connected = timeout(GREETING, transport.connect(address)).await;
    let connection = connected.map_err(|_| format!("no answer from {address} within {GREETING:?}"))?;
    greet(connection.map_err(|e| e.to_string())?).await
}

/// Dials a machine, and says what the link is for.
pub async fn dial_for(transport: &dyn Transport, address: &Address, first: impl Wire) -> Result<Greeted, String> {
    let mut greeted = dial(transport, address).await?;
    let said = async {
        greeted.sender.send(first.to_bytes().into()).await?;
        greeted.sender.flush().await
    };
    said.await.map_err(|e| e.to_string())?;
    Ok(greeted)
}

/// The first message of a link.
pub async fn first<M: Wire>(greeted: &mut Greeted) -> Result<M, String> {
    let frame = timeout(GREETING, greeted.receiver.recv()).await.map_err(|_| "no word on what it is for".to_owned())?;
    let frame = frame.map_err(|e| e.to_string())?.ok_or("the peer hung up")?;
    M::from_bytes(&frame).map_err(|e| e.to_string())
}
