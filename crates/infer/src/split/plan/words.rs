//! Numbers in sentences.

/// MB are 10^6 bytes.
pub(super) fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        1e9.. => format!("{:.2} GB", bytes / 1e9),
        1e7.. => format!("{:.0} MB", bytes / 1e6),
        1e5.. => format!("{:.2} MB", bytes / 1e6),
        1e3.. => format!("{:.1} kB", bytes / 1e3),
        _ => format!("{bytes} bytes"),
    }
}

/// Of a token, or a prompt.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        10.0.. => format!("{seconds:.0} s"),
        1.0.. => format!("{seconds:.2} s"),
        0.01.. => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.2} ms", seconds * 1e3),
    }
}

pub(super) fn rate(tok_s: f64) -> String {
    match tok_s {
        100.0.. => format!("{tok_s:.0} tok/s"),
        1.0.. => format!("{tok_s:.1} tok/s"),
        _ => format!("{tok_s:.3} tok/s"),
    }
}

/// How many times more; finer where it is little.
pub(super) fn ratio(ratio: f64) -> String {
    if ratio < 1.1 { format!("{ratio:.3}x") } else { format!("{ratio:.2}x") }
}
