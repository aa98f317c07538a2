//! The limit of the memory of the process.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use super::Config;
use super::sections::Detection;

const MIB: u64 = 1 << 20;
/// Minimum of `detection.memory_mib_max`.
pub(super) const MEMORY_MIB_MIN: u64 = 640;
/// Memory for everything but the states of the partitions: the program, rows and verdicts that are not stored yet, the
/// queues of the source, dead letters and the outbox.
const OTHERS_MIB: u64 = 512;

impl Detection {
    /// The part of the limit for the states of all partitions, bytes.
    pub(crate) fn states_bytes(&self) -> Option<usize> {
        let mib = self.memory_mib_max?.saturating_sub(OTHERS_MIB);
        Some(usize::try_from(mib.saturating_mul(MIB)).unwrap_or(usize::MAX / 2))
    }

    /// Number of partitions whose states have a useful size within the limit.
    pub(crate) fn partitions_max(&self) -> Option<usize> {
        self.states_bytes().map(|bytes| bytes / crate::engine::STATE_BYTES_MIN)
    }

    /// Limit with which `partitions` partitions have states of a useful size, MiB.
    pub(crate) fn memory_mib_for(partitions: usize) -> u64 {
        OTHERS_MIB + (partitions * crate::engine::STATE_BYTES_MIN) as u64 / MIB
    }
}

impl Config {
    /// A limit above the memory that the process can have.
    pub(super) fn memory_warning(&self) -> Option<String> {
        let (max, available) = (self.detection.memory_mib_max?, available_mib()?);
        let place = self.places.of("detection.memory_mib_max");
        (max > available).then(|| {
            format!(
                "{place}: `detection.memory_mib_max` is {max}, but the process can have {available} MiB, so the \
                 out-of-memory killer may end it before the limit is reached; set at most {}",
                available / 2
            )
        })
    }
}

/// Memory that the process can have: the smallest of the machine's memory and the limits of its control groups. `None`:
/// the system does not report any.
pub(crate) fn available_mib() -> Option<u64> {
    let machine = memory_of_machine();
    let groups = read_to_string("/proc/self/cgroup").map(|text| limits_of_groups(&text)).unwrap_or_default();
    let limits = groups.iter().filter_map(|file| read_to_string(file).ok()?.trim().parse().ok());
    machine.into_iter().chain(limits).min().map(|bytes: u64| bytes / MIB)
}

/// Memory of the machine, bytes. By a system call, because the sandbox of the service hides `/proc/meminfo`.
fn memory_of_machine() -> Option<u64> {
    let info = rustix::system::sysinfo();
    info.totalram.checked_mul(info.mem_unit.into()).filter(|bytes| *bytes > 0)
}

/// Files with the limits of the control group and of all groups that contain it, by the contents of `/proc/self/cgroup`
/// (cgroups(7)).
fn limits_of_groups(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let inside = Path::new(path.trim_start_matches('/'));
        files.extend(inside.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_machine_is_read() {
        let meminfo = read_to_string("/proc/meminfo").expect("Linux has it");
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("a line");
        let kib = total.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok()).expect("a number");
        assert_eq!(memory_of_machine().map(|bytes| bytes >> 10), Some(kib));
        assert!(available_mib().is_some_and(|mib| mib > 100 && mib <= kib >> 10));
    }

    #[test]
    fn limits_of_all_enclosing_groups_are_read() {
        let files = |text| limits_of_groups(text).iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            files("0::/system.slice/tokenwarden.service\n"),
            [
                "/sys/fs/cgroup/system.slice/tokenwarden.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        let older = files("3:cpu,cpuacct:/a\n2:memory:/docker/b\n");
        assert_eq!(older[0], "/sys/fs/cgroup/memory/docker/b/memory.limit_in_bytes");
        assert_eq!(older.len(), 3);
        assert!(files("nonsense").is_empty());
    }

    #[test]
    fn states_have_what_the_rest_leaves() {
        let detection = Detection { memory_mib_max: Some(1_024), ..Detection::default() };
        assert_eq!(
            (detection.states_bytes().map(|bytes| bytes >> 20), detection.partitions_max()),
            (Some(512), Some(4))
        );
        assert_eq!(Detection::memory_mib_for(4), 1_024);
        let least = Detection { memory_mib_max: Some(MEMORY_MIB_MIN), ..Detection::default() };
        assert_eq!(least.partitions_max(), Some(1));
        assert_eq!(Detection::default().states_bytes(), None);
    }
}
