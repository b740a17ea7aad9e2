//! What one received packet costs in user space: looked up by its address, opened into its stream's
//! ring, looked into and counted, by `Engine::handle_datagrams` with nobody who consumes it.
//!
//! Cases: each cipher × payloads of 100 and 1,200 bytes, 8 packets at a time. The bare cost of the
//! ciphers is in `srtp`. The time of a case is the thread's CPU time for each packet.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "shares the simulator's parts; a bench that cannot go on should stop"
)]

#[path = "gauge/cpu.rs"]
mod cpu;
mod gauge;
#[path = "gauge/sim.rs"]
mod sim;
#[path = "gauge/traffic.rs"]
#[expect(dead_code, reason = "`forward` sends more kinds of it")]
mod traffic;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gauge::settings;
use ringcast::engine::machine::Machine;
use ringcast::engine::srtp::SrtpProfile;
use sim::stage::Stage;
use traffic::{Traffic, is_measured, turns};

const BATCH: usize = 8;
/// Frames until the ring has grown to what it will be.
const WARM_UP: u64 = 140;

fn unprotect(c: &mut Criterion, profile: SrtpProfile, bytes: usize) {
    let mut group = c.benchmark_group(format!("unprotect/{}", profile.label()));
    let mut traffic = Traffic::equal(BATCH, bytes);
    let mut stage = Stage::playing(traffic.codec, profile, 0);
    turns(&mut stage, &mut traffic, if is_measured() { WARM_UP } else { 1 });
    group.bench_function(BenchmarkId::from_parameter(format!("{bytes} B")), |b| {
        b.iter_custom(|iterations| {
            let accepted = stage.engine.report().0.packets_in;
            let done = turns(&mut stage, &mut traffic, iterations.div_ceil(BATCH as u64));
            assert_eq!(stage.engine.report().0.packets_in - accepted, done.arrived);
            done.spent.mul_f64(iterations as f64 / done.arrived as f64)
        });
    });
    group.finish();
}

fn benches(c: &mut Criterion) {
    for profile in SrtpProfile::ALL {
        for bytes in [100, 1200] {
            unprotect(c, profile, bytes);
        }
    }
}

criterion_group! {
    name = all;
    config = settings();
    targets = benches
}
criterion_main!(all);
