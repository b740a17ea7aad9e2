//! What stays behind when everybody has left: nothing.

use super::call::Call;
use super::http::Api;
use super::servers::Process;

/// What may grow from the 100th to the 200th life, in KiB.
const GROWTH_KIB: u64 = 1024;

/// Gauges that must be what they were.
const GAUGES: [&str; 11] = [
    "rooms",
    "peers",
    "transports",
    "producers",
    "consumers",
    "shard_transports",
    "shard_producers",
    "shard_streams",
    "shard_consumers",
    "shard_tuples",
    "shard_ring_bytes",
];

/// Two peers come, hear each other, and leave.
fn live(api: Api, n: usize) {
    let mut call = Call::pair(api, &format!("room-{n}"));
    call.until("bob hears alice", |call| call.heard(1) > 0);
    call.leave("alice");
    call.leave("bob");
}

/// Waits for reports in which nothing is alive.
fn rest(api: Api) -> Vec<f64> {
    // Reports come once a second, and each request waits a little in the kernel: no other clock.
    let deadline = super::servers::clock() + super::servers::PATIENCE;
    loop {
        let gauges: Vec<f64> = GAUGES.iter().map(|name| api.metric(name)).collect();
        if gauges.iter().all(|gauge| *gauge == 0.0) {
            return gauges;
        }
        assert!(super::servers::clock() < deadline, "left over: {GAUGES:?} {gauges:?}");
    }
}

#[test]
fn two_hundred_lives_leave_nothing_behind() {
    let mut process = Process::start(&["--shards=2", "--log=warn,ringcast::server=info"]);
    let api = process.api();
    let mut measure = |from: usize, process: &Process| {
        for n in from..from + 100 {
            live(api, n);
        }
        rest(api);
        (process.resident_kib(), process.descriptors())
    };
    let (memory_100, descriptors_100) = measure(0, &process);
    let (memory_200, descriptors_200) = measure(100, &process);
    assert_eq!(descriptors_200, descriptors_100);
    let growth = memory_200.saturating_sub(memory_100);
    assert!(growth <= GROWTH_KIB, "{memory_100} KiB grew to {memory_200} KiB");
}
