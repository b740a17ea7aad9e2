//! What stays behind when everybody has left: nothing.

use std::ops::Range;

use super::call::Call;
use super::http::Api;
use super::servers::{PATIENCE, Process, clock};

/// What may grow from the 100th to the 200th life, in KiB.
const GROWTH_KIB: u64 = 1024;

/// Gauges that must be what they were.
const GAUGES: [&str; 12] = [
    "rooms",
    "peers",
    "transports",
    "producers",
    "consumers",
    "shard_transports",
    "shard_producers",
    "shard_mirrors",
    "shard_streams",
    "shard_consumers",
    "shard_tuples",
    "shard_ring_bytes",
];

/// Two peers come, hear each other, and leave.
fn live(api: Api, n: usize) {
    let mut call = Call::pair(api, &format!("room-{n}"));
    call.until("bob hears alice", |call| call.heard(1) > 0);
    assert_eq!((api.metric("rooms"), api.metric("peers")), (1.0, 2.0));
    call.leave("alice");
    call.leave("bob");
}

/// Waits for reports in which nothing is alive, and for the end of the API's connections.
pub(crate) fn rest(api: Api, process: &Process, descriptors: usize) {
    let deadline = clock() + PATIENCE;
    loop {
        let gauges: Vec<f64> = GAUGES.iter().map(|name| api.metric(name)).collect();
        if gauges.iter().all(|gauge| *gauge == 0.0) && process.descriptors() == descriptors {
            return;
        }
        let open = process.descriptors();
        assert!(clock() < deadline, "{open} of {descriptors}, {GAUGES:?} {gauges:?}");
    }
}

#[test]
fn two_hundred_lives_leave_nothing_behind() {
    let mut process = Process::start(&["--shards=2"]);
    let api = process.api();
    let idle = process.descriptors();
    let memory_after = |lives: Range<usize>, process: &Process| {
        for n in lives {
            live(api, n);
        }
        rest(api, process, idle);
        process.resident_kib()
    };
    let hundred = memory_after(0..100, &process);
    let two_hundred = memory_after(100..200, &process);
    let growth = two_hundred.saturating_sub(hundred);
    assert!(growth <= GROWTH_KIB, "{hundred} KiB grew to {two_hundred} KiB");
}
