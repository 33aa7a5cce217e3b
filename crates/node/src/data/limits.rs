//! Bounds on what a device reads from its own disk.
//!
//! A wrong path or a damaged file must end in an error, not in a machine without memory. Every reader checks what a
//! header claims against these before it allocates, and reads through `bounded` so that a compressed file cannot
//! grow past them.

use std::io::{self, Read};

/// Most bytes of one file, after decompression: 4 GiB. Larger data sets come as several files.
pub const FILE_BYTES_MAX: u64 = 4 << 30;
/// Most columns of a table, or values of one row of an array of numbers. Beyond this it is an image or a mistake.
pub const COLUMNS_MAX: usize = 65_536;
/// Most rows of one data set on one device: what [`super::wide`] can add up exactly.
pub const ROWS_MAX: usize = 1 << 31;
/// Most cells of one table (rows x wanted columns): 2^29 x 8 bytes = 4 GiB.
pub const CELLS_MAX: usize = 1 << 29;
/// Most bytes of one CSV record or JSON line: a quote that is never closed must not swallow the file.
pub const RECORD_BYTES_MAX: u64 = 16 << 20;
/// Most distinct texts in one column that is read as categories. A column beyond this is an identifier or free text.
pub const DISTINCT_MAX: usize = 65_536;
/// Most bytes of an .npy header. NumPy writes 128; the format allows 4 GiB.
pub const NPY_HEADER_BYTES_MAX: usize = 64 << 10;
/// Most dimensions of an array: NumPy's own limit.
pub const DIMENSIONS_MAX: usize = 32;
/// Largest side of an image in pixels: 3 x 16,384^2 bytes is under 1 GiB.
pub const IMAGE_SIDE_MAX: u32 = 16_384;
/// Most files that one image folder may hold, so that listing it is bounded.
pub const FOLDER_FILES_MAX: usize = 4 << 20;
/// Most classes of a label: class ids are 32 bits, a last layer wider than this is not for a device.
pub const CLASSES_MAX: usize = 65_536;
/// Most characters of an alphabet: a token id has 16 bits.
pub const ALPHABET_MAX: usize = 65_536;

/// The bounds that a device may lower for itself. The default is the constants above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file after decompression.
    pub file_bytes: u64,
    /// Columns of a table, or values in a row of an array.
    pub columns: usize,
    /// Cells of a table.
    pub cells: usize,
    /// Bytes of one CSV record or JSON line.
    pub record_bytes: u64,
    /// Distinct texts in a column of categories.
    pub distinct: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: FILE_BYTES_MAX,
            columns: COLUMNS_MAX,
            cells: CELLS_MAX,
            record_bytes: RECORD_BYTES_MAX,
            distinct: DISTINCT_MAX,
        }
    }
}

/// The message of the I/O error that [`bounded`] gives, by which readers tell it from a disk's error.
pub(super) const TOO_LONG: &str = "more bytes than the limit";

/// Reads from `inner`, and fails after `bytes_max` bytes instead of ending quietly as [`Read::take`] does.
pub(super) fn bounded<R: Read>(inner: R, bytes_max: u64) -> Bounded<R> {
    Bounded { inner, left: bytes_max }
}

pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One byte beyond the limit is asked for: only its presence is an error.
        let room = usize::try_from(self.left.saturating_add(1)).unwrap_or(usize::MAX);
        let asked = buffer.len().min(room);
        let count = self.inner.read(&mut buffer[..asked])?;
        match self.left.checked_sub(count as u64) {
            Some(left) => {
                self.left = left;
                Ok(count)
            }
            None => Err(io::Error::other(TOO_LONG)),
        }
    }
}
