//! What `/proc` says about the CPU and memory of the server's process, this process and this host.
//!
//! Called by `main` each second of the measured window, and by workers for their own CPU. Times of
//! a process are in clock ticks of 10 ms summed over all threads, also ended ones; the kernel scales them to
//! its precise run time, while the split into user and system is sampled.

use std::fs::read_to_string;

use rustix::time::{ClockId, clock_gettime};
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

/// User and system time of `/proc/PID/stat`, ns; none of a process that has ended and whose parent
/// has not asked for it. The name in parentheses may hold anything.
fn read_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    if matches!(after_name.trim_start().chars().next(), Some('Z' | 'X')) {
        return None;
    }
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

/// CPU of this process, ns: all its threads, those that have ended too.
pub(crate) fn process_cpu() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let whole = |part| u64::try_from(part).unwrap_or(0);
    whole(time.tv_sec) * 1_000_000_000 + whole(time.tv_nsec)
}

/// CPU that one thread of a process has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThreadTime {
    id: u64,
    name: String,
    cpu_ns: u64,
    waited_ns: u64,
}

/// The thread of a process that used the most CPU over a time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Busiest {
    /// Its name.
    pub(crate) name: String,
    /// Share of one core that it ran.
    pub(crate) cores: f64,
    /// Share of the time that it could have run and was not let: others had its core.
    pub(crate) waited: f64,
}

/// The CPU of each thread of a process so far. Empty when there is no such process, or when its
/// kernel does not tell.
pub(crate) fn threads_of(pid: u32) -> Vec<ThreadTime> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            let schedstat = read_to_string(task.path().join("schedstat")).ok()?;
            let mut fields = schedstat.split_ascii_whitespace().map_while(|f| f.parse().ok());
            Some(ThreadTime {
                id: task.file_name().to_str()?.parse().ok()?,
                name: read_to_string(task.path().join("comm")).ok()?.trim().to_owned(),
                cpu_ns: fields.next()?,
                waited_ns: fields.next()?,
            })
        })
        .collect()
}

/// CPU of all these threads together, ns.
pub(crate) fn cpu_of(threads: &[ThreadTime]) -> u64 {
    threads.iter().map(|thread| thread.cpu_ns).sum()
}

/// Which thread used the most between two looks that lie `elapsed` nanoseconds apart.
pub(crate) fn busiest(
    before: &[ThreadTime],
    after: &[ThreadTime],
    elapsed: u64,
) -> Option<Busiest> {
    let used = |thread: &ThreadTime| {
        let earlier = before.iter().find(|earlier| earlier.id == thread.id);
        let (cpu, waited) = earlier.map_or((0, 0), |e| (e.cpu_ns, e.waited_ns));
        (thread.cpu_ns.saturating_sub(cpu), thread.waited_ns.saturating_sub(waited))
    };
    let thread = after.iter().max_by_key(|thread| used(thread))?;
    let (cpu, waited) = used(thread);
    #[expect(clippy::cast_precision_loss, reason = "shares are read to a few digits")]
    let share = |nanoseconds: u64| nanoseconds as f64 / elapsed.max(1) as f64;
    Some(Busiest { name: thread.name.clone(), cores: share(cpu), waited: share(waited) })
}

/// Clock ticks that the host's CPUs have spent so far, summed over all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HostTicks {
    all: u64,
    stolen: u64,
}

impl HostTicks {
    /// So far.
    pub(crate) fn now() -> Self {
        read_ticks(&read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Percent of the host's time since an earlier look that the hypervisor gave to others.
    #[expect(clippy::cast_precision_loss, reason = "shares are read to a few digits")]
    pub(crate) fn stolen_percent_since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let stolen = self.stolen.saturating_sub(before.stolen);
        100.0 * stolen as f64 / all.max(1) as f64
    }
}

/// The first line of `/proc/stat`: user nice system idle iowait irq softirq steal, then guests,
/// which user and nice contain.
fn read_ticks(stat: &str) -> HostTicks {
    let first = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields = first.unwrap_or_default().split_ascii_whitespace().take(8);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    HostTicks { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_process_name() {
        let stat = "7 (a) (b) R) S 1 2 3 4 5 6 7 8 9 10 150 30 0 0 20 0";
        assert_eq!(read_stat(stat), Some((1_500_000_000, 300_000_000)));
        let ended = stat.replace(") S 1", ") Z 1");
        for broken in ["", "7 (a", "7 (a) S 1 2", &ended] {
            assert_eq!(read_stat(broken), None);
        }
    }

    #[test]
    fn this_process_has_memory_and_threads_and_its_cpu_grows() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.resident_bytes > 0 && before.threads > 0);
        let mut rng = crate::rng::Rng::new(0);
        let (from, whole) = (thread_cpu().unwrap(), process_cpu());
        while thread_cpu().unwrap() < from + 5 * TICK {
            (0..10_000).for_each(|_| assert!(rng.below(2) < 2));
        }
        let used = Usage::of(std::process::id()).unwrap().since(&before);
        assert!(used.cpu_ns() >= 2 * TICK && process_cpu() >= whole + 5 * TICK);
        assert_eq!(Usage::of(u32::MAX), None);
    }

    #[test]
    fn the_busiest_thread_is_the_one_that_grew_most() {
        let thread = |id, name: &str, cpu_ns| {
            let waited_ns = cpu_ns / 2;
            ThreadTime { id, name: name.into(), cpu_ns, waited_ns }
        };
        let before = [thread(1, "control", 900), thread(2, "shard-0", 100)];
        let after = [thread(1, "control", 950), thread(2, "shard-0", 1_080), thread(3, "new", 20)];
        let found = busiest(&before, &after, 1_000).unwrap();
        assert_eq!(found, Busiest { name: "shard-0".into(), cores: 0.98, waited: 0.49 });
        assert_eq!(busiest(&before, &[], 1_000), None);
    }

    #[test]
    fn stolen_time_is_a_share_of_all_time() {
        let before = read_ticks("cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 2 3\n");
        let after = read_ticks("cpu  20 0 20 140 0 0 0 20 9 0\n");
        assert!((after.stolen_percent_since(&before) - 10.0).abs() < 1e-9);
        assert_eq!(read_ticks(""), HostTicks::default());
    }
}
