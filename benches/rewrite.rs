//! What continuity costs for each packet and consumer: its number, its timestamp, its header.
//!
//! Cases:
//! * `number/in order`, `number/a third dropped` (as a gate for temporal layers does) and
//!   `number/swapped` (every second packet comes before the first);
//! * `timestamp/in order`;
//! * `header/one-byte form` (abs-send-time, transport-wide number, MID) and `header/two-byte form`
//!   (the same, with an id above 14 and audio level);
//! * `packet/1 consumer` and `packet/1000 consumers`: number, timestamp and header, five packets for
//!   each consumer before the next one has its turn.
//!
//! Time is the CPU time of the thread.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot go on should stop"
)]

#[path = "gauge/cpu.rs"]
mod cpu;
mod gauge;
#[path = "gauge/thread_time.rs"]
mod thread_time;

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gauge::settings;
use ringcast::engine::rewrite::{SeqRewriter, TimestampRewriter};
use ringcast::engine::rtp::{
    EgressFields, EgressHeader, Extension, ExtensionIds, Extensions, Token,
};
use ringcast::engine::sent::low_16;
use thread_time::ThreadTime;

const BURST: u64 = 5;

#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
fn beginning() -> Instant {
    Instant::now()
}

/// What a consumer keeps to write headers.
struct Outgoing {
    seq: SeqRewriter,
    time: TimestampRewriter,
    header: EgressHeader,
}

impl Outgoing {
    fn new(first_id: u8) -> Self {
        let ids = ExtensionIds::default()
            .with(Extension::AbsSendTime, first_id)
            .with(Extension::TransportCc, 5)
            .with(Extension::Mid, 1)
            .with(Extension::AudioLevel, 10);
        let header = EgressHeader::new(7_000_000, &ids, Token::new(b"0"));
        Self { seq: SeqRewriter::new(100), time: TimestampRewriter::new(90_000, 0), header }
    }

    fn write(&mut self, now: Instant, number: u64, carried: &Extensions, out: &mut [u8]) -> usize {
        let seq = self.seq.forward(number).unwrap();
        let timestamp = self.time.rewrite(now, timestamp_of(number));
        let fields = fields(low_16(seq), timestamp, carried);
        self.header.write(out, &fields).unwrap()
    }
}

fn timestamp_of(number: u64) -> u32 {
    u32::from(low_16(number / BURST)) * 3_000
}

fn fields(seq: u16, timestamp: u32, carried: &Extensions) -> EgressFields<'_> {
    EgressFields {
        payload_type: 96,
        marker: false,
        seq,
        timestamp,
        abs_send_time: 77,
        transport_cc: seq,
        carried,
        dependency_descriptor: &[],
    }
}

fn numbers(c: &mut Criterion<ThreadTime>) {
    let mut group = c.benchmark_group("rewrite/number");
    let (mut rewriter, mut number) = (SeqRewriter::new(0), 0);
    group.bench_function("in order", |b| {
        b.iter(|| {
            number += 1;
            rewriter.forward(black_box(number)).unwrap()
        });
    });
    let (mut rewriter, mut number) = (SeqRewriter::new(0), 0);
    group.bench_function("a third dropped", |b| {
        b.iter(|| {
            number += 1;
            let number = black_box(number);
            if number % 3 == 0 { rewriter.drop(number) } else { rewriter.forward(number) }
        });
    });
    let (mut rewriter, mut number) = (SeqRewriter::new(0), 0);
    rewriter.forward(0).unwrap();
    group.bench_function("swapped", |b| {
        b.iter(|| {
            number += 1;
            // 2 1 4 3 6 5 …
            let swapped = if number % 2 == 1 { number + 1 } else { number - 1 };
            rewriter.forward(black_box(swapped)).unwrap()
        });
    });
    group.finish();
}

fn timestamps(c: &mut Criterion<ThreadTime>) {
    let (now, mut number) = (beginning(), 0);
    let mut rewriter = TimestampRewriter::new(90_000, 0);
    c.bench_function("rewrite/timestamp/in order", |b| {
        b.iter(|| {
            number += 1;
            rewriter.rewrite(now, black_box(timestamp_of(number)))
        });
    });
}

fn headers(c: &mut Criterion<ThreadTime>) {
    let mut group = c.benchmark_group("rewrite/header");
    let level = Extensions { audio_level: Some(0x90), ..Extensions::default() };
    let forms = [("one-byte form", 4, Extensions::default()), ("two-byte form", 15, level)];
    for (form, first_id, carried) in forms {
        let header = Outgoing::new(first_id).header;
        let (mut out, mut seq) = ([0; 1472], 0_u16);
        group.bench_function(form, |b| {
            b.iter(|| {
                seq = seq.wrapping_add(1);
                let fields = fields(seq, u32::from(seq), black_box(&carried));
                let len = header.write(&mut out, &fields).unwrap();
                black_box(&out);
                len
            });
        });
    }
    group.finish();
}

fn packets(c: &mut Criterion<ThreadTime>) {
    let mut group = c.benchmark_group("rewrite/packet");
    let (now, carried) = (beginning(), Extensions::default());
    for consumers in [1, 1_000] {
        let mut outgoing: Vec<_> = (0..consumers).map(|_| Outgoing::new(4)).collect();
        let (mut frame, mut place, mut at) = (0, 0, 0);
        let mut out = [0; 1472];
        let name = if consumers == 1 { "consumer" } else { "consumers" };
        group.bench_function(BenchmarkId::from_parameter(format!("{consumers} {name}")), |b| {
            b.iter(|| {
                let number = black_box(frame * BURST + place);
                let len = outgoing[at].write(now, number, &carried, &mut out);
                black_box(&out);
                place += 1;
                if place == BURST {
                    (place, at) = (0, at + 1);
                }
                if at == consumers {
                    (at, frame) = (0, frame + 1);
                }
                len
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = settings().with_measurement(ThreadTime);
    targets = numbers, timestamps, headers, packets
}
criterion_main!(all);
