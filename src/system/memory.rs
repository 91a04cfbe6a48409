//! Memory of the machine and of this process.

use std::path::Path;

/// Memory that this process may still allocate, in bytes: what the system has available without swapping, or the rest
/// of the control group's limit if that is less. `None` where the system does not report it.
pub fn available() -> Option<u64> {
    let system = meminfo("MemAvailable:");
    match (system, cgroup_left()) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Memory of the whole machine, in bytes.
pub fn installed() -> Option<u64> {
    meminfo("MemTotal:")
}

/// Peak resident set of this process, in bytes.
pub fn peak() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// Resident set of this process, in bytes.
pub fn resident() -> Option<u64> {
    field("/proc/self/status", "VmRSS:")
}

/// Resets [`peak`] to the present resident set. Does nothing where the system refuses.
pub fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn meminfo(name: &str) -> Option<u64> {
    field("/proc/meminfo", name)
}

/// Reads a line `name  1234 kB` of a file under `/proc`, in bytes.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Bytes left to the tightest limit of this process's control group (version 2) and its ancestors. File pages that the
/// group can drop count as left.
fn cgroup_left() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new("/sys/fs/cgroup").join(own);
    let up_to_root = own
        .ancestors()
        .take_while(|dir| dir.starts_with("/sys/fs/cgroup"));
    up_to_root.filter_map(group_left).min()
}

fn group_left(group: &Path) -> Option<u64> {
    let number = |file: &str| -> Option<u64> {
        std::fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let stat = group.join("memory.stat");
    let pages = |name: &str| {
        let text = std::fs::read_to_string(&stat).ok()?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse::<u64>().ok()
    };
    let file_pages = pages("inactive_file").unwrap_or(0) + pages("active_file").unwrap_or(0);
    let used = number("memory.current")?.saturating_sub(file_pages);
    Some(number("memory.max")?.saturating_sub(used)) // "max" (no limit) does not parse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_and_available_memory_are_reported() {
        assert!(peak().is_some_and(|bytes| bytes > 1 << 20));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
