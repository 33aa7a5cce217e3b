//! Machines of a live fleet are measured: by the head over a link for that alone, and by themselves when they are asked.
//!
//! The round trip is the shortest of some pings. The rate is that of a megabyte, there and back, of which each way counts
//! without the round trip and the slower way is taken. How fast a machine computes it says itself ([`super::rates`]).
//! Machines are measured one after the other: two of one host would halve each other's numbers.

use crate::peer::{Greeted, greet};
use crate::transport::{Address, Identity, TcpOptions, TcpTransport, Transport};
use littoral_infer::split::measured::Measured;
use littoral_infer::split::plan::{Link, RATE_MAX};
use littoral_wire::pipeline::ECHO_BYTES_MAX;
use littoral_wire::{Blob, Pipeline, Wire};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

const PINGS: usize = 12;
/// Each way; the first finds a window that is still small.
const TRANSFERS: usize = 3;
/// For an echo: a megabyte over a slow line takes its time.
const ECHO_MAX: Duration = Duration::from_secs(10);
/// For a machine to load some layers from a cold disk and time them.
const PROFILE_MAX: Duration = Duration::from_secs(60);

/// Whose turn it is to be measured.
pub type Turn = Arc<Mutex<()>>;

/// All of these machines, in their order; or why one was not measured. Must run inside a runtime.
///
/// # Errors
/// This machine cannot dial.
pub async fn survey(
    identity: &Identity,
    machines: &[Address],
    model: [u8; 32],
) -> Result<Vec<Result<Measured, String>>, crate::transport::TransportError> {
    let transport = Arc::new(TcpTransport::dialler(identity, TcpOptions::default())?);
    let turn = Turn::default();
    let each = machines.iter().map(|machine| measure(&*transport, machine, model, &turn));
    Ok(futures_util::future::join_all(each).await)
}

/// One machine, when it is its turn.
pub async fn measure(
    transport: &dyn Transport,
    machine: &Address,
    model: [u8; 32],
    turn: &Turn,
) -> Result<Measured, String> {
    let first = Pipeline::Echo { back: 0, blob: Blob::default() };
    let mut link = greet::dial_for(transport, machine, first).await?;
    answer(&mut link, ECHO_MAX).await?;
    let _turn = turn.lock().await;
    let mut rtt_s = f64::INFINITY;
    for _ in 0..PINGS {
        rtt_s = rtt_s.min(echo(&mut link, 0, 0).await?);
    }
    let mut slower = RATE_MAX;
    for (there, back) in [(ECHO_BYTES_MAX, 0), (0, ECHO_BYTES_MAX)] {
        let mut shortest_s = f64::INFINITY;
        for _ in 0..TRANSFERS {
            shortest_s = shortest_s.min(echo(&mut link, there, back).await?);
        }
        // Where a megabyte takes hardly longer than a ping, that is all that is known.
        slower = slower.min(ECHO_BYTES_MAX as f64 / (shortest_s - rtt_s).max(shortest_s / 8.0));
    }
    match ask(&mut link, &Pipeline::Profile { model }, PROFILE_MAX).await? {
        Pipeline::Profiled { profile } => Ok(Measured { profile, link: Link { rtt_s, bytes_per_s: slower } }),
        Pipeline::Refused { reason, .. } => Err(reason.to_string()),
        other => Err(format!("its profile expected, got {}", other.name())),
    }
}

/// Seconds until it was answered.
async fn echo(link: &mut Greeted, there: usize, back: usize) -> Result<f64, String> {
    let blob = Blob::new(vec![0; there]).unwrap_or_default();
    let said = Pipeline::Echo { back: back as u32, blob };
    let begun = Instant::now();
    match ask(link, &said, ECHO_MAX).await? {
        Pipeline::Echo { blob, .. } if blob.len() == back => Ok(begun.elapsed().as_secs_f64()),
        other => Err(format!("an echo of {back} bytes expected, got {other:?}")),
    }
}

async fn ask(link: &mut Greeted, said: &Pipeline, most: Duration) -> Result<Pipeline, String> {
    let sent = timeout(most, send(link, said)).await.map_err(|_| format!("it took nothing for {most:?}"))?;
    sent?;
    answer(link, most).await
}

async fn send(link: &mut Greeted, said: &Pipeline) -> Result<(), String> {
    link.sender.send(said.to_bytes().into()).await.map_err(|e| e.to_string())?;
    link.sender.flush().await.map_err(|e| e.to_string())
}

async fn answer(link: &mut Greeted, most: Duration) -> Result<Pipeline, String> {
    let frame = timeout(most, link.receiver.recv()).await.map_err(|_| format!("no answer for {most:?}"))?;
    let frame = frame.map_err(|e| e.to_string())?.ok_or("it said goodbye")?;
    Pipeline::from_bytes(&frame).map_err(|e| e.to_string())
}

/// Asked of the thread that computes: a profile for this model.
pub(super) struct Asked {
    pub model: [u8; 32],
    pub answer: oneshot::Sender<Pipeline>,
}

/// The other end of such a link: echoes what comes, `first` too, and asks for a profile where one is wanted. `ask`: false if
/// nobody is there to be asked.
pub(super) async fn answer_survey(mut link: Greeted, first: Pipeline, ask: impl Fn(Asked) -> bool) {
    let mut said = first;
    loop {
        let told = match said {
            Pipeline::Echo { back, .. } => {
                Pipeline::Echo { back: 0, blob: Blob::new(vec![0; back as usize]).unwrap_or_default() }
            }
            Pipeline::Profile { model } => {
                let (answer, answered) = oneshot::channel();
                if !ask(Asked { model, answer }) {
                    return;
                }
                let Ok(told) = answered.await else { return };
                told
            }
            _ => return,
        };
        if send(&mut link, &told).await.is_err() {
            return;
        }
        let Ok(Some(frame)) = link.receiver.recv().await else { return };
        let Ok(next) = Pipeline::from_bytes(&frame) else { return };
        said = next;
    }
}
