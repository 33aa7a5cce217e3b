//! An open file's bytes as memory, read by the system when they are touched.
//!
//! Weights are repacked while they are read, and then their pages of the file are not needed: [`Mapped::forget`] gives
//! them back, so that a model is not in memory twice.

// A mapping is memory that the compiler knows nothing of; each use says why it holds.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapAsRawDesc};
use std::io;
use std::ops::{Deref, Range};

/// A file that is mapped for reading, as long as it was when it was mapped.
///
/// While it lives, nobody may write to the file or cut it: bytes that were checked could be others when they are used,
/// and touching what was cut off ends the process (SIGBUS). Files of models are replaced by renaming, never changed.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
}

impl Mapped {
    /// `file`: an open file, by reference or by its descriptor. It may be closed after this. An error if it is none that can be mapped, a folder or a pipe for instance.
    pub fn new(file: impl MmapAsRawDesc) -> io::Result<Self> {
        // SAFETY: the mapping is of the system's choice, for reading only, and lives as long as the bytes that are lent
        // from it. That no other program changes the file meanwhile cannot be shown here: it is what the type asks for
        // above, as every program does that maps files. This program changes no file that it maps.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self { map })
    }

    /// Has all of it in memory and ready to be touched, as far as the system can: who reads it next waits for neither the disk
    /// nor the page tables. Refused, it does no harm. It may take as long as reading the file does.
    pub fn populate(&self) {
        #[cfg(target_os = "linux")]
        // Linux before 5.14 knows the other only, which reads ahead and leaves the tables to the first touch.
        if self.map.advise(memmap2::Advice::PopulateRead).is_err() {
            let _ = self.map.advise(memmap2::Advice::WillNeed);
        }
    }

    /// Tells the system that these bytes are not needed any more. They may be read again, from the file.
    ///
    /// Pages that hold other bytes, too, stay; so does all where there is no such advice. Advice that is refused does no
    /// harm.
    pub fn forget(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if let Some(pages) = whole_pages(range.start..range.end.min(self.map.len()), page_bytes()) {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the pages lie within the mapping. It is shared and read-only, so nothing was written that could be
            // lost: the next touch brings the same bytes of the file again.
            let _ = unsafe { self.map.unchecked_advise_range(advice, pages.start, pages.len()) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// The pages that lie in the range from end to end; `None` if there is none. A mapping begins at a page.
#[cfg(target_os = "linux")]
fn whole_pages(range: Range<usize>, page_bytes: usize) -> Option<Range<usize>> {
    let start = range.start.checked_next_multiple_of(page_bytes)?;
    let end = range.end - range.end % page_bytes;
    (start < end).then_some(start..end)
}

#[cfg(target_os = "linux")]
fn page_bytes() -> usize {
    // SAFETY: asks for a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("every Linux has a page size")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::whole_pages;

    #[test]
    fn pages_that_hold_other_bytes_stay() {
        assert_eq!(whole_pages(0..8, 4), Some(0..8));
        assert_eq!(whole_pages(1..11, 4), Some(4..8));
        assert_eq!(whole_pages(1..7, 4), None);
        assert_eq!(whole_pages(usize::MAX..usize::MAX, 4), None);
    }
}
