//! How much memory this process has used.

/// The largest resident set so far, in MB of 10^6 bytes; 0 where the system does not tell.
pub fn peak_rss_mb() -> f64 {
    of_status("VmHWM:")
}

/// The resident set now, as [`peak_rss_mb`].
pub fn rss_mb() -> f64 {
    of_status("VmRSS:")
}

/// What the system would give without swapping, in bytes; 0 where it does not tell.
pub fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn of_status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
    kib.map_or(0.0, |kib| kib * 1024.0 / 1e6)
}
