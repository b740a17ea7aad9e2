//! The fingerprint of the host: what a reader must know before comparing two results.
//!
//! Read once by `main` when a run begins. What the kernel does not tell is left out, never guessed.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::path::Path;

use serde::Serialize;

/// Sysctls that change what a media server costs.
const SYSCTLS: [&str; 9] = [
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.rmem_default",
    "net.core.wmem_default",
    "net.core.netdev_max_backlog",
    "net.core.busy_poll",
    "net.core.busy_read",
    "kernel.io_uring_disabled",
    "kernel.sched_autogroup_enabled",
];

/// What the numbers were taken on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Host {
    /// The CPU's model.
    pub(crate) cpu: String,
    /// CPUs this process may use.
    pub(crate) usable_cpus: usize,
    /// CPUs online, as the kernel lists them.
    pub(crate) online_cpus: String,
    /// Who sets the clock rate of the first CPU; none where it cannot be seen.
    pub(crate) governor: Option<String>,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Hypervisor, product or container that can be seen; empty on what looks like bare metal.
    pub(crate) virtualisation: String,
    /// What is done about each vulnerability of this CPU; those without effect are left out.
    pub(crate) mitigations: BTreeMap<String, String>,
    /// Socket buffer limits and the like, by name.
    pub(crate) sysctls: BTreeMap<String, String>,
    /// Load averages over 1, 5 and 15 minutes when the run began.
    pub(crate) load_average: String,
    /// CPUs that the server's process may use.
    pub(crate) server_cpus: Option<String>,
}

impl Host {
    /// This host.
    pub(crate) fn look(server: Option<u32>) -> Self {
        let cpuinfo = line("/proc/cpuinfo");
        let status = |pid| read_to_string(format!("/proc/{pid}/status")).ok();
        Self {
            cpu: cpu_model(&cpuinfo).unwrap_or("unknown").to_owned(),
            usable_cpus: std::thread::available_parallelism().map_or(1, usize::from),
            online_cpus: line("/sys/devices/system/cpu/online"),
            governor: Some(line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
                .filter(|governor| !governor.is_empty()),
            kernel: line("/proc/sys/kernel/osrelease"),
            virtualisation: virtualisation(&cpuinfo),
            mitigations: mitigations(),
            sysctls: sysctls(),
            load_average: load_average(&line("/proc/loadavg")),
            server_cpus: server.and_then(status).and_then(|status| {
                let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
                Some(list.trim().to_owned())
            }),
        }
    }
}

/// A file of the kernel's, trimmed; empty when it cannot be read.
fn line(path: &str) -> String {
    read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    model.split_once(": ").map(|(_, model)| model)
}

fn mitigations() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let states = entries.into_iter().flatten().flatten().map(|entry| {
        let state = read_to_string(entry.path()).unwrap_or_default();
        (entry.file_name().display().to_string(), state.trim().to_owned())
    });
    states.filter(|(_, state)| state != "Not affected").collect()
}

fn sysctls() -> BTreeMap<String, String> {
    let values = SYSCTLS
        .iter()
        .map(|name| (name.to_string(), line(&format!("/proc/sys/{}", name.replace('.', "/")))));
    values.filter(|(_, value)| !value.is_empty()).collect()
}

/// The first three fields.
fn load_average(loadavg: &str) -> String {
    loadavg.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn virtualisation(cpuinfo: &str) -> String {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let guest = flags.is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let dmi = |name: &str| line(&format!("/sys/class/dmi/id/{name}"));
    let mut found = Vec::new();
    if guest {
        let product = format!("{} {}", dmi("sys_vendor"), dmi("product_name"));
        let product = product.trim();
        found.push(if product.is_empty() {
            "virtual machine".to_owned()
        } else {
            format!("virtual machine ({product})")
        });
    }
    if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        found.push("container".to_owned());
    }
    found.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_named_as_the_kernel_names_it() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU: 9000\nflags\t\t: fpu hypervisor\n";
        assert_eq!(cpu_model(cpuinfo), Some("A CPU: 9000"));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
        assert!(virtualisation(cpuinfo).starts_with("virtual machine"));
    }

    #[test]
    fn this_host_has_a_kernel_and_a_load() {
        let host = Host::look(Some(std::process::id()));
        assert!(!host.kernel.is_empty() && host.usable_cpus > 0);
        assert_eq!(host.load_average.split(' ').count(), 3);
        assert!(host.server_cpus.is_some_and(|cpus| !cpus.is_empty()));
        assert_eq!(load_average("0.10 0.20 0.30 1/200 4242"), "0.10 0.20 0.30");
    }
}
