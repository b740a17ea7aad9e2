//! What one forwarded packet costs in user space: from the received datagrams of one publisher to
//! sealed datagrams in the transmit batch, by `Engine::handle_datagrams` and `Engine::poll_transmit`.
//!
//! Cases, each with AES-128-GCM (but for those that name another cipher) on every side, by
//! installed keys (a handshake between these two libraries would agree on AES-256-GCM):
//! * fan-out 1, 10, 100 and 1,000 × bursts of 1, 5 and 10 packets of 1,200 bytes;
//! * fan-out 100 × bursts of 5 with AES-256-GCM and with AES-CM and HMAC-SHA1;
//! * video of 1.5 and 2.5 Mbit/s as libwebrtc makes it (seeded frame sizes, 3 to 14 packets of
//!   almost equal sizes a frame, a frame at a time) to 10 and 100 receivers;
//! * audio of 80 to 160 bytes a packet to 10 and 100 receivers;
//! * the same video of 2.5 Mbit/s with three temporal layers to 10 and 100 receivers who tell ten
//!   times a second what arrived, all of it and the two lower layers of it (`adaptive`). What the
//!   engine makes of that feedback is in the time;
//! * what that costs: bursts of 5, and the same video, to 100 receivers with all of it (`adaptive`)
//!   and without any of it, not even the numbers of which receivers tell (`plain`).
//!
//! Not the full product: ciphers and sizes cost the same at every fan-out.
//!
//! The time of a case is the thread's CPU time for each packet that leaves; the publisher's share
//! (one opened packet for each fan-out) is in it. Reports, timers and the kernel's send are not.
//! Each case first tells, on standard error, its allocations and how many datagrams a train (a
//! message to the kernel) holds. Transport-wide numbers, abs-send-time and MID are written; RTX is
//! negotiated, so what was sent is remembered.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "shares the simulator's parts; a bench that cannot go on should stop"
)]

#[path = "../tests/suite/sim/counting.rs"]
mod counting;
#[path = "gauge/cpu.rs"]
mod cpu;
mod gauge;
#[path = "gauge/sim.rs"]
mod sim;
#[path = "gauge/traffic.rs"]
mod traffic;

use counting::{Counting, allocations};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gauge::settings;
use ringcast::engine::srtp::SrtpProfile;
use sim::media::Codec;
use sim::stage::Stage;
use traffic::{Traffic, is_measured, turns};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Packets of the publisher until rings and logs of what was sent have grown to what they will be.
const WARM_UP: u64 = 4_000;
/// An iteration is a packet, and a layer that is left out has whole frames: fewer frames than this
/// say nothing of its part.
const FRAMES_LEAST: u64 = 32;
/// Frames looked at for what no clock shows.
const FRAMES_TOLD: u64 = 50;

/// All that the publisher sends leaves, except where layers are left out.
fn forward(c: &mut Criterion, profile: SrtpProfile, fan_out: usize, traffic: Traffic) {
    let playing = |codec| Stage::playing(codec, profile, fan_out);
    measure(c, &format!("forward/{}", profile.label()), fan_out, (traffic, 1.0), playing);
}

/// Three temporal layers, of which so many are preferred.
fn adaptive(c: &mut Criterion, traffic: Traffic, fan_out: usize, layers: u8) {
    let profile = SrtpProfile::AeadAes128Gcm;
    let preferred = Some((0, Some(layers - 1)));
    let traffic = traffic.named(&format!("{layers} of 3 layers"));
    // Half of the frames are of the highest layer.
    let part = if layers == 3 { 1.0 } else { 0.3 };
    let playing = |_| Stage::adaptive(profile, fan_out, preferred);
    measure(c, "forward/adaptive", fan_out, (traffic, part), playing);
}

/// Without anything that estimates, shares or selects.
fn plain(c: &mut Criterion, traffic: Traffic, fan_out: usize) {
    let playing = |_| Stage::plain(SrtpProfile::AeadAes128Gcm, fan_out);
    measure(c, "forward/plain", fan_out, (traffic, 1.0), playing);
}

