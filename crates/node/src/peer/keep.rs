//! A link that is dialled again whenever it is down.

use crate::transport::Address;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Before a machine is dialled again.
const AGAIN: Duration = Duration::from_millis(250);
/// A link that is down sooner was not wanted over there; then it waits longer each time, up to the second.
const SHORT: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(8);
/// One that is not there may come back any time.
const AWAY_MAX: Duration = Duration::from_secs(1);

/// Dials until the task is aborted. `connect` makes the link with that number, tells whoever has it, and returns what ends when
/// the link is down; or why there is none, which is told once.
pub async fn keep<F>(address: &Address, mut connect: impl FnMut(u64) -> F)
where
    F: Future<Output = Result<oneshot::Receiver<()>, String>>,
{
    let (mut told, mut again) = (false, AGAIN);
    for number in 0u64.. {
        match connect(number).await {
            Ok(end) => {
                told = false;
                let begun = Instant::now();
                let _ = end.await;
                again = if begun.elapsed() < SHORT { (again * 2).min(AGAIN_MAX) } else { AGAIN };
            }
            Err(why) => {
                if !told {
                    tracing::info!("{address}: {why}");
                }
                told = true;
                again = (again * 2).min(AWAY_MAX.max(again));
            }
        }
        tokio::time::sleep(again).await;
    }
}
