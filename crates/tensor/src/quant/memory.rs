//! Memory for weights: zeroed, aligned, in huge pages where the system has them.
//!
//! Weights are read once a token from front to back. With pages of 4 KiB the translation of addresses alone costs a
//! tenth of the bandwidth.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
#[cfg(unix)]
use std::sync::Arc;

const HUGE: usize = 2 << 20;
pub(super) const CACHE_LINE: usize = 64;

/// Zeroed bytes whose address is a multiple of 64, for the one who has them to write. What is to be read only, by several, is a
/// [`Shared`](super::Shared).
pub struct Memory {
    at: NonNull<u8>,
    bytes: usize,
    owner: Owner,
}

enum Owner {
    Heap(Layout),
    /// Nobody reads it: it is held, so that the pages stay.
    #[cfg(unix)]
    Pages(#[allow(dead_code)] Arc<Pages>),
}

// SAFETY: it owns its bytes as a `Vec<u8>` does; of shared pages nobody else has these.
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    /// `None`: the system does not give that much.
    pub fn zeroed(bytes: usize) -> Option<Self> {
        #[cfg(unix)]
        if bytes >= HUGE {
            let pages = Arc::new(Pages::new(bytes)?);
            return Some(Self { at: pages.at, bytes, owner: Owner::Pages(pages) });
        }
        let layout = Layout::from_size_align(bytes.max(1), CACHE_LINE).ok()?;
        // SAFETY: the size is not zero.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { at, bytes, owner: Owner::Heap(layout) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.owner {
            // SAFETY: allocated with this layout, once.
            Owner::Heap(layout) => unsafe { dealloc(self.at.as_ptr(), *layout) },
            // The last one who has a part of them gives them back.
            #[cfg(unix)]
            Owner::Pages(_) => {}
        }
    }
}

/// Room for many pieces of memory side by side. With huge pages of their own, the matrices of a small model would leave a
/// third of their pages empty, or be too small for any.
///
/// What is reserved and never written takes no memory.
#[derive(Default)]
pub struct Arena {
    #[cfg(unix)]
    pages: Option<Arc<Pages>>,
    #[cfg(unix)]
    used: usize,
}

impl Arena {
    /// Room for about `bytes`. Where the system reserves nothing, pieces are made one by one.
    pub fn new(bytes: usize) -> Self {
        #[cfg(unix)]
        return Self { pages: Pages::new(bytes).map(Arc::new), used: 0 };
        #[cfg(not(unix))]
        {
            let _ = bytes;
            Self {}
        }
    }

    /// The next `bytes`, zeroed; of their own where the room does not suffice. `None`: the system does not give that much.
    pub fn take(&mut self, bytes: usize) -> Option<Memory> {
        #[cfg(unix)]
        if let Some(pages) = &self.pages
            && let Some(end) = self.used.checked_add(bytes)
            && end <= pages.bytes
        {
            // SAFETY: within the pages. Nobody had these bytes before, for `used` only grows.
            let at = unsafe { pages.at.add(self.used) };
            self.used = end.next_multiple_of(CACHE_LINE);
            return Some(Memory { at, bytes, owner: Owner::Pages(pages.clone()) });
        }
        Memory::zeroed(bytes)
    }
}

/// Pages of the system's own, zero until they are written: nobody fills them beforehand, so that the advice on huge ones
/// comes before the first touch.
#[cfg(unix)]
struct Pages {
    at: NonNull<u8>,
    bytes: usize,
    /// The whole mapping, which begins before: where, and how much.
    start: NonNull<u8>,
    mapped: usize,
}

// SAFETY: an address and lengths; the bytes are handed out by those who own them.
#[cfg(unix)]
unsafe impl Send for Pages {}
#[cfg(unix)]
unsafe impl Sync for Pages {}

#[cfg(unix)]
impl Pages {
    fn new(bytes: usize) -> Option<Self> {
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
        Some(Self { at, bytes, start, mapped })
    }
}

#[cfg(unix)]
impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, once; nobody borrows from what is dropped.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.mapped);
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
