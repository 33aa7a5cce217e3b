//! What comes in beside flags: the environment, files, durations, signals.

use crate::output::Failure;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The default of `--dir`.
pub const DIR_VARIABLE: &str = "LITTORAL_DIR";

/// `--dir`, else what the environment says.
pub fn dir_or_environment(dir: Option<PathBuf>) -> Option<PathBuf> {
    dir.or_else(|| std::env::var_os(DIR_VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from))
}

/// A text file of at most `bytes_max` bytes.
pub fn text(path: &Path, bytes_max: u64) -> Result<String, Failure> {
    let refused =
        |expected: &str, got: String| Failure::new("the file was not read", path.display().to_string(), expected, got);
    let file = File::open(path).map_err(|e| refused("a readable file", e.to_string()))?;
    let mut text = String::new();
    // One that is no plain file does not say how long it is.
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(|e| refused("a text in UTF-8", e.to_string()))?;
    if text.len() as u64 > bytes_max {
        return Err(refused(&format!("at most {bytes_max} bytes"), "more".into()));
    }
    Ok(text)
}

/// `90s`, `15m`, `1h`, `7d`, in milliseconds.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let expected = || "a number above 0 and a unit expected: 500ms, 90s, 15m, 1h, 7d".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(at);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(unit_ms).filter(|ms| *ms > 0).ok_or_else(expected)
}

/// Ready when this process is asked to end (SIGINT, SIGTERM).
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end the process themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A runtime for a short conversation.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|e| Failure::new("no threads", "the operating system", "threads", e))
}

/// Lines of the log go to stderr.
pub fn start_log(level: &str) {
    use std::io::IsTerminal;
    // iroh calls it an error when an endpoint is dropped that still waits for a peer which is gone; we mean it.
    let quiet = "iroh=warn,iroh::socket=off,noq=warn";
    let filter = std::env::var("LITTORAL_LOG").unwrap_or_else(|_| format!("{level},{quiet}"));
    let filter =
        tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal();
    // A second start in one process (a test) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        // The disk under the log may be full. Complaining about that would go the same way, and panic.
        .log_internal_errors(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::duration_ms;

    #[test]
    fn durations() {
        assert_eq!(duration_ms("90s"), Ok(90_000));
        assert_eq!(duration_ms("1h"), Ok(3_600_000));
        for wrong in ["", "1", "h", "0s", "1.5h", "1w", "99999999999999999d", "-1s"] {
            assert!(duration_ms(wrong).is_err(), "{wrong}");
        }
    }
}
