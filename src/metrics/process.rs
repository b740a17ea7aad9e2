//! What the kernel says about this process, for the families that every Prometheus client has.

use std::fs;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// One look at the process; what the kernel does not tell is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Process {
    /// CPU time of all threads, in seconds.
    pub(super) cpu_seconds: f64,
    /// When it started, in seconds since the Unix epoch.
    pub(super) start_seconds: Option<f64>,
    /// Memory that is in RAM.
    pub(super) resident_bytes: Option<u64>,
    /// Address space.
    pub(super) virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<u64>,
    /// Most file descriptors that it may open.
    pub(super) max_fds: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
}

impl Process {
    /// Reads it: some files of `/proc`. To be called where nobody waits for it.
    pub(super) fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            start_seconds: start(&read("/proc/self/stat"), &read("/proc/stat")),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
            virtual_bytes: field(&status, "VmSize:").map(|kib| kib * 1024),
            open_fds: open_descriptors(),
            max_fds: field(&limits, "Max open files"),
            threads: field(&status, "Threads:"),
        }
    }
}

/// How many descriptors are open. The size of that folder says so since Linux 6.2; before, it has to
/// be read name by name, which takes longer than all other metrics where thousands are connected.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        // One of them is what reads them.
        0 => Some((fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)),
        open => Some(open),
    }
}

/// The first number of the line that begins with `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// When the process started (proc(5): the 22nd field of `stat`, in ticks since the boot).
fn start(stat: &str, system: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let boot = field(system, "btime")?;
    Some(boot as f64 + ticks as f64 / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests of this process open and close files, too: whatever counts them is run again in a
    /// process of its own.
    fn in_a_process_of_its_own(name: &str, count: fn()) {
        if std::env::args().any(|argument| argument == "--exact") {
            return count();
        }
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
        let output = again.args([&name, "--exact", "--nocapture"]).output().unwrap();
        let says = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && says.contains("1 passed"), "{output:?}");
    }

    #[test]
    fn this_process_is_told_of() {
        in_a_process_of_its_own("this_process_is_told_of", is_told_of);
    }

    fn is_told_of() {
        let process = Process::read();
        assert!(process.resident_bytes < process.virtual_bytes, "{process:?}");
        assert!(process.resident_bytes > Some(1 << 20), "{process:?}");
        assert!(process.open_fds > Some(2) && process.open_fds <= process.max_fds, "{process:?}");
        assert!(process.threads >= Some(1), "{process:?}");
        let more: Vec<_> = (0..500).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let grown = Process::read().open_fds.unwrap() - process.open_fds.unwrap();
        assert_eq!(grown, 500, "for {}", more.len());
        // Between 2020 and what the clock says.
        let now = clock_gettime(ClockId::Realtime).tv_sec as f64;
        let start = process.start_seconds.unwrap();
        assert!(start > 1_577_836_800.0 && start < now + 1.0, "{start} {now}");
    }

    #[test]
    fn a_program_may_be_called_anything() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 250 20";
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(start(stat, "cpu 1\nbtime 1000\n"), Some(1000.0 + 250.0 / ticks));
        assert_eq!(start("", ""), None);
    }
}
