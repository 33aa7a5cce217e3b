//! Ctrl-C stops an answer and not the program.

use crate::output::Failure;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// From now on SIGINT sets what is returned, and does nothing else.
pub fn watch() -> Result<Arc<AtomicBool>, Failure> {
    let failed = |e: std::io::Error| Failure::new("no chat", "the operating system", "a thread that hears Ctrl-C", e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let mut interrupts = {
        let _within = runtime.enter();
        signal(SignalKind::interrupt()).map_err(failed)?
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = interrupted.clone();
    let listen = move || {
        runtime.block_on(async {
            while interrupts.recv().await.is_some() {
                told.store(true, Ordering::Relaxed);
            }
        });
    };
    std::thread::Builder::new().name("ctrl-c".into()).spawn(listen).map_err(failed)?;
    Ok(interrupted)
}
