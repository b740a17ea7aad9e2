//! What one forwarded packet costs in user space: from the received datagrams of one publisher to
//! sealed datagrams in the transmit batch, by `Engine::handle_datagrams` and `Engine::poll_transmit`.
//!
//! Cases: fan-out 1, 10, 100 and 1,000 × bursts of 1, 5 and 10 packets; payloads of 1,200 bytes;
//! AES-128-GCM on every side (installed keys: a handshake between these two libraries would agree
//! on AES-256-GCM); and fan-out 100 × bursts of 5 with the other two profiles. Transport-wide
//! numbers, abs-send-time and MID are written; RTX is negotiated, so what was sent is remembered.
//!
//! Time is the thread's CPU time, so that a shared machine may be used. A throughput of n elements/s is 10⁹/n ns for each packet that leaves; the publisher's share
//! (one opened packet for each fan-out) is in it. Reports, timers and the kernel's send are not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "shares the simulator's parts; a bench that cannot go on should stop"
)]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringcast::engine::srtp::SrtpProfile;
use rustix::time::{ClockId, clock_gettime};

#[path = "../tests/suite/sim/media.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
mod media;
#[path = "../tests/suite/sim/params.rs"]
mod params;
#[path = "../tests/suite/sim/raw.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
mod raw;
#[path = "../tests/suite/sim/stage.rs"]
mod stage;

use stage::Stage;

const PAYLOAD: usize = 1200;
/// Bursts sealed at a time, outside of what is measured.
const PREPARED: usize = 64;

fn forward(c: &mut Criterion, profile: SrtpProfile, fan_out: usize, burst: usize) {
    let mut group = c.benchmark_group(format!("forward/{}", profile.label()));
    group.throughput(Throughput::Elements((fan_out * burst) as u64));
    let mut stage = Stage::new(profile, fan_out);
    // Rings and logs of what was sent grow to what they will be.
    for datagrams in stage.prepare(1100 / burst + 1, burst, PAYLOAD) {
        stage.forward(&datagrams, Duration::from_millis(1));
    }
    let id = BenchmarkId::from_parameter(format!("fan-out {fan_out}, burst {burst}"));
    group.bench_function(id, |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            let mut left = iterations;
            while left > 0 {
                let count = left.min(PREPARED as u64);
                let bursts = stage.prepare(usize::try_from(count).unwrap(), burst, PAYLOAD);
                stage.keep_alive();
                let begun = clock();
                for datagrams in &bursts {
                    let left = stage.forward(datagrams, Duration::from_millis(1));
                    assert!(left >= burst * fan_out, "{left} left");
                }
                spent += clock() - begun;
                left -= count;
            }
            spent
        });
    });
    group.finish();
}

/// CPU time of this thread: what others do on the machine does not count.
fn clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn benches(c: &mut Criterion) {
    for fan_out in [1, 10, 100, 1000] {
        for burst in [1, 5, 10] {
            forward(c, SrtpProfile::AeadAes128Gcm, fan_out, burst);
        }
    }
    forward(c, SrtpProfile::AeadAes256Gcm, 100, 5);
    forward(c, SrtpProfile::Aes128CmSha1_80, 100, 5);
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500));
    targets = benches
}
criterion_main!(all);
