//! What the bandwidth estimate costs: for each packet sent, and for each feedback.
//!
//! Cases:
//! * `sent`: a numbered packet is noted;
//! * `feedback/20 packets`: 20 packets are noted and told of, as each 100 ms at 2 Mbit/s.
//!
//! Time is the CPU time of the thread.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should stop")]

#[path = "gauge/cpu.rs"]
mod cpu;
mod gauge;
#[path = "gauge/thread_time.rs"]
mod thread_time;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gauge::settings;
use ringcast::engine::bwe::Estimator;
use ringcast::engine::rtcp::{Arrival, FeedbackHead, RtcpItem, RtcpWriter, parse};
use thread_time::ThreadTime;

const PACKET_BYTES: usize = 1_200;
const PACKETS_TOLD: u16 = 20;
const GAP: Duration = Duration::from_millis(5);

#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
fn beginning() -> Instant {
    Instant::now()
}

/// Feedback on packets from `base` on, the first of which arrived at `ticks`.
fn feedback(base: u16, ticks: u64) -> Vec<u8> {
    let arrivals: Vec<Arrival> = (0..PACKETS_TOLD)
        .map(|n| Arrival { seq: base.wrapping_add(n), ticks: ticks + u64::from(n) * 20 })
        .collect();
    let head = FeedbackHead { sender_ssrc: 1, media_ssrc: 2, base_seq: base, feedback_count: 0 };
    let mut bytes = vec![0; 400];
    let mut writer = RtcpWriter::new(&mut bytes);
    assert_eq!(writer.transport_cc(&head, &arrivals), arrivals.len());
    writer.as_bytes().to_vec()
}

fn sent(c: &mut Criterion<ThreadTime>) {
    let mut now = beginning();
    let mut estimator = Estimator::new(now);
    let mut seq = 0_u16;
    c.bench_function("estimate/sent", |b| {
        b.iter(|| {
            seq = seq.wrapping_add(1);
            if seq.is_multiple_of(8) {
                now += GAP;
            }
            estimator.note_sent(now, black_box(seq), PACKET_BYTES, None);
        });
    });
}

fn told(c: &mut Criterion<ThreadTime>) {
    let mut now = beginning();
    let mut estimator = Estimator::new(now);
    // All feedbacks until the numbers and this clock have wrapped together.
    let prepared: Vec<Vec<u8>> = (0..16_384_u32)
        .map(|n| {
            let base = u16::try_from(u64::from(n) * u64::from(PACKETS_TOLD) % (1 << 16)).unwrap();
            feedback(base, u64::from(n) * 400)
        })
        .collect();
    let (mut seq, mut next) = (0_u16, 0);
    c.bench_function("estimate/feedback/20 packets", |b| {
        b.iter(|| {
            for _ in 0..PACKETS_TOLD {
                estimator.note_sent(now, seq, PACKET_BYTES, None);
                seq = seq.wrapping_add(1);
                now += GAP;
            }
            let Some(RtcpItem::TransportCc(feedback)) = parse(prepared.get(next).unwrap()).next()
            else {
                return;
            };
            estimator.handle_feedback(now, black_box(&feedback));
            next = (next + 1) % prepared.len();
        });
    });
    assert_ne!(estimator.snapshot().delivered_bps, None, "feedback was understood");
}

criterion_group! {
    name = all;
    config = settings().with_measurement(ThreadTime);
    targets = sent, told
}
criterion_main!(all);
