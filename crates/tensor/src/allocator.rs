//! How the process's allocator treats threads.
//!
//! glibc keeps heaps per thread: up to eight for each core. A chunk that one thread makes and another frees leaves a hole
//! that a third thread does not see, and a server that holds a few megabytes of chunks at any time ends with a multiple of
//! that in memory.

#![allow(unsafe_code)]

/// From now on all threads share one heap: for processes that pass large blocks from thread to thread and must stay
/// small. To be called before other threads are started. Allocators other than glibc's: no effect.
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        const M_ARENA_MAX: c_int = -8;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // SAFETY: the signature is that of malloc.h; any positive number of heaps is valid.
        unsafe { mallopt(M_ARENA_MAX, 1) };
    }
}
