//! How much memory this process has used, and what its machine has left: memory, disk.

/// The largest resident set so far, in MB of 10^6 bytes; 0 where the system does not tell.
pub fn peak_rss_mb() -> f64 {
    of_status("VmHWM:")
}

/// The resident set now, as [`peak_rss_mb`].
pub fn rss_mb() -> f64 {
    of_status("VmRSS:")
}

/// What the system would give without swapping, in bytes, within what this process's control group may have; 0 where neither
/// is told.
pub fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    let system = kib.map(|kib| kib * 1024);
    let groups = groups(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    let left = groups.iter().filter_map(Group::left_bytes);
    left.chain(system).min().unwrap_or(0)
}

/// A control group that bounds memory, and what its files are called.
struct Group {
    folder: String,
    limit: &'static str,
    used: &'static str,
    /// Of what is used: pages of files that go when others are wanted.
    cached: &'static str,
}

impl Group {
    fn left_bytes(&self) -> Option<u64> {
        let read = |name| std::fs::read_to_string(format!("{}/{name}", self.folder)).ok();
        let number = |text: String| text.trim().parse::<u64>().ok();
        // `max` is no number, and no limit.
        let (limit, used) = (number(read(self.limit)?)?, number(read(self.used)?)?);
        let stat = read("memory.stat").unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(self.cached)?.trim().parse::<u64>().ok());
        Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
    }
}

/// From /proc/self/cgroup, those above it included: cgroup v2 has one hierarchy, v1 one for memory.
fn groups(of_process: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in of_process.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, limit, used, cached) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            groups.push(Group { folder: format!("{root}{path}"), limit, used, cached });
            let Some((above, _)) = path.rsplit_once('/') else { break };
            path = above;
        }
    }
    groups
}

/// What processes of this machine have in common while it runs, and no others: a hash of the number that Linux draws at a start.
/// Containers of one machine have the same, and share its cores. Zeros where there is none.
pub fn host() -> [u8; 16] {
    let Ok(boot) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") else { return [0; 16] };
    let hash = blake3::derive_key("littoral 2026 host of a stage", boot.trim().as_bytes());
    std::array::from_fn(|at| hash[at])
}

/// Bytes that are free on a folder's disk; 0 where the system does not tell.
pub fn disk_free_bytes(folder: &std::path::Path) -> u64 {
    // Narrower on some systems.
    #[cfg(unix)]
    #[allow(clippy::unnecessary_cast)]
    let free = nix::sys::statvfs::statvfs(folder)
        .map_or(0, |disk| disk.blocks_available() as u64 * disk.fragment_size() as u64);
    #[cfg(not(unix))]
    let free = {
        let _ = folder;
        0
    };
    free
}

fn of_status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
    kib.map_or(0.0, |kib| kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_and_those_above_it_bound_memory() {
        let folders = |text| groups(text).into_iter().map(|group| group.folder).collect::<Vec<_>>();
        assert_eq!(folders("0::/a/b\n"), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        let v1 = "9:name=systemd:/\n4:cpu,memory:/x:y\n1:cpu:/z\n";
        assert_eq!(folders(v1), ["/sys/fs/cgroup/memory/x:y", "/sys/fs/cgroup/memory"]);
        assert!(folders("4:memory\n\n").is_empty());
    }
}
