//! The cost of protecting one packet with 1,180 bytes behind a 20-byte header, per profile.
//!
//! Cases, each for GCM-256, GCM-128 and CM-SHA1-80:
//! * `seal`: from a shared plaintext into a send slot (what each receiver costs);
//! * `seal_padded`: the same with 8 bytes of RTP padding (equal segments of a train);
//! * `seal_rtx`: the same behind an original sequence number;
//! * `open`: from the receive buffer into a ring slot (what each publisher's packet costs);
//! * `refuse`: a forged packet, to the failed tag.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringcast::engine::srtp::{OpenContext, RtpBody, SrtpKeys, SrtpOpener, SrtpProfile, SrtpSealer};

const HEADER: usize = 20;
const PAYLOAD: usize = 1180;

fn header(index: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = 0x90;
    let [.., high, low] = index.to_be_bytes();
    (header[2], header[3]) = (high, low);
    header
}

fn seals(c: &mut Criterion, profile: SrtpProfile, sealer: &SrtpSealer) {
    let mut group = c.benchmark_group(profile.label());
    group.throughput(Throughput::Elements(1));
    let payload = [0x5a; PAYLOAD];
    for (name, prefix, padding) in
        [("seal", &[][..], 0), ("seal_padded", &[], 8), ("seal_rtx", &[1, 2], 0)]
    {
        let body = RtpBody { prefix, payload: &payload, padding, padded: false };
        let mut slot = [0; 1472];
        let mut index = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                index += 1;
                slot[..HEADER].copy_from_slice(&header(index));
                sealer.seal_rtp(black_box(index), HEADER, black_box(&body), &mut slot)
            });
        });
    }
    group.finish();
}

fn opens(c: &mut Criterion, profile: SrtpProfile, sealer: &SrtpSealer, opener: &SrtpOpener) {
    let mut group = c.benchmark_group(profile.label());
    group.throughput(Throughput::Elements(1));
    let mut packet = header(7).to_vec();
    packet.resize(1472, 0);
    let body = RtpBody { payload: &[0x5a; PAYLOAD], ..RtpBody::default() };
    let len = sealer.seal_rtp(7, HEADER, &body, &mut packet).expect("a slot holds the packet");
    packet.truncate(len);
    let mut slot = [0; 1472];
    group.bench_function("open", |b| {
        b.iter_batched_ref(
            OpenContext::default,
            |context| opener.open_rtp(context, black_box(&packet), HEADER, &mut slot),
            BatchSize::SmallInput,
        );
    });
    if let Some(last) = packet.last_mut() {
        *last ^= 1;
    }
    let mut context = OpenContext::default();
    group.bench_function("refuse", |b| {
        b.iter(|| opener.open_rtp(&mut context, black_box(&packet), HEADER, &mut slot));
    });
    group.finish();
}

fn srtp(c: &mut Criterion) {
    for profile in SrtpProfile::ALL {
        let material = vec![7; profile.material_bytes()];
        let keys = [true, false].map(|local_is_client| {
            SrtpKeys::from_dtls(profile, &material, local_is_client)
                .expect("the material has the profile's length")
        });
        let (sealer, opener) = (SrtpSealer::new(&keys[0]), SrtpOpener::new(&keys[1]));
        seals(c, profile, &sealer);
        opens(c, profile, &sealer, &opener);
    }
}

criterion_group!(benches, srtp);
criterion_main!(benches);
