//! Which processor a thread runs on.

#![allow(unsafe_code)]

/// The processors that this process may use, ascending.
pub(crate) fn allowed() -> Vec<usize> {
    // SAFETY: a set of bits, for which zeros are a value; the system writes at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        set
    };
    // SAFETY: below the number of bits.
    (0..libc::CPU_SETSIZE as usize).filter(|processor| unsafe { libc::CPU_ISSET(*processor, &set) }).collect()
}

/// Lets a thread run on this processor only. Refused, it runs where it did.
pub(crate) fn bind(thread: libc::pthread_t, processor: usize) {
    // SAFETY: `thread` is a thread that lives: its handle is held, or it is the caller. The set is initialised, and the processor
    // is one that `allowed` gave, so below the number of bits.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::pthread_setaffinity_np(thread, size_of::<libc::cpu_set_t>(), &set);
    }
}
