//! Finding the transport that a datagram belongs to.
//!
//! Cases, datagrams of all transports in random order:
//! * `address`: by its address, among 1, 1,000 and 16,000 transports;
//! * `stranger`: an address that nobody has, among 16,000;
//! * `user name`: a STUN request by its user name, among 1 and 16,000;
//! * `owner`: the shard of a STUN request, which needs no table.
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
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gauge::settings;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use ringcast::engine::demux::{Demux, PacketClass, Ufrag, stun_owner, ufrag_of};
use ringcast::engine::io::{Path, Protocol};
use ringcast::engine::transport::stun::{IntegrityKey, RequestOptions, request};
use ringcast::id::ShardId;
use thread_time::ThreadTime;

const SHARD: ShardId = ShardId(3);

/// A shard's transports, with what each of their clients sends.
struct Shard {
    demux: Demux<u32>,
    paths: Vec<Path>,
    requests: Vec<Vec<u8>>,
}

fn path(rng: &mut StdRng) -> Path {
    let remote = IpAddr::from(Ipv4Addr::from_bits(rng.random()));
    Path {
        protocol: Protocol::Udp,
        remote: SocketAddr::new(remote, rng.random()),
        local: IpAddr::from([192, 0, 2, 1]),
    }
}

fn stun(ufrag: &Ufrag, rng: &mut StdRng) -> Vec<u8> {
    let username = format!("{ufrag}:them");
    let options = RequestOptions {
        username: Some(&username),
        priority: Some(1),
        use_candidate: true,
        ..RequestOptions::default()
    };
    let password = IntegrityKey::new("a password of thirty-two letters");
    request(&rng.random(), &options, Some(&password))
}

impl Shard {
    fn new(transports: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(u64::from(transports));
        let mut demux = Demux::new(SHARD, &mut rng);
        let mut clients = Vec::new();
        for key in 0..transports {
            let ufrag = demux.claim(key, &mut rng).unwrap();
            let path = path(&mut rng);
            assert!(demux.insert_path(path, key));
            clients.push((path, ufrag));
        }
        clients.shuffle(&mut rng);
        // In the order of use: a datagram that was just received is not what a cache misses.
        let requests = clients.iter().map(|(_, ufrag)| stun(ufrag, &mut rng)).collect();
        let paths = clients.into_iter().map(|(path, _)| path).collect();
        Self { demux, paths, requests }
    }
}

fn benches(c: &mut Criterion<ThreadTime>) {
    let mut group = c.benchmark_group("demux");
    for transports in [1, 1_000, 16_000] {
        let shard = Shard::new(transports);
        let mut paths = shard.paths.iter().cycle();
        group.bench_function(BenchmarkId::new("address", transports), |b| {
            b.iter(|| shard.demux.transport_at(black_box(paths.next().unwrap())));
        });
    }
    let shard = Shard::new(16_000);
    let mut rng = StdRng::seed_from_u64(1);
    let strangers: Vec<_> = (0..16_000).map(|_| path(&mut rng)).collect();
    let mut paths = strangers.iter().cycle();
    group.bench_function(BenchmarkId::new("stranger", 16_000), |b| {
        b.iter(|| shard.demux.transport_at(black_box(paths.next().unwrap())));
    });
    for transports in [1, 16_000] {
        let shard = Shard::new(transports);
        let mut requests = shard.requests.iter().cycle();
        group.bench_function(BenchmarkId::new("user name", transports), |b| {
            b.iter(|| {
                let bytes = black_box(requests.next().unwrap());
                assert_eq!(PacketClass::of(bytes), PacketClass::Stun);
                shard.demux.transport_named(ufrag_of(bytes).unwrap()).unwrap()
            });
        });
    }
    group.bench_function("owner", |b| {
        b.iter(|| stun_owner(black_box(&shard.requests[0])).unwrap());
    });
    group.finish();
}

criterion_group! {
    name = all;
    config = settings().with_measurement(ThreadTime);
    targets = benches
}
criterion_main!(all);
