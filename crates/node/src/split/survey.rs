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
use thiserror::Error;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

const PINGS: usize = 12;
/// Each way; the first finds a window that is still small.
const TRANSFERS: usize = 3;
/// After a transfer that took so long there is not another one.
const LONG: Duration = Duration::from_secs(2);
/// For an echo: a megabyte over a slow line takes its time.
const ECHO_MAX: Duration = Duration::from_secs(10);
/// For all echoes together: others wait for their turn.
const ECHOES_MAX: Duration = Duration::from_secs(30);
/// For a machine to load some layers from a cold disk and time them.
const PROFILE_MAX: Duration = Duration::from_secs(60);

/// Before a machine is tried again; longer each time, up to the second while it is not here, and up to the third where it is.
const AGAIN: Duration = Duration::from_millis(250);
const AWAY_MAX: Duration = Duration::from_secs(8);
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// After so many it is said that a machine is left out.
const TRIES: u32 = 6;

/// Why a machine was not measured.
#[derive(Debug, Error)]
pub enum Unmeasured {
    /// It is not here, or does not let this machine in.
    #[error("{0}")]
    Away(String),
    /// It is here.
    #[error("{0}")]
    Failed(String),
}

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
    let found = futures_util::future::join_all(each).await.into_iter();
    Ok(found.map(|found| found.map_err(|why| why.to_string())).collect())
}

/// One machine, when it is its turn.
pub async fn measure(
    transport: &dyn Transport,
    machine: &Address,
    model: [u8; 32],
    turn: &Turn,
) -> Result<Measured, Unmeasured> {
    let first = Pipeline::Echo { back: 0, blob: Blob::default() };
    let mut link = greet::dial_for(transport, machine, first).await.map_err(Unmeasured::Away)?;
    answer(&mut link, ECHO_MAX).await.map_err(Unmeasured::Away)?;
    let _turn = turn.lock().await;
    // Each has its own time, and what one does not need is not the other's.
    let of_link = timeout(ECHOES_MAX, link_of(&mut link)).await;
    let of_link = of_link.unwrap_or_else(|_| Err(format!("its echoes took more than {ECHOES_MAX:?}")));
    let of_link = of_link.map_err(Unmeasured::Failed)?;
    match ask(&mut link, &Pipeline::Profile { model }, PROFILE_MAX).await.map_err(Unmeasured::Failed)? {
        Pipeline::Profiled { profile } => Ok(Measured { profile, link: of_link }),
        Pipeline::Refused { reason, .. } => Err(Unmeasured::Failed(reason.to_string())),
        other => Err(Unmeasured::Failed(format!("its profile expected, got {}", other.name()))),
    }
}

/// Measures a machine when it is here, however often that takes.
pub(super) async fn until_measured(
    transport: &dyn Transport,
    machine: &Address,
    model: [u8; 32],
    turn: &Turn,
) -> Measured {
    let mut tries = Tries { failed: 0, again: AGAIN, told: false };
    loop {
        let why = match measure(transport, machine, model, turn).await {
            Ok(measured) => return measured,
            Err(why) => why,
        };
        let (said, again) = tries.failed(&why);
        if let Some(said) = said {
            tracing::warn!("{machine}: {said}: {why}");
        }
        tokio::time::sleep(again).await;
    }
}

/// Tries to measure one machine.
struct Tries {
    /// Since it was away.
    failed: u32,
    again: Duration,
    told: bool,
}

impl Tries {
    /// What is to be said, and how long until the next one. A machine that is here is soon tried again, then every minute; no
    /// reason is said twice.
    fn failed(&mut self, why: &Unmeasured) -> (Option<String>, Duration) {
        let (most, said) = match why {
            Unmeasured::Away(_) => {
                self.failed = 0;
                (AWAY_MAX, (!self.told).then(|| "it is measured when it is here".to_owned()))
            }
            Unmeasured::Failed(_) => {
                self.failed += 1;
                let out = || format!("it is left out, {TRIES} tries to measure it failed; it is tried again");
                (AGAIN_MAX, (self.failed == TRIES).then(out))
            }
        };
        self.told = matches!(why, Unmeasured::Away(_));
        let again = self.again.min(most);
        self.again = (2 * again).min(most);
        (said, again)
    }
}

/// The head's link to a machine.
async fn link_of(link: &mut Greeted) -> Result<Link, String> {
    let mut rtt_s = f64::INFINITY;
    for _ in 0..PINGS {
        rtt_s = rtt_s.min(echo(link, 0, 0).await?);
    }
    let mut slower = RATE_MAX;
    for (there, back) in [(ECHO_BYTES_MAX, 0), (0, ECHO_BYTES_MAX)] {
        let mut shortest_s = f64::INFINITY;
        for _ in 0..TRANSFERS {
            shortest_s = shortest_s.min(echo(link, there, back).await?);
            if shortest_s > LONG.as_secs_f64() {
                break;
            }
        }
        // Where a megabyte takes hardly longer than a ping, that is all that is known.
        slower = slower.min(ECHO_BYTES_MAX as f64 / (shortest_s - rtt_s).max(shortest_s / 8.0));
    }
    Ok(Link { rtt_s, bytes_per_s: slower })
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
                // Whoever hangs up meanwhile, or says something, does not wait for it any more.
                tokio::select! { biased;
                    told = answered => match told {
                        Ok(told) => told,
                        Err(_) => return,
                    },
                    _ = link.receiver.recv() => return,
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_measured_again_and_what_leaves_it_out_is_said_once() {
        let (away, fails) = (Unmeasured::Away("gone".into()), Unmeasured::Failed("no layers".into()));
        let mut tries = Tries { failed: 0, again: AGAIN, told: false };
        assert!(tries.failed(&away).0.is_some_and(|said| said.contains("when it is here")));
        let longest = (0..20).map(|_| tries.failed(&away)).inspect(|(said, _)| assert_eq!(*said, None)).last();
        assert_eq!(longest, Some((None, AWAY_MAX)));
        for _ in 0..2 {
            let mut tries = Tries { failed: 0, again: AGAIN, told: false };
            let (said, waited): (Vec<_>, Vec<_>) = (0..20).map(|_| tries.failed(&fails)).unzip();
            let at: Vec<usize> = (0..20).filter(|at| said[*at].is_some()).collect();
            assert_eq!(at, [TRIES as usize - 1]);
            // Before that it was tried for seconds, after that each minute.
            assert_eq!(waited[..TRIES as usize].iter().sum::<Duration>(), AGAIN * ((1 << TRIES) - 1));
            assert!(waited.is_sorted() && waited[19] == AGAIN_MAX, "{waited:?}");
            // It was started anew.
            tries.failed(&away);
            assert_eq!(tries.failed, 0);
        }
    }
}
