//! What `/proc` says about the server's process, this process and this host.
//!
//! Called by `main` at both edges of the measured window, and by workers for their own CPU. Times
//! are in clock ticks of 10 ms summed over all threads, also ended ones; the kernel scales them to
//! its precise run time, while the split into user and system is sampled.

use std::fs::read_to_string;

use serde::Serialize;

/// Nanoseconds of a clock tick: `USER_HZ` is 100 on every architecture that Rust runs on.
const TICK: u64 = 10_000_000;

/// One look at a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// User CPU, ns.
    pub(crate) user_ns: u64,
    /// System CPU, ns.
    pub(crate) system_ns: u64,
    /// Resident memory, bytes.
    pub(crate) resident_bytes: u64,
    /// Times that a thread waited.
    pub(crate) voluntary_switches: u64,
    /// Times that a thread was made to wait.
    pub(crate) involuntary_switches: u64,
    /// Threads.
    pub(crate) threads: u64,
}

impl Usage {
    /// What a process has used so far; `None` when there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (user_ns, system_ns) = read_stat(&stat)?;
        let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mut usage = Self {
            user_ns,
            system_ns,
            resident_bytes: field(&status, "VmRSS:") * 1024,
            ..Self::default()
        };
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread may end while we look.
            let status = read_to_string(task.path().join("status")).unwrap_or_default();
            usage.threads += 1;
            usage.voluntary_switches += field(&status, "voluntary_ctxt_switches:");
            usage.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:");
        }
        Some(usage)
    }

    /// What was used since an earlier look; memory and threads as they are now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            user_ns: self.user_ns.saturating_sub(before.user_ns),
            system_ns: self.system_ns.saturating_sub(before.system_ns),
            voluntary_switches: self.voluntary_switches.saturating_sub(before.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(before.involuntary_switches),
            ..*self
        }
    }

    /// User and system CPU, ns.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.user_ns + self.system_ns
    }
}

/// User and system time of `/proc/PID/stat`, ns. The name in parentheses may hold anything.
fn read_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? * TICK, ticks()? * TICK))
}

/// The number after a name at a line's begin.
fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU of the calling thread, ns.
pub(crate) fn thread_cpu() -> Option<u64> {
    let schedstat = read_to_string("/proc/thread-self/schedstat").ok()?;
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// What the numbers were taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Host {
    /// The CPU's model.
    pub(crate) cpu: String,
    /// CPUs this process may use.
    pub(crate) usable_cpus: usize,
    /// CPUs online, as the kernel lists them.
    pub(crate) online_cpus: String,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Mitigations in force, by vulnerability.
    pub(crate) mitigations: Vec<String>,
    /// Socket buffer limits and timer settings.
    pub(crate) sysctls: Vec<String>,
    /// CPUs that the server's process may use.
    pub(crate) server_cpus: Option<String>,
}

impl Host {
    /// This host.
    pub(crate) fn look(server: Option<u32>) -> Self {
        let line = |path: &str| read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, m)| m);
        let vulnerabilities = std::fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
        let mut mitigations: Vec<_> = vulnerabilities
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| {
                let state = read_to_string(entry.path()).unwrap_or_default();
                format!("{}: {}", entry.file_name().display(), state.trim())
            })
            .filter(|line| !line.ends_with("Not affected"))
            .collect();
        mitigations.sort_unstable();
        let sysctls = ["rmem_max", "wmem_max", "busy_poll"]
            .map(|name| format!("net.core.{name}={}", line(&format!("/proc/sys/net/core/{name}"))));
        let server_status =
            server.and_then(|pid| read_to_string(format!("/proc/{pid}/status")).ok());
        let server_cpus = server_status.and_then(|status| {
            let mut lines = status.lines();
            Some(lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned())
        });
        Self {
            cpu: model.to_owned(),
            usable_cpus: std::thread::available_parallelism().map_or(1, usize::from),
            online_cpus: line("/sys/devices/system/cpu/online"),
            kernel: line("/proc/sys/kernel/osrelease"),
            mitigations,
            sysctls: sysctls.into(),
            server_cpus,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_process_name() {
        let stat = "7 (a) (b) R) S 1 2 3 4 5 6 7 8 9 10 150 30 0 0 20 0";
        assert_eq!(read_stat(stat), Some((1_500_000_000, 300_000_000)));
        for broken in ["", "7 (a", "7 (a) S 1 2"] {
            assert_eq!(read_stat(broken), None);
        }
    }

    #[test]
    fn this_process_has_memory_and_threads_and_its_cpu_grows() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.resident_bytes > 0 && before.threads > 0);
        let mut rng = crate::rng::Rng::new(0);
        let from = thread_cpu().unwrap();
        while thread_cpu().unwrap() < from + 5 * TICK {
            (0..10_000).for_each(|_| assert!(rng.below(2) < 2));
        }
        let used = Usage::of(std::process::id()).unwrap().since(&before);
        assert!(used.cpu_ns() >= 2 * TICK);
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
