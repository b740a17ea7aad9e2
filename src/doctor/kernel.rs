//! What the kernel permits: rings, programs, memory, and sockets as the server wants them.

use rustix::process::{Resource, getrlimit};

use super::{Finding, kernel_says, shards};
use crate::config::{Config, Runtime, Steer};
use crate::limits::{LOCKED_BYTES_MIN, LOCKED_BYTES_PER_SHARD, SOCKET_BUFFER_BYTES};
use crate::node::probe;

pub(super) fn io_uring(config: &Config) -> Finding {
    const CHECK: &str = "io_uring";
    if config.runtime == Runtime::Thread {
        return Finding::ok(CHECK, "not asked for: shards run on plain threads");
    }
    let Err(reason) = probe::io_uring() else {
        return Finding::ok(CHECK, "rings can be made: shards run on glommio");
    };
    let mend = ring_mend();
    if config.runtime == Runtime::Glommio {
        return Finding::fail(CHECK, format!("{reason}: the server would not start"), mend);
    }
    Finding::warn(CHECK, format!("{reason}: shards run on plain threads"), mend)
}

/// What most likely stands in the way of rings.
fn ring_mend() -> String {
    let disabled = kernel_says("/proc/sys/kernel/io_uring_disabled");
    if disabled.as_deref().is_some_and(|value| value != "0") {
        return "sysctl -w kernel.io_uring_disabled=0".to_owned();
    }
    if getrlimit(Resource::Memlock).current.is_some_and(|bytes| bytes < LOCKED_BYTES_MIN) {
        return locked_memory_mend();
    }
    let status = kernel_says("/proc/self/status").unwrap_or_default();
    if status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])) {
        return "allow io_uring_setup, io_uring_enter and io_uring_register: --security-opt \
                seccomp=.deploy/seccomp.json (Docker), seccompProfile (Kubernetes)"
            .to_owned();
    }
    "Linux 5.8 or later, built with CONFIG_IO_URING".to_owned()
}

pub(super) fn steering(config: &Config) -> Finding {
    const CHECK: &str = "bpf";
    if config.steer == Steer::Off {
        return Finding::ok(CHECK, "not asked for: shards hand datagrams to each other");
    }
    let refused = probe::steering();
    match refused {
        Ok(()) => Finding::ok(CHECK, "the kernel gives each datagram to its shard"),
        Err(_) if shards(config) == 1 => Finding::ok(CHECK, "one shard: there is nothing to steer"),
        Err(reason) => {
            let program = std::env::current_exe().unwrap_or_else(|_| "ringcast".into());
            Finding::warn(
                CHECK,
                format!("{reason}: shards hand datagrams to each other"),
                format!(
                    "AmbientCapabilities=CAP_BPF (systemd); --user 0 --cap-drop ALL --cap-add BPF \
                     (Docker); or setcap cap_bpf+ep {}",
                    program.display()
                ),
            )
        }
    }
}

fn locked_memory_mend() -> String {
    "LimitMEMLOCK=64M (systemd); --ulimit memlock=67108864 (Docker); ulimit -l 65536 (shell)"
        .to_owned()
}

pub(super) fn locked_memory(config: &Config) -> Finding {
    const CHECK: &str = "memlock";
    let shards = u64::try_from(shards(config)).unwrap_or(u64::MAX);
    let needed = LOCKED_BYTES_MIN.max(shards.saturating_mul(LOCKED_BYTES_PER_SHARD));
    match getrlimit(Resource::Memlock).current {
        Some(bytes) if config.runtime != Runtime::Thread && bytes < needed => Finding::warn(
            CHECK,
            format!(
                "{} KiB may be locked, rings of {shards} shards may take {} KiB: shards without \
                 run on plain threads",
                bytes / 1024,
                needed / 1024
            ),
            locked_memory_mend(),
        ),
        Some(bytes) => Finding::ok(CHECK, format!("{} KiB may be locked", bytes / 1024)),
        None => Finding::ok(CHECK, "no limit"),
    }
}

pub(super) fn buffers(config: &Config) -> Finding {
    const CHECK: &str = "buffers";
    let mebibytes = SOCKET_BUFFER_BYTES / 1024 / 1024;
    match probe::udp(config) {
        Err(error) => no_socket(CHECK, &error),
        Ok(udp) if udp.small.is_empty() => {
            Finding::ok(CHECK, format!("sockets get their {mebibytes} MiB each way"))
        }
        Ok(udp) => {
            let settings: Vec<String> =
                udp.small.iter().map(|name| format!("{name}={SOCKET_BUFFER_BYTES}")).collect();
            Finding::warn(
                CHECK,
                format!("sockets get less than {mebibytes} MiB: bursts are lost in the kernel"),
                format!("sysctl -w {}; for good in /etc/sysctl.d/", settings.join(" ")),
            )
        }
    }
}

pub(super) fn offload(config: &Config) -> Finding {
    const CHECK: &str = "gso";
    let what = match probe::udp(config) {
        Err(error) => return no_socket(CHECK, &error),
        Ok(udp) => match (udp.gso, udp.gro) {
            (true, true) => {
                return Finding::ok(CHECK, "the kernel cuts and joins trains of datagrams");
            }
            (true, false) => "UDP_GRO",
            (false, true) => "UDP_SEGMENT",
            (false, false) => "UDP_SEGMENT and UDP_GRO",
        },
    };
    let says = format!("the kernel does not know {what}: each datagram costs several times more");
    Finding::warn(CHECK, says, "Linux 5.0 or later (gVisor and the like have neither)")
}

fn no_socket(check: &'static str, error: &std::io::Error) -> Finding {
    Finding::fail(check, format!("no UDP socket: {error}"), "permit sockets of AF_INET or AF_INET6")
}
