//! A role that runs until it is asked to stop, and what it moved over its sockets.
//!
//! A process that is started with `--tethered` stops as well when its standard input ends. Its parent holds the other
//! end and never writes: when the parent stops, or dies however it dies, no process is left behind.

use crate::input::stop_signal;
use crate::output::Failure;
use littoral_node::deploy::Running;
use littoral_node::host::Traffic;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// In the role's folder: bytes over all runs.
const TRAFFIC_FILE: &str = "traffic.json";
/// A process that is killed loses the bytes that it counted since it last wrote them down.
const TRAFFIC_EVERY: Duration = Duration::from_millis(250);

/// Bytes on the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub sent: u64,
    pub received: u64,
}

/// Runs the role of `dir` to its end.
pub async fn serve(running: Running, dir: &Path, tethered: bool) -> Result<(), Failure> {
    let (traffic, before) = (running.traffic(), moved(dir));
    let (meter, folder) = (traffic.clone(), dir.to_owned());
    let writing = tokio::spawn(async move {
        let mut written = before;
        loop {
            tokio::time::sleep(TRAFFIC_EVERY).await;
            let now = sum(before, &meter);
            if now != written {
                write_down(&folder, now);
                written = now;
            }
        }
    });
    let done = running
        .until(async {
            tokio::select! {
                () = stop_signal() => {}
                () = end_of_input(), if tethered => {}
            }
        })
        .await;
    writing.abort();
    let _ = writing.await;
    write_down(dir, sum(before, &traffic));
    Ok(done?)
}

/// What the machine of this folder has moved so far.
pub fn moved(dir: &Path) -> Moved {
    let text = fs::read(dir.join(TRAFFIC_FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn sum(before: Moved, traffic: &Traffic) -> Moved {
    let now = traffic.total();
    Moved { sent: before.sent.saturating_add(now.sent), received: before.received.saturating_add(now.received) }
}

/// For people: a lost count is not worth a role's end.
fn write_down(dir: &Path, moved: Moved) {
    let unfinished = dir.join("traffic.json.new");
    let text = serde_json::to_vec(&moved).unwrap_or_default();
    let _ = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, dir.join(TRAFFIC_FILE)));
}

/// Ready when nobody holds the other end of standard input any more.
pub async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own, since a read cannot be called off; it ends with the process.
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(io::stdin().lock().read(&mut ignored), Ok(1..)) {}
        drop(ended);
    });
    let _ = end.await;
}
