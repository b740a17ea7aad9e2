//! What the host gives: time, cores, descriptors.

use std::process::Command;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};
use rustix::time::{ClockId, clock_getres, clock_gettime};

use super::{Finding, in_time, kernel_says, shards};
use crate::config::Config;
use crate::limits::{
    API_DESCRIPTORS_OF_FOUR, CONTROL_DESCRIPTORS, SHARD_DESCRIPTORS, TCP_CONNECTIONS_PER_SHARD_MAX,
};
use crate::node::usable_cores;

const CLOCK_SOURCES: &str = "/sys/devices/system/clocksource/clocksource0";

/// Those that take a microsecond and more to read; a shard reads its clock several times a turn.
const SLOW_CLOCKS: [&str; 4] = ["acpi_pm", "hpet", "jiffies", "refined-jiffies"];

/// 2026-01-01: this program is younger than any clock that is behind it.
const WALL_CLOCK_FLOOR: i64 = 1_767_225_600;

pub(super) fn clock() -> Finding {
    const CHECK: &str = "clock";
    let source = kernel_says(&format!("{CLOCK_SOURCES}/current_clocksource"));
    let source = source.unwrap_or_else(|| "unknown".to_owned());
    let resolution = clock_getres(ClockId::Monotonic);
    let nanoseconds = resolution.tv_sec.saturating_mul(1_000_000_000) + resolution.tv_nsec;
    if nanoseconds > 1_000 || SLOW_CLOCKS.contains(&source.as_str()) {
        let others = kernel_says(&format!("{CLOCK_SOURCES}/available_clocksource"));
        return Finding::warn(
            CHECK,
            format!("the clock source {source} is slow or coarse ({nanoseconds} ns)"),
            format!(
                "echo tsc > {CLOCK_SOURCES}/current_clocksource (there are: {})",
                others.unwrap_or_default()
            ),
        );
    }
    Finding::ok(CHECK, format!("source {source}, resolution {nanoseconds} ns"))
}

pub(super) fn wall_clock() -> Finding {
    const CHECK: &str = "time";
    let mend = "timedatectl set-ntp true (or chrony, ntpd)";
    if clock_gettime(ClockId::Realtime).tv_sec < WALL_CLOCK_FLOOR {
        return Finding::fail(
            CHECK,
            "the wall clock is before 2026: certificates and tokens are refused",
            mend,
        );
    }
    let asked = in_time(|| {
        let arguments = ["show", "--property=NTPSynchronized", "--value"];
        Command::new("timedatectl").args(arguments).output().ok()
    });
    let said = asked.flatten().filter(|output| output.status.success());
    match said.as_ref().map(|output| output.stdout.trim_ascii()) {
        Some(b"yes") => Finding::ok(CHECK, "the wall clock is synchronised"),
        Some(b"no") => Finding::warn(
            CHECK,
            "the wall clock is not synchronised: tokens may expire early or late",
            mend,
        ),
        _ => Finding::unknown(CHECK, "nothing here tells whether the wall clock is synchronised"),
    }
}

pub(super) fn cores(config: &Config) -> Finding {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let permitted = usize::try_from(set.count()).unwrap_or_default();
    judge_cores(shards(config), usable_cores().len(), permitted)
}

fn judge_cores(shards: usize, usable: usize, permitted: usize) -> Finding {
    const CHECK: &str = "cpu";
    if usable < permitted {
        return Finding::warn(
            CHECK,
            format!(
                "a CPU quota pays for {usable} of {permitted} cores: media stands still whenever it \
                 is used up"
            ),
            "give whole cores instead of a quota: AllowedCPUs= (systemd), --cpuset-cpus (Docker), \
             no CPU limit (Kubernetes)",
        );
    }
    if shards > usable {
        return Finding::warn(
            CHECK,
            format!("{shards} shards share {usable} cores"),
            "--shards auto",
        );
    }
    Finding::ok(CHECK, format!("{shards} shards on {usable} usable cores"))
}

pub(super) fn files(config: &Config) -> Finding {
    let limit = getrlimit(Resource::Nofile).maximum;
    judge_files(limit, shards(config), config.media_tcp, config.connections.node)
}

/// The server raises its limit to the hard one.
fn judge_files(limit: Option<u64>, shards: usize, tcp: bool, api: usize) -> Finding {
    const CHECK: &str = "files";
    let connections = if tcp { TCP_CONNECTIONS_PER_SHARD_MAX } else { 0 };
    let all = shards * (connections + SHARD_DESCRIPTORS) + api + CONTROL_DESCRIPTORS;
    let share = usize::try_from(API_DESCRIPTORS_OF_FOUR).unwrap_or(4);
    let wanted = all.max(api / share * 4);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    if limit >= wanted {
        return Finding::ok(CHECK, format!("enough for the {wanted} descriptors of a full node"));
    }
    let says = format!(
        "{limit} descriptors at most, a full node wants {wanted}: an event reader and a client over \
         TCP take one each, clients over UDP none"
    );
    let mend = format!(
        "LimitNOFILE={wanted} (systemd); --ulimit nofile={wanted} (Docker); ulimit -Hn {wanted} \
         (shell)"
    );
    // Its own needs, and as many connections as a small node has.
    if limit < shards * SHARD_DESCRIPTORS + 64 {
        return Finding::fail(CHECK, says, mend);
    }
    Finding::warn(CHECK, says, mend)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn cores_are_judged_by_quota_and_by_number() {
        for (shards, usable, permitted, level, word) in [
            (4, 4, 4, Level::Ok, "4 shards"),
            (2, 4, 4, Level::Ok, "2 shards"),
            (5, 4, 4, Level::Warn, "share"),
            (2, 2, 8, Level::Warn, "quota"),
        ] {
            let finding = judge_cores(shards, usable, permitted);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.says.contains(word), "{finding:?}");
            assert_eq!(finding.mend.is_some(), level != Level::Ok);
        }
    }

    #[test]
    fn descriptors_are_counted_for_a_full_node() {
        assert_eq!(judge_files(None, 8, true, 20_000).level, Level::Ok);
        assert_eq!(judge_files(Some(1 << 20), 8, true, 20_000).level, Level::Ok);
        let few = judge_files(Some(1024), 8, true, 20_000);
        assert_eq!(few.level, Level::Warn, "{few:?}");
        assert!(few.mend.unwrap().starts_with("LimitNOFILE="));
        assert_eq!(judge_files(Some(64), 8, true, 20_000).level, Level::Fail);
        // The API takes no more than its share.
        assert_eq!(judge_files(Some(3000), 1, false, 3000).level, Level::Warn);
        let without = judge_files(Some(4000), 1, false, 3000);
        assert_eq!(without.level, Level::Ok, "{without:?}");
    }
}
