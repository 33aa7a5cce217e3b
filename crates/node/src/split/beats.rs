//! Who lives: a thread that asks every machine ten times a second, over connections of its own.
//!
//! A process that is killed closes its sockets, and its links say so at once. A machine that vanishes says nothing: it has
//! [`SILENT`] to answer. The thread does nothing else, so that neither computation nor long frames delay it.

use crate::peer::greet;
use crate::transport::{Address, Identity, TcpOptions, TcpTransport};
use littoral_wire::{NodeId, Pipeline, Wire};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Between two beats.
pub const EVERY: Duration = Duration::from_millis(100);
/// A machine that has not answered for so long is taken for lost.
pub const SILENT: Duration = Duration::from_millis(500);
/// Before an address is dialled again; twice as long after each time in vain, up to the second.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// What the thread says.
#[derive(Clone, Debug)]
pub enum Beat {
    /// It answers: how many passes of that epoch it has run.
    /// `round_trip`: until it answered.
    Lives { machine: NodeId, epoch: u32, done: u64, round_trip: Duration },
    /// It answered before, and does not any more. `silent`: it said nothing, as a machine whose cable was pulled.
    Lost { machine: NodeId, silent: bool, why: String },
}

/// Watches these machines until nobody listens.
pub fn watch(identity: Identity, machines: Vec<Address>, said: mpsc::Sender<Beat>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("beats".into()).spawn(move || {
        runtime.block_on(async {
            let transport = match TcpTransport::dialler(&identity, TcpOptions::default()) {
                Ok(transport) => std::sync::Arc::new(transport),
                Err(why) => return tracing::error!("no beats: {why}"),
            };
            let watching: Vec<_> = machines
                .into_iter()
                .map(|machine| tokio::spawn(watch_one(transport.clone(), machine, said.clone())))
                .collect();
            for one in watching {
                let _ = one.await;
            }
        });
    })?;
    Ok(())
}

async fn watch_one(transport: std::sync::Arc<TcpTransport>, address: Address, said: mpsc::Sender<Beat>) {
    let machine = address.id;
    let mut again = AGAIN;
    loop {
        let mut answered = false;
        let ended = follow(&transport, &address, &said, &mut answered).await;
        let (silent, why) = match ended {
            Ended::Nobody => return,
            Ended::Silent => (true, format!("no answer for {SILENT:?}")),
            Ended::Down(why) => (false, why),
        };
        if answered && said.send(Beat::Lost { machine, silent, why }).is_err() {
            return;
        }
        again = if answered { AGAIN } else { (again * 2).min(AGAIN_MAX) };
        tokio::time::sleep(again).await;
    }
}

enum Ended {
    Nobody,
    Silent,
    Down(String),
}

async fn follow(transport: &TcpTransport, address: &Address, said: &mpsc::Sender<Beat>, answered: &mut bool) -> Ended {
    let mut greeted = match greet::dial_for(transport, address, Pipeline::Watch {}).await {
        Ok(greeted) => greeted,
        Err(why) => return Ended::Down(why),
    };
    for count in 0.. {
        let begun = Instant::now();
        let beat = Pipeline::Beat { count, epoch: 0, done: 0 };
        let exchange = async {
            greeted.sender.send(beat.to_bytes().into()).await?;
            greeted.sender.flush().await?;
            greeted.receiver.recv().await
        };
        let frame = match timeout(SILENT, exchange).await {
            Err(_) => return Ended::Silent,
            Ok(Err(e)) => return Ended::Down(e.to_string()),
            Ok(Ok(None)) => return Ended::Down("it said goodbye".into()),
            Ok(Ok(Some(frame))) => frame,
        };
        match Pipeline::from_bytes(&frame) {
            Ok(Pipeline::Beat { count: same, epoch, done }) if same == count => {
                *answered = true;
                if said.send(Beat::Lives { machine: address.id, epoch, done, round_trip: begun.elapsed() }).is_err() {
                    return Ended::Nobody;
                }
            }
            _ => return Ended::Down("its beat expected, got something else".into()),
        }
        tokio::time::sleep(EVERY.saturating_sub(begun.elapsed())).await;
    }
    Ended::Nobody
}