/// `part` of what comes leaves for each receiver, at least.
fn measure(
    c: &mut Criterion,
    group: &str,
    fan_out: usize,
    (mut traffic, part): (Traffic, f64),
    playing: impl Fn(Codec) -> Stage,
) {
    let mut group = c.benchmark_group(group);
    let name = format!("{} to {fan_out}", traffic.name);
    let mut stage = None;
    group.bench_function(BenchmarkId::from_parameter(&name), |b| {
        let stage = stage.get_or_insert_with(|| {
            let mut stage = playing(traffic.codec);
            let frames = traffic.frames_of(if is_measured() { WARM_UP } else { 1 });
            turns(&mut stage, &mut traffic, frames);
            if is_measured() {
                tell(&name, &mut stage, &mut traffic, fan_out as u64);
            }
            stage
        });
        // An iteration is a packet that leaves; what is done is whole frames.
        b.iter_custom(|iterations| {
            let frames = traffic.frames_of(iterations.div_ceil(fan_out as u64)).max(FRAMES_LEAST);
            let done = turns(stage, &mut traffic, frames);
            let due = (done.arrived * fan_out as u64) as f64 * part;
            assert!(done.left as f64 >= due, "{done:?}");
            done.spent.mul_f64(iterations as f64 / done.left as f64)
        });
    });
    group.finish();
}

/// What no clock shows.
fn tell(name: &str, stage: &mut Stage, traffic: &mut Traffic, fan_out: u64) {
    let (mut left, mut trains, mut allocated) = (0, 0, 0);
    for _ in 0..FRAMES_TOLD {
        let frame = stage.prepare_frame(&traffic.frame());
        // Feedback leaves in time, as it does in a shard: arrivals must not pile up for it.
        stage.keep_alive();
        let (trains_before, before) = (stage.trains, allocations());
        left += stage.forward(&frame, traffic.step) as u64;
        allocated += allocations() - before;
        // What receivers tell is made of their own memory.
        let answers = stage.answers();
        let before = allocations();
        stage.hear(&answers);
        allocated += allocations() - before;
        trains += stage.trains - trains_before;
    }
    let a_train = left as f64 / trains as f64;
    let a_frame = left as f64 / (fan_out * FRAMES_TOLD) as f64;
    eprintln!(
        "{name}: {allocated} allocations in {left} packets; \
         {a_train:.2} datagrams a train, {a_frame:.2} packets a frame"
    );
}

fn benches(c: &mut Criterion) {
    for fan_out in [1, 10, 100, 1000] {
        for burst in [1, 5, 10] {
            forward(c, SrtpProfile::AeadAes128Gcm, fan_out, Traffic::equal(burst, 1200));
        }
    }
    forward(c, SrtpProfile::AeadAes256Gcm, 100, Traffic::equal(5, 1200));
    forward(c, SrtpProfile::Aes128CmSha1_80, 100, Traffic::equal(5, 1200));
    for fan_out in [10, 100] {
        forward(c, SrtpProfile::AeadAes128Gcm, fan_out, Traffic::video(1_500_000));
        forward(c, SrtpProfile::AeadAes128Gcm, fan_out, Traffic::video(2_500_000));
        forward(c, SrtpProfile::AeadAes128Gcm, fan_out, Traffic::audio());
        adaptive(c, Traffic::video(2_500_000), fan_out, 3);
        adaptive(c, Traffic::video(2_500_000), fan_out, 2);
    }
    for traffic in [|| Traffic::equal(5, 1200), || Traffic::video(2_500_000)] {
        plain(c, traffic(), 100);
    }
    adaptive(c, Traffic::equal(5, 1200), 100, 3);
}

criterion_group! {
    name = all;
    config = settings();
    targets = benches
}
criterion_main!(all);
