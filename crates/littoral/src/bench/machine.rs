//! What this machine is, and how much memory processes take. From /proc, so on Linux only; elsewhere memory is
//! an error and facts are fewer.

use crate::output::Failure;
use std::fs;
use std::thread::available_parallelism;

/// Threads that can run at the same time.
pub fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// One line: processor, cores, memory, kernel.
pub fn facts() -> String {
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| kib(&text));
    let memory = memory.map_or(String::new(), |bytes| format!(", {:.1} GB", bytes as f64 / 1e9));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("machine: {processor}, {} cores{memory}, {} {}", cores(), std::env::consts::OS, kernel.trim())
}

/// Makes the allocator keep what is freed, up to some 30 MB per thread, as it does by itself in a process that has run
/// for a while. glibc gives blocks above a threshold back to the kernel at once, and each page of the next one costs a fault
/// (most of a device's time in `bench round`); it raises that threshold to the size of what is freed. Nothing is
/// touched here, so nothing is in memory. Other allocators: no effect.
pub fn keep_freed_memory() {
    drop(std::hint::black_box(vec![0u8; 16 << 20]));
}

/// Bytes of this process that are in memory now.
pub fn rss_bytes() -> Result<u64, Failure> {
    rss_of(std::process::id())
}

/// The most that it ever had.
pub fn peak_rss_bytes() -> Result<u64, Failure> {
    peak_rss_of(std::process::id())
}

/// Bytes of a process that are in memory now.
pub fn rss_of(pid: u32) -> Result<u64, Failure> {
    status(pid, "VmRSS")
}

/// Of these, what is its own: not the pages of its program and of other files, which come in as they are first used.
pub fn own_of(pid: u32) -> Result<u64, Failure> {
    status(pid, "RssAnon")
}

/// The most of its own that it had since [`forget_peak`], or less by what came in of its files after that moment: the kernel
/// keeps the peak of both together.
pub fn peak_own_of(pid: u32) -> Result<u64, Failure> {
    Ok(peak_rss_of(pid)?.saturating_sub(status(pid, "RssFile")?).saturating_sub(status(pid, "RssShmem")?))
}

/// The most that it had since [`forget_peak`].
pub fn peak_rss_of(pid: u32) -> Result<u64, Failure> {
    status(pid, "VmHWM")
}

/// From now on the peak is counted anew.
pub fn forget_peak(pid: u32) -> Result<(), Failure> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").map_err(|e| Failure::new("memory is not known", path, "room for `5`", e))
}

fn status(pid: u32, name: &'static str) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    let found = field(&path, name).and_then(|text| kib(&text));
    found.ok_or_else(|| Failure::new("memory is not known", path, name, "no such line"))
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// `"123 kB"`, by which the kernel means 1,024 bytes each.
fn kib(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
