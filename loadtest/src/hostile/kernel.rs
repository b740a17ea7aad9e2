//! What this host's kernel let go of, all sockets and programs together: where packets may be lost
//! that neither server nor generator sees. Counters since boot; a run is the difference of two looks.

use std::fs::read_to_string;

use serde::Serialize;

/// Datagrams and packets that were let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct KernelDrops {
    /// From the queue between sender and receiver that loopback uses, beyond
    /// `net.core.netdev_max_backlog`: it fills where a core has too little time for it.
    pub(crate) backlog: u64,
    /// For want of room in a receiver's socket, or of the memory of all UDP sockets.
    pub(crate) udp_receive: u64,
    /// For want of room in a sender's socket.
    pub(crate) udp_send: u64,
}

impl KernelDrops {
    /// As of now; zero where the kernel does not tell.
    pub(crate) fn look() -> Self {
        let read = |path| read_to_string(path).unwrap_or_default();
        let (softnet, snmp) = (read("/proc/net/softnet_stat"), read("/proc/net/snmp"));
        let more = read("/proc/net/snmp6");
        let six = |name: &str| {
            let mut lines = more.lines().filter_map(|line| line.strip_prefix(name));
            lines.find_map(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            backlog: backlog(&softnet),
            udp_receive: udp(&snmp, "RcvbufErrors")
                + udp(&snmp, "MemErrors")
                + six("Udp6RcvbufErrors")
                + six("Udp6MemErrors"),
            udp_send: udp(&snmp, "SndbufErrors") + six("Udp6SndbufErrors"),
        }
    }

    /// What was let go since an earlier look.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            backlog: self.backlog.saturating_sub(before.backlog),
            udp_receive: self.udp_receive.saturating_sub(before.udp_receive),
            udp_send: self.udp_send.saturating_sub(before.udp_send),
        }
    }
}

/// The second column of each core's line, hexadecimal.
fn backlog(softnet: &str) -> u64 {
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    softnet.lines().filter_map(dropped).sum()
}

/// A counter of UDP: names stand in one line, values in the next.
fn udp(snmp: &str, name: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let found = lines.next().zip(lines.next()).and_then(|(names, values)| {
        let place = names.split_whitespace().position(|known| known == name)?;
        values.split_whitespace().nth(place)?.parse().ok()
    });
    found.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let softnet = "00001a2b 0000000a 00000000 00000000\n00000001 00000010 00000000 00000000\n";
        assert_eq!(backlog(softnet), 26);
        let snmp = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams RcvbufErrors SndbufErrors MemErrors\n\
                    Udp: 9 3 2 1\nUdpLite: InDatagrams RcvbufErrors\nUdpLite: 7 7\n";
        let all = ["RcvbufErrors", "SndbufErrors", "MemErrors", "Others"].map(|n| udp(snmp, n));
        assert_eq!(all, [3, 2, 1, 0]);
        assert_eq!((backlog("x"), udp("Udp: A\n", "A")), (0, 0));
    }

    #[test]
    fn a_run_is_the_difference_of_two_looks() {
        let before = KernelDrops { backlog: 1, udp_receive: 2, udp_send: 3 };
        let after = KernelDrops { backlog: 5, udp_receive: 2, udp_send: 2 };
        let between = KernelDrops { backlog: 4, udp_receive: 0, udp_send: 0 };
        assert_eq!(after.since(before), between);
    }
}
