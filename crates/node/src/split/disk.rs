//! How fast a file comes from its disk: what a standby's layers take to load that nobody read lately.
//!
//! The system keeps what was read in memory, so that a plain reading measures memory. `O_DIRECT` (Linux) goes past that.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// A reading, and all of them.
const PIECE: usize = 4 << 20;
const BYTES_MAX: usize = 256 << 20;
const TIME: Duration = Duration::from_millis(300);
/// Disks read whole sectors into places that begin where one could.
const SECTOR: usize = 4_096;

/// Bytes per second from the file's beginning, a piece after the other. `None`: the system has no way past its memory there (a
/// file that lies in memory itself, for instance), or the file is too short to tell.
pub fn read_bytes_per_s(path: &Path) -> Option<u64> {
    let mut file = past_memory(path)?;
    let mut buffer = vec![0; PIECE + SECTOR];
    let start = buffer.as_ptr().align_offset(SECTOR);
    let piece = buffer.get_mut(start..start + PIECE)?;
    // A disk that slept, and whatever the first reading finds out about the file.
    if file.read(piece).ok()? < PIECE {
        return None;
    }
    let (begun, mut bytes) = (Instant::now(), 0);
    while bytes < BYTES_MAX && begun.elapsed() < TIME {
        match file.read(piece).ok()? {
            PIECE => bytes += PIECE,
            // The file's end, which need not be a whole sector.
            _ => break,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    (bytes > 0 && seconds > 0.0).then(|| (bytes as f64 / seconds) as u64)
}

#[cfg(target_os = "linux")]
fn past_memory(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn past_memory(_: &Path) -> Option<File> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it can be told it is told, and a file of a few bytes says nothing.
    #[test]
    fn a_file_is_read_past_memory_or_nothing_is_said() {
        let path = std::env::temp_dir().join(format!("littoral-disk-{}", std::process::id()));
        std::fs::write(&path, vec![7; 3 * PIECE]).unwrap();
        assert_eq!(read_bytes_per_s(&path).is_some(), past_memory(&path).is_some());
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read_bytes_per_s(&path), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_bytes_per_s(&path), None);
    }
}
