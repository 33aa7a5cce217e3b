//! Memory for weights: zeroed, aligned, in huge pages where the system has them.
//!
//! Weights are read once a token from front to back. With pages of 4 KiB the translation of addresses alone costs a
//! tenth of the bandwidth.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const HUGE: usize = 2 << 20;
const CACHE_LINE: usize = 64;

/// Zeroed bytes whose address is a multiple of 64.
pub struct Memory {
    at: NonNull<u8>,
    bytes: usize,
    owner: Owner,
}

enum Owner {
    Heap(Layout),
    /// Mapped: where, and how much.
    #[cfg(unix)]
    Pages(NonNull<u8>, usize),
}

// SAFETY: it owns its bytes as a `Vec<u8>` does.
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    /// `None`: the system does not give that much.
    pub fn zeroed(bytes: usize) -> Option<Self> {
        #[cfg(unix)]
        if bytes >= HUGE {
            return Self::pages(bytes);
        }
        let layout = Layout::from_size_align(bytes.max(1), CACHE_LINE).ok()?;
        // SAFETY: the size is not zero.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { at, bytes, owner: Owner::Heap(layout) })
    }

    /// Pages of the system's own, zero until they are written: nobody fills them beforehand, so that the advice on huge
    /// ones comes before the first touch.
    #[cfg(unix)]
    fn pages(bytes: usize) -> Option<Self> {
        let mapped = bytes.checked_next_multiple_of(HUGE)?.checked_add(HUGE)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a new private mapping at an address of the system's choice touches nothing of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        let start = NonNull::new(start.cast::<u8>())?;
        let skip = start.as_ptr().align_offset(HUGE);
        // SAFETY: skip is below 2 MiB, and so much more than `bytes` was mapped.
        let at = unsafe { start.add(skip) };
        #[cfg(target_os = "linux")]
        // SAFETY: the range is ours; the advice changes no contents. Refused, it does no harm.
        unsafe {
            libc::madvise(at.as_ptr().cast(), mapped - HUGE, libc::MADV_HUGEPAGE)
        };
        Some(Self { at, bytes, owner: Owner::Pages(start, mapped) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.owner {
            // SAFETY: allocated with this layout, once.
            Owner::Heap(layout) => unsafe { dealloc(self.at.as_ptr(), layout) },
            // SAFETY: mapped with this length, once; nobody borrows from what is dropped.
            #[cfg(unix)]
            Owner::Pages(start, mapped) => unsafe {
                libc::munmap(start.as_ptr().cast(), mapped);
            },
        }
    }
}

impl Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: that many bytes were allocated and are initialised, to zero at first.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.bytes) }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}
